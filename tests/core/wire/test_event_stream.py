"""Streams of every dialect, cut everywhere: what comes out is what masking the whole would give."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitmgate.core.wire.arguments import edit_arguments
from mitmgate.core.wire.endpoints import ENDPOINTS
from mitmgate.core.wire.stream import EventStream

WORD = "jane@x.y"
SHORT = {"json": f'{{"a": "{WORD}"}}', "text": f"a {WORD} ja"}


def by_size(size: int) -> Any:
    return lambda text: [text[i : i + size] for i in range(0, len(text), size)] or [""]


def texts_of(sample: Any, text: str, arguments: str) -> dict[str, str]:
    return {name: arguments if name in sample.json else text for name in sample.channels}


def check(sample: Any, texts: dict[str, str], out: bytes, mask: Any) -> None:
    """Every channel, and every copy of one, is what masking its whole text gives."""
    read = sample.read(out)
    for name, text in texts.items():
        if name in sample.json:
            expected = edit_arguments(text, mask.whole)
            assert json.loads(read[name]) == json.loads(expected)
        else:
            expected = mask.whole(text)
            assert read[name] == expected
    for name, copy in sample.copies(out):
        assert copy == (
            edit_arguments(texts[name], mask.whole)
            if name in sample.json
            else mask.whole(texts[name])
        )


def test_every_stream_of_an_endpoint_has_a_sample(kit: Any) -> None:
    streams = {e.path for e in ENDPOINTS if e.stream}
    # the first two are served by the code of /completion
    same = {"/completions", "/infill", "/v2/models/{model}/versions/{version}/generate_stream"}
    assert streams - same == {s.path for s in kit.samples.values()}


def test_cut_at_every_byte_the_same_comes_out(sample: Any, kit: Any) -> None:
    texts = texts_of(sample, SHORT["text"], SHORT["json"])
    stream = sample.make(texts, by_size(7))
    mask = kit.WordMask()
    whole = kit.run(sample.stream, [mask], stream)
    check(sample, texts, whole, mask)
    assert WORD.encode() not in whole
    for apart in (2, 5, 151):  # every byte is a cut, with others near and far
        for first in range(apart):
            edges = [0, *range(first, len(stream), apart), len(stream)]
            pieces = [stream[a:b] for a, b in pairwise(edges)]
            assert kit.run(sample.stream, [mask], *pieces) == whole
    assert kit.run(sample.stream, [mask], *(bytes([byte]) for byte in stream)) == whole


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_whatever_the_pieces_of_the_model_the_texts_are_the_same(
    sample: Any, kit: Any, size: int
) -> None:
    texts = texts_of(
        sample,
        f'{WORD} jane@x.x jajajane@x.yy {WORD}{WORD} \U0001f600\u2028\u00fc"\\ {WORD[:-1]}',
        f'{{"a": ["{WORD}", "\\u006aane@x.y"], "{WORD}": {{"n": 1.50}}}}',
    )
    mask = kit.WordMask()
    out = kit.run(sample.stream, [mask], sample.make(texts, by_size(size)))
    check(sample, texts, out, mask)


REAL = (
    "Write to alice.smith@mail.example.com or call +1 415 555 2671. "
    "Card 4111 1111 1111 1111, not 4111 1111 1111 1112; IBAN GB82 WEST 1234 5698 7654 32. "
    "Host 203.0.113.7, key AKIAIOSFODNN7EXAMPLE and postgres://app:s3cret@db.internal/x "
    "password: hunter2 and bob@exam"
)
REAL_CALL = json.dumps(
    {
        "to": ["alice.smith@mail.example.com", "x"],
        "card": 4111111111111111,
        "password": "hunter2x",
        "note": 'he said "4111 1111 1111 1111"',
        "count": 12,
    }
)


@pytest.mark.parametrize("seed", range(12))
def test_the_real_masker_on_random_pieces_and_cuts(
    sample: Any, kit: Any, real_mask: Any, seed: int
) -> None:
    chance = random.Random(seed)

    def pieces(text: str) -> list[str]:
        out, at = [], 0
        while at < len(text):
            size = chance.choice([1, 1, 2, 3, 4, 8])
            out.append(text[at : at + size])
            at += size
        return out or [""]

    texts = texts_of(sample, REAL, REAL_CALL)
    stream = sample.make(texts, pieces)
    cuts = sorted(chance.sample(range(len(stream)), 20))
    edges = [0, *cuts, len(stream)]
    parts = [stream[a:b] for a, b in pairwise(edges)]
    out = kit.run(sample.stream, [real_mask], *parts)
    check(sample, texts, out, real_mask)
    for secret in ("alice", "2671", "1111 1111 1111 1111", "411111111111", "hunter2", "s3cret"):
        assert secret.encode() not in out
    for name in sample.json:
        call = json.loads(sample.read(out)[name])
        assert call["card"] == "[CARD]"
        assert call["count"] == 12


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_texts_random_pieces_random_cuts(sample: Any, kit: Any, data: st.DataObject) -> None:
    alphabet = st.sampled_from([*"jane@x.y", " ", "\n", "ü", "\U0001f600", '"', "\\", WORD, WORD])
    free = st.lists(alphabet, max_size=12).map("".join)
    arguments = st.dictionaries(free, st.one_of(free, st.integers()), max_size=3).map(json.dumps)
    texts = {
        name: data.draw(arguments if name in sample.json else free) for name in sample.channels
    }
    size = data.draw(st.integers(1, 9))
    stream = sample.make(texts, by_size(size))
    mask = kit.WordMask()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]
    parts = [stream[a:b] for a, b in pairwise(edges)]
    check(sample, texts, kit.run(sample.stream, [mask], *parts), mask)


def test_without_filters_the_bytes_are_those_that_came(sample: Any, kit: Any) -> None:
    stream = sample.make(texts_of(sample, SHORT["text"], SHORT["json"]), by_size(3))
    for odd in (
        stream,
        stream.replace(b"\n", b"\r\n"),
        stream[:-7],
        b"\xff not JSON \n\n" + stream,
    ):
        assert kit.run(sample.stream, [], odd) == odd


def test_events_in_which_nothing_is_held_are_the_bytes_that_came(sample: Any, kit: Any) -> None:
    texts = texts_of(sample, "Nothing to see.", '{"a": "b"}')
    stream = sample.make(texts, by_size(40))
    out = kit.run(sample.stream, [kit.WordMask()], stream)
    held = (b"arguments", b"partial_json", b"context", b"token")  # calls, and what copies text
    for line in stream.split(b"\n"):
        if not any(word in line for word in held):
            assert line in out


def test_a_judge_hears_every_text_and_changes_nothing_but_the_pieces_of_calls(
    sample: Any, kit: Any
) -> None:
    texts = texts_of(sample, SHORT["text"], SHORT["json"])
    stream = sample.make(texts, by_size(3))
    listener = kit.Listener()
    out = kit.run(sample.stream, [listener], stream)
    assert sample.read(out) == texts
    for text in texts.values():
        assert text in listener.heard
    if not sample.json or sample.path == "/api/chat":
        assert out == stream


def test_a_judge_that_objects_stops_the_stream_before_the_text_is_out(
    sample: Any, kit: Any
) -> None:
    texts = texts_of(sample, SHORT["text"], SHORT["json"])
    stream = sample.make(texts, by_size(3))
    events = EventStream(sample.stream, [kit.Listener(objects_to=WORD)])
    out: list[bytes] = []
    with pytest.raises(PermissionError):
        for byte in stream:
            out += events.feed(bytes([byte]))
    read = b"".join(out)
    assert WORD.encode() not in read
    assert b"[DONE]" not in read


def test_filters_run_in_order_each_on_what_the_one_before_gave(sample: Any, kit: Any) -> None:
    texts = texts_of(sample, SHORT["text"], SHORT["json"])
    stream = sample.make(texts, by_size(3))
    before, after = kit.Listener(), kit.Listener()
    out = kit.run(sample.stream, [before, kit.WordMask(), after], stream)
    check(sample, texts, out, kit.WordMask())
    assert any(WORD in text for text in before.heard)
    assert not any(WORD in text for text in after.heard)
    assert any("[EMAIL]" in text for text in after.heard)


def test_a_stream_cut_off_gives_what_was_held_only_when_it_is_over(kit: Any) -> None:
    sample = kit.samples["chat"]
    texts = texts_of(sample, "To jane@x", '{"to": "jane@x')
    stream = sample.make(texts, by_size(3))
    broken = stream[: stream.index(b'"tool_calls"}]')]
    broken = broken[: broken.rindex(b"\n\n") + 2]
    events = EventStream(sample.stream, [kit.WordMask()])
    before = b"".join(events.feed(broken))
    assert b"ane" not in before.replace(b"reasoning", b"")
    held = b"".join(events.finish())
    whole = sample.read(before + held + b"data: [DONE]\n\n")
    assert whole == texts


@pytest.mark.parametrize("name", ["chat", "ollama-chat", "responses"])
def test_a_last_event_without_its_end_does_not_run_into_what_was_held(kit: Any, name: str) -> None:
    sample = kit.samples[name]
    event = {
        "chat": {"choices": [{"index": 0, "delta": {"content": "ja"}}]},
        "ollama-chat": {"message": {"role": "assistant", "content": "ja"}, "done": False},
        "responses": {"type": "response.output_text.delta", "item_id": "m", "delta": "ja"},
    }[name]
    whole = kit.ndjson(event) if name == "ollama-chat" else kit.sse(event)
    for broken in (whole[:-1], whole.rstrip(b"\n"), whole):
        out = kit.run(sample.stream, [kit.WordMask()], broken)
        made = list(kit.events_of(out))
        assert len(made) == 2
        assert json.dumps(made).count('"ja"') == 1


def test_an_untouched_last_event_without_its_end_is_closed_before_what_was_held(kit: Any) -> None:
    first = kit.sse({"choices": [{"index": 0, "delta": {"content": "ja"}}]})
    usage = kit.sse({"choices": [], "usage": {"total": 1}})
    for broken in (usage[:-1], usage[:-2], usage):
        out = kit.run(kit.samples["chat"].stream, [kit.WordMask()], first, broken)
        assert len(list(kit.events_of(out))) == 3
    line = kit.ndjson({"message": {"role": "assistant", "content": "ja"}, "done": False})
    last = kit.ndjson({"created_at": "2026", "done": False})[:-1]
    out = kit.run(kit.samples["ollama-chat"].stream, [kit.WordMask()], line, last)
    assert len(list(kit.events_of(out))) == 3


def test_a_judge_hears_a_call_once_and_as_it_was_written(kit: Any) -> None:
    sample = kit.samples["messages"]
    call = '{"command": "a b", "n": 123456}'
    listener = kit.Listener()
    kit.run(sample.stream, [listener], sample.make(texts_of(sample, "x", call), by_size(4)))
    assert listener.heard.count(call) == 1
    assert "a b" not in listener.heard


def test_null_before_two_prompts_is_no_text(kit: Any, real_mask: Any) -> None:
    sample = kit.samples["llamacpp"]
    stream = b"data: null\n\n" + sample.make(texts_of(sample, "ab ", ""), by_size(3))
    assert kit.run(sample.stream, [real_mask], stream).startswith(b"data: null\n\n")


def test_coverage_counts_what_was_read(kit: Any) -> None:
    sample = kit.samples["chat"]
    events = EventStream(sample.stream, [kit.WordMask()])
    events.feed(sample.make(texts_of(sample, "ab", "{}"), by_size(1)))
    assert events.coverage["channel"] >= 6
    assert events.coverage["fragment"] == 4
    assert events.coverage["called"] >= 2
