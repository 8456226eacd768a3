"""A token to a principal, or the reason why not.

The order is fixed: form, issuer, type, algorithm, key, signature, claims, possession, revocation,
introspection. The issuer is picked by its exact `iss`, and only that issuer's keys are then tried.
A token that was verified is remembered until it expires, so that its next request costs a hash and
two look-ups; whether its bearer has its key is looked at each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from mitmgate.core.principal import Principal
from mitmgate.core.tokens import compact
from mitmgate.core.tokens.claims import principal_of, trust_domain
from mitmgate.core.tokens.errors import (
    AlgorithmRefused,
    ClaimMalformed,
    IntrospectionUnavailable,
    IssuerMissing,
    IssuerUnknown,
    KeySetError,
    KeysUnavailable,
    KeyUnknown,
    RevocationsUnavailable,
    SignatureWrong,
    TokenMalformed,
    TokenRevoked,
    TokenTooLarge,
    TypeRefused,
    shown,
)
from mitmgate.core.tokens.file import Issuer
from mitmgate.core.tokens.introspection import Introspector
from mitmgate.core.tokens.keys import Keys
from mitmgate.core.tokens.keyset import KeySet
from mitmgate.core.tokens.possession import Possession
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.revocation import Revocations

SECOND_LOOKS = 4  # questions at once about what is under way: who comes in is asked about first


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer's rules and its keys, which no other issuer shares."""

    rules: Issuer
    keys: Keys
    introspector: Introspector | None = None


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
        possession: Possession | None = None,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
        remember: int = 4096,
    ) -> None:
        issuers = tuple(issuers)
        self._issuers = {i.rules.issuer: i for i in issuers if i.rules.issuer is not None}
        self._domains = {i.rules.trust_domain: i for i in issuers if i.rules.issuer is None}
        self._introspectors = {i.rules.id: i.introspector for i in issuers}
        self._possession = possession or Possession(None)
        self._revocations = revocations
        self._clock = clock
        self._remember = remember
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._second_looks = asyncio.Semaphore(SECOND_LOOKS)
        self._jws = PyJWS()

    async def verify(self, presented: Presented) -> Principal:
        """Who bears the token. Raises `TokenError`.

        Waits only where an unknown key needs a fetch, or the issuer is asked about the token.
        """
        token = presented.token
        if len(token) > compact.MAX_BYTES:
            raise TokenTooLarge(f"{len(token)} characters; {compact.MAX_BYTES} are accepted")
        if not token.isascii():
            raise TokenMalformed("it is not ASCII")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._recall(digest) or await self._verify(token, digest)
        principal = known.principal
        if (bound := self._possession.prove(principal, presented)) != "none":
            principal = replace(principal, bound=bound)
        if self._revocations:
            self._revocations.check(principal)
        if introspector := known.issuer.introspector:
            await introspector.check(token, principal)
        return principal

    def listed(self, principal: Principal) -> TokenRevoked | None:
        """Whether the caller of an exchange that is under way stands in the list of the revoked.

        How long ago its token expired is no matter; a list that cannot be read has nobody.
        """
        with suppress(RevocationsUnavailable):
            try:
                if self._revocations:
                    self._revocations.check(principal)
            except TokenRevoked as e:
                return e
        return None

    def asks_about(self, principal: Principal | None) -> bool:
        """Whether the issuer of this caller's token is asked about it."""
        return principal is not None and self._introspectors.get(principal.issuer) is not None

    async def inactive(self, token: str, principal: Principal) -> TokenRevoked | None:
        """Whether the issuer now says that a token, which it was asked about before, is revoked.

        One that has only expired, or of which nothing can be learned now, is not revoked.
        """
        introspector = self._introspectors.get(principal.issuer)
        if introspector is None or self._clock() >= principal.expires:
            return None
        with suppress(IntrospectionUnavailable):
            try:
                async with self._second_looks:
                    await introspector.check(token, principal)
            except TokenRevoked as e:
                return e
        return None

    def _recall(self, digest: bytes) -> _Remembered | None:
        known = self._remembered.get(digest)
        if known is None:
            return None
        with suppress(KeySetError):  # its keys are too old; looking for one says so
            if self._clock() < known.until and known.issuer.keys.current() is known.key_set:
                self._remembered.move_to_end(digest)
                return known
        del self._remembered[digest]
        return None

    async def _verify(self, token: str, digest: bytes) -> _Remembered:
        unverified = compact.read(token)
        issuer = self.issuer_of(unverified.claims)
        check_type(unverified, issuer.rules)
        check_algorithm(unverified, issuer.rules)
        key_set, key = await find_key(issuer, unverified)
        self.check_signature(token, unverified, key)
        principal = principal_of(unverified.claims, issuer.rules, self._clock())
        until = principal.expires + issuer.rules.leeway
        known = self._remembered[digest] = _Remembered(principal, issuer, key_set, until)
        while len(self._remembered) > self._remember:
            self._remembered.popitem(last=False)
        return known

    def issuer_of(self, claims: Mapping[str, Any]) -> TrustedIssuer:
        """The one issuer whose keys may verify a token with these claims. Raises `TokenError`."""
        name = claims.get("iss")
        if name is None:
            subject = claims.get("sub")
            domain = trust_domain(subject) if isinstance(subject, str) else None
            if domain in self._domains:
                return self._domains[domain]
            raise IssuerMissing("iss is missing")
        if not isinstance(name, str):
            raise ClaimMalformed(f"iss is {shown(name)}, not a string")
        if name not in self._issuers:
            raise IssuerUnknown(f"iss is {shown(name)}, which no issuer has exactly so")
        return self._issuers[name]

    def check_signature(self, token: str, unverified: compact.Unverified, key: PyJWK) -> None:
        """Raises `SignatureWrong` unless `token` is signed with `key`."""
        try:
            self._jws.decode_complete(token, key, algorithms=[unverified.algorithm])
        except PyJWTError as e:
            raise SignatureWrong(f"with the key {shown(unverified.kid)}: {e}") from None


def check_type(unverified: compact.Unverified, issuer: Issuer) -> None:
    """Raises `TypeRefused` where the issuer's tokens are of another type."""
    if issuer.typ is not None and unverified.typ not in issuer.typ:
        wanted = " or ".join(issuer.typ)
        raise TypeRefused(f"typ is {shown(unverified.typ)}; {issuer.id} wants {wanted}")


def check_algorithm(unverified: compact.Unverified, issuer: Issuer) -> None:
    """Raises `AlgorithmRefused` where the issuer does not sign with it."""
    if unverified.algorithm not in issuer.algorithms:
        accepted = ", ".join(issuer.algorithms)
        raise AlgorithmRefused(
            f"alg is {shown(unverified.algorithm)}; {issuer.id} allows {accepted}"
        )


async def find_key(issuer: TrustedIssuer, unverified: compact.Unverified) -> tuple[KeySet, PyJWK]:
    """The key that a token names, and its set. Raises `KeyUnknown`, `KeysUnavailable`, or
    `AlgorithmRefused` where the key is for another algorithm."""
    found = _look(issuer.keys, unverified)
    if found is None:
        await issuer.keys.refresh()
        found = _look(issuer.keys, unverified)
    if found is not None:
        return found
    try:
        issuer.keys.current()
        trouble = issuer.keys.problem  # the key may be a new one, and the caller may try again
    except KeySetError as e:
        trouble = e
    if trouble:
        detail = f"{issuer.rules.id} has no key {shown(unverified.kid)}"
        raise KeysUnavailable(f"{detail}; the newest look failed: {trouble}")
    raise KeyUnknown(f"{issuer.rules.id} has no key {shown(unverified.kid)}")


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
