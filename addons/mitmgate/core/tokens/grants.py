"""What a verified caller may do. Deny by default; a matching deny wins over every allow.

Names are compared with shell globs. An allow is compared as it stands; a deny without case and also
without registry and tag, since a server that ignores those would otherwise be a way around it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import ClassVar, Literal

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import shown
from mitmgate.core.tokens.file import Grant

Code = Literal["operation_not_granted", "model_not_granted", "denied_by_grant"]


class NotAllowed(Exception):
    """The caller is known and may not. `grant` is the id of the deny that said so, if one did."""

    error: ClassVar[str] = "insufficient_scope"  # RFC 6750 section 3.1
    status: ClassVar[int] = 403

    def __init__(self, code: Code, description: str, detail: str, grant: str | None = None) -> None:
        self.code = code
        self.description = description
        self.detail = detail
        self.grant = grant
        super().__init__(detail)

    def diagnostics(self) -> str:
        """One line for the operator's log."""
        return f"{self.code}: {self.detail}"


class Authorizer:
    """Grants in the order of the file; where several allow, the first one counts."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        grants = tuple(grants)
        self._allows = tuple(grant for grant in grants if grant.effect == "allow")
        self._denies = tuple(grant for grant in grants if grant.effect == "deny")

    def allow_operation(self, principal: Principal, operation: str) -> Grant:
        """Whether any model could be asked for this; for use before the body is known."""
        return self.allow(principal, operation, None)

    def allow(self, principal: Principal, operation: str, model: str | None) -> Grant:
        """The grant that lets `principal` do this. Raises `NotAllowed`.

        `model` is None where there is none to name, and "" where one is wanted but not named: the
        server's own choice then, so only a grant of every model allows it and any deny refuses.
        """
        for grant in self._denies:
            if _covers(grant, principal, operation) and _denies_model(grant, model):
                what = operation if model is None else f"{operation} of {shown(model)}"
                detail = f"{grant.id} denies {principal.name} {what}"
                raise NotAllowed("denied_by_grant", "A rule denies this.", detail, grant.id)
        allows = [grant for grant in self._allows if _covers(grant, principal, operation)]
        if not allows:
            detail = f"no grant lets {principal.name} do {shown(operation)}"
            description = f"The operation {shown(operation)} is not granted to this caller."
            raise NotAllowed("operation_not_granted", description, detail)
        for grant in allows:
            if _allows_model(grant, model):
                return grant
        named = ", ".join(grant.id for grant in allows)
        detail = f"{named} let {principal.name} do {operation}, but not with {shown(model)}"
        description = f"The model {shown(model)} is not granted to this caller."
        raise NotAllowed("model_not_granted", description, detail)


def _covers(grant: Grant, principal: Principal, operation: str) -> bool:
    return _any_glob(grant.operations, operation) and grant.who.matches(principal)


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
