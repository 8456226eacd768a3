"""What a verified caller may do. Deny by default; a matching deny wins over every allow.

Names are compared with shell globs. An allow is compared as it stands; a deny without case and also
without registry and tag, since a server that ignores those would otherwise be a way around it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
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
        denies, allows = self._covering(principal, wanted)
        for grant in denies:
            if _denies_model(grant, wanted.model):
                detail = f"{grant.id} denies {principal.name} {wanted}"
                raise NotAllowed("denied_by_grant", detail, grant.id)
        if not allows:
            detail = f"no grant lets {principal.name} do {wanted}"
            raise NotAllowed("operation_not_granted", detail)
        fitting = [grant for grant in allows if _allows_model(grant, wanted.model)]
        if not fitting:
            named = ", ".join(grant.id for grant in allows)
            detail = f"{named} let {principal.name} do it, but not {wanted}"
            raise NotAllowed("model_not_granted", detail)
        for grant in fitting:
            if _is_met(grant, principal):
                return grant
        grant = fitting[0]
        raise BindingMissing(f"{grant.id} wants a token that is bound by {grant.bound}")

    def usable(self, principal: Principal, operations: Iterable[str]) -> Callable[[str], bool]:
        """Tells of a model whether `principal` may do any of `operations` with it, by any method.

        A server may list very many: which grants there are for this caller is found out once.
        """
        covering = [self._covering(principal, Wanted(each, method="")) for each in operations]

        def may_use(model: str) -> bool:
            return any(
                any(_allows_model(grant, model) and _is_met(grant, principal) for grant in allows)
                and not any(_denies_model(grant, model) for grant in denies)
                for denies, allows in covering
            )

        return may_use

    def _covering(
        self, principal: Principal, wanted: Wanted
    ) -> tuple[tuple[Grant, ...], tuple[Grant, ...]]:
        """The denies and the allows that are about this caller and operation, of any model."""
        denies = tuple(grant for grant in self._denies if _covers(grant, principal, wanted))
        return denies, tuple(grant for grant in self._allows if _covers(grant, principal, wanted))


def _covers(grant: Grant, principal: Principal, wanted: Wanted) -> bool:
    return (
        _any_glob(grant.operations, wanted.operation)
        and (grant.methods is None or not wanted.method or wanted.method in grant.methods)
        and grant.who.matches(principal)
    )


def _is_met(grant: Grant, principal: Principal) -> bool:
    return grant.bound in ("none", principal.bound)


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
