"""What a dialect says about itself, as data.

A dialect is a server family's wire format. It lists its endpoints, where text lives in their
requests, answers and stream events, and how it words an error. Everything else is done once, for
all of them, by `prompt`, `answer` and `stream`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mitmgate.core.wire.schema import Kind, Path, Schema

type Key = Path  # names a channel within its stream
type ErrorBody = Callable[[int, str, str], dict[str, Any]]  # status, code, message


@dataclass(frozen=True, slots=True)
class Stream:
    """How one operation streams.

    `schema` may depend on the event (a function of its data). `key` names the channel of a leaf.
    `ends` gives the keys, or prefixes of keys, of the channels that an event ends; `()` is all.
    `event` makes an event that carries `text` on a channel, with `like` to take ids from.
    `default` is whether the server streams when the request does not say.
    """

    framing: Literal["sse", "ndjson"]
    schema: Schema
    key: Callable[[dict[str, Any], Path], Key]
    ends: Callable[[dict[str, Any]], Sequence[Key]]
    event: Callable[[Key, str, dict[str, Any]], dict[str, Any]]
    default: bool = False
    error: ErrorBody | None = None  # where it differs from the dialect's


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: what it does and where its text lives.

    `path` may hold `{name}` for one step.
    """

    dialect: Dialect
    operation: str
    method: str
    path: str
    request: Schema | None = None  # None: takes no body
    answer: Schema = Kind.TEXT
    stream: Stream | None = None
    generates: bool = False  # runs the model

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and bool(_pattern(self.path).fullmatch(path))


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """A server family. `error_event` is the name of the SSE event that carries an error."""

    name: str
    error: ErrorBody
    error_event: str = ""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", r"[\\w.:@-]+", re.escape(path)))
