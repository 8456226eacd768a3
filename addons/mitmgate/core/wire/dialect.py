"""What a dialect says about itself, as data.

A dialect is a server family's wire format. It lists its endpoints, where text lives in their
requests, answers and stream events, and how it words an error. Everything else is done once, for
all of them, by `prompt`, `answer` and `stream`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.schema import Kind, Leaf, Path, Schema, leaves

type Key = Path  # names a channel within its stream
type ErrorBody = Callable[[int, str, str], dict[str, Any]]  # status, code, message


@dataclass(frozen=True, slots=True)
class Stream:
    """How one operation streams.

    `schema` may depend on the event (a function of its data). `key` names the channel of a leaf.
    `ends` gives the keys, or prefixes of keys, of the channels that an event ends; `()` is all.
    `event` makes an event that carries `text` on a channel, with `like` to take ids from.
    `calls` names the tool calls that an event belongs to, by prefixes of their channels' keys.
    `whole` says of an event that no text in it is a piece, not even in a field unknown here.
    `messages` says that no event at all holds pieces: each is a message of its own.
    `default` is whether the server streams when the request does not say; None: it always does.
    """

    framing: Literal["sse", "ndjson"]
    schema: Schema
    key: Callable[[dict[str, Any], Path], Key]
    ends: Callable[[dict[str, Any]], Sequence[Key]]
    event: Callable[[Key, str, dict[str, Any]], dict[str, Any]]
    calls: Callable[[dict[str, Any]], Sequence[Key]] = lambda event: ()
    whole: Callable[[dict[str, Any]], bool] = lambda event: False
    messages: bool = False
    default: bool | None = False
    error: ErrorBody | None = None  # where it differs from the dialect's

    def leaves(self, document: Document) -> list[Leaf]:
        """The strings of an event. Raises `DocumentError`."""
        whole = self.messages or self.whole(document.data)
        unknown = Kind.TEXT if whole else Kind.CHANNEL
        return leaves(document, self.schema, unknown)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: what it does and where its text lives.

    `path` may hold `{name}` for one step; that of `{model}` is the model. `opaque` says why a
    request's body cannot be judged, and nothing when it can.
    """

    dialect: Dialect
    operation: str
    method: str
    path: str
    request: Schema | None = None  # None: takes no body
    answer: Schema = Kind.TEXT
    stream: Stream | None = None
    generates: bool = False  # runs the model
    lists: bool = False  # its answer lists models
    opaque: Callable[[dict[str, Any]], str] = lambda data: ""

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and bool(_pattern(self.path).fullmatch(path))

    def model(self, path: str) -> str | None:
        """The model that a path, without its query, names; None where a path names none."""
        found = _pattern(self.path).fullmatch(path)
        return found.groupdict().get("model") if found else None


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """A server family. `error_event` is the name of the SSE event that carries an error."""

    name: str
    error: ErrorBody
    error_event: str = ""


def position(value: dict[str, Any], default: int = 0) -> int:
    """The `index` of a choice or an event. Raises `DocumentError` for one that is no integer: the
    caller may take it for another channel than it is taken for here."""
    index = value.get("index")
    if index is None:
        return default
    if type(index) is not int:
        raise DocumentError("an `index` is not an integer")
    return index


def step(value: Any, at: int) -> int:
    """What `leaves` takes for the place of an object in a list: its `index`, if it has one."""
    index = value.get("index", at) if isinstance(value, dict) else at
    return index if type(index) is int else at


def nested(path: Path, text: str) -> Any:
    """`text` at `path`: objects, and arrays of one object that carries its `index`."""
    value: Any = text
    for step in reversed(path):
        if isinstance(step, str):
            value = {step: value}
        else:
            value = [{"index": step, **value} if isinstance(value, dict) else value]
    return value


def taken(like: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those fields of an event that an event made like it repeats; objects are no such fields."""
    return {name: like[name] for name in names if isinstance(like.get(name), str | int | float)}


@cache
def _pattern(path: str) -> re.Pattern[str]:
    step = r"(?P<\1>(?!\\.{1,2}(?:/|\\Z))[\\w.:@-]+)"  # one step, never a dot segment
    return re.compile(re.sub(r"\\\{(\w+)\\\}", step, re.escape(path)), re.ASCII)
