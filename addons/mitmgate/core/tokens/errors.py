"""Why a caller is not let in: one exception class for each thing that can be wrong with a token.

`code` is stable and goes, with `diagnostics()`, to the operator: log, metrics and ledger. The
client learns the class alone, `public`, which is the error of RFC 6750 section 3.1 where there is
one: an attacker must not be told how far a forged token came. No token ever stands in any of them.
"""

from __future__ import annotations

from typing import ClassVar


def shown(value: object) -> str:
    """An unverified value, short and in printable ASCII, for an operator's sentence."""
    text = ascii(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class TokenError(Exception):
    """A token that is not accepted. `detail` tells the operator what was found and expected."""

    code: ClassVar[str] = "token_invalid"
    error: ClassVar[str | None] = "invalid_token"
    status: ClassVar[int] = 401
    description: ClassVar[str] = "The token is not accepted."

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or self.description
        super().__init__(self.detail)

    @property
    def public(self) -> str:
        """All that the client learns: the class of the failure."""
        return self.error or self.code

    def diagnostics(self) -> str:
        """One line for the operator's log."""
        return f"{self.code}: {self.detail}"


class Unavailable(TokenError):
    """The gate's own trouble, not the caller's: nothing is said about the token."""

    code = "unavailable"
    error = "temporarily_unavailable"  # RFC 6749 section 4.1.2.1
    status = 503
    description = "The token cannot be verified right now."


class TokenMissing(TokenError):
    code = "token_missing"
    error = None  # RFC 6750: no error code when no credentials were given
    description = "A bearer token is required."


class TokenConflict(TokenError):
    code = "token_conflict"
    error = "invalid_request"
    status = 400
    description = "The request carries more than one credential."


class TokenMalformed(TokenError):
    """The token is not a well-formed JWT."""

    code = "token_malformed"


class TokenTooLarge(TokenError):
    """The token is too large."""

    code = "token_too_large"


class TokenEncrypted(TokenError):
    """Encrypted tokens are not accepted."""

    code = "token_encrypted"


class TypeRefused(TokenError):
    """This kind of token is not an access token."""

    code = "type_refused"


class CriticalHeader(TokenError):
    """The token asks for an extension that is not supported."""

    code = "critical_header"


class AlgorithmRefused(TokenError):
    """The token's signature algorithm is not accepted."""

    code = "algorithm_refused"


class KeyUnknown(TokenError):
    """The token is signed with an unknown key."""

    code = "key_unknown"


class KeysUnavailable(Unavailable):
    """The gate has no keys of this issuer: its own trouble, not the caller's."""

    code = "keys_unavailable"


class SignatureWrong(TokenError):
    """The token's signature is wrong."""

    code = "signature_wrong"


class IssuerMissing(TokenError):
    """The token names no issuer (iss)."""

    code = "issuer_missing"


class IssuerUnknown(TokenError):
    """The token's issuer (iss) is not accepted here."""

    code = "issuer_unknown"


class AudienceMissing(TokenError):
    """The token names no audience (aud)."""

    code = "audience_missing"


class AudienceWrong(TokenError):
    """The token is meant for another audience (aud)."""

    code = "audience_wrong"


class SubjectMissing(TokenError):
    """The token names no subject (sub)."""

    code = "subject_missing"


class ExpiryMissing(TokenError):
    """The token never expires (exp is missing)."""

    code = "expiry_missing"


class TokenExpired(TokenError):
    """The token has expired."""

    code = "token_expired"


class IssuedAtMissing(TokenError):
    """The token does not say when it was issued (iat)."""

    code = "issued_at_missing"


class IssuedInFuture(TokenError):
    """The token was issued in the future (iat)."""

    code = "issued_in_future"


class NotYetValid(TokenError):
    """The token is not valid yet (nbf)."""

    code = "not_yet_valid"


class LifetimeTooLong(TokenError):
    """The token lives longer than is accepted here."""

    code = "lifetime_too_long"


class ClaimMalformed(TokenError):
    """A claim of the token has the wrong type."""

    code = "claim_malformed"


class SpiffeIdWrong(TokenError):
    """The subject is no SPIFFE ID of the issuer's trust domain."""

    code = "spiffe_id_wrong"


class ProofRequired(TokenError):
    """The token is bound to a key (RFC 7800 `cnf`), and nothing shows that the caller has it."""

    code = "proof_required"


class CertificateWrong(TokenError):
    """The client certificate is not the one the token is bound to (RFC 8705 section 3)."""

    code = "certificate_wrong"


class ProofWrong(TokenError):
    """The DPoP proof does not hold for this token and request (RFC 9449 section 4.3)."""

    code = "proof_wrong"
    error = "invalid_dpop_proof"
    description = "The DPoP proof is not accepted."


class ProofReplayed(ProofWrong):
    """The DPoP proof has been used before (RFC 9449 section 11.1)."""

    code = "proof_replayed"


class NonceWanted(ProofWrong):
    """The DPoP proof has no fresh nonce of the gate's; `nonce` is one (RFC 9449 section 9)."""

    code = "proof_nonce"
    error = "use_dpop_nonce"
    description = "The DPoP proof must hold the nonce that is sent here."

    def __init__(self, detail: str, nonce: str) -> None:
        super().__init__(detail)
        self.nonce = nonce


class ProofsUnavailable(Unavailable):
    """So many proofs are remembered that a replayed one could not be told from a new one."""

    code = "proofs_unavailable"


class BindingMissing(TokenError):
    """A grant wants a token that is bound to a key, and this one is not."""

    code = "binding_missing"


class TokenRevoked(TokenError):
    """The token has been revoked."""

    code = "token_revoked"


class RevocationsUnavailable(Unavailable):
    """The list of revoked tokens cannot be read, so no token can be trusted."""

    code = "revocations_unavailable"


class IntrospectionUnavailable(Unavailable):
    """The issuer does not say whether the token still counts (RFC 7662)."""

    code = "introspection_unavailable"


class KeySetError(Exception):
    """A key set that cannot be had or used; the text is one line: where from, and why."""

    def __init__(self, source: object, reason: object) -> None:
        self.source = str(source)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.source}: {self.reason}")
