"""From a request to what the stand-in says: the answer, and the faults it was asked to show.

A prompt may hold directives, each at the start of a line:
`standin: KNOBS` sets knobs, `think: TEXT` adds reasoning, `call: NAME {JSON}` calls a tool, and
`say: TEXT` makes the answer exactly TEXT, up to the end of the prompt.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

DEFAULT_TEXT = (
    "You can reach Jane Doe at jane.doe@example.com or on +44 20 7946 0958. "
    "Her card is 4111 1111 1111 1111 and her account GB82 WEST 1234 5698 7654 32."
)
DEFAULT_ARGUMENTS = {"to": "jane.doe@example.com", "note": "card 4111 1111 1111 1111"}
CREATED = 1_700_000_000  # fixed, so that two answers to one request are the same bytes
MODELS = ("stand-in", "stand-in-large")


@dataclass(frozen=True, slots=True)
class Knobs:
    """How to answer, from the header `x-standin` or a `standin:` line: `chunk=1; gzip; cut=5`."""

    chunk: int = 0  # characters of text an event carries; 0 is a mix of 1 to 4
    bytes: int = 0  # cut the body into writes of so many bytes, whatever the events are
    delay: float = -1.0  # seconds between writes; negative is what the server was started with
    slow: float = 0.0  # seconds before the answer begins
    gzip: bool = False  # compress, also when `identity` was asked for
    status: int = 0  # answer with this error status
    body: str = ""  # html, plain, broken (JSON cut in half): not what the endpoint promises
    error: int = 0  # after so many frames an error frame, then an orderly end
    cut: int = 0  # after so many frames drop the connection
    hang: int = 0  # after so many frames send nothing more until the caller leaves
    nodone: bool = False  # leave out the last frame, end the body properly
    mix: bool = False  # OpenAI's chat streams the pieces of several tool calls in turns

    @classmethod
    def parse(cls, *texts: str) -> Self:
        """Later texts win. Raises `ValueError` on an unknown knob or a value of the wrong kind."""
        unset = cls()
        kinds: dict[str, type] = {
            field.name: type(getattr(unset, field.name)) for field in fields(cls)
        }
        values: dict[str, Any] = {}
        for item in re.split(r"[;,]", ";".join(texts)):
            name, given, value = (part.strip() for part in item.partition("="))
            if not name:
                continue
            if name not in kinds:
                raise ValueError(f"no such knob: {name}")
            kind = kinds[name]
            values[name] = not given or value == "true" if kind is bool else kind(value)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says. `chunk` and `mix` as in `Knobs`."""

    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    chunk: int = 0
    mix: bool = False

    def pieces(self, text: str) -> Iterator[str]:
        """`text` as a model would stream it, a few characters at a time."""
        sizes = itertools.repeat(self.chunk) if self.chunk else itertools.cycle((1, 3, 2, 4))
        start = 0
        while start < len(text):
            size = next(sizes)
            yield text[start : start + size]
            start += size


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes on the wire: `whole` as one JSON body, or the `frames` of a stream.

    `tail` is the last frame, the one that says that the stream is complete.
    """

    whole: dict[str, Any] | None = None
    frames: tuple[bytes, ...] = ()
    tail: bytes = b""
    content_type: str = "application/json"


def script(body: dict[str, Any], header: str = "") -> tuple[Answer, Knobs]:
    """The answer to a request body in any dialect. Raises `ValueError` on a wrong directive."""
    prompt, tool_answered = _prompt(body)
    head, said, text = _split_say(prompt)
    knobs = Knobs.parse(*re.findall(r"^standin:(.*)$", head, re.M), header)
    reasoning = "\n".join(re.findall(r"^think: ?(.*)$", head, re.M))
    calls = tuple(
        ToolCall(name, arguments)
        for name, arguments in re.findall(r"^call: *([\w.-]+) *(.*)$", head, re.M)
    )
    if not calls and not said and not tool_answered and (offered := _tool_names(body)):
        calls = (ToolCall(offered[0], json.dumps(DEFAULT_ARGUMENTS)),)
    if not said:
        text = "" if calls else DEFAULT_TEXT
    return Answer(text, reasoning, calls, knobs.chunk, knobs.mix), knobs


def words(text: object) -> int:
    """A stand-in's count of tokens."""
    return len(str(text).split())


def _split_say(prompt: str) -> tuple[str, bool, str]:
    found = re.search(r"^say: ?", prompt, re.M)
    if found is None:
        return prompt, False, ""
    return prompt[: found.start()], True, prompt[found.end() :]


def _prompt(body: dict[str, Any]) -> tuple[str, bool]:
    """The user's last words, and whether a tool's result came after them."""
    turns = body.get("messages", body.get("input", body.get("prompt", "")))
    if not isinstance(turns, list):
        return str(turns), False
    tool_answered = False
    for turn in reversed(turns):
        if isinstance(turn, str):
            return turn, tool_answered
        if not isinstance(turn, dict):
            continue
        if turn.get("role") == "tool" or turn.get("type") == "function_call_output":
            tool_answered = True
        elif turn.get("role") == "user":
            content = turn.get("content", "")
            parts = content if isinstance(content, list) else [{"text": content}]
            if any(part.get("type") == "tool_result" for part in parts):
                tool_answered = True
                continue
            return "".join(str(part.get("text", "")) for part in parts), tool_answered
    return "", tool_answered


def _tool_names(body: dict[str, Any]) -> list[str]:
    if body.get("tool_choice") == "none":
        return []
    tools = body.get("tools") or []
    return [str(tool.get("function", tool).get("name", "tool")) for tool in tools]
