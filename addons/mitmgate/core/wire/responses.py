"""OpenAI's Responses API: items in, items out, and a stream whose last events repeat the texts.

Sources: OpenAI API reference, Responses and its streaming events; llama.cpp and vLLM for what they
leave out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Endpoint, Key, Stream, nested, taken
from mitmgate.core.wire.openai import DIALECT, HEAD, SETTINGS, data_url, error, role
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL


def stream_error(status: int, code: str, message: str) -> dict[str, Any]:
    """An error event of Responses; `error` is what makes the SDKs raise."""
    return {"type": "error", "code": code, "message": message, **error(status, code, message)}


def item(value: Any) -> Schema:
    """One item of a Responses `input` list."""
    head: dict[str, Schema] = {"type": META, "id": META, "status": META}
    if not isinstance(value, dict):
        return TEXT
    kind = value.get("type")
    if kind in ("function_call", "custom_tool_call", "local_shell_call", "mcp_call"):
        return {**head, "*": Kind.TOOL_CALLS}
    if kind in ("function_call_output", "custom_tool_call_output"):
        return {**head, "*": Kind.TOOL_RESULTS}
    text = Kind.SYSTEM if value.get("role") in ("system", "developer") else TEXT

    def part(inner: Any) -> Schema:
        if not isinstance(inner, dict):
            return text
        return {"type": META, "image_url": data_url, "file_data": data_url, "*": text}

    def content(inner: Any) -> Schema:
        return [part] if isinstance(inner, list) else text

    return {**head, "role": role, "content": content}


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

OUTPUT_PART: Schema = {"type": META, "logprobs": Kind.COPY, "*": TEXT}


def output(value: Any) -> Schema:
    """One item of a Responses `output` list."""
    kind = value.get("type") if isinstance(value, dict) else None
    return {
        "type": META,
        "id": META,
        "call_id": META,
        "status": META,
        "role": META,
        "name": Kind.CALLED,
        "arguments": Kind.ARGUMENTS,
        "input": Kind.ARGUMENTS,
        "action": Kind.ARGUMENTS,
        "operation": Kind.ARGUMENTS,
        "encrypted_content": Kind.BLOB,
        "result": Kind.BLOB if kind == "image_generation_call" else TEXT,
        "content": [OUTPUT_PART],
        "*": TEXT,
    }


RESPONSE: dict[str, Schema] = {
    **HEAD,
    "status": META,
    "output": [output],
    "input_messages": Kind.COPY,  # vLLM, when asked: both sides as tokens
    "output_messages": Kind.COPY,
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

# `response.output_text.delta` carries a piece, `response.output_text.done` the whole text again.
# Every event that is known is one or the other; of one that is not, every text may be a piece.
_WHOLE = (
    ".added .done .created .queued .in_progress .completed .incomplete .failed "
    ".searching .interpreting .generating .partial_image"
)
_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")
_CALLING = re.compile(r"_call[._]")  # function_call_arguments, web_search_call, ...
_NUMBERS = ("output_index", "content_index", "summary_index", "sequence_number")


def _type(event: Any) -> str:
    return str(event.get("type", "")) if isinstance(event, dict) else ""


def whole(event: dict[str, Any]) -> bool:
    kind = _type(event)
    return kind == "error" or kind.endswith(tuple(_WHOLE.split()))


def schema(event: Any) -> Schema:
    kind = _type(event)
    head: dict[str, Schema] = {"type": META, "item_id": META, "obfuscation": META}
    head |= dict.fromkeys(_NUMBERS, TEXT)
    if kind.endswith(".delta"):
        arguments = kind.endswith(("arguments.delta", "input.delta"))
        piece = Kind.FRAGMENT if arguments else CHANNEL
        if kind.endswith("audio.delta"):
            piece = Kind.BLOB
        return {**head, "delta": piece, "logprobs": Kind.COPY}
    return {
        **head,
        "name": Kind.CALLED,
        "arguments": Kind.ARGUMENTS,
        "input": Kind.ARGUMENTS,
        "logprobs": Kind.COPY,
        "partial_image_b64": Kind.BLOB,
        "response": RESPONSE,
        "item": output,
        "part": OUTPUT_PART,
    }


def _place(event: dict[str, Any]) -> str:
    """The item that an event belongs to. llama.cpp gives no `output_index`."""
    index = event.get("output_index")
    return str(event.get("item_id", "") if index is None else index)


def _channel(event: dict[str, Any], base: str) -> Key:
    inside = (str(event.get(name, "")) for name in ("item_id", "content_index", "summary_index"))
    return (_place(event), base, *inside)


def key(event: dict[str, Any], path: Path) -> Key:
    return (*_channel(event, _type(event).removesuffix(".delta")), *path)


def ends(event: dict[str, Any]) -> Sequence[Key]:
    kind = _type(event)
    if kind in _ENDS:
        return [()]
    if kind == "response.output_item.done":
        # All texts of the item: llama.cpp sends no .done for some of them.
        item = event.get("item")
        ids = [item.get("id"), item.get("call_id")] if isinstance(item, dict) else []
        return [(_place(event),), *((each,) for each in ids if isinstance(each, str))]
    if kind.endswith(".done"):
        return [_channel(event, kind.removesuffix(".done"))]
    return ()


def calls(event: dict[str, Any]) -> Sequence[Key]:
    """An item that calls a tool, from when it is added until it is done."""
    kind, item = _type(event), event.get("item")
    if kind in ("response.output_item.added", "response.output_item.done"):
        if not isinstance(item, dict) or not str(item.get("type")).endswith("_call"):
            return ()
        if event.get("output_index") is None:
            return [(str(item.get("id") or item.get("call_id") or ""),)]
        return [(_place(event),)]
    return [(_place(event),)] if _CALLING.search(kind) else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    """A delta like the last one of the channel, with nothing of what that one said."""
    return {**taken(like, ("type", "item_id", *_NUMBERS)), **nested(key[5:], text)}


STREAM = Stream(
    framing="sse",
    schema=schema,
    key=key,
    ends=ends,
    event=event,
    calls=calls,
    whole=whole,
    error=stream_error,
)


ENDPOINTS = (
    Endpoint(
        DIALECT, "responses", "POST", "/v1/responses", RESPONSES, RESPONSE, STREAM, generates=True
    ),
)
