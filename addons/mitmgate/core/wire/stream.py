"""An answer that streams: bytes in, judged and masked bytes out.

Every event is parsed once. Its pieces of text run through the filters of their channel, each
filter with its own state per channel, and the event is encoded once, untouched events as the very
bytes that came. What filters hold back is released before the event that ends its channel, or at
the end of the stream. Tool-call arguments are held until the call is complete and filtered as the
JSON they are; a filter that judges calls may have every event of a call held with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set
from dataclasses import replace
from functools import reduce
from typing import Any

from mitmgate.core.wire import framing
from mitmgate.core.wire.arguments import edit_arguments
from mitmgate.core.wire.body import edit_leaf
from mitmgate.core.wire.dialect import Key, Stream
from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.filter import CallFilter, Channel, Filter, finish_all
from mitmgate.core.wire.framing import Frame, FramingError
from mitmgate.core.wire.holdback import HeldTooMuch, Holdback
from mitmgate.core.wire.plain import StreamError, TextStream
from mitmgate.core.wire.schema import Kind

MAX_ARGUMENTS = 4 << 20
_PIECES = (Kind.CHANNEL, Kind.FRAGMENT)
_PLAIN: Key = (-1, "plain")  # no path in an object begins with a number
# An event's name, where it is nothing but one.
_QUIET = re.compile(rb"event: ?[a-z_.]{1,64}[\r\n]*")
_WORD = re.compile(r"[\w.-]{1,64}", re.ASCII)
_BREAK = re.compile(rb"[\r\n]+")
_BLANK = b" \t\r\n\f\v\0\xef\xbb\xbf"  # and a byte order mark, which some readers pass over


__all__ = ["Channel", "EventStream", "Filter", "StreamError", "TextStream"]


class EventStream:
    """The way of one SSE or NDJSON answer. `feed` and `finish` return pieces ready to send.

    Raises `StreamError`, and whatever a filter raises; afterwards the object must not be used.
    """

    def __init__(self, stream: Stream, filters: Sequence[Filter]) -> None:
        self._stream = stream
        self._filters = filters
        self._masks = any(each.masks for each in filters)
        self._holds_calls = any(
            isinstance(each, CallFilter) and each.holds_calls for each in filters
        )
        self._holdback = Holdback()
        self._reader = framing.reader(stream.framing)
        self._channels: dict[Key, list[Channel]] = {}
        self._fragments: dict[Key, list[str]] = {}
        self._like: dict[Key, dict[str, Any]] = {}  # of every open channel, its last event
        self._ended: set[Key] = set()
        self._held = 0  # characters in self._fragments
        self.coverage: dict[str, int] = {}

    def feed(self, data: bytes) -> list[bytes]:
        try:
            return [piece for frame in self._reader.feed(data) for piece in self._event(frame)]
        except (FramingError, DocumentError, HeldTooMuch) as e:
            raise StreamError(str(e)) from None

    def finish(self) -> list[bytes]:
        """The upstream is done: the last event, and what is still held."""
        try:
            frames = list(self._reader.finish())
            last = [piece for frame in frames for piece in self._event(frame)]
            if self._holdback.open:
                raise StreamError("the stream ended within a tool call")
            held = self._ended_now([()])
        except (FramingError, DocumentError, HeldTooMuch) as e:
            raise StreamError(str(e)) from None
        if held and last:
            last[-1] = self._reader.close(last[-1])
        return last + held

    def _event(self, frame: Frame) -> list[bytes]:
        if not self._filters:
            return [frame.raw]
        frame, edited = self._others(frame)
        if not frame.data.strip():
            return [b"".join(frame.other) + b"\n" if edited else frame.raw]
        if frame.data == b"null":  # what llama.cpp begins with when there are two prompts
            return [self._encode(frame, frame.data if edited else None)]
        if frame.data.strip() == b"[DONE]":
            return [*self._ended_now([()]), self._encode(frame, frame.data if edited else None)]
        document = self._read(frame.data)
        if document is None:
            return [self._encode(frame, self._plain(frame.data, edited=edited))]
        if not isinstance(document.data, dict):
            raise StreamError("an event of the stream is not a JSON object")
        event = document.data
        calls = frozenset(self._stream.calls(event)) if self._holds_calls else frozenset()
        self._holdback.open |= calls
        before = self._json(document, event, calls)
        edited = edited or document.edited
        data = self._encode(frame, document.encode() if edited else None)
        return [*before, *self._holdback.hold(calls, data)]

    def _encode(self, frame: Frame, data: bytes | None) -> bytes:
        return frame.raw if data is None else self._reader.encode(data, like=frame)

    def _others(self, frame: Frame) -> tuple[Frame, bool]:
        """Comments, ids and lines that nobody reads are texts, line by line; were they edited?"""
        other = [line if _QUIET.fullmatch(line) else self._line(line) for line in frame.other]
        return replace(frame, other=other), other != frame.other

    def _line(self, line: bytes) -> bytes:
        text = line.rstrip(b"\r\n")
        try:
            whole = self._whole(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise StreamError("a line of the stream is not UTF-8") from None
        return _BREAK.sub(b" ", whole.encode("utf-8")) + line[len(text) :]

    def _read(self, data: bytes) -> Document | None:
        """The event's JSON, or None for plain text, which only SSE carries."""
        if self._stream.framing == "ndjson" or data.lstrip(_BLANK)[:1] == b"{":
            return Document(data)
        try:
            return Document(data) if data.lstrip(_BLANK)[:1] in (b"[", b'"') else None
        except DocumentError:
            return None

    def _json(
        self, document: Document, event: dict[str, Any], calls: frozenset[Key]
    ) -> list[bytes]:
        """Filter an event of `calls` in place. Returns what is released before it."""
        found = self._stream.leaves(document)
        keys = {
            leaf.index: self._stream.key(event, leaf.path) for leaf in found if leaf.kind in _PIECES
        }
        final = {key: index for index, key in keys.items()}  # a channel may stand here twice
        ends = list(self._stream.ends(event))
        if self._holdback.open and _fails(event):
            self._drop_calls()
        before = self._ended_now(ends, keep=final.keys())
        held = calls & self._holdback.open
        for leaf in found:
            self.coverage[leaf.kind.value] = self.coverage.get(leaf.kind.value, 0) + 1
            key = keys.get(leaf.index)
            if key is None:
                edit = self._called if leaf.kind is Kind.CALLED else self._whole
                edit_leaf(document, leaf, edit, self._arguments, drop=self._masks)
                continue
            last = final[key] == leaf.index and any(key[: len(end)] == end for end in ends)
            piece = self._fragment if leaf.kind is Kind.FRAGMENT else self._piece
            text = piece(key, leaf.text, event, last=last)
            if held and text and leaf.kind is Kind.CHANNEL and not self._holdback.of(key):
                before.append(self._made(key, text, event))  # it does not wait for the call
                text = ""
            if text != leaf.text:
                document.replace(leaf.index, text)
        return before

    def _piece(self, key: Key, text: str, event: dict[str, Any], *, last: bool) -> str:
        if self._is_over(key, text):
            return text
        channels = self._channels.get(key)
        if channels is None:
            channels = self._channels[key] = [each.channel() for each in self._filters]
        self._like[key] = event
        text = reduce(lambda carried, channel: channel.feed(carried), channels, text)
        return text + self._close(key) if last else text

    def _fragment(self, key: Key, text: str, event: dict[str, Any], *, last: bool) -> str:
        if self._is_over(key, text):
            return text
        held = self._fragments.setdefault(key, [])
        self._like[key] = event
        held.append(text)
        self._held += len(text)
        if self._held > MAX_ARGUMENTS:
            raise StreamError(f"tool calls of more than {MAX_ARGUMENTS >> 20} MB at once")
        return self._close(key) if last else ""

    def _is_over(self, key: Key, text: str) -> bool:
        """Whether the channel has ended. What was held is decided then, so no text may follow."""
        if key in self._ended and text:
            raise StreamError("a text of the stream goes on after its end")
        return key in self._ended

    def _close(self, key: Key) -> str:
        """End a channel. Returns what it held."""
        del self._like[key]
        self._ended.add(key)
        fragments = self._fragments.pop(key, None)
        if fragments is None:
            return finish_all(self._channels.pop(key))
        text = "".join(fragments)
        self._held -= len(text)
        return self._arguments(text)

    def _arguments(self, text: str) -> str:
        """A whole tool call: judged as it is written, masked as the JSON that it is."""
        for each in self._filters:
            text = edit_arguments(text, each.whole) if each.masks else _heard(each, text)
        return text

    def _called(self, text: str) -> str:
        for each in self._filters:
            text = each.whole(text) if each.masks else _heard(each, text)
        return text

    def _whole(self, text: str) -> str:
        return reduce(lambda carried, each: each.whole(carried), self._filters, text)

    def _ended_now(self, ends: Sequence[Key], keep: Set[Key] = frozenset()) -> list[bytes]:
        """End channels and the calls they belong to. Returns what may go on now."""
        out = []
        for key, event in self._end(ends, keep):
            out += self._holdback.hold(self._holdback.of(key), event)
        self._holdback.end(ends)
        return [*out, *self._holdback.release()]

    def _drop_calls(self) -> None:
        """The model failed within calls: they will not be complete, and nobody is to see them."""
        for call in self._holdback.drop():
            for key in [k for k in self._like if k[: len(call)] == call]:
                del self._like[key]
                self._held -= sum(map(len, self._fragments.pop(key, [])))
                self._channels.pop(key, None)
                self._ended.add(key)

    def _end(self, ends: Sequence[Key], keep: Set[Key] = frozenset()) -> list[tuple[Key, bytes]]:
        """End channels: what they hold, as events. Those in `keep` end with the event at hand."""
        out = []
        for end in ends:
            for key in [k for k in self._like if k[: len(end)] == end and k not in keep]:
                like = self._like[key]
                if text := self._close(key):
                    out.append((key, self._made(key, text, like)))
        return out

    def _made(self, key: Key, text: str, like: dict[str, Any]) -> bytes:
        if key == _PLAIN:
            return self._reader.encode(text.encode("utf-8"))
        event = self._stream.event(key, text, like)
        name = str(event.get("type", ""))
        if name and not _WORD.fullmatch(name):
            raise StreamError("the name of an event is not one word")
        data = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        return self._reader.encode(data, name=name)

    def _plain(self, data: bytes, *, edited: bool) -> bytes | None:
        """An event whose data is not JSON: one channel of text. None when it stays as it is."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise StreamError("the text of an event is not UTF-8") from None
        masked = self._piece(_PLAIN, text, {}, last=False)
        return masked.encode("utf-8") if edited or masked != text else None


def _heard(each: Filter, text: str) -> str:
    return each.call(text) if isinstance(each, CallFilter) else each.whole(text)


def _fails(event: dict[str, Any]) -> bool:
    """Whether an event says that the model server has given up."""
    failed = event.get("type") in ("error", "response.failed")
    return failed or event.get("error") is not None
