"""A request as the model will read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mitmgate.core.wire.body import JsonBody
from mitmgate.core.wire.calls import calls
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.files import files
from mitmgate.core.wire.joining import joined
from mitmgate.core.wire.media import form
from mitmgate.core.wire.schema import Kind, Schema, address, lookalike
from mitmgate.core.wire.segment import Segment
from mitmgate.core.wire.surroundings import fetches, numbers, query

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


# Names and ids of which every request is full.
_WORDS = frozenset(
    "user assistant system developer tool function text image_url input_text output_text message "
    "function_call function_call_output tool_use tool_result image document base64 auto float "
    "ephemeral 2.0".split()
)


class PromptError(Exception):
    """A request that cannot be read and so cannot be judged. `code` is stable, `status` HTTP."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed request. `body` is None for an endpoint that takes none.

    `asides` are the arguments of its tool calls, its files and the addresses in it; None until
    somebody asks for them, where the body is an `UnreadBody`.
    """

    endpoint: Endpoint
    target: str
    body: JsonBody | None
    model: str | None
    streams: bool
    asides: Sequence[Segment] | None = ()

    def segments(self) -> list[Segment]:
        """Every text of the request, the path with its query first."""
        path = Segment("path", "path", self.target)
        return [path, *(self.body.segments("prompt") if self.body else ())]

    def readings(self) -> list[Segment]:
        """All that is judged: every text, and again in each form in which it takes effect.

        What stands apart here stands together before the model; the arguments of a tool call are
        a command; a file has text in it. Names and ids of the protocol are texts to a rule.
        """
        found = [*self.segments(), *query(self.target)]
        if self.body:
            found += joined(self.body.segments("prompt", keys=False))
            found += [
                Segment("prompt", address(leaf.path), leaf.text)
                for leaf in self.body.names
                if leaf.text not in _WORDS
            ]
        asides = self.asides
        if asides is None and self.body:
            asides = _asides(self.body.document.data, self.endpoint)
        return [*found, *(asides or ())]

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
        body = JsonBody(raw, endpoint.request, every=True)
        asides = _asides(body.document.data, endpoint)
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
    return Prompt(endpoint, target, body, model, stream is True, asides)


def _asides(data: Any, endpoint: Endpoint) -> Sequence[Segment]:
    in_text = endpoint.dialect.name == "tgi"  # makes Markdown of pictures, and fetches from it
    return [*calls(data), *files(data), *fetches(data, in_text=in_text), *numbers(data)]


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
