"""A rule about what is asked and answered, as commands.yaml and approval.yaml write it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

import pydantic

from mitmgate.core.principal import Who
from mitmgate.core.rules.model import Id, Listed, Model

Action = Literal["log", "hold", "deny"]
Severity = Literal["info", "low", "medium", "high", "critical"]
Status = Literal["experimental", "stable", "deprecated"]
Mode = Literal["enforce", "audit"]
Where = Literal[
    "prompt",
    "system",
    "tools",
    "tool_calls",
    "tool_results",
    "files",
    "fetches",
    "path",
    "query",
    "headers",
    "answer",
    "answer.tool_calls",
]
View = Literal["decoded", "punctuation", "spaced", "leet", "rot13", "reversed"]
Network = Literal[
    "loopback",
    "link-local",
    "private",
    "metadata",
    "reserved",
    "local-name",
    "scheme",
    "unreadable",
]

REQUEST_TEXT: frozenset[Where] = frozenset(
    ["prompt", "system", "tools", "tool_calls", "tool_results", "path", "query"]
)
CALLS: frozenset[Where] = frozenset(["tool_calls", "answer.tool_calls"])
ANSWERS: frozenset[Where] = frozenset(["answer", "answer.tool_calls"])
ANY = "*"  # the name of a segment that may hold anything: rules on single names look at it, too

_LIMITS = ("max", "min", "max_entries", "present")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110, in lower case
_METHOD = re.compile(r"[A-Z]{1,20}")


def _parts(value: object) -> object:
    if value == []:
        raise ValueError("names no part; leave it out for all request text")
    if isinstance(value, list) and "answer" in value:
        value = [*value, "answer.tool_calls"]  # the calls of an answer are in it
    return frozenset(value) if isinstance(value, list) else value


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _pointer(name: str) -> str:
    if not name or name == "/" or re.search(r"~(?![01])", name):
        raise ValueError("should be a key, or a path of keys (RFC 6901) such as /options/path")
    return name


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("a header's name is written in lower case, such as user-agent")
    return name


def _method(name: str) -> str:
    if not _METHOD.fullmatch(name):
        raise ValueError("a method is written in capitals, such as POST")
    return name


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("should be a number, without quotes")
    return value


Pointer = Annotated[str, pydantic.AfterValidator(_pointer)]
Header = Annotated[str, pydantic.AfterValidator(_header)]
Method = Annotated[str, pydantic.AfterValidator(_method)]
Number = Annotated[int | float, pydantic.BeforeValidator(_number)]


class Tests(Model):
    """Samples that a rule must find and samples that it must leave alone; both are compulsory."""

    match: Annotated[Listed[str], pydantic.Field(min_length=1)]
    not_match: Annotated[Listed[str], pydantic.Field(alias="pass", min_length=1)]


class Rule(Model):
    """One thing to look for, what to do about a hit, and the rule's own tests.

    It looks for a pattern (`match`), for a parameter out of bounds (`parameter`) or for an address
    that the model server would fetch from (`network`): exactly one of the three.

    `match` is in the syntax of the `regex` module and is searched, never anchored; it sees
    normalised text too (`core.matching`). `keywords`, when given, are alternatives one of which
    must stand in the text before `match` is tried. The raw and the normalised text are always
    searched, other `views` of it as named.

    `also_found_by` names rules that find samples of this one and are meant to: it changes nothing
    about any request.
    """

    id: Id
    title: Annotated[str, pydantic.Field(min_length=1)]
    action: Action
    severity: Severity = "medium"
    status: Status = "stable"
    mode: Mode | None = None
    operations: Listed[str] = ()
    methods: Listed[Method] = ()
    where: Annotated[frozenset[Where], pydantic.BeforeValidator(_parts)] = REQUEST_TEXT
    headers: Listed[Header] = ()
    arguments: Listed[Pointer] = ()
    keywords: Listed[str] = ()
    match: Annotated[str, pydantic.Field(min_length=1, max_length=2000)] | None = None
    views: Listed[View] = get_args(View)
    parameter: Annotated[Listed[Pointer], pydantic.BeforeValidator(_names)] = ()
    max: Number | None = None
    min: Number | None = None
    max_entries: Annotated[int, pydantic.Field(ge=0)] | None = None
    present: bool | None = None
    network: Listed[Network] = ()
    unless: Listed[Who] = ()
    message: Annotated[str, pydantic.Field(min_length=1)] = "Refused by policy."
    also_found_by: Listed[Id] = ()
    falsepositives: Listed[str] = ()
    references: Listed[str] = ()
    tests: Tests

    @pydantic.model_validator(mode="after")
    def _looks_for_one_thing(self) -> Self:
        kinds = [name for name in ("match", "parameter", "network") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError("should have exactly one of match, parameter and network")
        limits = [name for name in _LIMITS if getattr(self, name) is not None]
        if self.parameter and not limits:
            raise ValueError(f"a parameter needs one of {', '.join(_LIMITS)}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max, so that every value would be out of bounds")
        if limits and not self.parameter:
            raise ValueError(f"{limits[0]} belongs to parameter, which is missing")
        if self.match is None and {"where", "keywords"} & self.model_fields_set:
            raise ValueError(f"where and keywords belong to match, not to {kinds[0]}")
        if bool(self.headers) != ("headers" in self.where):
            raise ValueError("headers are named in `headers`, and `where` has the word headers")
        if self.arguments and not CALLS & self.where:
            raise ValueError("arguments are those of tool_calls or answer.tool_calls in `where`")
        if self.id in self.also_found_by:
            raise ValueError("also_found_by names other rules, and this is the rule itself")
        return self

    @property
    def enforced(self) -> bool:
        """False for a rule whose hits change nothing: they are kept, counted and logged."""
        return self.status != "experimental" and self.action != "log" and self.mode != "audit"

    @property
    def only_in_audit(self) -> bool:
        """True for a rule that would be enforced if its mode were another."""
        return self.mode == "audit" and self.status != "experimental" and self.action != "log"

    @property
    def reads_answers(self) -> bool:
        return self.match is not None and bool(ANSWERS & self.where)

    def applies(self, method: str, operation: str) -> bool:
        """Whether it is about such requests at all; `operation` is "" for an unknown endpoint."""
        return (not self.operations or operation in self.operations) and (
            not self.methods or method in self.methods
        )

    def covers(self, where: Where, name: str) -> bool:
        """Whether it looks at a text of its `where` that is called `name`."""
        if where == "headers":
            return name in self.headers
        if where in CALLS and self.arguments and name != ANY:
            # Tools written in Go read a key in any case.
            at = f"{name}/".casefold()
            return any(at.startswith(f"{path(each)}/".casefold()) for each in self.arguments)
        return True


def path(name: str) -> str:
    """A key as the path (RFC 6901) that it is short for; a path as it is."""
    if name.startswith("/"):
        return name
    return "/" + name.replace("~", "~0").replace("/", "~1")


def in_mode[R: Rule](rules: Iterable[R], mode: Mode) -> tuple[R, ...]:
    """`rules` of a file that has `mode`: it holds for those that say nothing themselves."""
    return tuple(rule if rule.mode else rule.model_copy(update={"mode": mode}) for rule in rules)
