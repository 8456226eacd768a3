"""llama.cpp's own endpoints, beside the OpenAI and Anthropic ones it serves.

Source: llama.cpp, tools/server/README.md. /slots, /props, /lora-adapters and /models/* change or
show the server itself and are not listed, so that nobody reaches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire import openai
from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT = Kind.META, Kind.TEXT

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
    "generation_settings": META,
    "timings": META,
}


def key(event: dict[str, Any], path: Path) -> Key:
    return (event.get("index", 0), *path)


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [(event.get("index", 0),)] if event.get("stop") else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    return {"index": key[0], str(key[1]): text, "tokens": [], "stop": False}


STREAM = Stream(
    framing="sse",
    # The last event repeats the prompt and lists the token ids of the piece.
    schema={**ANSWER, "prompt": TEXT, "stopping_word": TEXT, "tokens": Kind.COPY, "error": TEXT},
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
    _post("tokenize", "/apply-template", TEXT),
    Endpoint(DIALECT, "health", "GET", "/health", answer=META),
    Endpoint(DIALECT, "health", "GET", "/v1/health", answer=META),
    Endpoint(DIALECT, "metrics", "GET", "/metrics", answer=TEXT),
)
