"""A token to a principal, or the reason why not.

The order is fixed: form, issuer, algorithm, key, signature, claims, revocation. The issuer is
picked by its exact `iss`, and only that issuer's keys are then tried. A token that was verified is
remembered until it expires, so that its next request costs a hash and two look-ups.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from mitmgate.core.principal import Principal
from mitmgate.core.tokens import compact
from mitmgate.core.tokens.claims import principal_of
from mitmgate.core.tokens.errors import (
    AlgorithmRefused,
    ClaimMalformed,
    IssuerMissing,
    IssuerUnknown,
    KeySetError,
    KeysUnavailable,
    KeyUnknown,
    SignatureWrong,
    TokenMalformed,
    TokenTooLarge,
    shown,
)
from mitmgate.core.tokens.file import Issuer
from mitmgate.core.tokens.keys import Keys
from mitmgate.core.tokens.keyset import KeySet
from mitmgate.core.tokens.revocation import Revocations


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer's rules and its keys, which no other issuer shares."""

    rules: Issuer
    keys: Keys


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    issuer: TrustedIssuer
    key_set: KeySet  # a newer set may have withdrawn the key
    until: float


class Verifier:
    """Verifies tokens of `issuers`; `clock` gives Unix seconds, `remember` is how many tokens."""

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
        remember: int = 4096,
    ) -> None:
        self._issuers = {issuer.rules.issuer: issuer for issuer in issuers}
        self._revocations = revocations
        self._clock = clock
        self._remember = remember
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._jws = PyJWS()

    async def verify(self, token: str) -> Principal:
        """Who bears `token`. Raises `TokenError`. Waits only where an unknown key needs a fetch."""
        if len(token) > compact.MAX_BYTES:
            raise TokenTooLarge(f"{len(token)} characters; {compact.MAX_BYTES} are accepted")
        if not token.isascii():
            raise TokenMalformed("it is not ASCII")
        digest = hashlib.sha256(token.encode()).digest()
        principal = self._recall(digest) or await self._verify(token, digest)
        if self._revocations:
            self._revocations.check(principal)
        return principal

    def _recall(self, digest: bytes) -> Principal | None:
        known = self._remembered.get(digest)
        if known is None:
            return None
        if self._clock() < known.until and known.issuer.keys.current() is known.key_set:
            self._remembered.move_to_end(digest)
            return known.principal
        del self._remembered[digest]
        return None

    async def _verify(self, token: str, digest: bytes) -> Principal:
        unverified = compact.read(token)
        issuer = self._issuer(unverified.claims.get("iss"))
        if unverified.algorithm not in issuer.rules.algorithms:
            accepted = ", ".join(issuer.rules.algorithms)
            name = shown(unverified.algorithm)
            raise AlgorithmRefused(f"alg is {name}; {issuer.rules.id} allows {accepted}")
        key_set, key = await self._key(issuer, unverified)
        try:
            self._jws.decode_complete(token, key, algorithms=[unverified.algorithm])
        except PyJWTError as e:
            raise SignatureWrong(f"with the key {shown(unverified.kid)}: {e}") from None
        principal = principal_of(unverified.claims, issuer.rules, self._clock())
        until = principal.expires + issuer.rules.leeway
        self._remembered[digest] = _Remembered(principal, issuer, key_set, until)
        while len(self._remembered) > self._remember:
            self._remembered.popitem(last=False)
        return principal

    def _issuer(self, name: object) -> TrustedIssuer:
        if name is None:
            raise IssuerMissing("iss is missing")
        if not isinstance(name, str):
            raise ClaimMalformed(f"iss is {shown(name)}, not a string")
        if name not in self._issuers:
            raise IssuerUnknown(f"iss is {shown(name)}, which no issuer has exactly so")
        return self._issuers[name]

    async def _key(
        self, issuer: TrustedIssuer, unverified: compact.Unverified
    ) -> tuple[KeySet, PyJWK]:
        found = _look(issuer.keys, unverified)
        if found is None:
            await issuer.keys.refresh()
            found = _look(issuer.keys, unverified)
        if found is not None:
            return found
        try:
            issuer.keys.current()
        except KeySetError as e:
            raise KeysUnavailable(f"{issuer.rules.id}: {e}") from None
        note = f"; the newest look failed: {issuer.keys.problem}" if issuer.keys.problem else ""
        raise KeyUnknown(f"{issuer.rules.id} has no key {shown(unverified.kid)}{note}")


def _look(keys: Keys, unverified: compact.Unverified) -> tuple[KeySet, PyJWK] | None:
    try:
        key_set = keys.current()
    except KeySetError:
        return None
    key = key_set.find(unverified.kid, unverified.algorithm)
    if key is not None:
        return key_set, key
    if key_set.knows(unverified.kid):
        name = shown(unverified.kid)
        raise AlgorithmRefused(f"the key {name} is not for {unverified.algorithm}")
    return None
