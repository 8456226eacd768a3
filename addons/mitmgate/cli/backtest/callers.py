"""The caller of a recorded exchange, as far as it was recorded, before other rules.

Claims are in no recording, so whether a grant or an exception is about a caller may be open. It is
never guessed: the answers here are yes, no and unknown, and what would be needed to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

from mitmgate.cli.backtest.recorded import Summary
from mitmgate.core.principal import Principal, Who
from mitmgate.core.tokens import IdentityFile, NotAllowed, TokenError, Wanted
from mitmgate.core.tokens.errors import BindingMissing, IssuerUnknown
from mitmgate.core.tokens.file import Grant
from mitmgate.core.tokens.grants import Authorizer

_EVERYBODY = Who(subject=("*",))
# Refusals by grants, which depend on nothing but rules, caller and request.
_REFUSALS: dict[str, NotAllowed | TokenError] = {
    error.code: error
    for error in (
        NotAllowed("operation_not_granted", "as recorded"),
        NotAllowed("model_not_granted", "as recorded"),
        NotAllowed("denied_by_grant", "as recorded"),
        BindingMissing("as recorded"),
    )
}
GRANT_CODES = frozenset(_REFUSALS)


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of a caller; `unknown` are the keys of `Who`, or "bound", that are not."""

    principal: Principal
    unknown: frozenset[str]

    @staticmethod
    def of(summary: Summary, identity: IdentityFile) -> Caller:
        """The caller, as `identity` would have it: there it says who is a SPIFFE workload."""
        domains = {issuer.id for issuer in identity.issuers if issuer.trust_domain is not None}
        spiffe = summary.subject if summary.issuer in domains else ""
        parts = {"scopes": summary.scopes, "groups": summary.groups, "bound": summary.bound}
        return Caller(
            Principal(
                summary.issuer,
                summary.subject,
                summary.scopes or frozenset(),
                summary.groups or frozenset(),
                bound=summary.bound or "none",
                spiffe_id=spiffe,
            ),
            frozenset(["claims", *(name for name, value in parts.items() if value is None)]),
        )

    def is_one_of(self, who: Who) -> bool | None:
        """Whether `who` is about this caller; None where that needs what is not known."""
        left = self.needs(who)
        empty: dict[str, object] = {key: {} if key == "claims" else () for key in left}
        known = who.model_copy(update=empty) if left else who
        if known.unmet(self.principal):
            return False
        return None if left else True

    def needs(self, who: Who) -> list[str]:
        """What `who` asks for that is not known of this caller."""
        return sorted(key for key in self.unknown if getattr(who, key, None))


@dataclass(frozen=True, slots=True)
class Admission:
    """What grants say: one of `grants` lets the caller in, or it is refused with one of `errors`.

    There is one thing among both if that is known; else `needs` says what would be needed.
    """

    grants: tuple[Grant, ...] = ()
    errors: tuple[NotAllowed | TokenError, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """The same text for the same answer."""
        codes = sorted({error.code for error in self.errors})
        return " ".join([*codes, *(grant.model_dump_json() for grant in self.grants)])


class Door:
    """The grants of a rule set. `known` are identity files by digest, this one and perhaps more:
    where an exchange was recorded under one of them, its grant there is known to fit its caller."""

    def __init__(self, digest: str, known: Mapping[str, IdentityFile]) -> None:
        identity = self._identity = known[digest]
        self._known = known
        self._same = {
            each
            for each, other in known.items()
            if other.grants == identity.grants and _names(other) == _names(identity)
        }
        self._judge = lru_cache(4096)(self._judged)

    def admission(self, summary: Summary, caller: Caller, wanted: Wanted) -> Admission:
        """What these grants say to `wanted`."""
        digest = summary.rules.get("identity", "")
        if digest in self._same:
            if error := _REFUSALS.get(summary.refusal):
                return Admission(errors=(error,))
            if grant := _grant(self._identity, summary.grant):
                return Admission((grant,))
        return self._judge(caller, wanted, digest, summary.grant)

    def _judged(self, caller: Caller, wanted: Wanted, digest: str, recorded: str) -> Admission:
        principal = caller.principal
        if principal.issuer not in _names(self._identity):
            return Admission(errors=(IssuerUnknown(f"there is no issuer {principal.issuer}"),))
        under = self._known.get(digest)
        fits = under and _grant(under, recorded)
        free = "bound" in caller.unknown
        sure: set[str] = set()
        doubtful: dict[str, list[str]] = {}  # ids of grants -> what would be needed
        for grant in self._identity.grants:
            if fits and (grant.who, grant.bound) == (fits.who, fits.bound):
                sure.add(grant.id)
                continue
            needs = caller.needs(grant.who) + (["bound"] if free and grant.bound != "none" else [])
            about = caller.is_one_of(grant.who)
            if about is not False and needs:
                doubtful[grant.id] = needs
            elif about:
                sure.add(grant.id)
        results = [self._said(sure, principal, wanted, free=free)]
        needed: set[str] = set()
        for id, needs in doubtful.items():
            result = self._said(sure | {id}, principal, wanted, free=free)
            if result.about != results[0].about:
                results.append(result)
                needed.update(needs)
        return Admission(
            tuple({grant.id: grant for each in results for grant in each.grants}.values()),
            tuple({error.code: error for each in results for error in each.errors}.values()),
            tuple(sorted(needed)),
        )

    def _said(
        self, ids: Set[str], principal: Principal, wanted: Wanted, *, free: bool
    ) -> Admission:
        """What those grants say, all of them about this caller; `free`: none asks for a key."""
        grants = {grant.id: grant for grant in self._identity.grants if grant.id in ids}
        opened: dict[str, object] = {"who": _EVERYBODY, **({"bound": "none"} if free else {})}
        authorizer = Authorizer(grant.model_copy(update=opened) for grant in grants.values())
        try:
            return Admission((grants[authorizer.allow(principal, wanted).id],))
        except (NotAllowed, TokenError) as e:
            return Admission(errors=(e,))


def _grant(identity: IdentityFile, id: str) -> Grant | None:
    return next((grant for grant in identity.grants if grant.id == id), None)


def _names(identity: IdentityFile) -> set[str]:
    return {issuer.id for issuer in identity.issuers}
