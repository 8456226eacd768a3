"""A recorded exchange opened: its flow, and what was said in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mitmproxy import exceptions, http
from mitmproxy.io import FlowReader

from mitmgate.cli import listing
from mitmgate.core.ledger import BadRecord, Entry, flow_bytes
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import AnswerError
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.encoding import EncodingError
from mitmgate.core.wire.framing import FramingError
from mitmgate.core.wire.prompt import PromptError
from mitmgate.core.wire.segment import Segment
from mitmgate.core.wire.stream import StreamError
from mitmgate.core.wire.transcript import answer_turns, prompt_turns

_UNREADABLE = (AnswerError, DocumentError, EncodingError, FramingError, PromptError, StreamError)


@dataclass(frozen=True, slots=True)
class Said:
    """The texts of a message in order; or why it cannot be read as one, and the bytes of it."""

    turns: Sequence[Segment]
    reason: str = ""
    raw: bytes = b""

    def document(self) -> dict[str, Any]:
        """For programs; its keys stay."""
        return {
            "texts": [
                {"where": turn.where, "address": turn.address, "text": turn.text}
                for turn in self.turns
            ],
            "unread": self.reason or None,
        }


def flow_of(entry: Entry, data: bytes) -> http.HTTPFlow:
    """The flow in `data`, which are the bytes of `entry`. Raises `BadRecord`."""
    try:
        (flow,) = FlowReader(io.BytesIO(data)).stream()
    except (exceptions.FlowReadException, ValueError) as e:
        raise BadRecord(f"{entry.flows}: {entry['exchange']} cannot be read: {e}") from None
    if not isinstance(flow, http.HTTPFlow):
        raise BadRecord(f"{entry.flows}: {entry['exchange']} is no HTTP flow")
    return flow


def asked(flow: http.HTTPFlow) -> Said:
    """What the request said."""
    request = flow.request
    kind = request.headers.get("content-type", "")
    return _said(
        flow, request, lambda endpoint, raw: prompt_turns(endpoint, request.path, kind, raw)
    )


def answered(flow: http.HTTPFlow) -> Said:
    """What the caller was told; nothing where there was no answer."""
    response = flow.response
    if response is None:
        return Said(())
    status, kind = response.status_code, response.headers.get("content-type", "")
    return _said(flow, response, lambda endpoint, raw: answer_turns(endpoint, status, kind, raw))


def document(entry: Entry) -> dict[str, Any]:
    """What was said, and what the ledger says about it, for programs. Raises `BadRecord`."""
    flow = flow_of(entry, flow_bytes(entry))
    return {
        **listing.exchange(entry),
        "findings": entry.fields.get("findings") or [],
        "approvals": entry.fields.get("approvals") or [],
        "prompt": asked(flow).document(),
        "answer": answered(flow).document(),
    }


def _said(
    flow: http.HTTPFlow,
    message: http.Message,
    read: Callable[[Endpoint, bytes], Sequence[Segment]],
) -> Said:
    raw = message.raw_content or b""
    endpoint = endpoints.find(flow.request.method, flow.request.path.partition("?")[0])
    if not raw:
        return Said(())
    if endpoint is None:
        return Said((), "not an endpoint of the gate", raw)
    try:
        return Said(read(endpoint, message.content or b""))
    except (*_UNREADABLE, ValueError) as e:
        return Said((), str(e), raw)
