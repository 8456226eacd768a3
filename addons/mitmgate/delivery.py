"""An answer on its way to the caller, piece by piece: what stands in `flow.response.stream`.

mitmproxy dies on an exception in such a callable and leaves the client hanging, so everything is
caught here: the stream then ends with the dialect's error event, and the rest is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from mitmproxy import http

from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.encoding import decoder
from mitmgate.core.wire.media import Form
from mitmgate.core.wire.stream import EventStream, Filter, StreamError, TextStream

# What is delivered is kept until it is recorded, so a stream cannot go on for ever.
CAPTURED = 64 << 20


class Delivery:
    """Decodes, filters and captures one answer. `fault` turns an exception into a last event.

    Raises `StreamError` or `EncodingError` for an answer of a kind that cannot be read.
    """

    def __init__(
        self,
        response: http.Response,
        kind: Form,
        endpoint: Endpoint | None,
        filters: Sequence[Filter],
        limit: int,
        fault: Callable[[Exception], bytes],
    ) -> None:
        # The bound is on one event, not on a stream, which may run for hours.
        self._decoder = decoder(response.headers.get("content-encoding", ""), limit << 10)
        self._stream: EventStream | TextStream | _Unread
        if not filters:
            self._stream = _Unread()
        elif kind == "text":
            self._stream = TextStream(filters)
        elif endpoint and endpoint.stream and endpoint.stream.framing == kind:
            self._stream = EventStream(endpoint.stream, filters)
        else:
            raise StreamError(f"nothing is known to stream {kind} here")
        self._fault = fault
        self._dead = False
        self._cut: Exception | None = None
        self._limit = CAPTURED
        self.started = False
        self.captured = bytearray()  # what the caller was given

    @property
    def coverage(self) -> dict[str, int]:
        """How many strings of each kind have come so far."""
        return self._stream.coverage

    def prepare(self, http_version: str, response: http.Response) -> None:
        """Headers for an answer whose length and coding change on the way."""
        headers = response.headers
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            headers.pop(name, None)
        if http_version == "HTTP/1.1":
            response.http_version = "HTTP/1.1"
            headers["transfer-encoding"] = "chunked"
        headers["cache-control"] = "no-cache"
        headers["x-accel-buffering"] = "no"  # or nginx in front holds the stream back

    def cut(self, why: Exception) -> None:
        """End the answer in the place of the next bytes that come."""
        self._cut = why

    def __call__(self, data: bytes) -> list[bytes]:
        """The next bytes of the upstream, b"" at its end; returns what goes to the client.

        Never b"": in a chunked answer that would end the body.
        """
        self.started = True
        if self._dead:
            return []
        try:
            if self._cut:
                raise self._cut
            if len(self.captured) > self._limit:
                raise StreamError(f"the answer is longer than {self._limit >> 20} MB")
            if data:
                pieces = self._stream.feed(self._decoder.feed(data))
            else:
                self._decoder.finish()
                pieces = self._stream.finish()
        except Exception as e:
            self._dead = True
            pieces = [self._fault(e)]
        out = b"".join(pieces)
        self.captured += out
        return [out] if out else []


class _Unread:
    """An answer that nobody wants to read: its bytes as they are."""

    coverage: ClassVar[dict[str, int]] = {}

    def feed(self, data: bytes) -> list[bytes]:
        return [data]

    def finish(self) -> list[bytes]:
        return []


def instead(body: bytes) -> Callable[[bytes], list[bytes]]:
    """A stream that says `body` once and swallows what the upstream sends."""
    pieces = [body]

    def stream(data: bytes) -> list[bytes]:
        return [pieces.pop()] if pieces else []

    return stream
