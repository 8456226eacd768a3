"""An answer that came whole."""

from __future__ import annotations

import re

from mitmgate.core.wire.body import Body, JsonBody, TextBody
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.media import form
from mitmgate.core.wire.schema import Kind

_JSON = re.compile(rb'\s*(?:\{|\[\s*["{\[\d])')


class AnswerError(Exception):
    """An answer that cannot be read, and so is not delivered."""


def read_answer(endpoint: Endpoint, status: int, content_type: str, raw: bytes) -> Body:
    """Parse a decoded answer. Raises `AnswerError`.

    An error answer has no schema: every string in it is text.
    """
    if not raw:
        return TextBody(raw)
    kind = form(content_type)
    if kind == "none":
        kind = "json" if raw.lstrip()[:1] in (b"{", b"[") else "text"
    try:
        if kind == "json":
            return JsonBody(raw, endpoint.answer if status < 400 else Kind.TEXT)
        if kind == "text":
            return _text(endpoint, status, raw)
    except DocumentError as e:
        raise AnswerError(f"the model server's answer cannot be read: {e}") from None
    raise AnswerError(f"the model server's answer has the unreadable type {content_type!r}")


def _text(endpoint: Endpoint, status: int, raw: bytes) -> Body:
    """JSON that calls itself text is JSON to most callers, who never look at the type."""
    if _JSON.match(raw):
        return JsonBody(raw, endpoint.answer if status < 400 else Kind.TEXT)
    if b"\0" in raw:
        raise DocumentError("the text is not UTF-8")
    return TextBody(raw)
