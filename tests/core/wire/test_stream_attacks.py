"""Streams that are odd, broken or made to get a text past the filters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitmgate.core.wire import framing, stream
from mitmgate.core.wire.dialect import Stream
from mitmgate.core.wire.stream import EventStream, StreamError, TextStream

WORD = "jane@x.y"
NAMES = ["chat", "completions", "responses", "messages", "ollama-chat", "llamacpp"]


def of(kit: Any, name: str) -> Stream:
    found: Stream = kit.samples[name].stream
    return found


def mask(kit: Any, name: str, *events: Any) -> bytes:
    """The events through the word mask; bytes are taken as they are."""
    encode = kit.ndjson if name.startswith("ollama") else kit.sse
    pieces = [each if isinstance(each, bytes) else encode(each) for each in events]
    out: bytes = kit.run(of(kit, name), [kit.WordMask()], *pieces)
    return out


def refuse(kit: Any, name: str, *events: Any, match: str | None = None) -> None:
    with pytest.raises(StreamError, match=match):
        mask(kit, name, *events)


def choice(delta: Any, index: Any = 0, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


def content(kit: Any, out: bytes, index: int = 0) -> str:
    return "".join(
        each["delta"].get("content", "")
        for event in kit.events_of(out)
        for each in event.get("choices", [])
        if each.get("index", 0) == index
    )


# Events that cannot be read.


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"choices": [\n\n',
        b'data: {"a": 1, "a": 2}\n\n',
        b'data: {"a": NaN}\n\n',
        b'data: {"a": "\\ud800"}\n\n',
        b'data: {"a": "\xff"}\n\n',
        b'data: {"a": 1} {"b": 2}\n\n',
        b"data: [1, 2]\n\n",
        b'data: ["jane\\u0040x.y"]\n\n',
        b'data: "jane\\u0040x.y"\n\n',
        b'data: \xef\xbb\xbf{"a": "jane\\u0040x.y"}\n\n',
        b'data: \x00{"a": 1}\n\n',
        b"data: \xff\n\n",
        b": \xff\n\n",
        b"data: " + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"\n\n",
        b'data: {"a": ' + b"9" * 5000 + b"}\n\n",
    ],
)
def test_an_event_that_cannot_be_read_ends_the_stream(kit: Any, frame: bytes) -> None:
    refuse(kit, "chat", frame)


@pytest.mark.parametrize("line", [b"[]\n", b'"x"\n', b"text\n", b'{"a": 1}{"b": 2}\n', b"[DONE\n"])
def test_a_line_that_is_no_object_ends_the_stream(kit: Any, line: bytes) -> None:
    refuse(kit, "ollama-chat", line)


def test_a_carriage_return_in_a_string_does_not_make_two_readings(kit: Any) -> None:
    # to the standard CR ends a line, so what is left of the JSON is broken
    refuse(kit, "chat", b'data: {"choices": [], "x": "jane\r@x.y"}\n\n')


def test_the_limits_are_stream_errors(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT", 100)
    refuse(kit, "chat", b"data: " + b"x" * 200, match="larger than")


def test_open_tool_calls_have_a_limit_together(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_ARGUMENTS", 100)

    def call(index: int, text: str) -> Any:
        return choice({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    done = choice({}, finish="tool_calls")
    assert mask(kit, "chat", call(0, "x" * 90), done)
    refuse(kit, "chat", *(call(i, "x" * 30) for i in range(4)), match="tool calls of more")


def test_whatever_a_filter_raises_comes_through(kit: Any) -> None:
    class Broken(kit.WordMask):  # type: ignore[misc,name-defined]
        def whole(self, text: str) -> str:
            raise TimeoutError

        def channel(self) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kit.run(of(kit, "chat"), [Broken()], kit.sse(choice({"content": "x"})))
    with pytest.raises(TimeoutError):
        kit.run(of(kit, "chat"), [Broken()], kit.sse({"error": "x"}))


# What nobody listed.


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("chat", lambda p: choice({"novelty": p})),
        ("chat", lambda p: {"choices": [], "note": p}),
        ("chat", lambda p: {"choices": [], "note": {"deep": [p]}}),
        ("chat", lambda p: choice({"content": [{"type": "text", "text": p}]})),
        ("chat", lambda p: choice({"reasoning_details": [{"index": 0, "text": p}]})),
        ("completions", lambda p: {"choices": [{"index": 0, "novelty": p}]}),
        ("responses", lambda p: {"type": "response.novelty", "item_id": "m", "x": p}),
        ("responses", lambda p: {"type": "response.novelty.delta", "item_id": "m", "delta": p}),
        ("responses", lambda p: {"type": "response.output_text.delta", "delta": "", "x": {"y": p}}),
        ("messages", lambda p: {"type": "novelty", "x": p}),
        ("messages", lambda p: {"type": "content_block_delta", "index": 0, "delta": {"x": p}}),
        ("messages", lambda p: {"type": "content_block_delta", "index": 0, "x": {"y": p}}),
        ("ollama-chat", lambda p: {"message": {"content": "", "x": p}, "done": False}),
        ("ollama-chat", lambda p: {"x": p, "done": False}),
        ("llamacpp", lambda p: {"index": 0, "content": "", "x": {"y": p}, "stop": False}),
    ],
)
def test_a_value_split_over_events_in_an_unknown_field_does_not_leak(
    kit: Any, name: str, event: Any
) -> None:
    out = mask(kit, name, *(event(piece) for piece in ("to jan", "e@x", ".y and ja")))
    texts = [text for each in kit.events_of(out) for text in strings(each)]
    assert "".join(text for text in texts if text not in PROTOCOL) == "to [EMAIL] and ja"


PROTOCOL = (
    *("m", "text", "assistant", "x_delta", "novelty", "content_block_delta", "response.novelty"),
    *("response.novelty.delta", "response.output_text.delta"),
)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in below for text in strings(item)]


def test_a_made_event_repeats_nothing_of_the_one_it_is_like(kit: Any) -> None:
    delta = {
        "type": "response.output_text.delta",
        "item_id": "m",
        "output_index": 0,
        "content_index": 0,
        "delta": "to ja",
        "logprobs": [{"token": "ja"}],
        "note": "secret ja",
        "sequence_number": 4,
    }
    out = mask(kit, "responses", delta)
    first, *made = kit.events_of(out)
    assert first["delta"] == "to "
    assert first["logprobs"] == []
    place = {"item_id": "m", "output_index": 0, "content_index": 0, "sequence_number": 4}
    head = {"type": "response.output_text.delta", **place}
    assert made == [{**head, "delta": "ja"}, {**head, "note": "ja"}]


def test_a_made_event_of_chat_keeps_ids_and_nothing_else(kit: Any) -> None:
    head = {"id": "c", "object": "o", "created": 5, "model": "m"}
    event = {**head, **choice({"content": "ja", "refusal": "x"}, logprobs={"content": []})}
    *_, made = kit.events_of(mask(kit, "chat", {**event, "provider": {"x": "y"}}))
    assert made == {
        **head,
        "choices": [{"index": 0, "delta": {"content": "ja"}, "finish_reason": None}],
    }


def test_a_string_where_a_number_should_be_is_not_copied(kit: Any) -> None:
    event = {**choice({"content": "ja"}), "created": WORD}
    assert WORD not in mask(kit, "chat", event).decode()


@pytest.mark.parametrize("index", ["0", "x", 1.5, 0.0, True, [0], {"a": 1}])
def test_an_index_that_is_no_integer_ends_the_stream(kit: Any, index: Any) -> None:
    refuse(kit, "chat", choice({"content": "x"}, index), match="index")
    refuse(kit, "llamacpp", {"index": index, "content": "x", "stop": False}, match="index")
    delta = {"type": "text_delta", "text": "x"}
    event = {"type": "content_block_delta", "index": index, "delta": delta}
    refuse(kit, "messages", event, match="index")


def test_a_missing_index_is_the_place_in_the_list(kit: Any) -> None:
    first = {"choices": [{"delta": {"content": "jane"}}, {"delta": {"content": "x jane"}}]}
    second = {"choices": [{"delta": {"content": "@x.y"}, "finish_reason": "stop"}]}
    third = {"choices": [{"delta": {}}, {"delta": {"content": "@x.y"}}]}
    out = mask(kit, "chat", first, second, third)
    assert WORD not in out.decode()
    assert out.count(b"[EMAIL]") == 2


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("messages", {"type": "content_block_delta", "index": 0, "delta": "ja"}),
        ("messages", {"type": "content_block_delta", "index": 0, "delta": ["ja"]}),
        ("chat", {"choices": "ja"}),
        ("chat", {"choices": ["ja"]}),
        ("chat", {"choices": [{"index": 0, "delta": "ja"}]}),
        ("chat", {"choices": {"a": "ja"}}),
        ("ollama-chat", {"message": "ja", "done": False}),
        ("ollama-chat", {"message": ["ja"], "done": False}),
        ("responses", {"type": "response.output_text.delta", "delta": ["ja"]}),
        ("llamacpp", {"index": 0, "content": ["ja"], "stop": False}),
    ],
)
def test_what_is_held_of_an_odd_shape_comes_in_the_same_shape(
    kit: Any, name: str, event: Any
) -> None:
    _, made = kit.events_of(mask(kit, name, event))
    assert [text for text in strings(made) if text not in PROTOCOL] == ["ja"]


def test_a_choice_without_an_index_ends_itself_and_no_other(kit: Any) -> None:
    first = {"choices": [{"delta": {"content": "jane"}}, {"delta": {"content": "x"}}]}
    second = {"choices": [{"delta": {}}, {"delta": {}, "finish_reason": "stop"}]}
    third = {"choices": [{"delta": {"content": "@x.y"}}]}
    out = mask(kit, "chat", first, second, third)
    assert out.count(b"[EMAIL]") == 1


# One channel twice in an event, and events that carry and end at once.


def test_a_channel_that_stands_twice_in_an_event_keeps_its_order(kit: Any) -> None:
    def twice(one: str, two: str, finish: Any = None) -> Any:
        return {
            "choices": [
                {"index": 0, "delta": {"content": one}, "finish_reason": None},
                {"index": 0, "delta": {"content": two}, "finish_reason": finish},
            ]
        }

    out = mask(kit, "chat", twice("a jan", "e@x"), twice(".y b ja", "ne@x.y c ja", "stop"))
    assert content(kit, out) == "a [EMAIL] b [EMAIL] c ja"
    assert b"jan" not in out


def test_a_channel_that_ends_in_the_first_of_two_places_does_not_end_there(kit: Any) -> None:
    event = {
        "choices": [
            {"index": 0, "delta": {"content": "jane"}, "finish_reason": "stop"},
            {"index": 0, "delta": {"content": "@x.y"}, "finish_reason": None},
        ]
    }
    out = mask(kit, "chat", event)
    assert content(kit, out) == "[EMAIL]"


def test_a_last_piece_comes_with_the_end_of_its_channel(kit: Any) -> None:
    out = mask(
        kit, "chat", choice({"content": "ja"}), choice({"content": "ne@x.y ja"}, finish="stop")
    )
    first, last = kit.events_of(out)
    assert first["choices"][0]["delta"] == {"content": ""}
    assert last["choices"][0]["delta"] == {"content": "[EMAIL] ja"}


def test_the_last_piece_of_a_call_comes_with_its_end_and_the_call_is_one(kit: Any) -> None:
    def call(text: str, finish: Any = None) -> Any:
        return choice({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}, 0, finish)

    out = mask(kit, "chat", call('{"a": "ja'), call('ne\\u0040x.y"}', "tool_calls"))
    arguments = [
        each["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
        for each in kit.events_of(out)
    ]
    assert arguments == ["", '{"a": "[EMAIL]"}']


def test_what_is_held_comes_before_the_event_that_ends_its_channel(kit: Any) -> None:
    events = [choice({"content": "ja"}), choice({"content": "x ja"}, 1), choice({}, 0, "stop")]
    made = list(kit.events_of(mask(kit, "chat", *events)))
    assert [(e["choices"][0]["index"], e["choices"][0]["delta"]) for e in made] == [
        (0, {"content": ""}),
        (1, {"content": "x "}),
        (0, {"content": "ja"}),
        (0, {}),
        (1, {"content": "ja"}),
    ]


@pytest.mark.parametrize("end", [[], [{"type": "response.output_item.done", "item": {"id": "m"}}]])
def test_an_item_that_ends_does_not_end_another(kit: Any, end: list[Any]) -> None:
    def delta(item: str, text: str) -> Any:
        return {"type": "response.output_text.delta", "item_id": item, "delta": text}

    out = mask(kit, "responses", delta("m", "jane"), delta("n", "jan"), *end, delta("n", "e@x.y"))
    assert out.decode().count("[EMAIL]") == 1
    assert [e["delta"] for e in kit.events_of(out) if e.get("item_id") == "n"] == ["", "[EMAIL]"]


def test_a_call_without_its_done_comes_before_its_item_is_done(kit: Any) -> None:
    # llama.cpp: no output_index, no .done, and the item's id is the call's
    piece = {
        "type": "response.function_call_arguments.delta",
        "item_id": "fc_1",
        "delta": f'{{"a": "{WORD}"}}',
    }
    item = {
        "type": "function_call",
        "call_id": "fc_1",
        "name": "f",
        "arguments": f'{{"a": "{WORD}"}}',
    }
    done = {"type": "response.output_item.done", "item": item}
    made = list(kit.events_of(mask(kit, "responses", piece, done)))
    assert [e["type"].rpartition(".")[2] for e in made] == ["delta", "delta", "done"]
    assert made[1]["delta"] == made[2]["item"]["arguments"] == '{"a": "[EMAIL]"}'


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("chat", [choice({"content": "jane"}, 0, "null"), choice({"content": "@x.y"}, 0, "null")]),
        ("chat", [choice({"content": "jane"}), choice({}, 0, "stop"), choice({"content": "@x.y"})]),
        (
            "llamacpp",
            [
                {"index": 0, "content": "jane", "stop": True},
                {"index": 0, "content": "@x.y", "stop": True},
            ],
        ),
        (
            "ollama-chat",
            [
                {"message": {"content": "jane"}, "done": True},
                {"message": {"content": "@x.y"}, "done": False},
            ],
        ),
        (
            "messages",
            [
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": "jane"},
                },
                {"type": "content_block_stop", "index": 0},
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": "@x.y"},
                },
            ],
        ),
        ("chat", [choice({"content": "jane"}), b"data: [DONE]\n\n", choice({"content": "@x.y"})]),
        ("chat", [b"data: jane\n\n", b"data: [DONE]\n\n", b"data: @x.y\n\n"]),
    ],
)
def test_a_text_that_goes_on_after_its_end_ends_the_stream(
    kit: Any, name: str, events: list[Any]
) -> None:
    refuse(kit, name, *events, match="after its end")


def test_an_empty_text_after_the_end_is_nothing(kit: Any) -> None:
    events = [choice({"content": "x"}, 0, "stop"), choice({"content": ""}, 0, "stop")]
    assert content(kit, mask(kit, "chat", *events)) == "x"


# SSE by the letter.


@pytest.mark.parametrize(
    "frame",
    [
        f": {WORD}\n\n",
        f": {WORD}\r\n\r\n",
        f"id: {WORD}\ndata: {{}}\n\n",
        f"event: {WORD}\ndata: {{}}\n\n",
        f"event: {WORD}\n\n",
        f"odd: {WORD}\ndata: {{}}\n\n",
        f": {WORD}\ndata: {{}}\nretry: 5\n\n",
        f": {WORD}\ndata: [DONE]\n\n",
        f" data: {WORD}\n\n",
        f"{WORD}\n\n",
        f"data: {WORD}\n\n",
        f": {WORD}\ndata: plain\n\n",
        f"data:\n: {WORD}\n\n",
        f"\ufeff: {WORD}\n\n",
        f": {WORD}",
        f"data: {WORD}",
    ],
)
def test_every_line_of_a_frame_is_a_text(kit: Any, frame: str) -> None:
    out = mask(kit, "chat", frame.encode()).decode()
    assert WORD not in out
    assert "[EMAIL]" in out
    after = kit.run(of(kit, "chat"), [kit.WordMask()], frame.encode(), b"data: {}\n\n")
    assert after.endswith(b"data: {}\n\n")


@pytest.mark.parametrize(
    "frame",
    [
        b": ping\n\n",
        b":\n\n",
        b"\n\n",
        b": OPENROUTER PROCESSING\r\n\r\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"event: message\nid: 7\nretry: 3000\ndata: {}\n\n",
        b"data:{}\r\n\r\n",
        b"data: {}\ndata: \n\n",
        b"data\n\n",
        b"data: \n\n",
        b"data: null\n\n",
        b"data:[DONE]\n\n",
        b"data: [DONE] \n\n",
        b"\xef\xbb\xbfdata: {}\n\n",
    ],
)
@pytest.mark.parametrize("name", ["chat", "messages"])
def test_comments_pings_and_spelling_are_kept(kit: Any, name: str, frame: bytes) -> None:
    assert mask(kit, name, frame) == frame


def test_other_lines_stay_with_an_edited_event(kit: Any) -> None:
    frame = b': c\nevent: e\nid: 1\ndata: {"choices": [],\ndata:  "x": "jane@x.y "}\nretry: 2\n\n'
    assert mask(kit, "chat", frame) == (
        b': c\nevent: e\nid: 1\nretry: 2\ndata: {"choices": [],\ndata:  "x": "[EMAIL] "}\n\n'
    )


def test_a_replacement_cannot_break_the_framing(kit: Any) -> None:
    class Lines(kit.WordMask):  # type: ignore[misc,name-defined]
        def whole(self, text: str) -> str:
            return text.replace("x", "\n\ndata: {}\r\n\n")

    out = kit.run(of(kit, "chat"), [Lines()], b': x\n\ndata: {"error": "x"}\n\n')
    assert len(list(kit.events_of(out))) == 1
    assert json.loads(out[out.index(b'{"error') :])["error"] == "\n\ndata: {}\r\n\n"


@pytest.mark.parametrize(
    "kind", ["x\n\ndata: {}\n\nresponse.novelty", "x\rdata: {}", "a b", "ü", "x\u2028", ""]
)
def test_a_type_cannot_inject_lines_into_a_made_event(kit: Any, kind: str) -> None:
    event = {"type": kind, "item_id": "m", "x": "ja"}
    if kind:
        refuse(kit, "responses", event, match="not one word")
    else:
        assert len(list(kit.events_of(mask(kit, "responses", event)))) == 2


def test_plain_data_is_one_text_over_events(kit: Any) -> None:
    out = mask(kit, "chat", b"data: to jane\n\n", b"data: @x.y, ja\n\n", b"data: [DONE]\n\n")
    assert out == b"data: to \n\ndata: [EMAIL], \n\ndata: ja\n\ndata: [DONE]\n\n"


def test_a_field_called_data_is_not_the_plain_data(kit: Any) -> None:
    out = mask(kit, "chat", b"data: jane\n\n", {"data": "x"}, b"data: @x.y\n\n")
    assert WORD not in out.decode()
    assert out.count(b"[EMAIL]") == 1


def test_plain_brackets_and_quotes_are_text(kit: Any) -> None:
    out = mask(kit, "chat", b"data: [note] jane@x.y\n\n", b'data: "quoted" jane@x.y\n\n')
    assert out.count(b"[EMAIL]") == 2


# Copies of text.


@pytest.mark.parametrize(
    ("name", "event", "field"),
    [
        ("chat", choice({}, logprobs={"content": [{"token": "ja"}]}), "logprobs"),
        ("chat", choice({}, token_ids=[1, 2]), "token_ids"),
        ("chat", {"choices": [], "prompt_logprobs": [None, {}]}, "prompt_logprobs"),
        ("chat", {"choices": [], "prompt_token_ids": [1]}, "prompt_token_ids"),
        ("completions", {"choices": [{"index": 0, "logprobs": {"tokens": ["ja"]}}]}, "logprobs"),
        (
            "responses",
            {"type": "response.output_text.delta", "delta": "", "logprobs": [{"token": "ja"}]},
            "logprobs",
        ),
        (
            "responses",
            {"type": "response.output_text.done", "text": "", "logprobs": [{"token": "ja"}]},
            "logprobs",
        ),
        ("ollama-chat", {"message": {}, "logprobs": [{"token": "ja"}], "done": False}, "logprobs"),
        ("ollama-generate", {"response": "", "context": [1], "done": True}, "context"),
        ("llamacpp", {"content": "", "tokens": [1], "stop": False}, "tokens"),
        (
            "llamacpp",
            {"content": "", "completion_probabilities": [{"token": "ja"}], "stop": False},
            "completion_probabilities",
        ),
    ],
)
def test_copies_are_dropped_where_text_is_masked_and_kept_where_it_is_judged(
    kit: Any, name: str, event: Any, field: str
) -> None:
    (masked,) = kit.events_of(mask(kit, name, event))
    assert not find(masked, field)
    stream = kit.ndjson(event) if name.startswith("ollama") else kit.sse(event)
    assert kit.run(of(kit, name), [kit.Listener()], stream) == stream


def find(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name) or next(filter(None, (find(v, name) for v in value.values())), None)
    if isinstance(value, list):
        return next(filter(None, (find(v, name) for v in value)), None)
    return None


@pytest.mark.parametrize("filters", ["mask", "judge"])
def test_a_string_in_the_place_of_a_copy_is_a_text(kit: Any, filters: str) -> None:
    event = choice({}, logprobs=WORD, x={"y": "z"})
    if filters == "mask":
        assert WORD not in mask(kit, "chat", event).decode()
    else:
        with pytest.raises(PermissionError):
            kit.run(of(kit, "chat"), [kit.Listener(WORD)], kit.sse(event))


# Names are not pieces: a tool whose name begins like a value to mask must keep it.


@pytest.mark.parametrize(
    ("name", "event"),
    [
        (
            "messages",
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "tool_use", "id": "t", "name": "jane", "input": {}},
            },
        ),
        (
            "responses",
            {
                "type": "response.output_item.added",
                "item": {"type": "function_call", "name": "jane", "arguments": ""},
            },
        ),
        ("chat", choice({"tool_calls": [{"index": 0, "function": {"name": "jane"}}]})),
        (
            "ollama-chat",
            {"message": {"tool_calls": [{"function": {"name": "jane"}}]}, "done": False},
        ),
    ],
)
def test_the_name_of_a_tool_comes_whole(kit: Any, name: str, event: Any) -> None:
    (out,) = kit.events_of(mask(kit, name, event))
    assert out == event


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2),
    st.floats(0, 1),
    st.sampled_from([WORD, "ja", "x"]),
)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_shape_of_event_breaks_a_dialect_or_leaks(
    kit: Any, name: str, data: st.DataObject
) -> None:
    words = {
        "chat": ["choices", "index", "delta", "content", "tool_calls", "function", "arguments"],
        "completions": ["choices", "index", "text", "finish_reason", "logprobs"],
        "responses": ["type", "delta", "item", "response", "output", "part", "item_id"],
        "messages": ["type", "index", "delta", "content_block", "text", "message", "content"],
        "ollama-chat": ["message", "content", "tool_calls", "done", "error", "thinking"],
        "llamacpp": ["index", "content", "stop", "tokens"],
    }[name]
    kinds = ["response.output_text.delta", "response.completed", "content_block_delta", "x.done"]
    # ids and names of the protocol are not text: nothing is hidden there in this test
    values = st.recursive(
        SCALARS,
        lambda below: st.one_of(
            st.lists(below, max_size=2),
            st.dictionaries(
                st.sampled_from([w for w in words if w not in META]), below, max_size=3
            ),
        ),
        max_leaves=10,
    )
    events = []
    for _ in range(data.draw(st.integers(1, 4))):
        event = data.draw(st.dictionaries(st.sampled_from(words), values, max_size=4))
        for meta in META & event.keys():
            event[meta] = data.draw(st.sampled_from(kinds))
        events.append(event)
    try:
        out = mask(kit, name, *events)
    except StreamError:
        return
    assert WORD not in out.decode()


META = {"type", "item_id", "finish_reason"}


# Plain text.


def text(kit: Any, *pieces: bytes) -> bytes:
    plain = TextStream([kit.WordMask()])
    return b"".join([part for piece in pieces for part in plain.feed(piece)] + plain.finish())


def test_a_plain_text_is_one_channel_at_every_cut(kit: Any) -> None:
    whole = f"ü {WORD} \U0001f600 {WORD[:-1]}".encode()
    for cut in range(len(whole) + 1):
        assert text(kit, whole[:cut], whole[cut:]) == f"ü [EMAIL] \U0001f600 {WORD[:-1]}".encode()
    assert TextStream([]).coverage == {"channel": 1}


@pytest.mark.parametrize("broken", [b"\xff", "ü".encode()[:1], b"a\xed\xa0\x80"])
def test_a_plain_text_that_is_not_utf8_ends_the_stream(kit: Any, broken: bytes) -> None:
    with pytest.raises(StreamError, match="not UTF-8"):
        text(kit, b"fine ", broken)


def test_what_one_filter_holds_to_the_end_still_runs_through_the_next(kit: Any) -> None:
    listener = kit.Listener(objects_to="jan")
    events = EventStream(of(kit, "chat"), [kit.WordMask(), listener])
    events.feed(kit.sse(choice({"content": "jan"})))
    with pytest.raises(PermissionError):
        events.finish()
