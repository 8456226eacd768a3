"""A recorded exchange opened: its flow, and what was said in it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from mitmproxy import exceptions, http
from mitmproxy.flow import Flow
from mitmproxy.io import FlowReader

from mitmgate import exchange
from mitmgate.cli import listing
from mitmgate.core.ledger import VEILED, BadRecord, Entry
from mitmgate.core.wire.conversation import answered, asked
from mitmgate.core.wire.transcript import Turn

# What mitmproxy raises, which takes the values in a flow for what they should be.
_NO_FLOW = (
    exceptions.FlowReadException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Said:
    """The texts of a message in order. `reason` says why it, or the rest of it, cannot be read;
    `raw` is such a message.
    """

    turns: Sequence[Turn]
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


def read_flow(file: BinaryIO) -> Flow:
    """The next flow of a recording, where there is one. Raises `ValueError` for what is none."""
    try:
        for flow in FlowReader(file).stream():
            return flow
    except _NO_FLOW as e:
        raise ValueError(str(e).partition("\n")[0] or type(e).__name__) from None
    raise ValueError("nothing is there")


def flow_of(entry: Entry, data: bytes) -> http.HTTPFlow:
    """The flow in `data`, which are the bytes of `entry`. Raises `BadRecord`."""
    try:
        flow = read_flow(io.BytesIO(data))
    except ValueError as e:
        raise BadRecord(f"{entry.flows}: {entry['exchange']} cannot be read: {e}") from None
    if not isinstance(flow, http.HTTPFlow):
        raise BadRecord(f"{entry.flows}: {entry['exchange']} is no HTTP flow")
    return flow


def messages(flow: http.HTTPFlow) -> tuple[Said, Said]:
    """What the request said, and what the caller was told: nothing, where there was no answer."""
    return _said(flow, flow.request), _said(flow, flow.response)


def told(entry: Entry, flow: http.HTTPFlow) -> Entry:
    """`entry` with what its line leaves out if `flow`, which is its own, was encrypted."""
    if not entry["encrypted"]:
        return entry
    summary = exchange.recorded(flow)
    known = {name: summary[name] for name in VEILED if name in summary}
    return replace(entry, fields={**entry.fields, **known})


def document(entry: Entry, data: bytes) -> dict[str, Any]:
    """What was said in the flow in `data`, and what the ledger says about it, for programs.

    Raises `BadRecord`.
    """
    flow = flow_of(entry, data)
    entry = told(entry, flow)
    prompt, answer = messages(flow)
    return {
        **listing.exchange(entry),
        "findings": entry.fields.get("findings") or [],
        "approvals": entry.fields.get("approvals") or [],
        "prompt": prompt.document(),
        "answer": answer.document(),
    }


def _said(flow: http.HTTPFlow, message: http.Request | http.Response | None) -> Said:
    raw = message.raw_content if message else None
    if message is None or not raw:
        return Said(())
    of, kind = (flow.request.method, flow.request.path), message.headers.get("content-type", "")
    try:
        data = message.content or b""
        if isinstance(message, http.Request):
            return Said(asked(*of, kind, data))
        return Said(*answered(*of, message.status_code, kind, data))
    except ValueError as e:  # UnreadError, and what cannot be decompressed
        return Said((), str(e), raw)
