"""Anthropic's Messages API, as llama.cpp and vLLM serve it too.

Source: Anthropic API reference, Messages and Streaming Messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested, position, taken
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The error object that the SDKs turn into their exceptions; `code` is an addition."""
    kind = ERROR_TYPES.get(status, "api_error")
    # Newer SDKs show `details.error_code` on their exceptions.
    body = {"type": kind, "message": message, "code": code, "details": {"error_code": code}}
    return {"type": "error", "error": body}


DIALECT = Dialect("anthropic", error=error, error_event="error")


def content_of(kind: Kind) -> Schema:
    """Content that is a string or a list of blocks."""

    def block(value: Any) -> Schema:
        match value.get("type") if isinstance(value, dict) else None:
            case "tool_use":
                return {"type": META, "*": Kind.TOOL_CALLS}
            case "tool_result":
                inner = content_of(Kind.TOOL_RESULTS)
                return {"type": META, "content": inner, "*": Kind.TOOL_RESULTS}
            case "image":
                return {"type": META, "source": {"type": META, "data": Kind.BLOB, "*": kind}}
            case "document":
                return {"type": META, "source": document_source, "*": kind}
            case "thinking":
                return {"type": META, "signature": Kind.BLOB, "*": kind}
        return {"type": META, "cache_control": META, "*": kind}

    def document_source(value: Any) -> Schema:
        if not isinstance(value, dict):
            return kind
        pdf = value.get("type") == "base64" and value.get("media_type") == "application/pdf"
        data = Kind.BLOB if pdf else kind
        return {"type": META, "media_type": META, "content": content, "data": data, "*": kind}

    def content(value: Any) -> Schema:
        return [block] if isinstance(value, list) else kind

    return content


def role(value: Any) -> Schema:
    """A role that is none of those known is text: templates put it before the model as it is."""
    return META if value in ("user", "assistant") else TEXT


MESSAGES: Schema = {
    "model": META,
    "system": content_of(Kind.SYSTEM),
    "messages": [{"role": role, "content": content_of(TEXT)}],
    "tools": Kind.TOOLS,
    "tool_choice": Kind.TOOLS,
    "service_tier": META,
}


# One block of an answer's content.
BLOCK: dict[str, Schema] = {
    "type": META,
    "id": META,
    "tool_use_id": META,
    "name": Kind.CALLED,
    "input": Kind.ARGUMENTS,
    "signature": Kind.BLOB,
    "*": TEXT,
}


def block(value: Any) -> dict[str, Schema]:
    hidden = isinstance(value, dict) and value.get("type") == "redacted_thinking"
    return {**BLOCK, "data": Kind.BLOB} if hidden else BLOCK


def begun(value: Any) -> Schema:
    """A block as a stream announces it: two go on in deltas, the rest is there as a whole."""
    return {**block(value), "text": CHANNEL, "thinking": CHANNEL}


ANSWER: Schema = {
    "id": META,
    "type": META,
    "role": META,
    "model": META,
    "stop_reason": META,
    "usage": META,
    "content": [block],
    "*": TEXT,
}

# The field of a content_block_delta and the type of delta it comes in.
_DELTAS = {
    "text": "text_delta",
    "thinking": "thinking_delta",
    "partial_json": "input_json_delta",
}


def schema(event: Any) -> Schema:
    """By the event's type; what a later version of the API adds is a channel."""
    match event.get("type") if isinstance(event, dict) else None:
        case "message_start":
            return {"type": META, "message": ANSWER}
        case "content_block_start":
            return {"type": META, "index": TEXT, "content_block": begun}
        case "content_block_delta":
            fields: Schema = {
                "type": META,
                "text": CHANNEL,
                "thinking": CHANNEL,
                "partial_json": Kind.FRAGMENT,
                "signature": Kind.BLOB,
                "citation": TEXT,
            }
            return {"type": META, "index": TEXT, "delta": fields}
        case "message_delta":
            return {"type": META, "delta": {"stop_reason": META}, "usage": META}
    return {"type": META}


def whole(event: dict[str, Any]) -> bool:
    return event.get("type") in (
        "message_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    )


def key(event: dict[str, Any], path: Path) -> Key:
    """The block's index and the field: start and deltas of a block are one channel."""
    place = (event.get("type"), path[0])
    is_field = len(path) > 1 and isinstance(path[1], str)
    if is_field and place in (
        ("content_block_start", "content_block"),
        ("content_block_delta", "delta"),
    ):
        return ("block", position(event), *path[1:])
    return ("event", *path)


def ends(event: dict[str, Any]) -> Sequence[Key]:
    match event.get("type"):
        case "content_block_stop":
            return [("block", position(event))]
        case "message_delta" | "message_stop" | "error":
            return [()]
    return ()


def calls(event: dict[str, Any]) -> Sequence[Key]:
    """A block that calls a tool, from its start to its end."""
    begun, delta = event.get("content_block"), event.get("delta")
    called = isinstance(begun, dict) and str(begun.get("type")).endswith("tool_use")
    if called or (isinstance(delta, dict) and "partial_json" in delta):
        return [("block", position(event))]
    return ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    if key[0] == "event":
        return {**taken(like, ("type",)), **nested(key[1:], text)}
    kind = _DELTAS.get(str(key[2]), f"{key[2]}_delta")
    delta = {"type": kind, **nested(key[2:], text)}
    return {"type": "content_block_delta", "index": key[1], "delta": delta}


STREAM = Stream(
    framing="sse", schema=schema, key=key, ends=ends, event=event, calls=calls, whole=whole
)

ENDPOINTS = (
    Endpoint(
        DIALECT, "messages", "POST", "/v1/messages", MESSAGES, ANSWER, stream=STREAM, generates=True
    ),
    Endpoint(DIALECT, "tokenize", "POST", "/v1/messages/count_tokens", MESSAGES, ANSWER),
)
