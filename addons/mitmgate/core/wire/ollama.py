"""Ollama's own API: newline-delimited JSON, streamed unless the request says otherwise.

Source: Ollama, docs/api.md. The endpoints that change the server (pull, push, create, copy,
delete, blobs) are not listed, so that nobody reaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """Ollama's errors are a plain string; `code` is an addition."""
    return {"error": message, "code": code}


DIALECT = Dialect("ollama", error=error)


def message(value: Any) -> Schema:
    role = value.get("role") if isinstance(value, dict) else None
    kind = {"system": Kind.SYSTEM, "tool": Kind.TOOL_RESULTS}.get(str(role), TEXT)
    return {
        "role": META,
        "content": kind,
        "thinking": kind,
        "tool_name": kind,
        "images": Kind.BLOB,
        "tool_calls": Kind.TOOL_CALLS,
    }


SETTINGS: dict[str, Schema] = {
    "model": META,
    "keep_alive": META,
    "options": {"stop": TEXT, "*": META},
    "images": Kind.BLOB,
    "format": Kind.TOOLS,
    "tools": Kind.TOOLS,
    "system": Kind.SYSTEM,
    "template": Kind.SYSTEM,
}
CHAT: Schema = {**SETTINGS, "messages": [message]}
HEAD: dict[str, Schema] = {
    "model": META,
    "created_at": META,
    "done_reason": META,
    "logprobs": Kind.COPY,
    "context": Kind.COPY,
}
MESSAGE: Schema = {"role": META}


def key(event: dict[str, Any], path: Path) -> Key:
    return path


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [()] if event.get("done") or "error" in event else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    value: Any = text
    for step in reversed(key[1:]):
        value = [value] if isinstance(step, int) else {step: value}
    if key[0] == "message":
        value = {"role": "assistant", **({} if "content" in value else {"content": ""}), **value}
    head = {name: item for name, item in like.items() if name in ("model", "created_at")}
    return {**head, str(key[0]): value, "done": False}


STREAM = Stream(
    framing="ndjson",
    # A tool call comes whole in one line, its arguments as an object.
    schema={**HEAD, "message": {"role": META, "tool_calls": TEXT}, "error": TEXT},
    key=key,
    ends=ends,
    event=event,
    default=True,
)


def _post(operation: str, path: str, request: Schema, answer: Schema, **more: Any) -> Endpoint:
    return Endpoint(DIALECT, operation, "POST", path, request, answer, **more)


LIST: Schema = {"models": META}

ENDPOINTS = (
    _post("chat", "/api/chat", CHAT, {**HEAD, "message": MESSAGE}, stream=STREAM, generates=True),
    _post("completions", "/api/generate", SETTINGS, HEAD, stream=STREAM, generates=True),
    _post("embeddings", "/api/embed", SETTINGS, HEAD, generates=True),
    _post("embeddings", "/api/embeddings", SETTINGS, HEAD, generates=True),
    Endpoint(DIALECT, "models", "GET", "/api/tags", answer=LIST),
    Endpoint(DIALECT, "models", "GET", "/api/ps", answer=LIST),
    Endpoint(DIALECT, "version", "GET", "/api/version", answer=META),
)
