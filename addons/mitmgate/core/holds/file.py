"""What stands in approval.yaml: which requests wait for people, for which people, for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import pydantic

from mitmgate.core import claim
from mitmgate.core.holds.notify import Notice
from mitmgate.core.holds.person import SUBJECT, of_the_system, recognised
from mitmgate.core.principal import Principal, Who
from mitmgate.core.rules import Duration, Id, Listed, Model, RuleFile, Size
from mitmgate.core.rules.rule import ANSWERS, Header, Mode, Rule, Where, in_mode


def _one_or_more(value: object) -> object:
    # made here, so that what is wrong with a single one is not said of the first in a list
    return tuple(value) if isinstance(value, list) else (Who.model_validate(value),)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        origin = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        origin = False
    if not origin or url != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError(f"{url} should be like https://approvals.example.com, without a path")
    return url


Several = Annotated[tuple[Who, ...], pydantic.BeforeValidator(_one_or_more)]
Quorum = Annotated[int, pydantic.Field(ge=1)]
Lifetime = Annotated[Duration, pydantic.Field(gt=0)]
Patience = Annotated[Duration, pydantic.Field(ge=0)]


IN_FORCE = "approval-rules"  # names, beside the store, the approval.yaml that its gate goes by


class Approvers(Model):
    """The people who may decide, and the masking profile through which they read prompts."""

    who: Annotated[Several, pydantic.Field(min_length=1)]
    profile: Id | None = None

    def include(self, principal: Principal) -> bool:
        """Whether it is one of them. A user of the operating system has to be named as such."""
        system = of_the_system(principal)
        return any(who.matches(principal) and (who.issuer or not system) for who in self.who)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one request: each of `approvers` has to include whoever decides.

    Without approvers the operators decide. `quorum` distinct people have to approve; `ttl` and
    `hold` are seconds, as in `ApprovalFile`.
    """

    approvers: tuple[Approvers, ...]
    quorum: int
    ttl: float
    hold: float


class Limits(Model):
    """How many requests may be held at once, and how many characters of each prompt are kept."""

    per_caller: Annotated[int, pydantic.Field(ge=1)] = 20
    in_all: Annotated[int, pydantic.Field(ge=1)] = 500
    prompt: Annotated[Size, pydantic.Field(ge=1024, le=1 << 20)] = 1 << 16


class ConsoleAccess(Model):
    """Where approvers find the console, and how a trusted proxy says who they are."""

    url: Annotated[str, pydantic.AfterValidator(_origin)] | None = None
    assertion_header: Header | None = None


def _is_hold(action: object) -> object:
    if action != "hold":
        raise ValueError(f"is {action!r}; the rules of this file have action: hold")
    return action


class HoldRule(Rule):
    """A rule whose hits wait for a person; what it leaves out of the last four is the file's."""

    action: Annotated[Literal["hold"], pydantic.BeforeValidator(_is_hold)]
    approvers: Approvers | None = None
    quorum: Quorum | None = None
    ttl: Lifetime | None = None
    hold: Patience | None = None

    @pydantic.field_validator("where")
    @classmethod
    def _is_asked(cls, where: frozenset[Where]) -> frozenset[Where]:
        if ANSWERS & where:
            raise ValueError("only requests are held, so a hold rule cannot look at answers")
        if "headers" in where:
            raise ValueError("an approval is bound to path and body, so it cannot be for headers")
        return where


class ApprovalFile(RuleFile):
    """approval.yaml.

    `quorum` distinct people of `approvers` have to approve, never the requester. `ttl` (seconds) is
    how long a request and its approval live; `hold` (seconds, 0 for not at all) how long its
    connection is kept waiting. `same_person` are the claims by which somebody is recognised under
    another subject. Holds that have ended are kept for `keep` seconds. In `mode: audit` its rules
    change nothing, but for those with a mode.
    """

    approvers: Approvers | None = None
    quorum: Quorum = 1
    ttl: Lifetime = 900.0
    hold: Patience = 50.0
    keep: Lifetime = 90 * 86400.0
    same_person: Listed[claim.ClaimName] = SUBJECT
    limits: Limits = Limits()
    notify: Listed[Notice] = ()
    console: ConsoleAccess = ConsoleAccess()
    mode: Mode = "enforce"
    rules: Listed[HoldRule]

    @pydantic.field_validator("hold")
    @classmethod
    def _within_ttl(cls, hold: float, info: pydantic.ValidationInfo) -> float:
        if hold > info.data.get("ttl", hold):
            raise ValueError("is longer than ttl: the connection would outwait its own request")
        return hold

    @pydantic.field_validator("rules")
    @classmethod
    def _ids_differ(
        cls, rules: tuple[HoldRule, ...], info: pydantic.ValidationInfo
    ) -> tuple[HoldRule, ...]:
        twice = [id for id, count in Counter(rule.id for rule in rules).items() if count > 1]
        if twice:
            raise ValueError(f"the id stands twice: {', '.join(twice)}")
        return in_mode(rules, info.data.get("mode", "enforce"))

    @pydantic.field_validator("rules")
    @classmethod
    def _hold_within_ttl(
        cls, rules: tuple[HoldRule, ...], info: pydantic.ValidationInfo
    ) -> tuple[HoldRule, ...]:
        if {"ttl", "hold"} <= info.data.keys():
            of_file = _Own(None, 1, info.data["ttl"], info.data["hold"])
            for rule in rules:
                if (own := _own(rule, of_file)).hold > own.ttl:
                    raise ValueError(
                        f"{rule.id}: its hold is longer than its ttl: "
                        "the connection would outwait its own request"
                    )
        return rules

    def terms(self, rule_ids: Iterable[str]) -> Terms:
        """What holds for a request that hits these rules, the strictest of each.

        A rule that is not in the file has the file's terms.
        """
        of_file = _Own(self.approvers, self.quorum, self.ttl, self.hold)
        wanted = set(rule_ids)
        known = [rule for rule in self.rules if rule.id in wanted]
        each = [_own(rule, of_file) for rule in known]
        if len(known) < len(wanted) or not wanted:
            each.append(of_file)
        approvers: list[Approvers] = []
        for own in each:
            if own.approvers and own.approvers not in approvers:
                approvers.append(own.approvers)
        return Terms(
            tuple(approvers),
            max(own.quorum for own in each),
            min(own.ttl for own in each),
            min(own.hold for own in each),
        )

    def person(self, principal: Principal) -> tuple[str, ...]:
        """The words by which `principal` is recognised as a person."""
        return recognised(principal, self.same_person)


class _Own(NamedTuple):
    approvers: Approvers | None
    quorum: int
    ttl: float
    hold: float


def _own(rule: HoldRule, of_file: _Own) -> _Own:
    """The terms of one rule, filled up from the file's."""
    given = {name: getattr(rule, name) for name in _Own._fields}
    return of_file._replace(**{name: value for name, value in given.items() if value is not None})
