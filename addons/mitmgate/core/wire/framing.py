"""Streams cut into events: server-sent events and newline-delimited JSON, at any chunking.

SSE follows the WHATWG HTML standard, section 9.2.6: a leading BOM, lines that end in CR, LF or
CRLF, comments, several data lines. An event keeps its bytes, so that what is not edited goes on
as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

MAX_EVENT = 8 << 20
Framing = Literal["sse", "ndjson", "text"]


class FramingError(Exception):
    """A stream that cannot be cut into events."""


@dataclass(slots=True)
class Frame:
    """One event: its bytes as they came, its name (SSE `event:`) and its data without framing."""

    raw: bytes
    data: bytes
    name: str = ""
    other: list[bytes] = field(default_factory=list)  # SSE lines that are not data, as they came


class Reader(Protocol):
    """Bytes in any pieces to frames, and frames to bytes."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises `FramingError` on one over `MAX_EVENT` bytes."""

    def finish(self) -> Iterator[Frame]:
        """What is left at the end of the stream, as a last frame."""

    def encode(self, data: bytes, like: Frame | None = None, name: str = "") -> bytes:
        """`data` as one frame, with the other lines of `like` or with `name`, which is one word."""

    def close(self, raw: bytes) -> bytes:
        """A last frame that the stream broke off, ended so that another can follow."""


class _Buffered:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def _grow(self, data: bytes) -> None:
        self._buffer += data

    def _check(self) -> None:
        if len(self._buffer) > MAX_EVENT:
            raise FramingError(f"an event of the stream is larger than {MAX_EVENT >> 20} MB")


class SSE(_Buffered):
    """text/event-stream."""

    # An event ends at an empty line. A CR at the very end may be half of a CRLF: wait for more.
    _END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
    _LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
    _BOM = b"\xef\xbb\xbf"

    def __init__(self) -> None:
        super().__init__()
        self._start = True

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._grow(data)
        while match := self._END.search(self._buffer, self._scanned):
            raw = bytes(self._buffer[: match.end()])
            del self._buffer[: match.end()]
            self._scanned = 0
            yield self._frame(raw)
        self._scanned = max(0, len(self._buffer) - 3)
        self._check()

    def finish(self) -> Iterator[Frame]:
        # The standard drops an event that no empty line ends; clients in the field do not, so
        # what is left is an event like any other.
        if self._buffer:
            raw = bytes(self._buffer)
            self._buffer.clear()
            yield self._frame(raw)

    def _frame(self, raw: bytes) -> Frame:
        frame = Frame(raw, b"")
        body = raw
        if self._start:
            self._start = False
            body = raw.removeprefix(self._BOM)
        data = []
        for line in self._LINE.findall(body):
            name, _, value = line.rstrip(b"\r\n").partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif line.strip(b"\r\n"):
                frame.other.append(line if line.endswith((b"\r", b"\n")) else line + b"\n")
                if name == b"event":
                    frame.name = value.decode("utf-8", "replace")
        frame.data = b"\n".join(data)
        return frame

    def encode(self, data: bytes, like: Frame | None = None, name: str = "") -> bytes:
        head = b"".join(like.other) if like else f"event: {name}\n".encode() if name else b""
        lines = b"".join(b"data: %b\n" % line for line in re.split(rb"\r\n|\r|\n", data))
        return head + lines + b"\n"

    def close(self, raw: bytes) -> bytes:
        return raw + b"\n\n"


class NDJSON(_Buffered):
    """application/x-ndjson: one JSON document a line."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._grow(data)
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            raw = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self._scanned = 0
            yield Frame(raw, raw.strip())
        self._scanned = len(self._buffer)
        self._check()

    def finish(self) -> Iterator[Frame]:
        if self._buffer:
            raw = bytes(self._buffer)
            self._buffer.clear()
            yield Frame(raw, raw.strip())

    def encode(self, data: bytes, like: Frame | None = None, name: str = "") -> bytes:
        return data + b"\n"

    def close(self, raw: bytes) -> bytes:
        return raw + b"\n"


def reader(framing: Literal["sse", "ndjson"]) -> Reader:
    """A fresh reader for one stream."""
    return SSE() if framing == "sse" else NDJSON()
