"""OpenAI's API as vLLM, llama.cpp, TGI, Ollama and others serve it.

Sources: OpenAI API reference (chat, completions, responses, embeddings, models) and vLLM's
OpenAI-compatible server for what it adds (rerank, tokenize, reasoning).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The error object that the SDKs turn into their exceptions."""
    kind = ERROR_TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def stream_error(status: int, code: str, message: str) -> dict[str, Any]:
    """An error event of Responses; `error` is what makes the SDKs raise."""
    return {"type": "error", "code": code, "message": message, **error(status, code, message)}


DIALECT = Dialect("openai", error=error, error_event="error")

# Requests. TEXT in a request is prompt text.


def data_url(value: Any) -> Schema:
    """An image in place is a blob; an address is text, for the server would fetch it."""
    return Kind.BLOB if isinstance(value, str) and value.startswith("data:") else TEXT


PART: Schema = {
    "type": META,
    "text": TEXT,
    "image_url": {"url": data_url, "detail": META},
    "input_audio": {"data": Kind.BLOB, "format": META},
    "file": {"file_data": Kind.BLOB, "file_id": META},
    "cache_control": META,
}
TOOL_CALL: Schema = {
    "id": META,
    "type": META,
    "function": {"name": Kind.TOOL_CALLS, "arguments": Kind.TOOL_CALLS},
}


def part_of(kind: Kind) -> Schema:
    """Content that is a string or a list of parts, all of one kind."""

    def content(value: Any) -> Schema:
        if isinstance(value, list):
            return [{**PART, "text": kind}]  # type: ignore[dict-item]
        return kind

    return content


def message(value: Any) -> Schema:
    """A chat message: what its text is depends on its role."""
    role = value.get("role") if isinstance(value, dict) else None
    kinds = {"system": Kind.SYSTEM, "developer": Kind.SYSTEM}
    kind = kinds.get(str(role), TEXT)
    if role in ("tool", "function"):
        kind = Kind.TOOL_RESULTS
    return {
        "role": META,
        "content": part_of(kind),
        "name": kind,
        "tool_call_id": META,
        "tool_calls": [TOOL_CALL],
        "function_call": Kind.TOOL_CALLS,
    }


SETTINGS: dict[str, Schema] = {
    "model": META,
    "encoding_format": META,
    "service_tier": META,
    "reasoning_effort": META,
    "tools": Kind.TOOLS,
    "functions": Kind.TOOLS,
    "tool_choice": Kind.TOOLS,
    "response_format": Kind.TOOLS,
}
CHAT: Schema = {**SETTINGS, "messages": [message]}
PROMPT: Schema = {**SETTINGS, "prompt": TEXT, "suffix": TEXT}


def item(value: Any) -> Schema:
    """One item of a Responses `input` list."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("function_call", "custom_tool_call", "local_shell_call", "mcp_call"):
        return {"type": META, "id": META, "call_id": META, "status": META, "*": Kind.TOOL_CALLS}
    if kind in ("function_call_output", "custom_tool_call_output"):
        return {"type": META, "id": META, "call_id": META, "output": Kind.TOOL_RESULTS}
    role = value.get("role") if isinstance(value, dict) else None
    text = Kind.SYSTEM if role in ("system", "developer") else TEXT

    def content(inner: Any) -> Schema:
        if isinstance(inner, list):
            return [{"type": META, "text": text, "image_url": data_url, "file_data": Kind.BLOB}]
        return text

    return {"type": META, "role": META, "id": META, "status": META, "content": content}


def items(value: Any) -> Schema:
    return [item] if isinstance(value, list) else TEXT


RESPONSES: Schema = {
    **SETTINGS,
    "input": items,
    "instructions": Kind.SYSTEM,
    "previous_response_id": META,
    "include": META,
    "truncation": META,
}

# Answers.

HEAD: dict[str, Schema] = {
    "id": META,
    "object": META,
    "model": META,
    "system_fingerprint": META,
    "service_tier": META,
    "usage": META,
    "timings": META,
}
ANSWER_CALL: Schema = {
    "id": META,
    "type": META,
    "function": {"name": TEXT, "arguments": Kind.ARGUMENTS},
}
ANSWER_MESSAGE: Schema = {
    "role": META,
    "tool_calls": [ANSWER_CALL],
    "function_call": {"name": TEXT, "arguments": Kind.ARGUMENTS},
    "audio": {"id": META, "data": Kind.BLOB},
}
CHAT_ANSWER: Schema = {
    **HEAD,
    "choices": [{"finish_reason": META, "logprobs": Kind.COPY, "message": ANSWER_MESSAGE}],
    "prompt_logprobs": Kind.COPY,
}
PROMPT_ANSWER: Schema = {
    **HEAD,
    "choices": [{"finish_reason": META, "logprobs": Kind.COPY, "prompt_logprobs": Kind.COPY}],
}
EMBEDDINGS_ANSWER: Schema = {**HEAD, "data": [{"object": META, "embedding": Kind.BLOB}]}
MODELS_ANSWER: Schema = {
    "object": META,
    "data": META,
    "models": META,
    "id": META,
    "owned_by": META,
    "meta": META,
}
OUTPUT_PART: Schema = {"type": META, "logprobs": Kind.COPY, "*": TEXT}


def output(value: Any) -> Schema:
    """One item of a Responses `output` list."""
    return {
        "type": META,
        "id": META,
        "call_id": META,
        "status": META,
        "role": META,
        "arguments": Kind.ARGUMENTS,
        "encrypted_content": Kind.BLOB,
        "result": Kind.BLOB if value.get("type") == "image_generation_call" else TEXT,
        "content": [OUTPUT_PART],
        "*": TEXT,
    }


RESPONSE: dict[str, Schema] = {
    **HEAD,
    "status": META,
    "output": [output],
    "text": META,
    "tools": META,  # the caller's own request, repeated
    "tool_choice": META,
    "reasoning": META,
    "truncation": META,
    "previous_response_id": META,
    "incomplete_details": META,
    "*": TEXT,
}

# Streams.


def chat_key(event: dict[str, Any], path: Path) -> Key:
    return path


def chat_ends(event: dict[str, Any]) -> Sequence[Key]:
    choices = event.get("choices")
    if not isinstance(choices, list):
        return ()
    return [
        ("choices", choice.get("index", 0))
        for choice in choices
        if isinstance(choice, dict) and choice.get("finish_reason")
    ]


_EVENT_HEAD = ("id", "object", "created", "model")


def chat_event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    """The path of the channel, built back into an event around `text`."""
    value: Any = text
    for position in range(len(key) - 1, 0, -1):
        step = key[position]
        if isinstance(step, int):
            value = [{"index": step, **value} if isinstance(value, dict) else value]
        else:
            value = {step: value}
    if key[0] == "choices" and isinstance(value[0], dict):
        value[0]["finish_reason"] = None
    head = {name: item for name, item in like.items() if name in _EVENT_HEAD}
    return {**head, str(key[0]): value}


FRAGMENTS: Schema = {"name": TEXT, "arguments": Kind.FRAGMENT}
DELTA: Schema = {
    "role": META,
    "tool_calls": [{"id": META, "type": META, "function": FRAGMENTS}],
    "function_call": FRAGMENTS,
    "audio": {"id": META, "data": Kind.BLOB},
}
CHAT_STREAM = Stream(
    framing="sse",
    schema={
        **HEAD,
        "choices": [{"finish_reason": META, "logprobs": Kind.COPY, "delta": DELTA}],
        "prompt_logprobs": Kind.COPY,
        "error": TEXT,
    },
    key=chat_key,
    ends=chat_ends,
    event=chat_event,
)
PROMPT_STREAM = Stream(
    framing="sse",
    schema={
        **HEAD,
        "choices": [{"finish_reason": META, "logprobs": Kind.COPY, "prompt_logprobs": Kind.COPY}],
        "error": TEXT,
    },
    key=chat_key,
    ends=chat_ends,
    event=chat_event,
)

# `response.output_text.delta` carries a piece, `response.output_text.done` the whole text again.
_PLACE = ("item_id", "output_index", "content_index", "summary_index")


def responses_schema(event: Any) -> Schema:
    kind = event.get("type", "") if isinstance(event, dict) else ""
    head: dict[str, Schema] = {"type": META, "item_id": META, "obfuscation": META}
    if kind.endswith(".delta"):
        arguments = kind.endswith(("arguments.delta", "input.delta"))
        piece = Kind.FRAGMENT if arguments else CHANNEL
        return {**head, "delta": piece, "logprobs": Kind.COPY}
    if kind.endswith(".done"):
        return {
            **head,
            "text": TEXT,
            "arguments": Kind.ARGUMENTS,
            "logprobs": Kind.COPY,
            "part": OUTPUT_PART,
            "item": output,
            "*": TEXT,
        }
    return {
        **head,
        "response": RESPONSE,
        "item": output,
        "part": OUTPUT_PART,
        "*": TEXT,
    }


def responses_key(event: dict[str, Any], path: Path) -> Key:
    base = str(event.get("type", "")).removesuffix(".delta")
    return (base, *(str(event.get(name, "")) for name in _PLACE), *path)


def responses_ends(event: dict[str, Any]) -> Sequence[Key]:
    kind = str(event.get("type", ""))
    if kind in ("response.completed", "response.incomplete", "response.failed", "error"):
        return [()]
    if kind == "response.output_item.done":
        # The item's own texts, whatever their base: llama.cpp sends no .done for some of them.
        return [()]
    if kind.endswith(".done"):
        base = kind.removesuffix(".done")
        return [(base, *(str(event.get(name, "")) for name in _PLACE))]
    return ()


def responses_event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    """A delta in the place of the last one, with none of its text: that was not filtered."""
    place = {name: like[name] for name in ("type", *_PLACE, "sequence_number") if name in like}
    copies: dict[str, Any] = {"logprobs": []} if "logprobs" in like else {}
    value: Any = text
    path = key[1 + len(_PLACE) :]
    for step in reversed(path[1:]):
        value = [value] if isinstance(step, int) else {step: value}
    return {**place, str(path[0]): value, **copies}


RESPONSES_STREAM = Stream(
    framing="sse",
    schema=responses_schema,
    key=responses_key,
    ends=responses_ends,
    event=responses_event,
    error=stream_error,
)


def _post(
    operation: str, path: str, request: Schema, answer: Schema, stream: Stream | None = None
) -> Endpoint:
    return Endpoint(DIALECT, operation, "POST", path, request, answer, stream, generates=True)


ENDPOINTS = (
    _post("chat", "/v1/chat/completions", CHAT, CHAT_ANSWER, CHAT_STREAM),
    _post("completions", "/v1/completions", PROMPT, PROMPT_ANSWER, PROMPT_STREAM),
    _post("responses", "/v1/responses", RESPONSES, RESPONSE, RESPONSES_STREAM),
    _post("embeddings", "/v1/embeddings", SETTINGS, EMBEDDINGS_ANSWER),
    _post("rerank", "/v1/rerank", SETTINGS, HEAD),
    _post("rerank", "/rerank", SETTINGS, HEAD),
    Endpoint(DIALECT, "models", "GET", "/v1/models", answer=MODELS_ANSWER),
    Endpoint(DIALECT, "models", "GET", "/v1/models/{model}", answer=MODELS_ANSWER),
)
