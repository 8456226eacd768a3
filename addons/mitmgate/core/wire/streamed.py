"""A streamed answer as people read it: the pieces of each channel joined to one text."""

from __future__ import annotations

from typing import Any

from mitmgate.core.wire import speaker
from mitmgate.core.wire.dialect import Key, Stream
from mitmgate.core.wire.document import Document
from mitmgate.core.wire.framing import reader
from mitmgate.core.wire.schema import Kind, Leaf, Path
from mitmgate.core.wire.turn import Turn, fields, figures, is_type, turn_of

_PIECES = (Kind.CHANNEL, Kind.FRAGMENT)
_CALLING = (Kind.CALLED, Kind.ARGUMENTS, Kind.FRAGMENT)


def joined(stream: Stream, raw: bytes) -> list[Turn]:
    """All texts of a stream, each with its pieces joined; those of one choice stand together.

    Raises `FramingError` or `DocumentError`.
    """
    texts: dict[Key, list[str]] = {}
    kinds: dict[Key, Kind] = {}
    late: dict[Key, Leaf] = {}  # what a whole item says, if no piece of it has come
    ends: dict[str, str] = {}
    frames = reader(stream.framing)
    for frame in [*frames.feed(raw), *frames.finish()]:
        data = frame.data.strip()
        if data[:1] != b"{":
            if data not in (b"", b"[DONE]"):
                texts.setdefault(("data",), []).append(frame.data.decode("utf-8", "replace"))
            continue
        document = Document(frame.data)
        event: dict[str, Any] = document.data
        ends |= figures(speaker.objects(event))
        whole = stream.whole(event) and "error" not in (event.get("type"), *event)
        for leaf in stream.leaves(document):
            if leaf.kind in (Kind.BLOB, Kind.COPY) or leaf.part == "key" or not leaf.text:
                continue
            key = stream.key(event, leaf.path)
            if not whole:
                texts.setdefault(key, []).append(leaf.text)
                kinds.setdefault(key, leaf.kind)
            elif leaf.kind is Kind.CALLED and leaf.path[0] == "item":
                # Here the call gets its name, and nowhere else.
                key = (*key[:1], *leaf.path)
                texts[key] = [leaf.text]
                kinds[key] = leaf.kind
            elif leaf.path[0] == "item" and not is_type(leaf):
                late[(*key[:1], *leaf.path)] = leaf
    said = {"".join(texts[key]) for key, kind in kinds.items() if kind in _PIECES}
    for key, leaf in late.items():
        if leaf.text not in said:
            texts[key], kinds[key] = [leaf.text], leaf.kind
    told = [
        _told(key, text, kinds.get(key, Kind.CHANNEL))
        for key, text in ((key, "".join(pieces)) for key, pieces in texts.items())
        if kinds.get(key) in _PIECES or text not in said  # a last event that says all again
    ]
    order = list(dict.fromkeys(turn.message for turn in told))  # choices come in turns
    return [*sorted(told, key=lambda turn: order.index(turn.message)), *fields(ends)]


def _told(key: Key, text: str, kind: Kind) -> Turn:
    """One text of a stream."""
    path: Path = tuple(step for step in key if step != "")
    part = speaker.part(path, {}, "answer.tool_calls" if kind in _CALLING else "answer")
    if kind is Kind.CALLED:
        part = "call"
    return turn_of("answer", path, text, part, "error" if "error" in path else "assistant")
