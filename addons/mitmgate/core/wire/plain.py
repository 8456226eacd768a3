"""An answer of plain text that comes in pieces: bytes in, judged and masked bytes out."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import reduce

from mitmgate.core.wire.filter import Filter, finish_all


class StreamError(Exception):
    """A stream that cannot be read. What was not sent yet must not be."""


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
        text = finish_all(self._channels)
        return [text.encode("utf-8")] if text else []

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise StreamError("the text of the answer is not UTF-8") from None
