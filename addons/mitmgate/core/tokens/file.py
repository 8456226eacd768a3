"""identity.yaml: whose tokens are trusted, and what their bearers may do.

Each model checks itself; `problems_of` finds what only shows when the whole file is seen.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Collection, Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic

from mitmgate.core.claim import ClaimName, Template
from mitmgate.core.principal import Bound, Who
from mitmgate.core.rules.loader import Loaded, Problem
from mitmgate.core.rules.model import (
    Duration,
    FilePath,
    Id,
    Listed,
    Model,
    Reference,
    RuleFile,
    Size,
)

# All asymmetric: with HS* whoever can verify a token can also make one.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
MAX_LEEWAY = 300.0  # seconds; more is not clock skew but a longer life
MAX_WINDOW = 300.0  # seconds
MIN_STALE, MAX_STALE = 10.0, 365 * 86400.0  # seconds
# RFC 8725 section 3.11: an issuer also signs logout tokens, DPoP proofs and security events.
TYPES = ("jwt", "at+jwt", "jose")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

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


def _stale(value: float) -> float:
    if value < MIN_STALE:
        raise ValueError("should be 10s at least, or it would run out between two looks")
    if value > MAX_STALE:
        raise ValueError("should be 365d at most: keys that old are nobody's any more")
    return value


def _leeway(value: float) -> float:
    if value > MAX_LEEWAY:
        raise ValueError("should be 5m at most: it makes up for clocks, not for expired tokens")
    return value


def _window(value: float) -> float:
    if value > MAX_WINDOW:
        raise ValueError("should be 5m at most: a proof is made for one request, just now")
    return value


def _trust_domain(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", value):
        raise ValueError("should be the name alone, such as prod.example (SPIFFE-ID section 2.1)")
    return value


def _types(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value.lower() not in TYPES:
            raise ValueError(f"{value} is no access token; use {', '.join(TYPES)}")
    return tuple(value.lower() for value in values)


def _methods(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in METHODS:
            raise ValueError(f"{value} should be one of {', '.join(METHODS)}")
    return values


Positive = Annotated[Duration, pydantic.AfterValidator(_positive)]
Algorithm = Annotated[str, pydantic.AfterValidator(_algorithm)]
Names = Annotated[tuple[Text, ...], pydantic.BeforeValidator(_names), pydantic.Field(min_length=1)]


def checked_url(url: str) -> str:
    """`url` if keys may be fetched from it: https, or http from this machine. Else `ValueError`."""
    parts = urlsplit(url)
    extra = parts.username is not None or parts.fragment or parts.port == 0  # checks the port, too
    if not parts.hostname or extra or not url.isprintable():
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
    """Where an issuer's public keys come from: exactly one of the three.

    The last good keys serve for `max_stale` while newer ones cannot be had. The token in
    `bearer_file` is sent when keys are fetched.
    """

    discovery: Literal[True] | None = None
    jwks_url: Annotated[str, pydantic.AfterValidator(checked_url)] | None = None
    jwks_file: FilePath | None = None
    max_stale: Annotated[Duration, pydantic.AfterValidator(_stale)] = 86400.0
    bearer_file: FilePath | None = None

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> KeySource:
        sources = (self.discovery, self.jwks_url, self.jwks_file)
        if len(sources) - sources.count(None) != 1:
            raise ValueError("give exactly one of discovery: true, jwks_url and jwks_file")
        if self.jwks_file and (self.bearer_file or "max_stale" in self.model_fields_set):
            raise ValueError("max_stale and bearer_file are for keys that are fetched")
        return self


class Introspection(Model):
    """Ask the issuer whether a token still counts (RFC 7662). No answer refuses the token.

    An answer is believed for `cache`; `client_id` and `client_secret` are sent as HTTP Basic.
    """

    url: Annotated[str, pydantic.AfterValidator(checked_url)]
    client_id: Text
    client_secret: Reference
    cache: Duration = 30.0


class Issuer(Model):
    """One identity provider. `issuer` is compared with `iss` character by character.

    With `trust_domain`, tokens are SPIFFE JWT-SVIDs of that domain; where `issuer` is left out,
    they have no `iss` and are known by the domain in `sub`. `typ` are the only token types taken.
    `display` is a template over claims. `ca_file` are the authorities of its TLS certificates.
    """

    id: Id
    issuer: Text | None = None
    trust_domain: Annotated[str, pydantic.AfterValidator(_trust_domain)] | None = None
    audience: Names
    keys: KeySource
    algorithms: Annotated[Listed[Algorithm], pydantic.Field(min_length=1)]
    typ: Annotated[Names, pydantic.AfterValidator(_types)] | None = None
    max_lifetime: Positive = 3600.0
    leeway: Annotated[Duration, pydantic.AfterValidator(_leeway)] = 30.0
    groups_claim: ClaimName = "groups"
    subject_claim: ClaimName = "sub"
    display: Template | None = None
    ca_file: FilePath | None = None
    introspection: Introspection | None = None

    @pydantic.model_validator(mode="after")
    def _is_known_by_something(self) -> Issuer:
        if self.id == "os":
            raise ValueError("os is the id of this machine's own users, who may decide about holds")
        if self.issuer is None and self.trust_domain is None:
            raise ValueError("give issuer, the token's iss (trust_domain alone is for SPIFFE)")
        if self.trust_domain is not None and self.subject_claim != "sub":
            raise ValueError("a SPIFFE ID stands in sub: leave subject_claim out")
        if self.trust_domain is not None and "EdDSA" in self.algorithms:
            raise ValueError("JWT-SVIDs are not signed with EdDSA (JWT-SVID section 2.1)")
        if self.keys.discovery:
            try:
                checked_url(self.issuer or "")
            except ValueError as e:
                raise ValueError(f"discovery needs an issuer that is a URL: {e}") from None
        return self


class Limits(Model):
    """How much one caller may use a grant, or with `per: grant` all its callers together."""

    requests_per_minute: Annotated[int, pydantic.Field(ge=1)] | None = None
    prompt_bytes_per_minute: Annotated[Size, pydantic.Field(ge=1)] | None = None
    concurrent: Annotated[int, pydantic.Field(ge=1)] | None = None
    per: Literal["caller", "grant"] = "caller"

    @pydantic.model_validator(mode="after")
    def _limits_something(self) -> Limits:
        if not (self.requests_per_minute or self.prompt_bytes_per_minute or self.concurrent):
            raise ValueError(
                "give requests_per_minute, prompt_bytes_per_minute or concurrent, or leave it out"
            )
        return self


class Grant(Model):
    """What some callers may do, or with `effect: deny` may not.

    `operations` and `models` are globs, `methods` are HTTP methods (all, where left out). With
    `bound`, only a caller who proves to hold the key of the token is let in.
    """

    id: Id
    who: Who
    operations: Names
    models: Names
    methods: Annotated[Names, pydantic.AfterValidator(_methods)] | None = None
    effect: Literal["allow", "deny"] = "allow"
    bound: Bound = "none"
    limits: Limits | None = None
    masking: Id = "default"

    @pydantic.model_validator(mode="after")
    def _denies_plainly(self) -> Grant:
        extra = {"bound", "limits", "masking"} & self.model_fields_set
        if self.effect == "deny" and extra:
            raise ValueError(f"a deny has no {', '.join(sorted(extra))}: it is for what is allowed")
        return self


class DPoP(Model):
    """What proofs of possession (RFC 9449) are held against.

    `url` are the addresses under which callers reach the gate, without a path; a proof is taken
    once, and for `window` after it was made. With `nonce`, it must hold a nonce of the gate's.
    """

    url: Annotated[Listed[str], pydantic.Field(min_length=1)]
    window: Annotated[Positive, pydantic.AfterValidator(_window)] = 60.0
    nonce: bool = False

    @pydantic.field_validator("url")
    @classmethod
    def _are_origins(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.isascii():
                raise ValueError(f"{url} should be as it stands on the wire, in ASCII")
            parts = urlsplit(url)
            origin = re.fullmatch(r"https?://[^/?#@\s]+/?", url, re.IGNORECASE)
            if not origin or not parts.hostname or parts.port == 0:  # reading it checks the port
                raise ValueError(f"{url} should be like https://models.example.com, without a path")
        return urls


class Revoked(Model):
    """The list of revoked token ids and subjects."""

    file: FilePath


class IdentityFile(RuleFile):
    """rules/identity.yaml."""

    issuers: Annotated[Listed[Issuer], pydantic.Field(min_length=1)]
    grants: Listed[Grant]
    dpop: DPoP | None = None
    revoked: Revoked | None = None


def problems_of(
    loaded: Loaded[IdentityFile], operations: Collection[str] | None = None
) -> Iterator[Problem]:
    """What is wrong between the parts: things that stand twice, or that nothing else knows.

    `operations` are the names in use; None leaves them unchecked.
    """
    file = loaded.file
    ids = [issuer.id for issuer in file.issuers]
    known_by = [issuer.issuer or f"trust_domain {issuer.trust_domain}" for issuer in file.issuers]
    for key, values in (
        (("issuers", "id"), ids),
        (("issuers", "issuer"), known_by),
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
        for glob in grant.who.spiffe:
            domain = glob.removeprefix("spiffe://").partition("/")[0]
            known = {issuer.trust_domain for issuer in file.issuers} - {None}
            if not any(fnmatch.fnmatchcase(each or "", domain) for each in known):
                message = f"{domain} is no trust_domain of an issuer of this file"
                yield loaded.problem(("grants", i, "who", "spiffe"), message)
        if grant.bound == "dpop" and file.dpop is None:
            message = "needs dpop: {url: [...]}, the addresses under which callers reach the gate"
            yield loaded.problem(("grants", i, "bound"), message)
