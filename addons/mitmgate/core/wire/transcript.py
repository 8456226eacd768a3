"""A message as people read it: its texts in order, the pieces of a stream joined together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.dialect import Endpoint, Key, Stream
from mitmgate.core.wire.document import Document
from mitmgate.core.wire.framing import reader
from mitmgate.core.wire.media import form
from mitmgate.core.wire.prompt import read_prompt
from mitmgate.core.wire.schema import Kind, address
from mitmgate.core.wire.segment import Segment

type Turn = Segment


def prompt_turns(
    endpoint: Endpoint, target: str, content_type: str, raw: bytes
) -> Sequence[Segment]:
    """The texts of a request. Raises `PromptError`."""
    return read_prompt(endpoint, target, content_type, raw).segments()[1:]


def answer_turns(
    endpoint: Endpoint, status: int, content_type: str, raw: bytes
) -> Sequence[Segment]:
    """The texts of an answer, streamed or not.

    Raises `AnswerError`, `FramingError` or `DocumentError` for one that cannot be read.
    """
    if endpoint.stream and form(content_type) == endpoint.stream.framing:
        return _joined(endpoint.stream, raw)
    return read_answer(endpoint, status, content_type, raw).segments("answer")


def _joined(stream: Stream, raw: bytes) -> list[Segment]:
    texts: dict[Key, list[str]] = {}
    channels: set[Key] = set()
    frames = reader(stream.framing)
    for frame in [*frames.feed(raw), *frames.finish()]:
        if frame.data[:1] != b"{":
            continue
        document = Document(frame.data)
        event: dict[str, Any] = document.data
        if stream.whole(event) and "error" not in (event.get("type"), *event):
            continue  # it repeats what was said, or says nothing yet
        for leaf in stream.leaves(document):
            if leaf.kind not in (Kind.BLOB, Kind.COPY) and leaf.part != "key" and leaf.text:
                key = stream.key(event, leaf.path)
                texts.setdefault(key, []).append(leaf.text)
                if leaf.kind is Kind.CHANNEL:
                    channels.add(key)
    said = {"".join(texts[key]) for key in channels}
    return [
        Segment("answer", address(tuple(step for step in key if step != "")), text)
        for key, text in ((key, "".join(pieces)) for key, pieces in texts.items())
        if key in channels or text not in said  # a last event that says it all once more
    ]
