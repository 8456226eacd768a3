"""Who is calling (`Principal`) and how a rule names callers (`Who`).

Both stand in every control: identity makes principals, grants and approvers are `Who`s, a rule's
`unless` is a list of them. Nothing here verifies anything; see `core.tokens`.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic

from mitmgate.core import claim
from mitmgate.core.rules.model import Model

Bound = Literal["none", "mtls", "dpop"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. Never built from an unverified header.

    `issuer` is the id of the issuer in identity.yaml, not its URL; `expires` is Unix seconds;
    `display` is what people read where the subject says little; `bound` is how the caller has
    proved to hold the key that the token is bound to; `spiffe_id` is the subject where its issuer
    speaks for that trust domain, so that nobody else's `sub` can pass for one.
    """

    issuer: str
    subject: str
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    token_id: str = ""
    expires: float = 0.0
    display: str = ""
    bound: Bound = "none"
    spiffe_id: str = ""
    claims: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The caller in one word for logs, comments and filters."""
        return f"{self.issuer}:{self.subject}"


def issuer_of(name: str, subject: str) -> str:
    """The issuer in the `name` of the principal that has this subject."""
    return name.removesuffix(f":{subject}")


def _several(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if value == []:
        raise ValueError("an empty list would be everyone: name some, or leave the key out")
    return tuple(value) if isinstance(value, list) else value


def _words(value: object) -> object:
    """`ref: main`, `id: 74` and `verified: true` alike; compared as `claim.words` has claims."""
    if not isinstance(value, list):
        value = [value]
    if not all(isinstance(each, str | bool | int | float) for each in value):
        raise ValueError("should be a word, a number, true or false, or a list of those")
    return _several([word for each in value for word in claim.words(each)])


# One name, or a list. No caller has an empty one: a deny of it would deny nobody.
Names = Annotated[
    tuple[Annotated[str, pydantic.Field(min_length=1)], ...], pydantic.BeforeValidator(_several)
]
Words = Annotated[tuple[str, ...], pydantic.BeforeValidator(_words)]


class Who(Model):
    """A description of callers: every key that is present must hold.

    `issuer` and `subject` are shell globs, any one of which matches; `spiffe` are globs of whole
    SPIFFE IDs, in which `*` stays within one step of the path and a last `**` is any rest;
    `scopes` must all be held; one of `groups` must be; of `claims`, each must have one of the
    values, which are globs too.
    """

    issuer: Names = ()
    subject: Names = ()
    spiffe: Names = ()
    scopes: Names = ()
    groups: Names = ()
    claims: dict[claim.ClaimName, Words] = pydantic.Field(default={})

    @pydantic.field_validator("spiffe")
    @classmethod
    def _are_spiffe_ids(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            domain, *steps = glob.removeprefix("spiffe://").split("/")
            if steps[-1:] == ["**"]:
                steps[-1] = "*"
            # A glob that no workload's ID can match would be a deny that denies nobody.
            odd = not glob.startswith("spiffe://") or not domain or not steps
            if odd or {"", ".", ".."} & set(steps) or "**" in "/".join((domain, *steps)):
                raise ValueError(
                    f"{glob} should be like spiffe://prod.example/ns/search/sa/*, "
                    "with ** as its last step only"
                )
        return globs

    @pydantic.field_validator("claims")
    @classmethod
    def _are_some(cls, claims: dict[str, Any]) -> dict[str, Any]:
        if not claims:
            raise ValueError("an empty mapping would be everyone: name some, or leave the key out")
        return claims

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Who:
        if not self.model_dump(exclude_defaults=True):
            raise ValueError(
                "names nobody: give issuer, subject, spiffe, scopes, groups or claims "
                "('*' is everyone)"
            )
        return self

    def matches(self, principal: Principal | None) -> bool:
        """True if `principal` is one of these callers; an unknown caller never is."""
        return principal is not None and not self.unmet(principal)

    def unmet(self, principal: Principal) -> str:
        """The first key that does not hold for `principal`; "" if all do."""
        if not _any_glob(self.issuer, principal.issuer):
            return "issuer"
        if not _any_glob(self.subject, principal.subject):
            return "subject"
        if self.spiffe and not any(_is_under(principal.spiffe_id, glob) for glob in self.spiffe):
            return "spiffe"
        if not principal.scopes.issuperset(self.scopes):
            return "scopes"
        if self.groups and principal.groups.isdisjoint(self.groups):
            return "groups"
        for name, globs in self.claims.items():
            found = claim.words(claim.find(principal.claims, name))
            if not any(_any_glob(globs, word) for word in found):
                return f"claims.{name}"
        return ""


def _any_glob(globs: tuple[str, ...], value: str) -> bool:
    return not globs or any(fnmatch.fnmatchcase(value, glob) for glob in globs)


def _is_under(spiffe_id: str, glob: str) -> bool:
    """Step by step, so that no `*` reaches over a slash into what another workload may name."""
    steps, globs = spiffe_id.split("/"), glob.split("/")
    if globs[-1] == "**":
        globs.pop()
        if len(steps) <= len(globs):
            return False
        steps = steps[: len(globs)]
    return len(steps) == len(globs) and all(map(fnmatch.fnmatchcase, steps, globs))
