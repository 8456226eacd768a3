import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.wire import framing
from mitmgate.core.wire.framing import NDJSON, SSE, Frame, FramingError, Reader, reader


def frames(kind: type[SSE] | type[NDJSON], *pieces: bytes) -> list[Frame]:
    cutter: Reader = kind()
    return [
        *(frame for piece in pieces for frame in cutter.feed(piece)),
        *cutter.finish(),
    ]


def said(found: list[Frame]) -> list[tuple[str, bytes]]:
    """What a client is told: events with data."""
    return [(frame.name, frame.data) for frame in found if frame.data]


def standard(stream: bytes) -> list[tuple[str, bytes]]:
    """WHATWG HTML 9.2.6, word for word, and the event that no empty line ends as a last one."""
    if stream.startswith(b"\xef\xbb\xbf"):
        stream = stream[3:]
    events, data, name = [], [], ""
    for line in [*re.split(rb"\r\n|\n|\r", stream), b""]:
        if line == b"":
            if b"\n".join(data):
                events.append((name, b"\n".join(data)))
            data, name = [], ""
            continue
        if line.startswith(b":"):
            continue
        field, colon, value = line.partition(b":")
        if colon and value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    return events


SAMPLES = [
    b"data: a\n\n",
    b"data: a\r\n\r\n",
    b"data: a\r\rdata: b\r\r",
    b"data: a\n\r\ndata: b\r\n\ndata: c\n\rdata: d\r\n\r",
    b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: not read\n\n",
    b": comment\n\n: with data\ndata: a\n\n:\n\n",
    b"data: a\ndata: b\ndata:\ndata: c\n\n",
    b"data\ndata\n\ndata: x\n\n",
    b"data:a\n\ndata:  b\n\ndata:\tc\n\n",
    b"event: delta\nid: 5\nretry: 10\ndata: a\n\n",
    b"event: one\nevent: two\ndata: a\n\nevent: lost\n\ndata: b\n\n",
    b"Data: a\nDATA: b\n data: c\ndata : d\ndata: e\n\n",
    b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n",
    b"data: a\n\ndata: not ended",
    b"data: a\n\ndata: not ended\n",
    b"data: a\r\n\r\ndata: not ended\r",
    b'data: {"a": "x\ry"}\n\n',
    b"data: a: b: c\n\n",
    b"event: m\ndata\n\n",
    "data: \u2028\u0085\v\f\x1c\n\n".encode(),
]


@pytest.mark.parametrize("stream", SAMPLES)
def test_sse_is_read_as_the_standard_says_at_every_cut(stream: bytes) -> None:
    whole = frames(SSE, stream)
    assert said(whole) == standard(stream)
    assert b"".join(frame.raw for frame in whole) == stream
    for cut in range(len(stream) + 1):
        assert said(frames(SSE, stream[:cut], stream[cut:])) == said(whole)
    pieces = [bytes([byte]) for byte in stream]
    assert said(frames(SSE, *pieces)) == said(whole)
    assert b"".join(frame.raw for frame in frames(SSE, *pieces)) == stream


LINES = st.sampled_from(
    [b"", b"", b"data: x", b"data:y", b"data", b": c", b"event: e", b"id: 1", b"odd", b"data: a:b"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.booleans(), st.data())
@settings(max_examples=300)
def test_any_lines_cut_anywhere_are_read_as_the_standard_says(
    lines: list[tuple[bytes, bytes]], bom: bool, data: st.DataObject
) -> None:
    stream = b"\xef\xbb\xbf" * bom + b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]
    found = frames(SSE, *(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert said(found) == standard(stream)
    assert b"".join(frame.raw for frame in found) == stream


def test_lines_that_are_not_data_are_kept() -> None:
    (frame,) = frames(SSE, b": hi\r\nid: 7\r\nevent: delta\r\nretry: 3\r\ndata: a\r\nfoo\r\n\r\n")
    assert frame.name == "delta"
    assert frame.other == [
        b": hi\r\n",
        b"id: 7\r\n",
        b"event: delta\r\n",
        b"retry: 3\r\n",
        b"foo\r\n",
    ]
    assert SSE().encode(b"b", like=frame) == b"".join(frame.other) + b"data: b\n\n"


def test_frames_are_given_as_soon_as_they_are_complete() -> None:
    cutter = SSE()
    assert [f.data for f in cutter.feed(b"data: a\n\ndata: b\n")] == [b"a"]
    assert [f.data for f in cutter.feed(b"\n")] == [b"b"]
    lines = NDJSON()
    assert [f.data for f in lines.feed(b'{"a":1}\n{"b"')] == [b'{"a":1}']


@pytest.mark.parametrize("data", [b"one", b"two\nlines", b"three\rlines\r\nhere", b"", b"\n"])
def test_encoded_data_is_read_back(data: bytes) -> None:
    (frame,) = frames(SSE, SSE().encode(data, name="delta"))
    assert frame.data == re.sub(rb"\r\n|\r", b"\n", data)
    assert frame.name == "delta"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'\n {"a":1} \n\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r{"b":2}\n', [b'{"a":1}\r{"b":2}']),
        ('{"a":"\u2028"}\n'.encode(), ['{"a":"\u2028"}'.encode()]),
        (b"", []),
    ],
)
def test_ndjson_is_cut_at_line_feeds_at_every_cut(stream: bytes, expected: list[bytes]) -> None:
    for cut in range(len(stream) + 1):
        found = frames(NDJSON, stream[:cut], stream[cut:])
        assert [frame.data for frame in found if frame.data] == expected
        assert b"".join(frame.raw for frame in found) == stream


@pytest.mark.parametrize("kind", [SSE, NDJSON])
def test_an_event_without_end_stops_at_the_limit(
    kind: type[SSE] | type[NDJSON], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT", 1000)
    cutter = kind()
    assert list(cutter.feed(b"data: " + b"x" * 900)) == []
    with pytest.raises(FramingError, match="larger than"):
        list(cutter.feed(b"x" * 200))


@pytest.mark.parametrize("kind", [SSE, NDJSON])
def test_the_limit_is_on_one_event_and_not_on_the_stream(
    kind: type[SSE] | type[NDJSON], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT", 100)
    cutter = kind()
    found = [f for _ in range(50) for f in cutter.feed(b"data: " + b"x" * 50 + b"\n\n")]
    assert len([f for f in found if f.data]) == 50


def test_a_long_event_in_small_pieces_is_not_searched_again_each_time() -> None:
    cutter = SSE()
    for _ in range(20_000):
        list(cutter.feed(b"x" * 100))  # 2 MB: minutes if each piece searched from the start
    assert [len(f.raw) for f in cutter.feed(b"\n\n")] == [2_000_002]


def test_a_frame_broken_off_can_be_closed() -> None:
    for cutter, raw in ((SSE(), b"data: a"), (NDJSON(), b'{"a":1}')):
        stream = cutter.close(raw) + cutter.encode(b'{"b":2}')
        assert len([f for f in frames(type(cutter), stream) if f.data]) == 2


def test_reader_by_name() -> None:
    assert isinstance(reader("sse"), SSE)
    assert isinstance(reader("ndjson"), NDJSON)
