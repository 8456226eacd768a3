"""Who is calling (`Principal`) and how a rule names callers (`Who`).

Both stand in every control: identity makes principals, grants and approvers are `Who`s, a rule's
`unless` is a list of them. Nothing here verifies anything; see `core.tokens`.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Annotated, Any

import pydantic

from mitmgate.core.rules.model import Model


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. Never built from an unverified header.

    `issuer` is the id of the issuer in identity.yaml, not its URL; `expires` is Unix seconds.
    """

    issuer: str
    subject: str
    scopes: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    token_id: str = ""
    expires: float = 0.0
    claims: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The caller in one word for logs, comments and filters."""
        return f"{self.issuer}:{self.subject}"


def _several(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if value == []:
        raise ValueError("an empty list would be everyone: name some, or leave the key out")
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], pydantic.BeforeValidator(_several)]  # one name, or a list


class Who(Model):
    """A description of callers: every key that is present must hold.

    `issuer` and `subject` are shell globs, any one of which matches; `scopes` must all be held;
    one of `groups` must be.
    """

    issuer: Names = ()
    subject: Names = ()
    scopes: Names = ()
    groups: Names = ()

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Who:
        if not (self.issuer or self.subject or self.scopes or self.groups):
            raise ValueError(
                "names nobody: give issuer, subject, scopes or groups ('*' is everyone)"
            )
        return self

    def matches(self, principal: Principal | None) -> bool:
        """True if `principal` is one of these callers; an unknown caller never is."""
        if principal is None:
            return False
        return (
            _any_glob(self.issuer, principal.issuer)
            and _any_glob(self.subject, principal.subject)
            and principal.scopes.issuperset(self.scopes)
            and (not self.groups or not principal.groups.isdisjoint(self.groups))
        )


def _any_glob(globs: tuple[str, ...], value: str) -> bool:
    return not globs or any(fnmatch.fnmatchcase(value, glob) for glob in globs)
