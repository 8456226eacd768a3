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
        ("/generate", "inputs"),
        ("/", "inputs"),
        ("/v2/models/m/generate", "text_input"),
    ],
)
@pytest.mark.parametrize("value", [[1, 2], [[1], ["a"]], ["a", 2]])
def test_token_ids_are_refused_wherever_a_server_takes_them(
    path: str, field: str, value: Any
) -> None:
    assert refusal(path, {"model": "m", field: value}) == (400, "prompt_opaque")


@pytest.mark.parametrize(
    "path",
    [
        e.path.replace("{model}", "m").replace("{version}", "1")
        for e in ENDPOINTS
        if e.request is not None
    ],
)
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


def test_a_stored_prompt_is_refused_and_a_string_in_its_place_is_text() -> None:
    assert refusal("/v1/responses", {"prompt": {"id": "pmpt_1"}}) == (400, "prompt_opaque")
    segments = read("/v1/responses", {"prompt": "a text"}).segments()
    assert ("prompt", "a text") in [(segment.where, segment.text) for segment in segments]


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
        ("/generate", {"inputs": "x"}, False),
        ("/generate_stream", {"inputs": "x"}, True),
        ("/generate_stream", {"inputs": "x", "stream": False}, True),
        ("/", {"inputs": "x"}, False),
        ("/", {"inputs": "x", "stream": True}, True),
        ("/v2/models/m/generate", {}, False),
        ("/v2/models/m/generate_stream", {"stream": False}, True),
        ("/mcp", {}, False),
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
        (
            "/generate",
            {
                "inputs": "P1",
                "parameters": {"stop": ["P2"], "grammar": {"type": "json", "value": "T1"}},
            },
            {"prompt": ["P1", "P2"], "tools": ["T1"]},
        ),
        (
            "/v2/models/m/infer",
            {
                "inputs": [
                    {"name": "a", "shape": [1], "datatype": "BYTES", "data": ["P1", ["P2"]]},
                    {"name": "max_tokens", "shape": [1], "datatype": "INT32", "data": [16]},
                ],
            },
            {"prompt": ["P1", "P2"]},
        ),
        ("/v2/models/m/generate", {"text_input": "P1", "new": "P2"}, {"prompt": ["P1", "P2"]}),
        (
            "/mcp",
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "C1", "arguments": {"a": ["C2"]}, "_meta": {"x": "P1"}},
            },
            {"prompt": ["P1"], "tool_calls": ["C1", "C2"]},
        ),
        (
            "/mcp",
            {"method": "prompts/get", "params": {"name": "P1", "arguments": {"a": "P2"}}},
            {"prompt": ["P1", "P2"]},
        ),
        (
            "/mcp",
            {"id": 7, "result": {"role": "assistant", "content": {"type": "text", "text": "P1"}}},
            {"prompt": ["P1"]},
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
        ("/generate", {"inputs": "x", "parameters": {"adapter_id": "secret"}}),
        ("/v2/models/m/infer", {"inputs": [{"name": "a\nsecret", "data": ["x"]}]}),
        ("/v2/models/m/infer", {"inputs": [{"name": "a", "parameters": {"p": "secret"}}]}),
        ("/v2/models/m/generate", {"text_input": "x", "parameters": {"stop": "secret"}}),
        ("/mcp", {"method": "export the secret"}),
        ("/mcp", {"method": "tools/call", "params": {"name": "secret"}}),
        ("/mcp", {"method": "tools/list", "params": {"cursor": "secret"}}),
        ("/mcp", {"method": "x", "params": ["secret"]}),
    ],
)
def test_no_text_that_a_model_may_see_hides_in_names_and_ids(path: str, body: Any) -> None:
    assert any("secret" in segment.text for segment in read(path, body).segments())


# Models in paths, and what KServe's extensions put out of sight.


def test_the_model_of_the_path_is_the_model_of_the_request() -> None:
    assert read("/v2/models/m-1/infer", {"inputs": []}).model == "m-1"
    assert read("/v2/models/m-1/versions/3/generate", {"text_input": "x"}).model == "m-1"
    assert read("/v2/models/m-1/generate", {"model": "m-1"}).model == "m-1"
    found = read_prompt(endpoint("/v1/models/m-1", "GET"), "/v1/models/m-1?x=/m-2", "", b"")
    assert found.model == "m-1"
    assert read_prompt(endpoint("/v2/models/a", "GET"), "/v2/models/a", "", b"").model == "a"


@pytest.mark.parametrize("model", ["m-2", ""])
def test_a_body_that_names_another_model_than_the_path_is_refused(model: str) -> None:
    path = "/v2/models/m-1/generate"
    assert refusal(path, {"text_input": "x", "model": model}) == (400, "model_invalid")


def test_a_server_with_one_model_is_not_asked_for_it() -> None:
    assert read("/generate", {"inputs": "x"}).model is None
    assert endpoint("/generate").generates


TEXTS = {"name": "text", "shape": [1], "datatype": "BYTES"}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{**TEXTS, "parameters": {"binary_data_size": 9}}]},
        {"inputs": [{**TEXTS, "parameters": {"binary_data_size": 0}}]},
        {"inputs": [{**TEXTS, "parameters": {"shared_memory_region": "r"}}]},
        {"inputs": [], "outputs": [{"name": "o", "parameters": {"binary_data": True}}]},
        {"inputs": [], "parameters": {"binary_data_output": True}},
        {"inputs": [{"name": "input_ids", "datatype": "INT64", "data": [1, 2]}]},
        {"inputs": [{**TEXTS}, {"name": "INPUT_IDS", "datatype": "int32", "data": [[1]]}]},
        {"inputs": [{"name": "tokens", "datatype": "UINT16", "data": [1]}]},
        {"inputs": [{"name": "token_type", "datatype": "UINT8", "data": [1]}]},
        {"inputs": [{"name": "input_ids", "datatype": "FP32", "data": [1.0]}]},
        {"inputs": [{"name": "input_ids", "data": [1]}]},
    ],
)
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_tensors_that_no_rule_can_read_are_refused(version: str, body: Any) -> None:
    assert refusal(f"/v2/models/m{version}/infer", body) == (400, "prompt_opaque")


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{**TEXTS, "data": ["x"], "parameters": {"content_type": "str"}}]},
        {"inputs": [{**TEXTS, "name": "tokens", "data": ["a", "b"]}]},
        {"inputs": [{"name": "max_tokens", "datatype": "INT32", "data": [5]}]},
        {"inputs": [{"name": "pixels", "datatype": "FP32", "data": [0.5]}]},
        {"inputs": [], "outputs": [{"name": "o", "parameters": {"binary_data": False}}]},
        {"inputs": "x", "outputs": 5, "parameters": None},
        {"inputs": ["x"]},
    ],
)
def test_tensors_of_text_and_of_other_numbers_pass(body: Any) -> None:
    assert read("/v2/models/m/infer", body).body is not None


@pytest.mark.parametrize("field", ["input_ids", "decoder_input_ids", "draft_tokens"])
@pytest.mark.parametrize("value", [[1, 2], [[1]], ["a", 1], [[]]])
def test_fields_of_token_ids_are_refused(field: str, value: Any) -> None:
    body = {"text_input": "x", field: value}
    assert refusal("/v2/models/m/generate", body) == (400, "prompt_opaque")


def test_numbers_about_tokens_pass() -> None:
    body = {"text_input": "x", "max_tokens": 5, "stop_tokens": ["a"], "parameters": {"n": 1}}
    assert read("/v2/models/m/generate_stream", body).streams


def test_mcp_takes_one_message_and_each_key_once() -> None:
    assert refusal("/mcp", [{"jsonrpc": "2.0", "method": "ping"}]) == (400, "body_unreadable")
    assert refusal("/mcp", {"Method": "tools/call"}) == (400, "key_misspelled")
    misspelled = {"method": "tools/call", "params": {"Name": "x"}}
    assert refusal("/mcp", misspelled) == (400, "key_misspelled")
