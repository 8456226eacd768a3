"""Content codings (RFC 9110 section 8.4.1), decoded with a bound on what comes out.

What cannot be decoded cannot be judged, so every failure is an `EncodingError`; a bomb stops at
the limit, before it is in memory.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import brotli
import zstandard

_PIECE = 1 << 16


class EncodingError(Exception):
    """A body that cannot be decoded. `status` is what the caller of such a body should get."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Decoder(Protocol):
    """An incremental decoder: bytes in, at most `limit` bytes out in all."""

    def feed(self, data: bytes) -> bytes:
        """Raises `EncodingError` on corrupt data or when the limit is passed."""

    def finish(self) -> None:
        """Raises `EncodingError` when the coded data is not complete."""


class _Identity:
    def __init__(self, limit: int) -> None:
        self._left = limit

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        return data

    def finish(self) -> None:
        pass


class _Zlib:
    """gzip, zlib-wrapped and raw deflate; `deflate` in the wild is either of the last two."""

    def __init__(self, limit: int, *, gzip: bool) -> None:
        self._left = limit
        self._head = b""
        self._object = zlib.decompressobj(zlib.MAX_WBITS | 16) if gzip else None

    def feed(self, data: bytes) -> bytes:
        if self._object is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            data = self._head
            self._object = zlib.decompressobj(_deflate_bits(data))
        try:
            out = self._object.decompress(data, self._left + 1)
        except zlib.error:
            raise EncodingError("the body is not valid compressed data") from None
        if self._object.unused_data:
            raise EncodingError("there is data behind the end of the compressed body")
        self._left -= len(out)
        if self._left < 0:
            raise _too_large()
        return out

    def finish(self) -> None:
        if self._object is None or not self._object.eof:
            raise EncodingError("the compressed body is cut off")


def _deflate_bits(head: bytes) -> int:
    """Zlib's word for the wrapper that the first two bytes show (RFC 1950 section 2.2), or none."""
    wrapped = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS


class _Brotli:
    def __init__(self, limit: int) -> None:
        self._left = limit
        self._object = brotli.Decompressor()

    def feed(self, data: bytes) -> bytes:
        pieces = []
        try:
            while out := self._object.process(data, output_buffer_limit=_PIECE):
                data = b""  # there may be more output than the limit of one call, from no input
                self._left -= len(out)
                if self._left < 0:
                    raise _too_large()
                pieces.append(out)
                if self._object.is_finished():
                    break
        except brotli.error:
            raise EncodingError("the body is not valid brotli data") from None
        return b"".join(pieces)

    def finish(self) -> None:
        if not self._object.is_finished():
            raise EncodingError("the compressed body is cut off")


class _Zstd:
    def __init__(self, limit: int) -> None:
        self._left = limit
        # A frame may ask for a window of gigabytes; on the web it gets 8 MB (RFC 9659 section 3).
        self._object = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompressobj()

    def feed(self, data: bytes) -> bytes:
        pieces = []
        # One zstd block holds at most 128 KB, so small slices bound what a single call can return.
        for start in range(0, len(data), 256):
            try:
                out = self._object.decompress(data[start : start + 256])
            except zstandard.ZstdError:
                raise EncodingError("the body is not valid zstd data") from None
            self._left -= len(out)
            if self._left < 0:
                raise _too_large()
            pieces.append(out)
        if self._object.unused_data:
            raise EncodingError("there is data behind the end of the compressed body")
        return b"".join(pieces)

    def finish(self) -> None:
        if not self._object.eof:
            raise EncodingError("the compressed body is cut off")


def _too_large() -> EncodingError:
    return EncodingError("the body is too large once decompressed", 413)


def decoder(coding: str, limit: int) -> Decoder:
    """A decoder for the value of a Content-Encoding header.

    One coding only: stacked codings serve nobody but those who hide something. Raises
    `EncodingError` (415) for a coding that is not known.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return _Identity(limit)
    if name in ("gzip", "x-gzip"):
        return _Zlib(limit, gzip=True)
    if name == "deflate":
        return _Zlib(limit, gzip=False)
    if name == "br":
        return _Brotli(limit)
    if name == "zstd":
        return _Zstd(limit)
    raise EncodingError(f"content encoding {coding!r} is not supported", 415)


def decode(data: bytes, coding: str, limit: int) -> bytes:
    """All of a body. Raises `EncodingError`."""
    if not data:
        return data
    reader = decoder(coding, limit)
    out = reader.feed(data)
    reader.finish()
    return out
