"""The Model Context Protocol over streamable HTTP: one JSON-RPC message to a POST.

Source: MCP specification 2025-06-18, transports and schema. An answer is one message, or a stream
of whole ones: nothing in it is a piece. Sessions and protocol versions are in headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, BLOB = Kind.META, Kind.TEXT, Kind.BLOB

_METHOD = re.compile(r"[a-zA-Z]{1,40}(?:/[a-zA-Z_]{1,40}){0,3}")
_MEDIA = ("image/", "audio/", "video/", "application/pdf")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """A JSON-RPC error of the server's own range, for no message in particular."""
    said = {"code": -32000, "message": message, "data": {"code": code, "status": status}}
    return {"jsonrpc": "2.0", "id": None, "error": said}


DIALECT = Dialect("mcp", error=error, error_event="message")


def method(value: Any) -> Schema:
    return META if isinstance(value, str) and _METHOD.fullmatch(value) else TEXT


def block(value: Any) -> Schema:
    """A block of content. A picture is a blob; what else is in base64 may be text, and is."""
    mime = value.get("mimeType") if isinstance(value, dict) else None
    data = BLOB if isinstance(mime, str) and mime.startswith(_MEDIA) else TEXT
    fields: Schema = {
        "type": META,
        "mimeType": META,
        "text": TEXT,
        "data": data,
        "blob": data,
        "resource": block,
    }
    return fields


def content(value: Any) -> Schema:
    return [block] if isinstance(value, list) else block(value)


ABOUT: Schema = {"progressToken": META}
MESSAGE: dict[str, Schema] = {"jsonrpc": META, "id": META, "method": method, "error": TEXT}
PARAMS: dict[str, Schema] = {
    "_meta": ABOUT,
    "progressToken": META,
    "requestId": META,
    "messages": [{"role": META, "content": content}],
}
RESULT: dict[str, Schema] = {
    "_meta": ABOUT,
    "content": content,
    "contents": content,
    "messages": [{"role": META, "content": content}],
    # What a tool gives as JSON is as good as text: numbers in it are looked at, too.
    "structuredContent": Kind.ARGUMENTS,
}
ANSWER: Schema = {**MESSAGE, "params": PARAMS, "result": RESULT}


def request(value: Any) -> Schema:
    """A message of the caller: a tool call, any other request, or what the server asked for."""
    calls = isinstance(value, dict) and value.get("method") == "tools/call"
    call: dict[str, Schema] = {"name": Kind.TOOL_CALLS, "arguments": Kind.TOOL_CALLS}
    params: Schema = {**PARAMS, **(call if calls else {})}
    return {**MESSAGE, "params": params, "result": {**RESULT, "structuredContent": TEXT}}


def key(event: dict[str, Any], path: Path) -> Key:
    """By the message, for those who read the stream; here nothing runs through it."""
    return (str(event.get("id", event.get("method", ""))), *path)


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [()] if "result" in event or "error" in event else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = nested(key[1:], text)
    return made


STREAM = Stream(framing="sse", schema=ANSWER, key=key, ends=ends, event=event, messages=True)

ENDPOINTS = (
    Endpoint(DIALECT, "mcp", "POST", "/mcp", request, ANSWER, stream=STREAM),
    Endpoint(DIALECT, "mcp", "GET", "/mcp", answer=ANSWER, stream=STREAM),
    Endpoint(DIALECT, "mcp", "DELETE", "/mcp", answer=ANSWER),
)
