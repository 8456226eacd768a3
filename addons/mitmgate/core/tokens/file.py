"""identity.yaml: whose tokens are trusted, and what their bearers may do.

Each model checks itself; `problems_of` finds what only shows when the whole file is seen.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Collection, Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic

from mitmgate.core.principal import Who
from mitmgate.core.rules.loader import Loaded, Problem
from mitmgate.core.rules.model import Duration, FilePath, Id, Listed, Model, RuleFile

# All asymmetric: with HS* whoever can verify a token can also make one.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
MAX_LEEWAY = 300.0  # seconds; more is not clock skew but a longer life

Text = Annotated[str, pydantic.Field(min_length=1)]


def _algorithm(value: str) -> str:
    if value in ALGORITHMS:
        return value
    if value.upper().startswith("HS"):
        raise ValueError(f"{value} is symmetric, whoever verifies could also sign; use {_OFFERED}")
    if value.lower() == "none":
        raise ValueError(f"'none' means no signature at all; use {_OFFERED}")
    raise ValueError(f"{value} is not supported; use {_OFFERED}")


_OFFERED = ", ".join(ALGORITHMS)


def _names(value: object) -> object:
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("should be longer than zero")
    return value


def _leeway(value: float) -> float:
    if value > MAX_LEEWAY:
        raise ValueError("should be 5m at most: it makes up for clocks, not for expired tokens")
    return value


Algorithm = Annotated[str, pydantic.AfterValidator(_algorithm)]
Names = Annotated[tuple[Text, ...], pydantic.BeforeValidator(_names), pydantic.Field(min_length=1)]


def checked_url(url: str) -> str:
    """`url` if keys may be fetched from it: https, or http from this machine. Else `ValueError`."""
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.fragment or not url.isprintable():
        raise ValueError("should be a plain https URL")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return url
    raise ValueError("keys are fetched over https (http only from a loopback address)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class KeySource(Model):
    """Where an issuer's public keys come from: exactly one of the three."""

    discovery: Literal[True] | None = None
    jwks_url: Annotated[str, pydantic.AfterValidator(checked_url)] | None = None
    jwks_file: FilePath | None = None

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> KeySource:
        sources = (self.discovery, self.jwks_url, self.jwks_file)
        if len(sources) - sources.count(None) != 1:
            raise ValueError("give exactly one of discovery: true, jwks_url and jwks_file")
        return self


class Issuer(Model):
    """One identity provider. `issuer` is compared with `iss` character by character.

    `groups_claim` may be a list, which is the path to a claim inside claims.
    """

    id: Id
    issuer: Text
    audience: Names
    keys: KeySource
    algorithms: Annotated[Listed[Algorithm], pydantic.Field(min_length=1)]
    max_lifetime: Annotated[Duration, pydantic.AfterValidator(_positive)] = 3600.0
    leeway: Annotated[Duration, pydantic.AfterValidator(_leeway)] = 30.0
    groups_claim: Names = ("groups",)
    subject_claim: Text = "sub"

    @pydantic.model_validator(mode="after")
    def _can_be_discovered(self) -> Issuer:
        if self.keys.discovery:
            try:
                checked_url(self.issuer)
            except ValueError as e:
                raise ValueError(f"discovery needs an issuer that is a URL: {e}") from None
        return self


class Grant(Model):
    """What some callers may do, or with `effect: deny` may not; globs in operations and models."""

    id: Id
    who: Who
    operations: Names
    models: Names
    effect: Literal["allow", "deny"] = "allow"
    masking: Id = "default"


class Revoked(Model):
    """The list of revoked token ids and subjects."""

    file: FilePath


class IdentityFile(RuleFile):
    """rules/identity.yaml."""

    issuers: Annotated[Listed[Issuer], pydantic.Field(min_length=1)]
    grants: Listed[Grant]
    revoked: Revoked | None = None


def problems_of(
    loaded: Loaded[IdentityFile], operations: Collection[str] | None = None
) -> Iterator[Problem]:
    """What is wrong between the parts: things that stand twice, or that nothing else knows.

    `operations` are the names in use; None leaves them unchecked.
    """
    file = loaded.file
    ids = [issuer.id for issuer in file.issuers]
    for key, values in (
        (("issuers", "id"), ids),
        (("issuers", "issuer"), [issuer.issuer for issuer in file.issuers]),
        (("grants", "id"), [grant.id for grant in file.grants]),
    ):
        for i, value in enumerate(values):
            if value in values[:i]:
                message = f"{value} stands twice; first in {key[0]}[{values.index(value)}]"
                yield loaded.problem((key[0], i, key[1]), message)
    for i, grant in enumerate(file.grants):
        for name in grant.who.issuer:
            if not any(fnmatch.fnmatchcase(known, name) for known in ids):
                message = f"{name} is no issuer of this file; there are {', '.join(ids)}"
                yield loaded.problem(("grants", i, "who", "issuer"), message)
        for j, name in enumerate(grant.operations if operations is not None else ()):
            if not any(fnmatch.fnmatchcase(known, name) for known in operations or ()):
                message = f"{name} is no operation; there are {', '.join(sorted(operations or ()))}"
                yield loaded.problem(("grants", i, "operations", j), message)
