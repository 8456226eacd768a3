"""llama.cpp's own endpoints, beside the OpenAI and Anthropic ones it serves.

Source: llama.cpp, tools/server/README.md. /slots, /props, /lora-adapters and /models/* change or
show the server itself and are not listed, so that nobody reaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire import openai
from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested, position
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL = Kind.META, Kind.TEXT, Kind.CHANNEL

DIALECT = Dialect("llamacpp", error=openai.error, error_event="error")

REQUEST: Schema = {
    "model": META,
    "prompt": TEXT,
    "samplers": META,
    "image_data": [{"data": Kind.BLOB}],
    "grammar": Kind.TOOLS,
    "json_schema": Kind.TOOLS,
}
ANSWER: dict[str, Schema] = {
    "model": META,
    "stop_type": META,
    "completion_probabilities": Kind.COPY,
    "tokens": Kind.COPY,  # the ids of what `content` says
    "generation_settings": META,
    "timings": META,
}


def key(event: dict[str, Any], path: Path) -> Key:
    return (position(event), *path)


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [(position(event),)] if event.get("stop") else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    return {"index": key[0], "content": "", "tokens": [], "stop": False, **nested(key[1:], text)}


STREAM = Stream(
    framing="sse",
    # The last event repeats the prompt.
    schema={
        **ANSWER,
        "index": TEXT,
        "content": CHANNEL,
        "stop": TEXT,
        "prompt": TEXT,
        "stopping_word": TEXT,
        "error": TEXT,
    },
    key=key,
    ends=ends,
    event=event,
)


def _post(operation: str, path: str, answer: Schema, **more: Any) -> Endpoint:
    return Endpoint(DIALECT, operation, "POST", path, REQUEST, answer, **more)


ENDPOINTS = (
    _post("completions", "/completion", ANSWER, stream=STREAM, generates=True),
    _post("completions", "/completions", ANSWER, stream=STREAM, generates=True),
    _post("completions", "/infill", ANSWER, stream=STREAM, generates=True),
    _post("embeddings", "/embedding", ANSWER, generates=True),
    _post("embeddings", "/embeddings", ANSWER, generates=True),
    _post("tokenize", "/tokenize", {"tokens": META}),
    _post("tokenize", "/detokenize", TEXT),
    Endpoint(DIALECT, "tokenize", "POST", "/apply-template", openai.CHAT, TEXT),
    Endpoint(DIALECT, "health", "GET", "/health", answer=META),
    Endpoint(DIALECT, "health", "GET", "/v1/health", answer=META),
    Endpoint(DIALECT, "metrics", "GET", "/metrics", answer=TEXT),
)
