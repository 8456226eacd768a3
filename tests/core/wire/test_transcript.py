from typing import Any

import pytest

from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.endpoints import find
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.transcript import answer_turns, prompt_turns

JSON = "application/json"


def endpoint(path: str) -> Endpoint:
    found = find("POST", path.replace("{model}", "m"))
    assert found is not None
    return found


def by_letter(text: str) -> list[str]:
    return list(text)


def test_a_request_is_its_texts_in_order() -> None:
    raw = b'{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]}'
    turns = prompt_turns(endpoint("/v1/chat/completions"), "/v1/chat/completions?q", JSON, raw)
    assert [(t.where, t.address, t.text) for t in turns] == [
        ("system", "messages[0].content", "S"),
        ("prompt", "messages[1].content", "U"),
    ]
    with pytest.raises(PromptError):
        prompt_turns(endpoint("/v1/chat/completions"), "/v1/chat/completions", JSON, b"broken")


def test_an_answer_that_came_whole() -> None:
    raw = b'{"choices": [{"index": 0, "message": {"content": "Hello"}}]}'
    turns = answer_turns(endpoint("/v1/chat/completions"), 200, JSON, raw)
    assert ("answer", "choices[0].message.content", "Hello") in [
        (t.where, t.address, t.text) for t in turns
    ]
    with pytest.raises(AnswerError):
        answer_turns(endpoint("/v1/chat/completions"), 200, JSON, b"broken")


EXPECTED = {
    "chat": {
        "choices[0].delta.content": "text 0.content",
        "choices[0].delta.reasoning_content": "text 0.reasoning",
        "choices[1].delta.content": "text 1.content",
        "choices[0].delta.tool_calls[0].function.name": "send_mail",
        "choices[0].delta.tool_calls[0].function.arguments": '{"c": "0.call.0"}',
        "choices[0].delta.tool_calls[1].function.name": "send_mail",
        "choices[0].delta.tool_calls[1].function.arguments": '{"c": "0.call.1"}',
    },
    "completions": {"choices[0].text": "text 0", "choices[1].text": "text 1"},
    "responses": {
        "0.response.reasoning_summary_text.rs_1.0.delta": "text summary",
        "1.response.output_text.msg_1.0.delta": "text text",
        "2.response.function_call_arguments.fc_1.delta": '{"c": "call"}',
    },
    "messages": {
        "block[0].thinking": "text thinking",
        "block[1].text": "text text",
        "block[2].name": "send_mail",
        "block[2].partial_json": '{"c": "call"}',
    },
    "ollama-chat": {
        "message.thinking": "text thinking",
        "message.content": "text content",
        "message.tool_calls[0].function.name": "send_mail",
        "message.tool_calls[0].function.arguments": '{"c": "call"}',
    },
    "ollama-generate": {"response": "text response"},
    "llamacpp": {
        "[0].content": "text 0",
        "[1].content": "text 1",
        "[0].prompt": "Hi",
        "[1].prompt": "Hi",
    },
    "tgi": {"token.text": "text text", "special.token.text": "</s>"},
    "tgi-compatible": {"token.text": "text text"},
    "kserve": {"text_output": "text text"},
    "mcp": {
        "notifications/progress.params.message": "text note",
        "1.result.content[0].text": "text text",
        "1.result.structuredContent": '{"c": "call"}',
    },
}


def test_a_stream_is_joined_to_its_texts_and_its_copies_are_not_repeated(kit: Any) -> None:
    assert EXPECTED.keys() == kit.samples.keys()
    for name, sample in kit.samples.items():
        texts = {c: f'{{"c": "{c}"}}' if c in sample.json else f"text {c}" for c in sample.channels}
        stream = sample.make(texts, by_letter)
        kind = "application/x-ndjson" if name.startswith("ollama") else "text/event-stream"
        turns = answer_turns(endpoint(sample.path), 200, kind, stream)
        assert {turn.address: turn.text for turn in turns} == EXPECTED[name]
        assert {turn.where for turn in turns} == {"answer"}


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/v1/chat/completions", {"error": {"message": "gone"}}),
        ("/v1/messages", {"type": "error", "error": {"message": "gone"}}),
        ("/v1/responses", {"type": "error", "message": "gone"}),
    ],
)
def test_the_error_that_ends_a_stream_is_part_of_it(kit: Any, path: str, event: Any) -> None:
    turns = answer_turns(endpoint(path), 200, "text/event-stream", kit.sse(event))
    assert "gone" in [turn.text for turn in turns]


def test_a_stream_that_cannot_be_read_says_so() -> None:
    with pytest.raises(DocumentError):
        answer_turns(endpoint("/v1/messages"), 200, "text/event-stream", b"data: {broken\n\n")


def test_comments_and_plain_data_are_passed_over() -> None:
    raw = b": ping\n\ndata: [DONE]\n\ndata: plain\n\n"
    assert answer_turns(endpoint("/v1/chat/completions"), 200, "text/event-stream", raw) == []
