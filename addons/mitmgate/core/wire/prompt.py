"""A request as the model will read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitmgate.core.wire.body import JsonBody
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.media import form
from mitmgate.core.wire.segment import Segment

# Fields that put text before the model in a form that no rule can read.
_OPAQUE = ("prompt_embeds", "prompt_token_ids", "input_ids", "context")
_TOKENS = ("prompt", "input", "content", "query", "input_prefix", "input_suffix")


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

    @property
    def canonical(self) -> Any:
        """The content that a person approves: key order and white space do not count."""
        return self.body.document.data if self.body else None


def read_prompt(endpoint: Endpoint, target: str, content_type: str, raw: bytes) -> Prompt:
    """Parse a request whose body is already decoded. Raises `PromptError`."""
    if endpoint.request is None:
        if raw:
            raise PromptError(400, "body_unexpected", f"{endpoint.path} takes no request body.")
        return Prompt(endpoint, target, None, None, False)
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
    _refuse_opaque(data)
    model = data.get("model")
    if model is not None and not isinstance(model, str):
        raise PromptError(400, "model_invalid", "`model` must be a string.")
    stream = data.get("stream", endpoint.stream.default if endpoint.stream else False)
    return Prompt(endpoint, target, body, model, stream is True)


def _refuse_opaque(data: dict[str, Any]) -> None:
    for name in _OPAQUE:
        if data.get(name) is not None:
            raise PromptError(
                400, "prompt_opaque", f"`{name}` carries text in a form that cannot be judged."
            )
    for name in _TOKENS:
        if _has_number(data.get(name)):
            raise PromptError(
                400,
                "prompt_opaque",
                f"`{name}` holds token ids, which cannot be judged: send text.",
            )


def _has_number(value: Any) -> bool:
    if isinstance(value, list):
        return any(type(item) in (int, float) or _has_number(item) for item in value)
    return False
