"""Whether the bearer of a token also has its key, where the token names one (RFC 7800 `cnf`).

A stolen token is then of no use without the key. A confirmation that cannot be checked here is
refused, never passed over: whoever issued the token did not mean it for any bearer.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from mitmgate.core.principal import Bound, Principal
from mitmgate.core.tokens import compact
from mitmgate.core.tokens.dpop import Proofs
from mitmgate.core.tokens.errors import (
    CertificateWrong,
    ProofRequired,
    TokenMalformed,
    shown,
)
from mitmgate.core.tokens.file import DPoP
from mitmgate.core.tokens.presented import Presented

CERTIFICATE, KEY = "x5t#S256", "jkt"  # RFC 8705 section 3.1, RFC 9449 section 6.1


class Possession:
    """Checks proofs of possession by `rules`; `clock` gives Unix seconds.

    Without rules no DPoP proof is taken, and a token that needs one is refused.
    """

    def __init__(self, rules: DPoP | None, *, clock: Callable[[], float] = time.time) -> None:
        self._proofs = Proofs(rules, clock=clock) if rules else None

    def prove(self, principal: Principal, presented: Presented) -> Bound:
        """How the bearer has proved to have the key of `principal`'s verified token.

        Where the token is bound to a certificate and to a key, both must hold, and it is "dpop"
        then: that proof is made for this one request. Raises `ProofRequired`, `CertificateWrong`,
        `ProofWrong` or one of its kinds, or `ProofsUnavailable`.
        """
        confirmation = principal.claims.get("cnf")
        if confirmation is None:
            if presented.scheme == "DPoP":  # RFC 9449 section 7.1: the scheme says what it is not
                raise ProofRequired("the scheme is DPoP, but the token is bound to no key")
            return "none"
        if not isinstance(confirmation, dict):
            raise ProofRequired(f"cnf is {shown(confirmation)}, not an object")
        bound: Bound = "none"
        if CERTIFICATE in confirmation:
            thumbprint = _digest(CERTIFICATE, confirmation[CERTIFICATE])
            _check_certificate(presented.certificate, thumbprint)
            bound = "mtls"
        if KEY in confirmation:
            _digest(KEY, confirmation[KEY])
            self._check_proof(presented, confirmation[KEY])
            bound = "dpop"
        elif presented.scheme == "DPoP":
            raise ProofRequired(f"the scheme is DPoP, but the token's cnf has no {KEY}")
        if bound == "none":
            names = shown(sorted(confirmation))
            raise ProofRequired(f"cnf has {names}; {CERTIFICATE} and {KEY} can be checked")
        return bound

    def _check_proof(self, presented: Presented, thumbprint: str) -> None:
        if self._proofs is None:
            raise ProofRequired("the token needs a DPoP proof, but identity.yaml has no dpop")
        if presented.scheme != "DPoP":
            raise ProofRequired("the token is bound to a key; the scheme is Bearer, not DPoP")
        self._proofs.check(presented, thumbprint)


def _check_certificate(certificate: bytes, thumbprint: bytes) -> None:
    if not certificate:
        raise ProofRequired("the token is bound to a certificate, the connection has none")
    found = hashlib.sha256(certificate).digest()
    if not hmac.compare_digest(found, thumbprint):
        raise CertificateWrong(
            f"the certificate's SHA-256 is {found.hex()}; the token is bound to {thumbprint.hex()}"
        )


def _digest(name: str, value: object) -> bytes:
    """The SHA-256 that a member of `cnf` holds."""
    try:
        digest = compact.decode(name, value)
    except TokenMalformed as e:
        raise ProofRequired(f"in cnf, {e.detail}: {shown(value)}") from None
    if len(digest) != hashlib.sha256().digest_size:
        raise ProofRequired(f"in cnf, {name} is {shown(value)}, which is no SHA-256")
    return digest
