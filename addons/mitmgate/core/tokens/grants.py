"""What a verified caller may do. Deny by default; a matching deny wins over every allow.

Names are compared with shell globs. An allow is compared as it stands; a deny without case and also
without registry and tag, since a server that ignores those would otherwise be a way around it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import BindingMissing, shown
from mitmgate.core.tokens.file import Grant

Code = Literal["operation_not_granted", "model_not_granted", "denied_by_grant"]


class NotAllowed(Exception):
    """The caller is known and may not. `grant` is the id of the deny that said so, if one did.

    As with tokens, `code` and `detail` are the operator's, and the client learns `public` alone.
    """

    public: ClassVar[str] = "insufficient_scope"  # RFC 6750 section 3.1
    status: ClassVar[int] = 403
    description: ClassVar[str] = "This caller may not do that."

    def __init__(self, code: Code, detail: str, grant: str = "") -> None:
        self.code = code
        self.detail = detail
        self.grant = grant
        super().__init__(detail)

    def diagnostics(self) -> str:
        """One line for the operator's log."""
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller wants to do.

    `model` is None where there is none to name, and "" where one is wanted but not named: the
    server's own choice then, so only a grant of every model allows it and any deny refuses.
    """

    operation: str
    model: str | None = None
    method: str = "POST"

    def __str__(self) -> str:
        of = "" if self.model is None else f" of {shown(self.model)}"
        return f"{self.method} {self.operation}{of}"


class Authorizer:
    """Grants in the order of the file; where several allow, the first one counts."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        grants = tuple(grants)
        self._allows = tuple(grant for grant in grants if grant.effect == "allow")
        self._denies = tuple(grant for grant in grants if grant.effect == "deny")

    def allow(self, principal: Principal, wanted: Wanted) -> Grant:
        """The grant that lets `principal` do this. Raises `NotAllowed`, or `BindingMissing` where
        a grant would, if only the caller proved to have the key of its token."""
        for grant in self._denies:
            if _covers(grant, principal, wanted) and _denies_model(grant, wanted.model):
                detail = f"{grant.id} denies {principal.name} {wanted}"
                raise NotAllowed("denied_by_grant", detail, grant.id)
        allows = [grant for grant in self._allows if _covers(grant, principal, wanted)]
        if not allows:
            detail = f"no grant lets {principal.name} do {wanted}"
            raise NotAllowed("operation_not_granted", detail)
        fitting = [grant for grant in allows if _allows_model(grant, wanted.model)]
        if not fitting:
            named = ", ".join(grant.id for grant in allows)
            detail = f"{named} let {principal.name} do it, but not {wanted}"
            raise NotAllowed("model_not_granted", detail)
        for grant in fitting:
            if grant.bound in ("none", principal.bound):
                return grant
        grant = fitting[0]
        raise BindingMissing(f"{grant.id} wants a token that is bound by {grant.bound}")

    def may_use(self, principal: Principal, model: str, operations: Iterable[str]) -> bool:
        """Whether `principal` may do any of `operations` with `model`, by any method."""
        for operation in operations:
            try:
                self.allow(principal, Wanted(operation, model, method=""))
            except (NotAllowed, BindingMissing):
                continue
            return True
        return False


def _covers(grant: Grant, principal: Principal, wanted: Wanted) -> bool:
    return (
        _any_glob(grant.operations, wanted.operation)
        and (grant.methods is None or not wanted.method or wanted.method in grant.methods)
        and grant.who.matches(principal)
    )


def _allows_model(grant: Grant, model: str | None) -> bool:
    if not model:
        return model is None or "*" in grant.models
    return _any_glob(grant.models, model)


def _denies_model(grant: Grant, model: str | None) -> bool:
    if not model:
        return model == "" or "*" in grant.models
    globs = [glob.casefold() for glob in grant.models]
    return any(_any_glob(globs, name) for name in _names(model.casefold()))


def _names(model: str) -> set[str]:
    """What a server may take `model` for: Ollama reads `host/library/m:latest` as `m`."""
    last = model.strip().rpartition("/")[2]
    return {model, model.partition(":")[0], last, last.partition(":")[0]}


def _any_glob(globs: Iterable[str], value: str) -> bool:
    return any(fnmatch.fnmatchcase(value, glob) for glob in globs)
