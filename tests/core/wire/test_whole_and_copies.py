"""Copies of a text that are numbers, channels that clients tell apart, messages that are whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import find
from mitmgate.core.wire.stream import EventStream, StreamError

WORD = "jane@x.y"


def endpoint(path: str, method: str = "POST") -> Endpoint:
    found = find(method, path)
    assert found is not None
    return found


def stream_of(path: str) -> Any:
    return endpoint(path).stream


def token(text: str, number: int = 9, **more: Any) -> dict[str, Any]:
    special = {"special": more.pop("special", False)}
    return {
        "index": number,
        "token": {"id": number, "text": text, "logprob": -1.5, **special},
    } | more


def test_an_id_that_spells_a_token_becomes_0_and_the_rest_of_the_event_stays(kit: Any) -> None:
    raw = b'data:{"index":1,"token":{"id":-12.0e1,"text":"hi","logprob":-1.50,"special":false}}\n\n'
    (event,) = kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw).splitlines()[:1]
    assert event == (
        b'data: {"index":1,"token":{"id":0,"text":"hi","logprob":-1.50,"special":false}}'
    )
    assert kit.run(stream_of("/generate_stream"), [kit.Listener()], raw) == raw


@pytest.mark.parametrize("number", ["0", "null", "true", "false"])
def test_what_spells_nothing_is_left_as_it_is(kit: Any, number: str) -> None:
    raw = f'data:{{"token":{{"id":{number},"text":"hi"}}}}\n\n'.encode()
    assert kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw) == raw


def test_an_id_that_is_a_string_is_a_text(kit: Any) -> None:
    raw = kit.sse({"index": 1, "token": {"id": WORD, "text": "hi"}})
    assert WORD.encode() not in kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)


def test_what_is_held_does_not_go_out_with_a_special_token(kit: Any) -> None:
    raw = kit.sse(
        token("a ja"),
        token("</s>", 10, special=True, generated_text="a ja", details={"finish_reason": "length"}),
    )
    out = list(kit.events_of(kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)))
    assert [e["token"]["text"] for e in out] == ["a ", "ja", "</s>"]
    assert [e["token"]["special"] for e in out] == [False, False, True]
    made = out[1]
    assert made == {
        "index": 9,
        "generated_text": None,
        "details": None,
        "token": {"id": 0, "text": "ja", "logprob": 0.0, "special": False},
    }


def test_a_value_around_a_special_token_is_masked_as_clients_join_it(kit: Any) -> None:
    raw = kit.sse(token("jane"), token("<|x|>", special=True), token("@x.y", generated_text=WORD))
    out = list(kit.events_of(kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)))
    assert "".join(e["token"]["text"] for e in out if not e["token"]["special"]) == "[EMAIL]"
    assert out[-1]["generated_text"] == "[EMAIL]"


def test_special_tokens_are_judged_and_masked_like_others(kit: Any) -> None:
    raw = kit.sse(*(token(piece, special=True) for piece in ("jane", "@x", ".y")))
    out = list(kit.events_of(kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)))
    assert "".join(e["token"]["text"] for e in out) == "[EMAIL]"
    assert all(e["token"]["special"] for e in out)
    with pytest.raises(PermissionError):
        kit.run(stream_of("/generate_stream"), [kit.Listener(objects_to=WORD)], raw)


def test_held_text_of_a_field_that_is_not_known_keeps_the_event_readable(kit: Any) -> None:
    raw = kit.sse({"index": "x", "token": 5, "new": {"a": "ja"}})
    out = list(kit.events_of(kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)))
    assert out[-1]["new"] == {"a": "ja"}
    assert out[-1]["token"]["text"] == ""
    assert out[-1]["index"] == 0


def test_nothing_follows_the_whole_text(kit: Any) -> None:
    raw = kit.sse(token("a", generated_text="a"), token("b"))
    with pytest.raises(StreamError, match="goes on"):
        kit.run(stream_of("/generate_stream"), [kit.WordMask()], raw)


def test_a_batch_of_texts_is_a_channel_each(kit: Any) -> None:
    path = "/v2/models/m/generate_stream"
    pieces = (["jane", "x"], ["@x.y", " ja"])
    raw = kit.sse(*({"model_name": "m", "text_output": piece} for piece in pieces))
    out = list(kit.events_of(kit.run(stream_of(path), [kit.WordMask()], raw)))
    texts = ["", ""]
    for event in out:
        assert event["model_name"] == "m"
        for index, piece in enumerate(event["text_output"]):
            texts[index] += piece
    assert texts == ["[EMAIL]", "x ja"]


def test_numbers_of_tensors_keep_their_digits_and_ids_are_dropped(kit: Any) -> None:
    raw = (
        b'{"model_name":"m","outputs":['
        b'{"name":"o","datatype":"BYTES","shape":[1],"data":["to jane@x.y"]},'
        b'{"name":"scores","datatype":"FP32","shape":[2],"data":[0.50,1e-3]},'
        b'{"name":"output_ids","datatype":"INT32","shape":[2],"data":[5,6]}]}'
    )
    body = read_answer(endpoint("/v2/models/m/infer"), 200, "application/json", raw)
    body.edit(kit.WordMask().whole)
    assert body.encode() == raw.replace(b"jane@x.y", b"[EMAIL]").replace(b"[5,6]", b"[]")


def test_a_whole_answer_of_tgi_and_its_copies(kit: Any) -> None:
    tokens = [{"id": 5, "text": "jane", "logprob": -1.5, "special": False}]
    said = {"generated_text": WORD, "tokens": tokens}
    raw = json.dumps({**said, "details": {**said, "best_of_sequences": [said]}}).encode()
    for path, text in (("/generate", raw), ("/", b"[" + raw + b"]")):
        body = read_answer(endpoint(path), 200, "application/json", text)
        body.edit(kit.WordMask().whole)
        assert b"jane" not in body.encode().replace(b'"tokens": [{"id": 5, "text": "jane"', b"", 1)
        assert body.encode().count(b"[EMAIL]") == 3


def message(**more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **more}


def test_messages_are_whole_and_wait_for_nothing(kit: Any) -> None:
    events = EventStream(stream_of("/mcp"), [kit.WordMask()])
    note = message(method="notifications/message", params={"data": "so says ja", "new": "ja"})
    for _ in range(2):
        (out,) = events.feed(kit.sse(note))
        assert list(kit.events_of(out)) == [note]
    result = message(id=1, result={"content": [{"type": "text", "text": f"to {WORD}"}]})
    (out,) = events.feed(kit.sse(result))
    assert next(kit.events_of(out))["result"]["content"][0]["text"] == "to [EMAIL]"
    assert events.feed(kit.sse(note)) == [kit.sse(note)]
    assert events.finish() == []


def test_every_string_of_a_message_is_judged_in_the_stream_that_is_asked_for_by_get(
    kit: Any,
) -> None:
    stream = endpoint("/mcp", "GET").stream
    assert stream is not None
    for params in ({"a": [{"b": WORD}]}, [WORD], WORD, {"message": WORD}, {WORD: 1}):
        with pytest.raises(PermissionError):
            kit.run(
                stream,
                [kit.Listener(objects_to=WORD)],
                kit.sse(message(method="notifications/x", params=params)),
            )


def test_a_batch_of_messages_in_a_stream_is_refused(kit: Any) -> None:
    with pytest.raises(StreamError, match="not a JSON object"):
        kit.run(stream_of("/mcp"), [kit.WordMask()], b'data: [{"id": 1, "result": {}}]\n\n')


def test_an_event_that_only_says_where_to_go_on_passes(kit: Any) -> None:
    raw = b"id: 5\ndata: \n\n"
    assert kit.run(stream_of("/mcp"), [kit.WordMask()], raw) == raw


def test_the_real_masker_leaves_the_protocol_alone(kit: Any, real_mask: Any) -> None:
    result = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": "files", "version": "1.2.3"},
    }
    raw = kit.sse(message(id="a-1", result=result))
    assert kit.run(stream_of("/mcp"), [real_mask], raw) == raw
