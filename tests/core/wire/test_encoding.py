import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.wire.encoding import EncodingError, decode, decoder

LIMIT = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    (" gzip ", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstandard.ZstdCompressor().compress),
    ("zstd", zstandard.ZstdCompressor(level=19, write_checksum=True).compress),
]
PACKED = [pair for pair in CODINGS if pair[0] in ("gzip", "deflate", "br", "zstd")]
BODIES = [b"", b"x", b"{}", b'{"messages": []}' * 3000, bytes(range(256)) * 900]


@pytest.mark.parametrize(("coding", "pack"), CODINGS)
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_what_was_packed_comes_out(
    coding: str, pack: Callable[[bytes], bytes], body: bytes
) -> None:
    assert decode(pack(body), coding, LIMIT) == body


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " "])
def test_identity_is_taken_as_it_is_up_to_the_limit(coding: str) -> None:
    assert decode(b"abc", coding, 3) == b"abc"
    with pytest.raises(EncodingError) as caught:
        decode(b"abcd", coding, 3)
    assert caught.value.status == 413


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_an_empty_body_is_empty_in_any_coding(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert decode(b"", coding, LIMIT) == b""


@pytest.mark.parametrize(("coding", "pack"), PACKED)
@settings(max_examples=25)
@given(body=st.binary(max_size=400), data=st.data())
def test_any_cut_gives_the_same(
    coding: str, pack: Callable[[bytes], bytes], body: bytes, data: st.DataObject
) -> None:
    packed = pack(body)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(packed)), max_size=5)))
    reader = decoder(coding, LIMIT)
    edges = [0, *cuts, len(packed)]
    out = b"".join(reader.feed(packed[a:b]) for a, b in itertools.pairwise(edges))
    reader.finish()
    assert out == body


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_one_byte_at_a_time_gives_the_same(coding: str, pack: Callable[[bytes], bytes]) -> None:
    body = b'data: {"a": "b"}\n\n' * 20
    reader = decoder(coding, LIMIT)
    out = b"".join(reader.feed(bytes([byte])) for byte in pack(body))
    reader.finish()
    assert out == body


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_every_truncation_is_refused(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"some text that is long enough to be packed, some text" * 3)
    for end in range(1, len(packed)):
        with pytest.raises(EncodingError) as caught:
            decode(packed[:end], coding, LIMIT)
        assert caught.value.status == 400


@pytest.mark.parametrize(("coding", "pack"), PACKED)
@pytest.mark.parametrize("tail", [b"\0", b"\0" * 600, b"garbage", b"{}" * 4000])
@pytest.mark.parametrize("apart", [False, True])
def test_data_behind_the_end_is_refused(
    coding: str, pack: Callable[[bytes], bytes], tail: bytes, apart: bool
) -> None:
    packed = pack(b"judged")
    reader = decoder(coding, LIMIT)
    with pytest.raises(EncodingError) as caught:
        for piece in (packed, tail) if apart else (packed + tail,):
            reader.feed(piece)
    assert caught.value.status == 400


@pytest.mark.parametrize(("coding", "pack"), PACKED)
@pytest.mark.parametrize("apart", [False, True])
def test_a_second_member_is_never_cut_off_silently(
    coding: str, pack: Callable[[bytes], bytes], apart: bool
) -> None:
    first, second = pack(b"judged "), pack(b"and forwarded")
    reader = decoder(coding, LIMIT)

    def run() -> bytes:
        out = [reader.feed(piece) for piece in ((first, second) if apart else (first + second,))]
        reader.finish()
        return b"".join(out)

    with pytest.raises(EncodingError):
        run()


def test_a_skippable_frame_of_zstd_hides_nothing() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    frame = zstandard.ZstdCompressor().compress(b"text")
    for body in (skippable + frame, frame + skippable):
        with pytest.raises(EncodingError):
            decode(body, "zstd", LIMIT)


@pytest.mark.parametrize(
    "coding",
    [
        "gzip, br",
        "gzip,gzip",
        "identity, gzip",
        "compress",
        "lzma",
        "zstd;q=1",
        "gzip\x00",
        "*",
        "aes128gcm",
    ],
)
def test_unknown_and_stacked_codings_are_415(coding: str) -> None:
    with pytest.raises(EncodingError, match="not supported") as caught:
        decoder(coding, LIMIT)
    assert caught.value.status == 415


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("body", [b'{"model": "x"}', b"\xff" * 40, b"x"])
def test_what_is_not_in_its_coding_is_refused(coding: str, body: bytes) -> None:
    with pytest.raises(EncodingError):
        decode(body, coding, LIMIT)


# Bombs: a gigabyte of zeros, made piece by piece.


def pieces() -> Iterator[bytes]:
    zeros = bytes(1 << 20)
    for _ in range(1 << 10):
        yield zeros


def zlib_bomb(wbits: int) -> bytes:
    packer = zlib.compressobj(1, wbits=wbits)
    return b"".join(map(packer.compress, pieces())) + packer.flush()


def gzip_bomb() -> bytes:
    """A gigabyte made of one megabyte's blocks, over and over: the checksum is never reached."""
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * 1023


def deflate_bomb() -> bytes:
    return zlib.compress(b"")[:2] + raw_blocks()


def raw_blocks() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * 1024


def brotli_bomb() -> bytes:
    packer = brotli.Compressor(quality=1)
    return b"".join(map(packer.process, pieces())) + packer.finish()


def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(map(packer.compress, pieces())) + packer.flush()


def zstd_rle_bomb() -> bytes:
    """Blocks of four bytes that each stand for 128 KB: the densest that zstd has."""
    head = b"\x28\xb5\x2f\xfd\x00\x58"  # window of 2 MB
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return head + block * 8192


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip_bomb),
        ("deflate", deflate_bomb),
        ("deflate", raw_blocks),
        ("br", brotli_bomb),
        ("zstd", zstd_bomb),
        ("zstd", zstd_rle_bomb),
    ],
)
def test_a_bomb_stops_at_the_limit_with_bounded_memory(
    coding: str, bomb: Callable[[], bytes]
) -> None:
    packed = bomb()
    assert len(packed) < 8 << 20
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError, match="too large") as caught:
            decode(packed, coding, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 24 << 20


def test_a_zstd_frame_gets_the_window_of_the_web() -> None:
    huge = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=huge).compressobj()
    packed = packer.compress(b"x" * 100) + packer.flush()
    with pytest.raises(EncodingError, match="not valid zstd"):
        decode(packed, "zstd", LIMIT)
    web = zstandard.ZstdCompressionParameters(window_log=23)
    packer = zstandard.ZstdCompressor(compression_params=web).compressobj()
    assert decode(packer.compress(b"x") + packer.flush(), "zstd", LIMIT) == b"x"


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_the_limit_is_exact(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert decode(pack(b"x" * 1000), coding, 1000) == b"x" * 1000
    with pytest.raises(EncodingError, match="too large"):
        decode(pack(b"x" * 1001), coding, 1000)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_stream_that_never_came_is_cut_off(coding: str) -> None:
    with pytest.raises(EncodingError, match="cut off"):
        decoder(coding, LIMIT).finish()
