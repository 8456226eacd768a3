"""An answer that streams: bytes in, judged and masked bytes out.

Every event is parsed once. Its pieces of text run through the filters of their channel, each
filter with its own state per channel, and the event is encoded once, untouched events as the very
bytes that came. What filters hold back is released before the event that ends its channel, or at
the end of the stream. Tool-call arguments are held until the call is complete and filtered as the
JSON they are.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence, Set
from functools import reduce
from typing import Any, Protocol

from mitmgate.core.wire import framing
from mitmgate.core.wire.body import edit_arguments, edit_leaf
from mitmgate.core.wire.dialect import Key, Stream
from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.framing import Frame, FramingError
from mitmgate.core.wire.schema import Kind, Leaf, leaves

MAX_ARGUMENTS = 4 << 20
_PLAIN: Key = ("data",)


class StreamError(Exception):
    """A stream that cannot be read. What was not sent yet must not be."""


class Channel(Protocol):
    """One filter's state for one text that runs through a stream."""

    def feed(self, text: str) -> str:
        """The next piece; returns what may go on now."""

    def finish(self) -> str:
        """The text is complete; returns what was held back."""


class Filter(Protocol):
    """What an addon does to a stream: judge it (raise), mask it (return other text).

    `masks` says that the text may change, so that copies of it (logprobs) must not go on.
    """

    masks: bool

    def channel(self) -> Channel:
        """A fresh state for a channel that begins."""

    def whole(self, text: str) -> str:
        """A text that stands in one event as a whole."""


class EventStream:
    """The way of one SSE or NDJSON answer. `feed` and `finish` return pieces ready to send.

    Raises `StreamError`, and whatever a filter raises; afterwards the object must not be used.
    """

    def __init__(self, stream: Stream, filters: Sequence[Filter]) -> None:
        self._stream = stream
        self._filters = filters
        self._masks = any(each.masks for each in filters)
        self._reader = framing.reader(stream.framing)
        self._channels: dict[Key, list[Channel]] = {}
        self._fragments: dict[Key, list[str]] = {}
        self._like: dict[Key, dict[str, Any]] = {}
        self.coverage: dict[str, int] = {}

    def feed(self, data: bytes) -> list[bytes]:
        try:
            return [piece for frame in self._reader.feed(data) for piece in self._event(frame)]
        except (FramingError, DocumentError) as e:
            raise StreamError(str(e)) from None

    def finish(self) -> list[bytes]:
        """The upstream is done: the last event, and what is still held."""
        try:
            last = [piece for frame in self._reader.finish() for piece in self._event(frame)]
        except (FramingError, DocumentError) as e:
            raise StreamError(str(e)) from None
        return last + self._end([()])

    def _event(self, frame: Frame) -> list[bytes]:
        if not self._filters or not frame.data.strip():
            return [self._comment(frame)]
        if frame.data == b"[DONE]":
            return [*self._end([()]), frame.raw]
        if self._stream.framing == "sse" and frame.data.lstrip()[:1] != b"{":
            return [self._plain(frame)]
        document = Document(frame.data)
        if not isinstance(document.data, dict):
            raise StreamError("an event of the stream is not a JSON object")
        event: dict[str, Any] = document.data
        ends = list(self._stream.ends(event))
        found = leaves(document, self._stream.schema, unknown=Kind.CHANNEL)
        carried = {
            self._stream.key(event, leaf.path) for leaf in found if leaf.kind is Kind.CHANNEL
        }
        before = self._end(ends, keep=carried)
        for leaf in found:
            self.coverage[leaf.kind.value] = self.coverage.get(leaf.kind.value, 0) + 1
            self._leaf(document, leaf, event, ends, before)
        if not document.edited:
            return [*before, frame.raw]
        return [*before, self._reader.encode(document.encode(), like=frame)]

    def _leaf(
        self,
        document: Document,
        leaf: Leaf,
        event: dict[str, Any],
        ends: list[Key],
        before: list[bytes],
    ) -> None:
        if leaf.kind not in (Kind.CHANNEL, Kind.FRAGMENT):
            edit_leaf(document, leaf, self._whole, drop=self._masks)
            return
        key = self._stream.key(event, leaf.path)
        last = any(key[: len(end)] == end for end in ends)
        if leaf.kind is Kind.FRAGMENT:
            text = self._fragment(key, leaf.text, event, last)
        else:
            text = self._piece(key, leaf.text, event, last)
        if text != leaf.text:
            document.replace(leaf.index, text)

    def _piece(self, key: Key, text: str, event: dict[str, Any], last: bool) -> str:
        channels = self._channels.get(key)
        if channels is None:
            channels = self._channels[key] = [each.channel() for each in self._filters]
        text = reduce(lambda carried, channel: channel.feed(carried), channels, text)
        if last:
            self._like.pop(key, None)
            return text + _finish(self._channels.pop(key))
        self._like[key] = event
        return text

    def _fragment(self, key: Key, text: str, event: dict[str, Any], last: bool) -> str:
        held = self._fragments.setdefault(key, [])
        held.append(text)
        if sum(map(len, held)) > MAX_ARGUMENTS:
            raise StreamError(f"the arguments of a tool call exceed {MAX_ARGUMENTS >> 20} MB")
        if last:
            self._like.pop(key, None)
            return self._arguments(self._fragments.pop(key))
        self._like[key] = event
        return ""

    def _arguments(self, held: list[str]) -> str:
        return edit_arguments("".join(held), self._whole)

    def _whole(self, text: str) -> str:
        return reduce(lambda carried, each: each.whole(carried), self._filters, text)

    def _end(self, ends: Sequence[Key], keep: Set[Key] = frozenset()) -> list[bytes]:
        """End channels: what they hold, as events. Those in `keep` end with the event at hand."""
        out = []
        for end in ends:
            for key in [k for k in self._like if k[: len(end)] == end and k not in keep]:
                like = self._like.pop(key)
                if key in self._fragments:
                    text = self._arguments(self._fragments.pop(key))
                else:
                    text = _finish(self._channels.pop(key))
                if text:
                    out.append(self._made(key, text, like))
        return out

    def _made(self, key: Key, text: str, like: dict[str, Any]) -> bytes:
        if key == _PLAIN:
            return self._reader.encode(text.encode("utf-8"))
        event = self._stream.event(key, text, like)
        data = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        return self._reader.encode(data, name=str(event.get("type", "")))

    def _plain(self, frame: Frame) -> bytes:
        """An event whose data is not JSON: one channel of text."""
        try:
            text = frame.data.decode("utf-8")
        except UnicodeDecodeError:
            raise StreamError("the text of an event is not UTF-8") from None
        masked = self._piece(_PLAIN, text, {}, last=False)
        return frame.raw if masked == text else self._reader.encode(masked.encode(), like=frame)

    def _comment(self, frame: Frame) -> bytes:
        """An event without data: comments, keep-alives, blank lines."""
        text = frame.raw.decode("utf-8", "replace")
        masked = self._whole(text)
        return frame.raw if masked == text else masked.encode("utf-8")


class TextStream:
    """The way of a plain-text answer that comes in pieces: one channel."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._channels = [each.channel() for each in filters]
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.coverage: dict[str, int] = {"channel": 1}

    def feed(self, data: bytes) -> list[bytes]:
        text = self._decode(data, final=False)
        text = reduce(lambda carried, channel: channel.feed(carried), self._channels, text)
        return [text.encode("utf-8")] if text else []

    def finish(self) -> list[bytes]:
        self._decode(b"", final=True)
        text = _finish(self._channels)
        return [text.encode("utf-8")] if text else []

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise StreamError("the text of the answer is not UTF-8") from None


def _finish(channels: list[Channel]) -> str:
    """End a chain of filters: what one releases still runs through those behind it."""
    text = ""
    for channel in channels:
        text = (channel.feed(text) if text else "") + channel.finish()
    return text
