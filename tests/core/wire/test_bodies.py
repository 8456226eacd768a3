"""Whole bodies: answers, and tool-call arguments edited as the JSON they are."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.wire.answer import AnswerError, read_answer
from mitmgate.core.wire.arguments import edit_arguments
from mitmgate.core.wire.body import JsonBody, TextBody
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.endpoints import ENDPOINTS, find

CHAT = find("POST", "/v1/chat/completions")
MESSAGES = find("POST", "/v1/messages")
assert CHAT
assert MESSAGES


def mask(text: str) -> str:
    """A person's address, a card, and what stands beside the word password."""
    text = re.sub(r"[a-z.]+@[a-z.]+", "[EMAIL]", text)
    text = re.sub(r"(?<!\d)4\d{15}(?!\d)", "[CARD]", text)
    return re.sub(r'("?password"?\s*[:=]\s*"?)[a-z]\w+', r"\1[SECRET]", text)


def test_an_answer_is_edited_in_every_text_and_nowhere_else() -> None:
    raw = (
        b'{"id":"jane-1", "choices" : [\n {"index":0,"message":{"content":"ask jane@x.y",'
        b'"tool_calls":[{"function":{"name":"f","arguments":"{\\"to\\": \\"jane@x.y\\"}"}}]},'
        b'"logprobs":{"content":[{"token":"jane"}]}}],"usage":{"total":1.50}}'
    )
    body = read_answer(CHAT, 200, "application/json", raw)
    body.edit(mask)
    assert body.encode() == (
        b'{"id":"jane-1", "choices" : [\n {"index":0,"message":{"content":"ask [EMAIL]",'
        b'"tool_calls":[{"function":{"name":"f","arguments":"{\\"to\\": \\"[EMAIL]\\"}"}}]},'
        b'"logprobs":null}],"usage":{"total":1.50}}'
    )
    assert body.edited
    assert body.size == len(raw)


def test_an_answer_with_nothing_to_edit_is_the_bytes_that_came() -> None:
    raw = b' {"choices": [{"message": {"content": "\\u0048i \\/ 1e5"}}], "x": 1.0} '
    body = read_answer(CHAT, 200, "application/json", raw)
    body.edit(mask)
    assert body.encode() == raw
    assert not body.edited


def test_the_arguments_of_a_call_that_is_an_object_are_masked_with_their_numbers() -> None:
    raw = b'{"content":[{"type":"tool_use","input": {"to" :"jane@x.y","card":4111111111111111}}]}'
    body = read_answer(MESSAGES, 200, "application/json", raw)
    assert [s.text for s in body.segments("answer")] == [
        '{"to" :"jane@x.y","card":4111111111111111}'
    ]
    body.edit(mask)
    assert body.encode() == (
        b'{"content":[{"type":"tool_use","input": {"to" :"[EMAIL]","card":"[CARD]"}}]}'
    )


@pytest.mark.parametrize(
    ("content_type", "raw", "kind"),
    [
        ("application/json", b'{"a": "jane@x.y"}', JsonBody),
        ("", b'{"a": "jane@x.y"}', JsonBody),
        ("", b' ["jane@x.y"]', JsonBody),
        ("", b"jane@x.y", TextBody),
        ("text/plain", b"jane@x.y", TextBody),
        ("text/html", b"<p>jane@x.y", TextBody),
        ("text/plain", b'{"a": "jane\\u0040x.y"}', JsonBody),
        ("text/plain", b"[note] jane@x.y", TextBody),
    ],
)
def test_an_answer_is_read_as_its_readers_will(content_type: str, raw: bytes, kind: type) -> None:
    body = read_answer(CHAT, 200, content_type, raw)
    assert isinstance(body, kind)
    assert "jane@x.y" in " ".join(s.text for s in body.segments("answer"))
    body.edit(mask)
    assert b"[EMAIL]" in body.encode()


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("application/json", b"not json"),
        ("application/json", b'{"a": 1, "a": 2}'),
        ("application/json", b"[" * 3000 + b"]" * 3000),
        ("", b"{broken"),
        ("text/plain", b'{"a": jane@x.y'),
        ("text/plain", b"j\0a\0n\0e\0"),
        ("application/json; charset=utf-16", b"{}"),
        ("text/plain", b"\xff"),
        ("text/plain; charset=latin-1", b"x"),
        ("image/png", b"x"),
        ("text/event-stream", b"data: x\n\n"),
        ("application/x-ndjson", b"{}\n"),
        ("nonsense", b"x"),
    ],
)
def test_an_answer_that_cannot_be_read_is_not_delivered(content_type: str, raw: bytes) -> None:
    with pytest.raises(AnswerError):
        read_answer(CHAT, 200, content_type, raw)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_every_string_of_an_error_is_text(status: int) -> None:
    raw = b'{"id": "jane@x.y", "object": "b"}'
    body = read_answer(CHAT, status, "application/json", raw)
    assert {s.text for s in body.segments("answer")} == {"id", "jane@x.y", "object", "b"}


def test_an_empty_answer_is_empty() -> None:
    body = read_answer(CHAT, 204, "image/png", b"")
    assert body.segments("answer") == []
    assert body.encode() == b""
    assert body.coverage == {}


def test_coverage_counts_what_was_read_and_what_was_not() -> None:
    raw = (
        b'{"choices":[{"index":0,"message":{"content":"a","audio":{"data":"UklG"}},'
        b'"logprobs":{"x":1}}]}'
    )
    body = JsonBody(raw, CHAT.answer)
    assert body.coverage == {"text": 2, "blob": 1, "logprobs": 1}  # the key content is text too
    assert [s.text for s in body.segments("answer")] == ["content", "a"]


def test_text_is_edited_as_text() -> None:
    body = TextBody("Grüße an jane@x.y".encode())
    assert not body.edited
    body.edit(mask)
    assert body.edited
    assert body.encode() == "Grüße an [EMAIL]".encode()
    assert body.coverage == {"text": 1}
    with pytest.raises(DocumentError):
        TextBody(b"\xff")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
@given(data=st.data())
@settings(max_examples=15)
def test_no_shape_of_json_breaks_a_schema(endpoint: Any, data: st.DataObject) -> None:
    names = ["choices", "message", "content", "messages", "input", "output", "item", "role", "type"]
    keys = st.one_of(st.sampled_from(names), st.text(max_size=3))
    values = st.recursive(
        SCALARS,
        lambda below: st.one_of(
            st.lists(below, max_size=3), st.dictionaries(keys, below, max_size=3)
        ),
        max_leaves=12,
    )
    raw = json.dumps(data.draw(values)).encode()
    for schema in (endpoint.request, endpoint.answer):
        if schema is not None:
            body = JsonBody(raw, schema)
            body.edit(lambda text: text + "\u2028!")
            json.loads(body.encode())


# Arguments.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"to": "jane@x.y"}', '{"to": "[EMAIL]"}'),
        ('{"to" : "jane\\u0040x.y" }', '{"to" : "[EMAIL]" }'),
        ('{"jane@x.y": 1}', '{"[EMAIL]": 1}'),
        ('["a", {"b": ["jane@x.y"]}]', '["a", {"b": ["[EMAIL]"]}]'),
        ('"jane@x.y"', '"[EMAIL]"'),
        ('{"n": 1.50, "m": 1e5, "k": 4111111111111112345}', None),
        ('{"card": 4111111111111111}', '{"card": "[CARD]"}'),
        ('{"card": -4111111111111111}', '{"card": "-[CARD]"}'),
        ('{"a": "4111111111111111", "b": [4111111111111111]}', '{"a": "[CARD]", "b": ["[CARD]"]}'),
        ('{"s": "say \\"4111111111111111\\"!"}', '{"s": "say \\"[CARD]\\"!"}'),
        ('{"password": "hunter"}', '{"password": "[SECRET]"}'),
        ('{"password":"hunter","x":"}{"}', '{"password":"[SECRET]","x":"}{"}'),
        ("", None),
        ("plain", None),
        ("mail jane@x.y", "mail [EMAIL]"),
        # what strict JSON is not, but somebody may read all the same
        ('{"to": "jane@x.y', '{"to": "[EMAIL]'),
        ('{"to": "jane\\u0040x.y', '{"to": "[EMAIL]'),
        ('{"to": "jane\\u0040x.y"', '{"to": "[EMAIL]"'),
        ('{"to": "x", "to": "jane\\u0040x.y"}', '{"to": "x", "to": "[EMAIL]"}'),
        ('{"to": "jane\\u0040x.y", "n": NaN}', '{"to": "[EMAIL]", "n": NaN}'),
        ('{"to": "jane\\x\\u0040x.y",}', '{"to": "[EMAIL]",}'),
        ('{"to": "jane@x.y\\', '{"to": "[EMAIL]'),
        ('{"to": "a\\u00', None),
        ("{'to': 'jane@x.y'}", "{'to': '[EMAIL]'}"),
        ('{"a": "\\ud83d\\ude00 jane\\u0040x.y"', '{"a": "\U0001f600 [EMAIL]"'),
        ('{"a": 1}{"b": "jane\\u0040x.y"}', '{"a": 1}{"b": "[EMAIL]"}'),
        ("[" * 2000 + '"jane\\u0040x.y"' + "]" * 2000, "[" * 2000 + '"[EMAIL]"' + "]" * 2000),
    ],
)
def test_arguments_are_edited_as_json_however_broken(text: str, expected: str | None) -> None:
    assert edit_arguments(text, mask) == (text if expected is None else expected)


def test_an_edit_of_the_whole_that_would_break_the_json_is_not_made() -> None:
    text = '{"a": "b", "c": 12}'
    assert edit_arguments(text, lambda each: each.replace('"b", "c"', "[X]")) == text
    assert edit_arguments(text, lambda each: each.replace("b", "[X]")) == '{"a": "[X]", "c": 12}'


@given(
    st.recursive(
        st.one_of(
            SCALARS,
            st.sampled_from(["jane@x.y", "to: jane@x.y!", 4111111111111111, "4111111111111111"]),
        ),
        lambda below: st.one_of(
            st.lists(below, max_size=4), st.dictionaries(st.text(max_size=4), below, max_size=4)
        ),
        max_leaves=15,
    ),
    st.booleans(),
)
@settings(max_examples=150)
def test_valid_arguments_stay_valid_and_keep_their_shape(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    edited = json.loads(edit_arguments(text, mask))
    assert edited == masked_by_hand(value)


def masked_by_hand(value: Any) -> Any:
    if isinstance(value, list):
        return [masked_by_hand(item) for item in value]
    if isinstance(value, dict):
        return {mask(key): masked_by_hand(item) for key, item in value.items()}
    if isinstance(value, str):
        return mask(value)
    is_card = type(value) is int and mask(str(value)) != str(value)
    return mask(str(value)) if is_card else value
