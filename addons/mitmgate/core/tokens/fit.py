"""Why a grant does or does not fit a caller and what it wants: the first of its keys that fails.

The grant is put to the `Authorizer` itself, each key with all others opened, so that what is said
here is what the gate does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mitmgate.core import claim
from mitmgate.core.principal import Principal, Who
from mitmgate.core.tokens.errors import BindingMissing, shown
from mitmgate.core.tokens.file import Grant
from mitmgate.core.tokens.grants import Authorizer, NotAllowed, Wanted

# The keys in the order in which the gate compares them, each with what holds for everybody.
_OPEN: dict[str, Any] = {
    "operations": ("*",),
    "methods": None,
    "who": Who(subject=("*",)),
    "models": ("*",),
    "bound": "none",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """A grant, the first of its keys that does not hold ("" where all do), and what was found."""

    grant: Grant
    unmet: str
    text: str


def fit(grant: Grant, principal: Principal, wanted: Wanted) -> Fit:
    """How `grant` alone fits."""
    for key in _OPEN:
        others = {name: value for name, value in _OPEN.items() if name != key}
        if not _applies(grant.model_copy(update=others), principal, wanted):
            if key == "who":
                key = grant.who.unmet(principal)
                return Fit(grant, key, _unlike(grant.who, key, principal))
            return Fit(grant, key, _outside(grant, key, principal, wanted))
    return Fit(grant, "", "denies it" if grant.effect == "deny" else "lets it")


def _applies(grant: Grant, principal: Principal, wanted: Wanted) -> bool:
    try:
        Authorizer([grant]).allow(principal, wanted)
    except NotAllowed as e:
        return e.grant == grant.id
    except BindingMissing:
        return False
    return True


def _outside(grant: Grant, key: str, principal: Principal, wanted: Wanted) -> str:
    if key == "bound":
        has = f"is bound by {principal.bound}" if principal.bound != "none" else "has no cnf"
        return f"bound: wants {grant.bound}; this token {has}"
    if key == "models" and not wanted.model:
        names = "nothing names a model, and only '*' is whichever the server takes"
        return f"models: {', '.join(grant.models)}; {names}"
    asked = {"operations": wanted.operation, "methods": wanted.method, "models": wanted.model}
    return f"{key}: {', '.join(getattr(grant, key))}, not {asked[key]}"


def _unlike(who: Who, key: str, principal: Principal) -> str:
    found: object
    if key.startswith("claims."):
        name = key.removeprefix("claims.")
        found, wanted = claim.find(principal.claims, name), one_of(who.claims[name])
    elif key == "scopes":
        found, wanted = sorted(principal.scopes), " and ".join(map(shown, who.scopes))
    elif key == "groups":
        found, wanted = sorted(principal.groups), one_of(who.groups)
    else:
        found = principal.issuer if key == "issuer" else principal.subject
        wanted = one_of(getattr(who, key))
    is_what = "is missing" if found in (None, []) else f"is {shown(found)}"
    return f"{key} {is_what}, wanted {wanted}"


def one_of(names: Iterable[str]) -> str:
    """Names as a reader has the choice of them."""
    return " or ".join(map(shown, names))
