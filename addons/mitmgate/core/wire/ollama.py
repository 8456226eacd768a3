"""Ollama's own API: newline-delimited JSON, streamed unless the request says otherwise.

Source: Ollama, docs/api.md. The endpoints that change the server (pull, push, create, copy,
delete, blobs) are not listed, so that nobody reaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested, taken
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """Ollama's errors are a plain string; `code` is an addition."""
    return {"error": message, "code": code}


DIALECT = Dialect("ollama", error=error)


def role(value: Any) -> Schema:
    """A role that is none of those known is text: templates put it before the model as it is."""
    return META if value in ("system", "user", "assistant", "tool") else TEXT


def message(value: Any) -> Schema:
    said = value.get("role") if isinstance(value, dict) else None
    kind = {"system": Kind.SYSTEM, "tool": Kind.TOOL_RESULTS}.get(str(said), TEXT)
    return {
        "role": role,
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
    "prompt": TEXT,
    "suffix": TEXT,
    "input": TEXT,
}
CHAT: Schema = {**SETTINGS, "messages": [message]}
HEAD: dict[str, Schema] = {
    "model": META,
    "created_at": META,
    "done_reason": META,
    "logprobs": Kind.COPY,
    "context": Kind.COPY,
}
CALL: Schema = {
    "id": META,
    "function": {"name": Kind.CALLED, "arguments": Kind.ARGUMENTS, "*": TEXT},
    "*": TEXT,
}
MESSAGE: dict[str, Schema] = {"role": META, "tool_calls": [CALL]}
PIECES: dict[str, Schema] = {**MESSAGE, "content": CHANNEL, "thinking": CHANNEL}


def key(event: dict[str, Any], path: Path) -> Key:
    return path


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [()] if event.get("done") or "error" in event else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = nested(key, text)
    if isinstance(made.get("message"), dict):
        made["message"] = {"role": "assistant", "content": "", **made["message"]}
    return {**taken(like, ("model", "created_at")), **made, "done": False}


STREAM = Stream(
    framing="ndjson",
    # A tool call comes whole in one line, its arguments as an object.
    schema={
        **HEAD,
        "message": PIECES,
        "response": CHANNEL,
        "thinking": CHANNEL,
        "done": TEXT,
        "error": TEXT,
    },
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
    Endpoint(DIALECT, "models", "GET", "/api/tags", answer=LIST, lists=True),
    Endpoint(DIALECT, "models", "GET", "/api/ps", answer=LIST, lists=True),
    Endpoint(DIALECT, "version", "GET", "/api/version", answer=META),
)
