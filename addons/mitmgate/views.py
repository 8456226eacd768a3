"""The transcript view: a request or an answer as a conversation, in mitmweb and mitmproxy.

Chosen by default for the endpoints that the gate knows; needs nothing else of the gate, so it also
reads recordings: `mitmweb -s addons/views.py -r FILE.mitm`. What it cannot read is left to
mitmproxy's other views.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mitmproxy import contentviews, http

from mitmgate.core.account import account, found
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.framing import FramingError
from mitmgate.core.wire.media import form
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.rendering import render
from mitmgate.core.wire.segment import plain
from mitmgate.core.wire.stream import StreamError
from mitmgate.core.wire.transcript import Turn, answer_turns, prompt_turns
from mitmgate.exchange import recorded

STREAM = 2 << 20  # bytes of a stream that are read: the view runs on the event loop
PRIORITY = 10  # above mitmproxy's own views, which say 2 at most

_UNREADABLE = (AnswerError, DocumentError, FramingError, PromptError, StreamError)
_SSE = (b"data:", b"event:", b": ", b":\n")


class Transcript(contentviews.Contentview):
    """Renders one message: what the gate says of the exchange, then who said what."""

    def __init__(self) -> None:
        # mitmproxy asks for the priority of a message and then for its text, in two calls.
        self._last: tuple[bytes, contentviews.Metadata, str] | None = None

    def prettify(self, data: bytes, metadata: contentviews.Metadata) -> str:
        last, self._last = self._last, None
        if last and last[0] is data and last[1] is metadata:
            return last[2]
        return _transcript(data, metadata)

    def render_priority(self, data: bytes, metadata: contentviews.Metadata) -> float:
        self._last = None
        if not data:
            return -1
        try:
            self._last = (data, metadata, _transcript(data, metadata))
        except ValueError:
            return -1
        return PRIORITY


def _transcript(data: bytes, metadata: contentviews.Metadata) -> str:
    """Raises `ValueError` for what is no message of a known endpoint, or cannot be read."""
    flow, message = metadata.flow, metadata.http_message
    if not isinstance(flow, http.HTTPFlow):
        raise ValueError("not an exchange")
    endpoint = endpoints.find(flow.request.method, flow.request.path.partition("?")[0])
    if endpoint is None:
        raise ValueError("not an exchange of a known endpoint")
    kind = metadata.content_type or ""
    try:
        if isinstance(message, http.Response):
            turns, note = _answer(endpoint, message.status_code, kind, data)
        else:
            turns, note = prompt_turns(endpoint, flow.request.path, kind, data), ""
    except _UNREADABLE as e:
        raise ValueError(str(e)) from None
    told = render(turns, found(recorded(flow))) or "(there is no text in it)"
    shown = "\n\n".join(filter(None, ["\n".join(_head(flow)), told, note]))
    return "\n".join(line or " " for line in shown.split("\n"))  # mitmweb drops empty lines


def _answer(endpoint: Endpoint, status: int, kind: str, data: bytes) -> tuple[Sequence[Turn], str]:
    """The turns of an answer, and what of it is not among them."""
    if form(kind) in ("text", "none") and endpoint.stream and data.lstrip().startswith(_SSE):
        kind = "text/event-stream"  # as clients read it, whatever it calls itself
    if endpoint.stream is None or form(kind) != endpoint.stream.framing:
        return answer_turns(endpoint, status, kind, data), ""
    read = data if len(data) <= STREAM else _whole_events(data[:STREAM])
    try:
        turns = answer_turns(endpoint, status, kind, read)
    except DocumentError:
        if len(read) < len(data) or (read := _whole_events(data)) == data:
            raise
        return answer_turns(endpoint, status, kind, read), "[the stream breaks off within an event]"
    left = len(data) - len(read)
    return turns, f"[{left:,} bytes of the stream are left out here]" if left else ""


def _whole_events(data: bytes) -> bytes:
    """Up to the last line break: an event that has lost its end is none."""
    return data[: data.rfind(b"\n") + 1]


def _head(flow: http.HTTPFlow) -> list[str]:
    """What the gate says of the exchange; without the gate, what mitmproxy knows."""
    summary = recorded(flow)
    lines = (
        account(summary) if summary else [f"note     {plain(flow.comment)}"] * bool(flow.comment)
    )
    begun = flow.request.timestamp_start
    when = f"{datetime.fromtimestamp(begun, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if flow.response:
        first = flow.response.timestamp_start
        when += f", first byte in {first - begun:.2f} s"
        if flow.response.timestamp_end:
            when += f", all in {flow.response.timestamp_end - begun:.2f} s"
    return [*lines, f"time     {when}"]


class Views:
    """Registers the view. Judges nothing, so it is no `GateAddon`.

    `name` is mitmproxy's for the addon: two that have the same one end start-up.
    """

    def __init__(self, name: str = "mitmgate.views") -> None:
        self.name = name
        self._transcript = Transcript()

    def load(self, loader: object) -> None:
        contentviews.add(self._transcript)
