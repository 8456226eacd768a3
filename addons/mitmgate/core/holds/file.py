"""What stands in approval.yaml: which requests wait for people, for which people, for how long."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import pydantic

from mitmgate.core.principal import Who
from mitmgate.core.rules import Duration, Listed, Model, RuleFile
from mitmgate.core.rules.rule import Rule, Where


class Approvers(Model):
    """The people who may decide."""

    who: Who


def _is_hold(action: object) -> object:
    if action != "hold":
        raise ValueError(f"is {action!r}; the rules of this file have action: hold")
    return action


class HoldRule(Rule):
    """A rule whose hits wait for a person."""

    action: Annotated[Literal["hold"], pydantic.BeforeValidator(_is_hold)]

    @pydantic.field_validator("where")
    @classmethod
    def _is_asked(cls, where: frozenset[Where]) -> frozenset[Where]:
        if "answer" in where:
            raise ValueError("only requests are held, so a hold rule cannot look at answers")
        return where


class ApprovalFile(RuleFile):
    """approval.yaml.

    `approvers` is not consulted yet: it is for people who sign in, and so far decisions come from
    whoever may write the gate's state directory or use mitmproxy's interface.

    `quorum` distinct people have to approve, never the requester. `ttl` (seconds) is how long a
    request and its approval live; `hold` (seconds, 0 for not at all) how long its connection is
    kept waiting.
    """

    approvers: Approvers | None = None
    quorum: Annotated[int, pydantic.Field(ge=1)] = 1
    ttl: Annotated[Duration, pydantic.Field(gt=0)] = 900.0
    hold: Annotated[Duration, pydantic.Field(ge=0)] = 50.0
    rules: Listed[HoldRule]

    @pydantic.field_validator("hold")
    @classmethod
    def _within_ttl(cls, hold: float, info: pydantic.ValidationInfo) -> float:
        if hold > info.data.get("ttl", hold):
            raise ValueError("is longer than ttl: the connection would outwait its own request")
        return hold

    @pydantic.field_validator("rules")
    @classmethod
    def _ids_differ(cls, rules: tuple[HoldRule, ...]) -> tuple[HoldRule, ...]:
        twice = [id for id, count in Counter(rule.id for rule in rules).items() if count > 1]
        if twice:
            raise ValueError(f"the id stands twice: {', '.join(twice)}")
        return rules
