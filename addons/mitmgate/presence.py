"""Whether the caller of a request is still there while a hook runs.

mitmproxy keeps what comes for a request whose hook has not returned, an HTTP/2 reset included, and
tells no addon. This looks at what it keeps, as mitmproxy does itself once the hook has returned. It
rests on a few names inside mitmproxy; where they are missing every caller counts as there, and it
says so once: mitmproxy then still sends nothing on, but an approval is used up for it.
"""

from __future__ import annotations

import functools
import logging

from mitmproxy import ctx, http
from mitmproxy.log import ALERT
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream
from mitmproxy.proxy.layers.http._events import RequestProtocolError

logger = logging.getLogger(__name__)


def has_left(flow: http.HTTPFlow) -> bool:
    """Whether the caller of a flow in its `request` hook has closed, or reset its stream."""
    try:
        # A flow that is replayed has nobody behind it, and no connection here.
        handler = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
        if handler is None:
            return flow.is_replay is None
        events = _stream(handler.layer.context.layers, flow)._paused_event_queue
        return any(isinstance(event, RequestProtocolError) for event in events)
    except (AttributeError, LookupError, TypeError) as e:
        _tell(repr(e))
        return False


def _stream(layers: list[object], flow: http.HTTPFlow) -> HttpStream:
    """What mitmproxy has for one request. Raises `LookupError`."""
    for layer in layers:
        if isinstance(layer, HttpLayer):
            for stream in layer.streams.values():
                if getattr(stream, "flow", None) is flow:
                    return stream
    raise LookupError("no stream for a request")


@functools.cache  # once is enough
def _tell(error: str) -> None:
    logger.log(ALERT, "mitmproxy is another inside (%s): who leaves a hold is seen late", error)
