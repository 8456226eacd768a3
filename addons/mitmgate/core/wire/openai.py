"""OpenAI's API as vLLM, llama.cpp, TGI, Ollama and others serve it.

Sources: OpenAI API reference (chat, completions, responses, embeddings, models) and vLLM's
OpenAI-compatible server for what it adds (rerank, tokenize, reasoning).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import (
    Dialect,
    Endpoint,
    Key,
    Stream,
    nested,
    position,
    step,
    taken,
)
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


DIALECT = Dialect("openai", error=error, error_event="error")

# Requests. TEXT in a request is prompt text.


_MEDIA = ("data:image/", "data:audio/", "data:video/", "data:application/pdf;")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def data_url(value: Any) -> Schema:
    """A picture in place is a blob; an address is text, for the server would fetch it, and so is
    a file of text."""
    return Kind.BLOB if isinstance(value, str) and value.startswith(_MEDIA) else TEXT


def role(value: Any) -> Schema:
    """A role that is none of those known is text: templates put it before the model as it is."""
    return META if value in _ROLES else TEXT


PART: Schema = {
    "type": META,
    "text": TEXT,
    "image_url": {"url": data_url, "detail": META},
    "input_audio": {"data": Kind.BLOB, "format": META},
    "file": {"file_data": data_url, "file_id": META},
    "cache_control": META,
}
# The ids of calls are text here: there are templates that put them before the model.
TOOL_CALL: Schema = {
    "id": Kind.TOOL_CALLS,
    "type": META,
    "function": {"name": Kind.TOOL_CALLS, "arguments": Kind.TOOL_CALLS},
    "custom": {"name": Kind.TOOL_CALLS, "input": Kind.TOOL_CALLS},
}


def part_of(kind: Kind) -> Schema:
    """Content that is a string or a list of parts, all of one kind."""

    def part(value: Any) -> Schema:
        return {**PART, "text": kind, "*": kind} if isinstance(value, dict) else kind  # type: ignore[dict-item]

    def content(value: Any) -> Schema:
        return [part] if isinstance(value, list) else kind

    return content


def message(value: Any) -> Schema:
    """A chat message: what its text is depends on its role."""
    said = value.get("role") if isinstance(value, dict) else None
    kind = TEXT
    if said in ("system", "developer"):
        kind = Kind.SYSTEM
    elif said in ("tool", "function"):
        kind = Kind.TOOL_RESULTS
    return {
        "role": role,
        "content": part_of(kind),
        "name": kind,
        "tool_call_id": kind,
        "tool_calls": [TOOL_CALL],
        "function_call": Kind.TOOL_CALLS,
    }


SETTINGS: dict[str, Schema] = {
    "model": META,
    "encoding_format": META,
    "service_tier": META,
    "reasoning_effort": Kind.SYSTEM,
    "tools": Kind.TOOLS,
    "functions": Kind.TOOLS,
    "tool_choice": Kind.TOOLS,
    "response_format": Kind.TOOLS,
}
CHAT: Schema = {**SETTINGS, "messages": [message]}
PROMPT: Schema = {**SETTINGS, "prompt": TEXT, "suffix": TEXT}


# Answers.

HEAD: dict[str, Schema] = {
    "id": META,
    "object": META,
    "created": TEXT,
    "model": META,
    "system_fingerprint": META,
    "service_tier": META,
    "usage": META,
    "timings": META,
    "prompt_logprobs": Kind.COPY,
    "prompt_token_ids": Kind.COPY,
    "__verbose": Kind.COPY,  # llama.cpp, when asked: the prompt, the text and its tokens once more
}
CHOICE: dict[str, Schema] = {
    "index": TEXT,
    "finish_reason": META,
    "logprobs": Kind.COPY,
    "prompt_logprobs": Kind.COPY,
    "token_ids": Kind.COPY,
    "prompt_token_ids": Kind.COPY,
}
ANSWER_CALL: Schema = {
    "id": META,
    "type": META,
    "function": {"name": Kind.CALLED, "arguments": Kind.ARGUMENTS},
    "custom": {"name": Kind.CALLED, "input": Kind.ARGUMENTS},
}
ANSWER_MESSAGE: Schema = {
    "role": META,
    "tool_calls": [ANSWER_CALL],
    "function_call": {"name": Kind.CALLED, "arguments": Kind.ARGUMENTS},
    "audio": {"id": META, "data": Kind.BLOB},
}
CHAT_ANSWER: Schema = {**HEAD, "choices": [{**CHOICE, "message": ANSWER_MESSAGE}]}
PROMPT_ANSWER: Schema = {**HEAD, "choices": [CHOICE]}
EMBEDDINGS_ANSWER: Schema = {**HEAD, "data": [{"object": META, "embedding": Kind.BLOB}]}
MODELS_ANSWER: Schema = {
    "object": META,
    "data": META,
    "models": META,
    "id": META,
    "owned_by": META,
    "meta": META,
}
# Streams.


def chat_key(event: dict[str, Any], path: Path) -> Key:
    return path


def chat_ends(event: dict[str, Any]) -> Sequence[Key]:
    choices = event.get("choices")
    if not isinstance(choices, list):
        return ()
    return [
        ("choices", index)
        for index, choice in (
            (position(choice, at), choice)
            for at, choice in enumerate(choices)
            if isinstance(choice, dict)
        )
        if choice.get("finish_reason")
    ]


def chat_calls(event: dict[str, Any]) -> Sequence[Key]:
    choices = event.get("choices")
    found: list[Key] = []
    for at, choice in enumerate(choices if isinstance(choices, list) else ()):
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            continue
        place = ("choices", step(choice, at), "delta")
        called = delta.get("tool_calls")
        for number, call in enumerate(called if isinstance(called, list) else ()):
            found.append((*place, "tool_calls", step(call, number)))
        if delta.get("function_call") is not None:
            found.append((*place, "function_call"))
    return found


_EVENT_HEAD = ("id", "object", "model")


def chat_event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    """The path of the channel, built back into an event around `text`."""
    made: dict[str, Any] = nested(key, text)
    choices = made.get("choices")
    if isinstance(choices, list) and isinstance(choices[0], dict):
        choices[0]["finish_reason"] = None
    created = like.get("created")
    when = {"created": created} if isinstance(created, int | float) else {}
    return {**taken(like, _EVENT_HEAD), **when, **made}


def fragments(value: Any) -> Schema:
    """Arguments come in pieces, or as the JSON that they are, which is whole."""
    whole = isinstance(value, dict) and isinstance(value.get("arguments"), dict | list)
    return {"name": Kind.CALLED, "arguments": Kind.ARGUMENTS if whole else Kind.FRAGMENT}


def pieces(value: Any) -> Schema:
    return [{"type": META, "text": CHANNEL}] if isinstance(value, list) else CHANNEL


DELTA: Schema = {
    "role": META,
    "content": pieces,
    "reasoning_content": CHANNEL,
    "reasoning": CHANNEL,
    "refusal": CHANNEL,
    "tool_calls": [
        {
            "index": TEXT,
            "id": META,
            "type": META,
            "function": fragments,
            "custom": {"name": Kind.CALLED, "input": Kind.FRAGMENT},
        }
    ],
    "function_call": fragments,
    "audio": {"id": META, "data": Kind.BLOB},
}
CHAT_STREAM = Stream(
    framing="sse",
    schema={
        **HEAD,
        "choices": [{**CHOICE, "delta": DELTA, "message": ANSWER_MESSAGE}],
        "obfuscation": META,
        "error": TEXT,
    },
    key=chat_key,
    ends=chat_ends,
    event=chat_event,
    calls=chat_calls,
)
PROMPT_STREAM = Stream(
    framing="sse",
    schema={**HEAD, "choices": [{**CHOICE, "text": CHANNEL}], "error": TEXT},
    key=chat_key,
    ends=chat_ends,
    event=chat_event,
)


def _post(
    operation: str, path: str, request: Schema, answer: Schema, stream: Stream | None = None
) -> Endpoint:
    return Endpoint(DIALECT, operation, "POST", path, request, answer, stream, generates=True)


ENDPOINTS = (
    _post("chat", "/v1/chat/completions", CHAT, CHAT_ANSWER, CHAT_STREAM),
    _post("completions", "/v1/completions", PROMPT, PROMPT_ANSWER, PROMPT_STREAM),
    _post("embeddings", "/v1/embeddings", SETTINGS, EMBEDDINGS_ANSWER),
    _post("rerank", "/v1/rerank", SETTINGS, HEAD),
    _post("rerank", "/rerank", SETTINGS, HEAD),
    Endpoint(DIALECT, "models", "GET", "/v1/models", answer=MODELS_ANSWER, lists=True),
    Endpoint(DIALECT, "models", "GET", "/v1/models/{model}", answer=MODELS_ANSWER),
)
