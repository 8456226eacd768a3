import json
from collections.abc import Sequence
from typing import Any

import pytest

from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.endpoints import find
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.transcript import Turn, answer_turns, prompt_turns

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
        "2.item.name": "send_mail",
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
        said = {turn.address: turn.text for turn in turns if turn.part != "field"}
        assert said == EXPECTED[name]
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


def test_comments_are_passed_over_and_plain_data_is_text() -> None:
    raw = b": ping\n\ndata: plain\n\ndata: text\n\ndata: [DONE]\n\n"
    (turn,) = answer_turns(endpoint("/v1/chat/completions"), 200, "text/event-stream", raw)
    assert (turn.text, turn.role) == ("plaintext", "assistant")


def told(turns: Sequence[Turn]) -> list[tuple[str, str, str, str]]:
    return [(turn.role, turn.message, turn.part, turn.text) for turn in turns]


OPENAI: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "D"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "U"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"arguments": '{"n": 1}', "name": "f"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "R", "cached": True},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "temperature": 0.5,
    "invented": {"deep": "said"},
}
ANTHROPIC: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "U"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "T", "signature": "c2ln"},
                {"type": "text", "text": "A"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": [1]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "R"}],
                }
            ],
        },
    ],
    "system": "S",
}
RESPONSES: dict[str, Any] = {
    "instructions": "S",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "U"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"n": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "R"},
    ],
}
PROMPTS: list[tuple[str, dict[str, Any], list[tuple[str, str, str, str]]]] = [
    (
        "/v1/chat/completions",
        OPENAI,
        [
            ("developer", "messages[0]", "text", "D"),
            ("user", "messages[1]", "text", "U"),
            ("user", "messages[1]", "media", "[image/png, 316 bytes]"),
            ("assistant", "messages[2]", "id", "c1"),
            ("assistant", "messages[2]", "arguments", '{"n": 1}'),
            ("assistant", "messages[2]", "call", "f"),
            ("tool", "messages[3]", "id", "c1"),
            ("tool", "messages[3]", "result", "R"),
            ("tool", "messages[3]", "field", "true"),
            ("tools", "", "tool", '{"type": "function", "function": {"name": "f"}}'),
            ("", "", "field", "m"),
            ("", "", "field", "0.5"),
            ("", "", "field", '{"deep": "said"}'),
        ],
    ),
    (
        "/v1/messages",
        ANTHROPIC,
        [
            ("system", "", "text", "S"),
            ("user", "messages[0]", "text", "U"),
            ("assistant", "messages[1]", "reasoning", "T"),
            ("assistant", "messages[1]", "text", "A"),
            ("assistant", "messages[1]", "id", "c1"),
            ("assistant", "messages[1]", "call", "f"),
            ("assistant", "messages[1]", "arguments", '{"n": [1]}'),
            ("tool", "messages[2]", "id", "c1"),
            ("tool", "messages[2]", "result", "R"),
            ("", "", "field", "m"),
        ],
    ),
    (
        "/v1/responses",
        RESPONSES,
        [
            ("system", "", "text", "S"),
            ("user", "input[0]", "text", "U"),
            ("assistant", "input[1]", "id", "c1"),
            ("assistant", "input[1]", "call", "f"),
            ("assistant", "input[1]", "arguments", '{"n": 1}'),
            ("tool", "input[2]", "id", "c1"),
            ("tool", "input[2]", "result", "R"),
        ],
    ),
    (
        "/api/generate",
        {"prompt": "U", "system": "S", "model": "m"},
        [("system", "", "text", "S"), ("user", "", "text", "U"), ("", "", "field", "m")],
    ),
    (
        "/generate",
        {"inputs": "U", "parameters": {"stop": ["x"]}},
        [("user", "", "text", "U"), ("", "", "field", '{"stop": ["x"]}')],
    ),
    ("/completion", {"prompt": "U"}, [("user", "", "text", "U")]),
    (
        "/v1/rerank",
        {"query": "Q", "documents": ["A", {"text": "B"}]},
        [("user", "", "text", "Q"), ("user", "", "text", "A"), ("user", "", "text", "B")],
    ),
    (
        "/mcp",
        {"method": "tools/call", "params": {"name": "f", "arguments": {"a": "b"}}},
        [
            ("assistant", "", "call", "f"),
            ("assistant", "", "arguments", '{"a": "b"}'),
            ("", "", "field", "tools/call"),
        ],
    ),
]


@pytest.mark.parametrize(("path", "body", "expected"), PROMPTS, ids=[p[0] for p in PROMPTS])
def test_who_says_what_in_a_request(path: str, body: Any, expected: Any) -> None:
    turns = prompt_turns(endpoint(path), path, JSON, json.dumps(body).encode())
    assert told(turns) == expected


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
ANSWERS: list[tuple[str, Any, list[tuple[str, str, str, str]]]] = [
    (
        "/v1/chat/completions",
        {
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "A",
                        "reasoning_content": "T",
                        "tool_calls": [CALL],
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": {"total_tokens": 3},
        },
        [
            ("assistant", "choices[0]", "text", "A"),
            ("assistant", "choices[0]", "reasoning", "T"),
            ("assistant", "choices[0]", "call", "f"),
            ("assistant", "choices[0]", "arguments", '{"n": 1}'),
            ("", "", "field", "total_tokens 3"),
            ("", "", "field", "stop"),
        ],
    ),
    (
        "/v1/responses",
        {
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "T"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "A", "annotations": []}],
                },
            ]
        },
        [("assistant", "", "reasoning", "T"), ("assistant", "", "text", "A")],
    ),
    (
        "/v1/embeddings",
        {"data": [{"index": 0, "embedding": [0.5, 0.5]}]},
        [("", "", "field", "1 of 2 numbers")],
    ),
    (
        "/api/embed",
        {"embeddings": [[0.5, 0.5], [0.1, 0.1]], "total_duration": 5},
        [("", "", "field", "5"), ("", "", "field", "2 of 2 numbers")],
    ),
    (
        "/v1/rerank",
        {"results": [{"index": 0, "document": {"text": "A"}, "relevance_score": 0.5}]},
        [("server", "", "text", "A"), ("server", "", "field", "0.5")],
    ),
    (
        "/mcp",
        {
            "id": 1,
            "result": {"content": [{"type": "text", "text": "R"}], "structuredContent": {"k": 1}},
        },
        [("tool", "", "text", "R"), ("tool", "", "result", '{"k": 1}')],
    ),
]


@pytest.mark.parametrize(("path", "body", "expected"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_who_says_what_in_an_answer(path: str, body: Any, expected: Any) -> None:
    turns = answer_turns(endpoint(path), 200, JSON, json.dumps(body).encode())
    assert told(turns) == expected


def test_an_error_is_nobodys_word() -> None:
    raw = b'{"error": {"message": "No", "code": "weights", "status": 403}}'
    turns = answer_turns(endpoint("/v1/chat/completions"), 403, JSON, raw)
    assert [(turn.role, turn.text) for turn in turns] == [
        ("error", "No"),
        ("error", "weights"),
        ("error", "403"),
    ]


def test_a_stream_that_says_a_thing_only_at_its_end_is_heard(kit: Any) -> None:
    item = {"type": "function_call", "id": "fc", "name": "f", "arguments": '{"n": 1}'}
    raw = kit.sse({"type": "response.output_item.done", "output_index": 0, "item": item})
    turns = answer_turns(endpoint("/v1/responses"), 200, "text/event-stream", raw)
    assert [(turn.part, turn.text) for turn in turns] == [("call", "f"), ("arguments", '{"n": 1}')]
    assert len({turn.call for turn in turns}) == 1
