"""The transcript view: a request or an answer as a conversation, in mitmweb and mitmproxy.

Chosen by default for the endpoints that the gate knows; needs nothing else of the gate, so it also
reads recordings: `mitmweb -s addons/views.py -r FILE.mitm`.
"""

from __future__ import annotations

from mitmproxy import contentviews, http

from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.framing import FramingError
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.stream import StreamError
from mitmgate.core.wire.transcript import Turn, answer_turns, prompt_turns


class Transcript(contentviews.Contentview):
    """Renders the texts of one message, each under its address and part."""

    def prettify(self, data: bytes, metadata: contentviews.Metadata) -> str:
        flow, endpoint = _flow(metadata), _endpoint(metadata)
        if flow is None or endpoint is None:
            raise ValueError("not an exchange of a known endpoint")
        kind = metadata.content_type or ""
        try:
            if isinstance(metadata.http_message, http.Response):
                turns = answer_turns(endpoint, metadata.http_message.status_code, kind, data)
            else:
                turns = prompt_turns(endpoint, flow.request.path, kind, data)
        except (AnswerError, DocumentError, FramingError, PromptError, StreamError) as e:
            raise ValueError(str(e)) from None
        return "\n\n".join([*_header(flow), *map(_render, turns)])

    def render_priority(self, data: bytes, metadata: contentviews.Metadata) -> float:
        return 10 if data and _endpoint(metadata) else -1


def _flow(metadata: contentviews.Metadata) -> http.HTTPFlow | None:
    return metadata.flow if isinstance(metadata.flow, http.HTTPFlow) else None


def _endpoint(metadata: contentviews.Metadata) -> Endpoint | None:
    flow = _flow(metadata)
    if flow is None:
        return None
    return endpoints.find(flow.request.method, flow.request.path.partition("?")[0])


def _header(flow: http.HTTPFlow) -> list[str]:
    return [f"-- {flow.comment}"] if flow.comment else []


def _render(turn: Turn) -> str:
    return f"{turn.where} {turn.address}\n{turn.text}"


class Views:
    """Registers the view. Judges nothing, so it is no `GateAddon`."""

    name = "mitmgate.views"

    def __init__(self) -> None:
        self._transcript = Transcript()

    def load(self, loader: object) -> None:
        contentviews.add(self._transcript)
