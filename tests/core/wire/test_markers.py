"""Wherever a text is put in a request, it is judged or the request is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import ENDPOINTS
from mitmgate.core.wire.prompt import PromptError, read_prompt

BLOB = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PARTS = [
    {"type": "text", "text": "hello"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BLOB}", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    {"type": "input_audio", "input_audio": {"data": BLOB, "format": "wav"}},
    {"type": "file", "file": {"filename": "a", "file_data": f"data:text/plain;base64,{BLOB}"}},
]
SETTINGS: dict[str, Any] = {
    "model": "m",
    "stop": ["x"],
    "user": "u",
    "metadata": {"a": "b"},
    "logit_bias": {"1": 1},
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    "guided_json": {"type": "object"},
    "guided_choice": ["a"],
    "chat_template_kwargs": {"enable_thinking": True},
    "documents": [{"title": "t", "text": "x"}],
    "stream_options": {"include_usage": True},
    "encoding_format": "float",
    "service_tier": "auto",
    "reasoning_effort": "low",
}
CHAT = {
    **SETTINGS,
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "name": "n", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ],
}
RESPONSES = {
    **SETTINGS,
    "instructions": "i",
    "include": ["x"],
    "truncation": "auto",
    "text": {"format": {"type": "text"}},
    "input": [
        {
            "type": "message",
            "id": "1",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}],
        },
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{BLOB}"}],
        },
        {"role": "user", "content": [{"type": "input_file", "filename": "f", "file_data": BLOB}]},
        {
            "type": "function_call",
            "id": "2",
            "call_id": "c",
            "name": "f",
            "arguments": "{}",
            "status": "x",
        },
        {"type": "function_call_output", "call_id": "c", "output": "r"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
    ],
}
SOURCE = {"type": "base64", "media_type": "image/png", "data": BLOB}
MESSAGES = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "service_tier": "auto",
    "thinking": {"type": "enabled"},
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "image", "source": SOURCE}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "title": "t",
                    "source": {**SOURCE, "media_type": "application/pdf"},
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "a"}]},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": BLOB},
                {"type": "tool_use", "id": "i", "name": "f", "input": {"a": ["b"]}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": "r"}]},
    ],
}
OLLAMA: dict[str, Any] = {
    "model": "m",
    "keep_alive": "5m",
    "options": {"stop": ["x"], "num_predict": 9, "mirostat": "a"},
    "format": {"type": "object"},
    "tools": [TOOL],
    "system": "s",
    "suffix": "x",
    "images": [BLOB],
}
OLLAMA_CHAT = {
    **OLLAMA,
    "messages": [
        {"role": "user", "content": "a", "images": [BLOB]},
        {
            "role": "assistant",
            "thinking": "t",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": "b"}}}],
        },
        {"role": "tool", "tool_name": "f", "content": "r"},
    ],
}
LLAMACPP = {
    "model": "m",
    "prompt": "p",
    "samplers": ["top_k"],
    "image_data": [{"data": BLOB, "id": 1}],
    "grammar": "root ::= [a]",
    "json_schema": {"type": "object"},
    "input_extra": [{"filename": "f", "text": "t"}],
    "messages": [{"role": "user", "content": "a"}],
}
TGI = {
    "inputs": "p",
    "stream": False,
    "parameters": {"stop": ["x"], "grammar": {"type": "json", "value": {}}, "adapter_id": "a"},
}
INFER = {
    "id": "1",
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}],
    "outputs": [{"name": "text"}],
    "parameters": {"priority": 1},
}
MCP = {
    "jsonrpc": "2.0",
    "id": "1",
    "method": "tools/call",
    "params": {
        "_meta": {"progressToken": "t"},
        "name": "f",
        "arguments": {"a": ["b"]},
        "messages": [{"role": "user", "content": {"type": "text", "text": "a"}}],
    },
    "result": {"content": [{"type": "image", "mimeType": "image/png", "data": BLOB}]},
}
BODIES: dict[str, dict[str, Any]] = {
    "openai chat": CHAT,
    "openai completions": {**SETTINGS, "prompt": ["p"], "suffix": "s"},
    "openai responses": RESPONSES,
    "openai embeddings": {**SETTINGS, "input": ["a"], "messages": CHAT["messages"]},
    "openai rerank": {"model": "m", "query": "q", "documents": ["d", {"text": "t"}]},
    "anthropic messages": MESSAGES,
    "anthropic tokenize": MESSAGES,
    "ollama chat": OLLAMA_CHAT,
    "ollama completions": {**OLLAMA, "prompt": "p"},
    "ollama embeddings": {**OLLAMA, "input": ["p"], "prompt": "p"},
    "llamacpp completions": LLAMACPP,
    "llamacpp embeddings": {**LLAMACPP, "content": ["c"]},
    "llamacpp tokenize": {**LLAMACPP, "content": "c"},
    "tgi completions": TGI,
    "kserve infer": INFER,
    "kserve completions": {"id": "1", "text_input": "t", "parameters": {"stop": ["x"]}},
    "mcp mcp": MCP,
}
TAKING = [endpoint for endpoint in ENDPOINTS if endpoint.request is not None]


def body_of(endpoint: Endpoint) -> dict[str, Any]:
    return BODIES[f"{endpoint.dialect.name} {endpoint.operation}"]


def judged(endpoint: Endpoint, body: Any) -> list[str] | None:
    """Every text that rules see; None for a request that is refused."""
    target = endpoint.path.replace("{model}", "m").replace("{version}", "1")
    try:
        prompt = read_prompt(endpoint, target, "application/json", json.dumps(body).encode())
    except PromptError:
        return None
    return [segment.text for segment in prompt.readings()]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def replaced(body: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    body = copy.copy(body)
    body[path[0]] = replaced(body[path[0]], path[1:], new)
    return body


def at(body: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        body = body[step]
    return body


def planted(body: Any, path: tuple[Any, ...], marker: str) -> Iterator[Any]:
    """The body with the marker in the place of a value, and within it, as key and as value."""
    old = at(body, path)
    yield from (
        replaced(body, path, new)
        for new in (marker, [marker], {marker: 1}, {"k": marker}, [[{"parts": [marker]}]])
        if path
    )
    if isinstance(old, dict):
        yield replaced(body, path, {**old, marker: None})
        yield replaced(body, path, {**old, "unheard_of": {"deep": [marker]}})
    if isinstance(old, list):
        yield replaced(body, path, [*old, marker])
        yield replaced(body, path, [*old, {"type": "text", "content": {"text": marker}}])


@pytest.mark.parametrize("marker", ["xyzzymarker", "Xyzzy, marker!"])
@pytest.mark.parametrize("endpoint", TAKING, ids=lambda each: f"{each.dialect.name} {each.path}")
def test_a_marker_in_any_place_is_judged_or_refused(endpoint: Endpoint, marker: str) -> None:
    body = body_of(endpoint)
    assert judged(endpoint, body) is not None, "the request is a valid one"
    for path in places(body):
        for changed in planted(body, path, marker):
            texts = judged(endpoint, changed)
            assert texts is None or any(marker in text for text in texts), (path, changed)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_marker_at_any_depth_is_judged_or_refused(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from(TAKING))
    body = body_of(endpoint)
    names = [str(step) for path in places(body) for step in path] + ["new"]
    value: Any = "xyzzymarker"
    for key in data.draw(st.lists(st.none() | st.sampled_from(names), max_size=6)):
        value = [value] if key is None else {key: value}
    path = data.draw(st.sampled_from([path for path in places(body) if path]))
    texts = judged(endpoint, replaced(body, path, value))
    assert texts is None or any("xyzzymarker" in text for text in texts)
