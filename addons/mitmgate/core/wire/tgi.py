"""Hugging Face's text-generation-inference: its own API, beside the OpenAI one that it serves.

Source: TGI, docs/openapi.json. A server has one model, which requests do not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL, COPY = Kind.META, Kind.TEXT, Kind.CHANNEL, Kind.COPY

# For these its clients have exceptions; any other type is an HTTP error to them.
ERROR_TYPES = {
    400: "validation",
    413: "validation",
    415: "validation",
    429: "overloaded",
}


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """TGI's errors are two strings; `code` is an addition."""
    return {"error": message, "error_type": ERROR_TYPES.get(status, code), "code": code}


DIALECT = Dialect("tgi", error=error)

REQUEST: Schema = {
    "inputs": TEXT,
    "parameters": {"stop": TEXT, "grammar": Kind.TOOLS, "adapter_id": TEXT},
    "stream": TEXT,
}

# A list of tokens says the text once more, or the prompt.
TOKENS: dict[str, Schema] = {"prefill": COPY, "tokens": COPY, "top_tokens": COPY}
SEQUENCE: dict[str, Schema] = {**TOKENS, "generated_text": TEXT, "finish_reason": META}
DETAILS: Schema = {**SEQUENCE, "best_of_sequences": [SEQUENCE]}
ANSWER: dict[str, Schema] = {"generated_text": TEXT, "details": DETAILS}


def answers(value: Any) -> Schema:
    """The endpoint `/` answers with a list."""
    return [ANSWER] if isinstance(value, list) else ANSWER


def key(event: dict[str, Any], path: Path) -> Key:
    """Clients leave special tokens out when they join the pieces, so those are no part of them."""
    token = event.get("token")
    special = isinstance(token, dict) and bool(token.get("special"))
    return ("special", *path) if special and path[0] == "token" else path


def ends(event: dict[str, Any]) -> Sequence[Key]:
    over = any(event.get(name) is not None for name in ("generated_text", "details", "error"))
    return [()] if over else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    """With all the fields that clients ask for; the number of the token `like` stands for it."""
    special = key[0] == "special"
    made = nested(key[1:] if special else key, text)
    index = like.get("index")
    token = {"id": 0, "text": "", "logprob": 0.0, "special": special}
    said = made.get("token")
    return {
        "index": index if type(index) is int else 0,
        "generated_text": None,
        "details": None,
        **made,
        "token": {**token, **(said if isinstance(said, dict) else {})},
    }


STREAM = Stream(
    framing="sse",
    # The last event repeats the whole text.
    schema={
        "token": {"id": COPY, "text": CHANNEL, "logprob": TEXT, "special": TEXT},
        "top_tokens": COPY,
        "generated_text": TEXT,
        "details": DETAILS,
        "error": TEXT,
        "error_type": TEXT,
    },
    key=key,
    ends=ends,
    event=event,
)


def _post(path: str, answer: Schema, stream: Stream | None = None) -> Endpoint:
    return Endpoint(
        DIALECT, "completions", "POST", path, REQUEST, answer, stream=stream, generates=True
    )


ENDPOINTS = (
    _post("/generate", ANSWER),
    _post("/generate_stream", ANSWER, replace(STREAM, default=None)),
    _post("/", answers, STREAM),
    Endpoint(DIALECT, "models", "GET", "/info", answer=META),
)
