"""A message of an exchange that is over, as a conversation, as far as it can be read.

The gate has judged it, or nobody has: here it is read for people, so a stream may break off and may
call itself something else. Nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.encoding import EncodingError
from mitmgate.core.wire.framing import FramingError
from mitmgate.core.wire.media import form
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.stream import StreamError
from mitmgate.core.wire.transcript import Turn, answer_turns, prompt_turns

_UNREADABLE = (AnswerError, DocumentError, EncodingError, FramingError, PromptError, StreamError)
_SSE = (b"data:", b"event:", b": ", b":\n")


class UnreadError(ValueError):
    """A message in which no conversation can be read. The text says why."""


def asked(method: str, target: str, content_type: str, data: bytes) -> Sequence[Turn]:
    """The turns of a request; `data` is its body, decoded. Raises `UnreadError`."""
    try:
        return prompt_turns(_endpoint(method, target), target, content_type, data)
    except _UNREADABLE as e:
        raise UnreadError(str(e)) from None


def answered(
    method: str,
    target: str,
    status: int,
    content_type: str,
    data: bytes,
    *,
    most: int | None = None,
) -> tuple[Sequence[Turn], str]:
    """The turns of an answer, and a note on what of it is not among them, or "".

    No more than `most` bytes of a stream are read. Raises `UnreadError`.
    """
    try:
        return _answer(_endpoint(method, target), status, content_type, data, most)
    except _UNREADABLE as e:
        raise UnreadError(str(e)) from None


def _endpoint(method: str, target: str) -> Endpoint:
    endpoint = endpoints.find(method, target.partition("?")[0])
    if endpoint is None:
        raise UnreadError("not an endpoint of the gate")
    return endpoint


def _answer(
    endpoint: Endpoint, status: int, kind: str, data: bytes, most: int | None
) -> tuple[Sequence[Turn], str]:
    if form(kind) in ("text", "none") and endpoint.stream and data.lstrip().startswith(_SSE):
        kind = "text/event-stream"  # as clients read it, whatever it calls itself
    if endpoint.stream is None or form(kind) != endpoint.stream.framing:
        return answer_turns(endpoint, status, kind, data), ""
    read = data if most is None or len(data) <= most else _whole_events(data[:most])
    try:
        turns = answer_turns(endpoint, status, kind, read)
    except DocumentError:
        if len(read) < len(data) or (read := _whole_events(data)) == data:
            raise
        return answer_turns(endpoint, status, kind, read), "the stream breaks off within an event"
    left = len(data) - len(read)
    return turns, f"{left:,} bytes of the stream are left out here" if left else ""


def _whole_events(data: bytes) -> bytes:
    """Up to the last line break: an event that has lost its end is none."""
    return data[: data.rfind(b"\n") + 1]
