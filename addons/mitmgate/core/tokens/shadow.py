"""Grants that never let anybody in, since a grant that denies covers all that they allow.

Globs are compared as text, so only what is certain is found: `agent-*` covers `agent-7*`, and
nothing is said of globs with `?` or `[`. It judges nothing; it is for whoever writes grants.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable

from mitmgate.core.principal import Who
from mitmgate.core.tokens.file import METHODS, Grant, IdentityFile


def shadowed(file: IdentityFile, operations: Collection[str]) -> list[tuple[Grant, Grant]]:
    """Each grant that allows, with the first that denies all of it. `operations` are all names."""
    issuers = [issuer.id for issuer in file.issuers]
    denies = [grant for grant in file.grants if grant.effect == "deny"]
    found = []
    for grant in file.grants:
        if grant.effect == "allow":
            covering = (deny for deny in denies if _covers(deny, grant, operations, issuers))
            if deny := next(covering, None):
                found.append((grant, deny))
    return found


def _covers(
    deny: Grant, allow: Grant, operations: Collection[str], issuers: Collection[str]
) -> bool:
    return (
        _matching(allow.operations, operations) <= _matching(deny.operations, operations)
        and set(allow.methods or METHODS) <= set(deny.methods or METHODS)
        and _all_globs(
            [glob.casefold() for glob in deny.models], [glob.casefold() for glob in allow.models]
        )
        and _covers_who(deny.who, allow.who, issuers)
    )


def _covers_who(deny: Who, allow: Who, issuers: Collection[str]) -> bool:
    return (
        _matching(allow.issuer or "*", issuers) <= _matching(deny.issuer or "*", issuers)
        and (not deny.subject or _all_globs(deny.subject, allow.subject or ("*",)))
        and (not deny.spiffe or (bool(allow.spiffe) and set(allow.spiffe) <= set(deny.spiffe)))
        and set(deny.scopes) <= set(allow.scopes)
        and (not deny.groups or (bool(allow.groups) and set(allow.groups) <= set(deny.groups)))
        and all(
            name in allow.claims and _all_globs(globs, allow.claims[name])
            for name, globs in deny.claims.items()
        )
    )


def _matching(globs: Iterable[str], names: Iterable[str]) -> set[str]:
    globs = list(globs)
    return {name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in globs)}


def _all_globs(wider: Iterable[str], narrower: Iterable[str]) -> bool:
    wider = list(wider)
    return all(any(_takes_in(glob, each) for glob in wider) for each in narrower)


def _takes_in(wider: str, narrower: str) -> bool:
    if wider == narrower:
        return True
    return not {"?", "["} & set(wider) and fnmatch.fnmatchcase(narrower, wider)
