"""A message as people read it: its texts in order, each with who says it and what it is.

The pieces of a stream are joined; arguments and tools are whole JSON. Keys of the protocol, copies
of texts and numbers nobody reads are left out: what is judged is `readings`, and none of this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire import speaker
from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.body import JsonBody, part_of
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.media import form
from mitmgate.core.wire.prompt import read_prompt
from mitmgate.core.wire.schema import Kind, Leaf, Path
from mitmgate.core.wire.speaker import Objects
from mitmgate.core.wire.streamed import joined
from mitmgate.core.wire.turn import Turn, fields, figures, is_type, turn_of

__all__ = ["Turn", "answer_turns", "prompt_turns"]

# Fields of a request that are said, whatever is in them; all others set something.
_SAID = frozenset(
    "messages input inputs prompt suffix system instructions query queries documents texts "
    "text_1 text_2 content text_input input_prefix input_suffix input_extra params result".split()
)
_TOOLS = ("tools", "functions")
_ARGUMENTS = ("arguments", "input", "action", "operation")
_SPOKEN = ("chat", "completions", "responses", "messages")
_UNTOLD = ("index", "embedding", "embeddings")  # told by the address, or by their number
_UNREAD = ("signature", "encrypted_content")  # in base64, and of use to the server alone


def prompt_turns(endpoint: Endpoint, target: str, content_type: str, raw: bytes) -> Sequence[Turn]:
    """A request: what is said, the tools that are offered, and the settings.

    Raises `PromptError` for one that cannot be read.
    """
    body = read_prompt(endpoint, target, content_type, raw).body
    if body is None:
        return ()
    data = body.document.data
    said = list(_turns(body, [leaf for leaf in body.leaves if leaf.path[0] in _SAID], "prompt"))
    # What stands above all messages is told before them, wherever in the JSON it is.
    said.sort(key=lambda turn: turn.role != "system" or turn.message != "")
    tools = [
        Turn("tools", f"{name}[{at}]", _json(tool), role="tools", part="tool")
        for name in _TOOLS
        for at, tool in enumerate(data[name] if isinstance(data.get(name), list) else ())
    ]
    listed = [name for name in _TOOLS if isinstance(data.get(name), list)]
    settings = [
        Turn("prompt", name, _json(value), part="field")
        for name, value in data.items()
        if name not in _SAID and name not in listed
    ]
    return [*said, *tools, *settings]


def answer_turns(endpoint: Endpoint, status: int, content_type: str, raw: bytes) -> Sequence[Turn]:
    """An answer, streamed or not: what was said, and how it ended.

    Raises `AnswerError`, `FramingError` or `DocumentError` for one that cannot be read.
    """
    if endpoint.stream and form(content_type) == endpoint.stream.framing:
        return joined(endpoint.stream, raw)
    body = read_answer(endpoint, status, content_type, raw)
    failed = "error" if status >= 400 else ""
    if not isinstance(body, JsonBody):
        return [Turn(s.where, s.address, s.text, role=failed) for s in body.segments("answer")]
    said = [
        replace(turn, role=failed or _speaker(endpoint, turn))
        for turn in _turns(body, body.leaves, "answer")
    ]
    ends = [replace(turn, role="") for turn in said if turn.part == "field" and turn.is_top]
    said = [turn for turn in said if turn.part != "field" or not turn.is_top]
    return [*said, *ends, *fields(dict(figures(speaker.objects(body.document.data))))]


def _speaker(endpoint: Endpoint, turn: Turn) -> str:
    """A server that gives vectors, ranks or tokens says nothing as an assistant."""
    spoken = endpoint.operation in _SPOKEN or turn.role != "assistant"
    return turn.role if spoken else "server"


def _turns(body: JsonBody, leaves: Sequence[Leaf], side: Where) -> Iterator[Turn]:
    """The texts of a document: a value that is read as one, or that is unknown, as JSON."""
    known = speaker.objects(body.document.data)
    whole: set[Path] = set()  # values that have been told with all that is in them
    for leaf in leaves:
        if any(leaf.path[:length] in whole for length in range(1, len(leaf.path) + 1)):
            continue
        where = part_of(leaf.kind, side)
        path, text, part = leaf.path, leaf.text, speaker.part(leaf.path, known, where)
        if leaf.kind is Kind.COPY or path[-1:] in [(name,) for name in _UNREAD]:
            continue
        if leaf.kind is Kind.BLOB:
            part, text = "media", _media(known.get(path[:-1], {}), text)
        elif part == "arguments":
            path = _arguments(path)
            whole.add(path)
            text = text if leaf.part == "value" else _json(_at(known, path))
        elif leaf.part == "key":
            value = _at(known, path)
            if value in (None, [], {}) or _has_text(value) or path[-1] in _UNTOLD:
                continue
            whole.add(path)
            text, part = _json(value), "field"
        elif is_type(leaf):
            continue
        if text:
            yield turn_of(where, path, text, part, speaker.role(path, known, where))


def _arguments(path: Path) -> Path:
    """Up to the field that holds the arguments of a call."""
    for at, each in enumerate(path):
        if at and each in _ARGUMENTS:
            return path[: at + 1]
    return path


def _at(known: Objects, path: Path) -> Any:
    return known.get(path[:-1], {}).get(str(path[-1]))


def _has_text(value: Any) -> bool:
    """Whether there are strings in it, which are told one by one."""
    if isinstance(value, dict | list):
        return any(map(_has_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _media(around: dict[str, Any], text: str) -> str:
    kind = around.get("media_type") or around.get("mimeType") or around.get("format")
    if text.startswith("data:"):
        kind = text[5:].partition(";")[0]
    return f"[{kind or 'data'}, {len(text) * 3 // 4} bytes]"
