"""The transcript view: a request or an answer as a conversation, in mitmweb and mitmproxy.

Chosen by default for the endpoints that the gate knows; needs nothing else of the gate, so it also
reads recordings: `mitmweb -s addons/views.py -r FILE.mitm`. What it cannot read is left to
mitmproxy's other views.
"""

from __future__ import annotations

from mitmproxy import contentviews, http

from mitmgate.core.account import Fact, account, times
from mitmgate.core.summary import found
from mitmgate.core.wire.conversation import answered, asked
from mitmgate.core.wire.rendering import Style, render
from mitmgate.exchange import recorded

STREAM = 2 << 20  # bytes of a stream that are read: the view runs on the event loop
PRIORITY = 10  # above mitmproxy's own views, which say 2 at most


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
    of = (flow.request.method, flow.request.path)
    kind, note = metadata.content_type or "", ""
    if isinstance(message, http.Response):
        turns, note = answered(*of, message.status_code, kind, data, most=STREAM)
    else:
        turns = asked(*of, kind, data)
    told = render(turns, found(recorded(flow))) or "(there is no text in it)"
    head = "\n".join(fact.line(Style()) for fact in _facts(flow))
    shown = "\n\n".join(filter(None, [head, told, f"[{note}]" if note else ""]))
    return "\n".join(line or " " for line in shown.split("\n"))  # mitmweb drops empty lines


def _facts(flow: http.HTTPFlow) -> list[Fact]:
    """What the gate says of the exchange; without the gate, what mitmproxy knows."""
    summary, response = recorded(flow), flow.response
    note = [Fact("note", flow.comment)] if flow.comment else []
    first, ended = (response.timestamp_start, response.timestamp_end) if response else (None, None)
    when = times(flow.request.timestamp_start, first, ended)
    return [*(account(summary) if summary else note), when]


class Views:
    """Registers the view. Judges nothing, so it is no `GateAddon`.

    `name` is mitmproxy's for the addon: two that have the same one end start-up.
    """

    def __init__(self, name: str = "mitmgate.views") -> None:
        self.name = name
        self._transcript = Transcript()

    def load(self, loader: object) -> None:
        contentviews.add(self._transcript)
