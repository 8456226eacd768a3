"""A request as the model will read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mitmgate.core.wire.body import JsonBody
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.joining import joined
from mitmgate.core.wire.media import form
from mitmgate.core.wire.schema import Kind, Schema, lookalike
from mitmgate.core.wire.segment import Segment

# Fields that put text before the model in a form that no rule can read.
_OPAQUE = ("prompt_embeds", "prompt_token_ids", "input_ids", "context")
# Fields that put stored text before the model, of whom and judged by whom nobody knows.
_STORED = ("previous_response_id", "conversation")
# Servers read more in a name than it says: white space, control characters.
_MODEL = re.compile(r"(?a)[\w./:@+-]{0,200}")
_TOKENS = (
    "prompt",
    "input",
    "inputs",
    "text_input",
    "content",
    "query",
    "queries",
    "input_prefix",
    "input_suffix",
)
# A template is a program that writes the prompt: what it writes cannot be told from its text.
_TEMPLATES = ("chat_template", "template")
_NAMED: dict[str, Schema] = dict.fromkeys(
    (*_OPAQUE, *_STORED, *_TOKENS, *_TEMPLATES, "model", "stream"), Kind.TEXT
)


class PromptError(Exception):
    """A request that cannot be read and so cannot be judged. `code` is stable, `status` HTTP."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed request. `body` is None for an endpoint that takes none."""

    endpoint: Endpoint
    target: str
    body: JsonBody | None
    model: str | None
    streams: bool

    def segments(self) -> list[Segment]:
        """Every text of the request, the path with its query first."""
        path = Segment("path", "path", self.target)
        return [path, *(self.body.segments("prompt") if self.body else ())]

    def readings(self) -> list[Segment]:
        """Every text, and again what stands apart here and together before the model."""
        texts = self.body.segments("prompt", keys=False) if self.body else []
        return self.segments() + joined(texts)

    @property
    def canonical(self) -> Any:
        """The content that a person approves: key order and white space do not count."""
        return self.body.document.data if self.body else None


def read_prompt(endpoint: Endpoint, target: str, content_type: str, raw: bytes) -> Prompt:
    """Parse a request whose body is already decoded. Raises `PromptError`."""
    named = endpoint.model(target.partition("?")[0])
    if endpoint.request is None:
        if raw:
            raise PromptError(400, "body_unexpected", f"{endpoint.path} takes no request body.")
        return Prompt(endpoint, target, None, named, False)
    # curl sends `-d` as a form unless told otherwise, and Ollama's own manual relies on it.
    curl = endpoint.dialect.name == "ollama" and content_type.startswith(
        "application/x-www-form-urlencoded"
    )
    if form(content_type) not in ("json", "none") and not curl:
        raise PromptError(
            415, "media_type_unsupported", f"Send application/json in UTF-8, not {content_type!r}."
        )
    try:
        body = JsonBody(raw, endpoint.request)
    except DocumentError as e:
        raise PromptError(400, "body_unreadable", f"The request body is refused: {e}.") from None
    data = body.document.data
    if not isinstance(data, dict):
        raise PromptError(400, "body_unreadable", "The request body must be a JSON object.")
    _refuse_opaque(data, endpoint)
    model = data.get("model")
    if model is not None and not (isinstance(model, str) and _MODEL.fullmatch(model)):
        raise PromptError(400, "model_invalid", "`model` must be the name of a model.")
    if named is not None and model not in (None, named):
        raise PromptError(400, "model_invalid", "`model` is not the model that the path names.")
    model = named if named is not None else model
    stream = data.get("stream")
    if endpoint.stream and (stream is None or endpoint.stream.default is None):
        stream = endpoint.stream.default is not False
    return Prompt(endpoint, target, body, model, stream is True)


def _refuse_opaque(data: dict[str, Any], endpoint: Endpoint) -> None:
    schema = endpoint.request
    if callable(schema):
        schema = schema(data)
    if key := lookalike(data, {**_NAMED, **schema} if isinstance(schema, dict) else _NAMED):
        message = f"The key {key[:60]!r} is that of the API but for its case, and is not accepted."
        raise PromptError(400, "key_misspelled", message)
    if endpoint.operation == "responses" and isinstance(data.get("prompt"), dict):
        raise PromptError(400, "prompt_opaque", "`prompt` refers to stored text: send text.")
    for name in (*_OPAQUE, *_STORED, *_TEMPLATES):
        if data.get(name) is not None:
            raise PromptError(
                400, "prompt_opaque", f"`{name}` carries text in a form that cannot be judged."
            )
    for name in _TOKENS:
        try:
            opaque = _has_tokens(data.get(name))
        except RecursionError:
            opaque = True
        if opaque:
            raise PromptError(
                400,
                "prompt_opaque",
                f"`{name}` holds token ids, which cannot be judged: send text.",
            )
    if reason := endpoint.opaque(data):
        raise PromptError(400, "prompt_opaque", reason)


def _has_tokens(value: Any) -> bool:
    """Whether there are token ids in a prompt: numbers among its texts, at any depth of lists."""
    if isinstance(value, list):
        return any(map(_has_tokens, value))
    if isinstance(value, dict):
        stored = value.get("type") == "item_reference"
        return stored or any(value.get(name) is not None for name in _OPAQUE)
    return isinstance(value, int | float)
