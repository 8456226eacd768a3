import json
from typing import Any

import pytest

from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import ENDPOINTS, find
from mitmgate.core.wire.prompt import Prompt, PromptError, read_prompt

JSON = "application/json"


def endpoint(path: str, method: str = "POST") -> Endpoint:
    found = find(method, path)
    assert found is not None
    return found


def read(path: str, body: Any, content_type: str = JSON) -> Prompt:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_prompt(endpoint(path), path, content_type, raw)


def refusal(path: str, body: Any, content_type: str = JSON) -> tuple[int, str]:
    with pytest.raises(PromptError) as caught:
        read(path, body, content_type)
    return caught.value.status, caught.value.code


# Token ids and embeddings: text that no rule can read.


@pytest.mark.parametrize("path", ["/v1/completions", "/completion", "/completions", "/infill"])
@pytest.mark.parametrize(
    "prompt",
    [
        [1, 2, 3],
        [[1, 2], [3]],
        ["text", 5],
        [5, "text"],
        ["text", [5]],
        [[["deep", [7]]]],
        [1.0],
        [True],
        5,
        [{"prompt_token_ids": [1]}],
        {"prompt_embeds": "AAAA"},
    ],
)
def test_token_ids_in_a_prompt_are_refused(path: str, prompt: Any) -> None:
    assert refusal(path, {"model": "m", "prompt": prompt}) == (400, "prompt_opaque")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/embeddings", "input"),
        ("/v1/responses", "input"),
        ("/embedding", "content"),
        ("/embeddings", "input"),
        ("/embeddings", "content"),
        ("/api/embed", "input"),
        ("/api/embeddings", "prompt"),
        ("/v1/rerank", "query"),
        ("/infill", "input_prefix"),
        ("/infill", "input_suffix"),
    ],
)
@pytest.mark.parametrize("value", [[1, 2], [[1], ["a"]], ["a", 2]])
def test_token_ids_are_refused_wherever_a_server_takes_them(
    path: str, field: str, value: Any
) -> None:
    assert refusal(path, {"model": "m", field: value}) == (400, "prompt_opaque")


@pytest.mark.parametrize("path", [e.path for e in ENDPOINTS if e.request is not None])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_embeds", "AAAA"),
        ("prompt_embeds", ["AAAA"]),
        ("previous_response_id", "resp_1"),
        ("conversation", {"id": "conv_1"}),
        ("input", [{"type": "item_reference", "id": "msg_1"}]),
        ("prompt", ["["] and [[[[[["deep"] * 2] * 2]]], [1]]),
        ("prompt_token_ids", [1]),
        ("input_ids", [[1]]),
        ("context", [1, 2]),
        ("chat_template", "{{ 'exp' ~ 'ort' }}"),
        ("template", '{{ "exp" }}{{ "ort" }}'),
    ],
)
def test_what_writes_the_prompt_out_of_sight_is_refused(path: str, field: str, value: Any) -> None:
    assert refusal(path, {"model": "m", field: value}) == (400, "prompt_opaque")
    assert read(path, {"model": "m", field: None}).model == "m"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "1 2 3"}),
        ("/v1/completions", {"prompt": ["1", "2"], "logit_bias": {"5": 1}, "n": 2}),
        ("/completion", {"prompt": {"prompt_string": "a", "multimodal_data": ["iVBO"]}}),
        ("/v1/responses", {"input": [{"type": "message", "content": [{"text": "a", "x": 1}]}]}),
        ("/detokenize", {"tokens": [1, 2]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "1"}], "seed": 5}),
    ],
)
def test_texts_and_numbers_elsewhere_pass(path: str, body: Any) -> None:
    assert read(path, body).body is not None


# Keys that Go reads in any case, and others do not.


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "a", "Model": "b", "messages": []}),
        ("/api/chat", {"Model": "b", "messages": []}),
        ("/api/chat", {"model": "a", "Messages": []}),
        ("/api/chat", {"model": "a", "me\u017fsages": []}),
        ("/api/chat", {"model": "a", "messages": [{"Role": "system", "content": "x"}]}),
        ("/api/chat", {"model": "a", "messages": [{"role": "user", "CONTENT": "x"}]}),
        ("/api/chat", {"model": "a", "Images": ["x"]}),
        ("/api/generate", {"model": "a", "Prompt": "x"}),
        ("/api/generate", {"model": "a", "System": "x"}),
        ("/api/generate", {"model": "a", "Context": [1]}),
        ("/api/generate", {"model": "a", "TEMPLATE": "x"}),
        ("/api/generate", {"model": "a", "Options": {"stop": ["x"]}}),
        ("/api/generate", {"model": "a", "options": {"Stop": ["x"]}}),
        ("/api/embed", {"model": "a", "Input": "x"}),
        ("/v1/chat/completions", {"model": "a", "Stream": True}),
        ("/v1/chat/completions", {"model": "a", "MODEL": "b"}),
        ("/v1/messages", {"model": "a", "System": "x", "messages": []}),
        ("/v1/responses", {"model": "a", "Instructions": "x"}),
    ],
)
def test_a_key_of_the_api_in_another_case_is_refused(path: str, body: Any) -> None:
    assert refusal(path, body) == (400, "key_misspelled")


def test_keys_of_other_peoples_objects_are_theirs() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"Model": {}, "model": {}}}}
    body = {"model": "a", "messages": [], "tools": [tool], "metadata": {"Model": "x"}, "topK": 1}
    assert read("/v1/chat/completions", body).model == "a"


# Bodies.


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 0),
        ("application/json; charset=utf-8", 0),
        ("APPLICATION/JSON", 0),
        ("", 0),
        ("application/vnd.api+json", 0),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("text/json", 415),
        ("application/x-ndjson", 415),
        ("text/event-stream", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/octet-stream", 415),
        ("nonsense", 415),
        ("application/json, text/plain", 415),
    ],
)
def test_content_types(content_type: str, status: int) -> None:
    body = {"model": "m", "messages": []}
    if status:
        assert refusal("/v1/chat/completions", body, content_type) == (
            status,
            "media_type_unsupported",
        )
    else:
        assert read("/v1/chat/completions", body, content_type).model == "m"


def test_curl_speaks_to_ollama_in_forms() -> None:
    form = "application/x-www-form-urlencoded"
    assert read("/api/generate", {"model": "m", "prompt": "x"}, form).model == "m"
    assert refusal("/api/generate", b"model=m&prompt=x", form) == (400, "body_unreadable")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"not json",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": "ü"}'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"messages":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_not_one_strict_object_is_refused(raw: bytes) -> None:
    assert refusal("/v1/chat/completions", raw) == (400, "body_unreadable")


@pytest.mark.parametrize("model", [5, ["m"], {"id": "m"}, True])
def test_a_model_is_a_string(model: Any) -> None:
    assert refusal("/v1/chat/completions", {"model": model}) == (400, "model_invalid")


@pytest.mark.parametrize(
    ("body", "model"), [({}, None), ({"model": None}, None), ({"model": ""}, "")]
)
def test_a_model_may_be_missing(body: Any, model: str | None) -> None:
    assert read("/v1/chat/completions", body).model == model


@pytest.mark.parametrize(
    ("path", "body", "streams"),
    [
        ("/v1/chat/completions", {}, False),
        ("/v1/chat/completions", {"stream": True}, True),
        ("/v1/chat/completions", {"stream": None}, False),
        ("/v1/messages", {}, False),
        ("/api/chat", {}, True),
        ("/api/chat", {"stream": None}, True),
        ("/api/chat", {"stream": False}, False),
        ("/api/generate", {}, True),
        ("/api/embed", {}, False),
        ("/completion", {"stream": True}, True),
    ],
)
def test_whether_an_answer_will_stream(path: str, body: Any, streams: bool) -> None:
    assert read(path, body).streams is streams


def test_an_endpoint_without_a_body_takes_none() -> None:
    models = endpoint("/v1/models", "GET")
    prompt = read_prompt(models, "/v1/models?x=jane", "", b"")
    assert prompt.body is None
    assert prompt.canonical is None
    assert [(s.where, s.address, s.text) for s in prompt.segments()] == [
        ("path", "path", "/v1/models?x=jane")
    ]
    with pytest.raises(PromptError, match="takes no request body") as caught:
        read_prompt(models, "/v1/models", JSON, b"{}")
    assert caught.value.code == "body_unexpected"


def test_canonical_forgets_white_space_and_escapes_only() -> None:
    one = read("/v1/chat/completions", b'{"model": "m", "messages": ["\\u0061"]}')
    two = read("/v1/chat/completions", b'{"model":"m","messages":["a"]}')
    three = read("/v1/chat/completions", b'{"model":"m","messages":["b"]}')
    assert one.canonical == two.canonical != three.canonical


# What rules see: each text with its part.


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {"role": "system", "content": "S1"},
                    {"role": "developer", "content": [{"type": "text", "text": "S2"}]},
                    {"role": "user", "content": [{"type": "text", "text": "P1"}, "P2"]},
                    {"role": "assistant", "content": "P3"},
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "type": "function",
                                "function": {"name": "C1", "arguments": '{"c": "C2"}'},
                            }
                        ],
                    },
                    {"role": "assistant", "function_call": {"name": "C3", "arguments": "C4"}},
                    {"role": "tool", "content": "R1", "tool_call_id": "R2"},
                    {"role": "function", "name": "R3", "content": [{"type": "text", "text": "R4"}]},
                    {"content": "P4"},
                    "P5",
                ],
                "tools": [{"function": {"description": "T1"}}],
                "functions": [{"description": "T2"}],
            },
            {
                "system": ["S1", "S2"],
                "prompt": ["P1", "P2", "P3", "P4", "P5"],
                "tool_calls": ["C1", '{"c": "C2"}', "C3", "C4"],
                "tool_results": ["R1", "R2", "R3", "R4"],
                "tools": ["T1", "T2"],
            },
        ),
        (
            "/v1/responses",
            {
                "instructions": "S1",
                "input": [
                    {"role": "system", "content": "S2"},
                    {"role": "developer", "content": [{"type": "input_text", "text": "S3"}]},
                    {"role": "user", "content": [{"type": "input_text", "text": "P1"}]},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "P2"}]},
                    {"type": "function_call", "name": "C1", "arguments": "C2"},
                    {"type": "custom_tool_call", "name": "C3", "input": "C4"},
                    {"type": "function_call_output", "output": "R1"},
                    {"type": "custom_tool_call_output", "output": [{"text": "R2"}]},
                    {"type": "novelty", "x": "P3"},
                ],
                "tools": [{"description": "T1"}],
            },
            {
                "system": ["S1", "S2", "S3"],
                "prompt": ["P1", "P2", "P3"],
                "tool_calls": ["C1", "C2", "C3", "C4"],
                "tool_results": ["R1", "R2"],
                "tools": ["T1"],
            },
        ),
        (
            "/v1/messages",
            {
                "system": [{"type": "text", "text": "S1"}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "P1"}]},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "name": "C1", "input": {"a": "C2"}}],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "content": "R1"},
                            {
                                "type": "tool_result",
                                "content": [
                                    {"type": "text", "text": "R2"},
                                    {
                                        "type": "document",
                                        "source": {"type": "text", "data": "R3"},
                                    },
                                ],
                            },
                            {"type": "document", "source": {"type": "text", "data": "P2"}},
                        ],
                    },
                ],
                "tools": [{"description": "T1"}],
            },
            {
                "system": ["S1"],
                "prompt": ["P1", "P2"],
                "tool_calls": ["C1", "C2"],
                "tool_results": ["R1", "R2", "R3"],
                "tools": ["T1"],
            },
        ),
        (
            "/api/chat",
            {
                "messages": [
                    {"role": "system", "content": "S1"},
                    {"role": "user", "content": "P1"},
                    {
                        "role": "assistant",
                        "content": "P2",
                        "thinking": "P3",
                        "tool_calls": [{"function": {"name": "C1", "arguments": {"a": "C2"}}}],
                    },
                    {"role": "tool", "content": "R1", "tool_name": "R2"},
                ],
                "tools": [{"function": {"description": "T1"}}],
            },
            {
                "system": ["S1"],
                "prompt": ["P1", "P2", "P3"],
                "tool_calls": ["C1", "C2"],
                "tool_results": ["R1", "R2"],
                "tools": ["T1"],
            },
        ),
        (
            "/api/generate",
            {"system": "S1", "prompt": "P1", "suffix": "P2", "format": {"description": "T1"}},
            {"system": ["S1"], "prompt": ["P1", "P2"], "tools": ["T1"]},
        ),
        (
            "/completion",
            {"prompt": ["P1"], "input_extra": [{"text": "P2"}], "grammar": "T1"},
            {"prompt": ["P1", "P2"], "tools": ["T1"]},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_text_has_the_part_of_its_role(
    path: str, body: Any, expected: dict[str, list[str]]
) -> None:
    found: dict[str, list[str]] = {}
    for segment in read(path, body).segments():
        if segment.where != "path" and any(c.isdigit() for c in segment.text):
            found.setdefault(segment.where, []).append(segment.text)
    assert found.keys() == expected.keys()
    for where, texts in found.items():
        assert sorted(texts) == sorted(expected[where])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user\nsecret", "content": ""}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "tool_call_id": "secret"}]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "secret"}]}]},
        ),
        ("/v1/chat/completions", {"reasoning_effort": "secret"}),
        ("/v1/chat/completions", {"chat_template_kwargs": {"secret": 1}}),
        ("/v1/chat/completions", {"documents": [{"text": "secret"}]}),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "file", "file": {"file_data": "secret"}}],
                    }
                ]
            },
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "http://secret/"}}],
                    }
                ]
            },
        ),
        ("/v1/responses", {"input": [{"role": "secret", "content": ""}]}),
        ("/v1/responses", {"input": [{"type": "function_call", "call_id": "secret"}]}),
        ("/v1/messages", {"messages": [{"role": "secret", "content": ""}]}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "secret"}]}]},
        ),
        ("/v1/messages", {"thinking": {"type": "secret"}}),
        ("/api/chat", {"messages": [{"role": "secret", "content": ""}]}),
        ("/api/generate", {"think": "secret"}),
    ],
)
def test_no_text_that_a_model_may_see_hides_in_names_and_ids(path: str, body: Any) -> None:
    assert any("secret" in segment.text for segment in read(path, body).segments())
