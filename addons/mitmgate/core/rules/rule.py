"""A pattern rule, as commands.yaml and approval.yaml write it."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from mitmgate.core.principal import Who
from mitmgate.core.rules.model import Id, Listed, Model

Action = Literal["log", "hold", "deny"]
Severity = Literal["info", "low", "medium", "high", "critical"]
Status = Literal["experimental", "stable", "deprecated"]
Where = Literal["prompt", "system", "tools", "tool_calls", "tool_results", "answer", "path"]

REQUEST_TEXT: frozenset[Where] = frozenset(
    ["prompt", "system", "tools", "tool_calls", "tool_results", "path"]
)


def _parts(value: object) -> object:
    if value == []:
        raise ValueError("names no part; leave it out for all request text")
    return frozenset(value) if isinstance(value, list) else value


class Tests(Model):
    """Samples that a rule must find and samples that it must leave alone; both are compulsory."""

    match: Annotated[Listed[str], pydantic.Field(min_length=1)]
    not_match: Annotated[Listed[str], pydantic.Field(alias="pass", min_length=1)]


class Rule(Model):
    """One pattern, what to do about a hit, and its own tests.

    `match` is in the syntax of the `regex` module and is searched, never anchored; it sees
    normalised text too (`core.matching`). `keywords`, when given, are alternatives one of which
    must stand in the text before `match` is tried.
    """

    id: Id
    title: Annotated[str, pydantic.Field(min_length=1)]
    action: Action
    severity: Severity = "medium"
    status: Status = "stable"
    where: Annotated[frozenset[Where], pydantic.BeforeValidator(_parts)] = REQUEST_TEXT
    keywords: Listed[str] = ()
    match: Annotated[str, pydantic.Field(min_length=1, max_length=2000)]
    unless: Listed[Who] = ()
    message: Annotated[str, pydantic.Field(min_length=1)] = "Refused by policy."
    falsepositives: Listed[str] = ()
    references: Listed[str] = ()
    tests: Tests

    @property
    def enforced(self) -> bool:
        """False for a rule whose hits are only logged."""
        return self.status != "experimental" and self.action != "log"
