"""A flow as it may be written down: a copy, with no credential in it.

The live flow is not touched, and what happens to it later does not reach the copy. To serialise the
copy is left to the writer's thread, since a large body takes long.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from mitmproxy import http
from mitmproxy.io import tnetstring

from mitmgate.core.ledger import RecorderFile, without_secrets
from mitmgate.core.tokens import CREDENTIAL_HEADERS
from mitmgate.exchange import Exchange

LONGEST = 200  # characters of a target that are kept of somebody without a token


def copy(
    flow: http.HTTPFlow, exchange: Exchange, asked: http.Headers, rules: RecorderFile
) -> dict[str, Any]:
    """The state of `flow` for a recording; `asked` are its headers as the caller sent them."""
    scrub = {*CREDENTIAL_HEADERS, "set-cookie", *rules.scrub}
    state: dict[str, Any] = flow.get_state()
    state["id"] = exchange.id
    state["backup"] = None
    state["intercepted"] = False
    request, response = state["request"], state["response"]
    request["headers"] = _headers(asked, scrub, rules.scrub_query)
    request["path"] = _target(request["path"], rules.scrub_query)
    if exchange.prompt is not None and rules.prompts == "exact":
        request["content"] = exchange.sent
        request["headers"] = _sized(request["headers"], len(exchange.sent))
    elif exchange.prompt is None and exchange.principal is None and exchange.refusal:
        # Nobody's bytes: whoever has no token must not be able to fill the disk.
        request["content"], request["headers"] = b"", ()
        for name in ("method", "path", "authority"):
            request[name] = request[name][:LONGEST]
    if response:
        response["headers"] = _headers(flow.response.headers, scrub)  # type: ignore[union-attr]
        if exchange.delivery:
            response["content"] = bytes(exchange.delivery.captured)
    if state["error"] and exchange.secret:  # mitmproxy quotes what the server sent
        message = state["error"]["msg"].replace(exchange.secret, "[KEY]")
        state["error"]["msg"] = message
    return state


def interrupted(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A journaled request of a gate that died, and its ledger fields.

    Raises `ValueError` for what is none.
    """
    try:
        state: dict[str, Any] = tnetstring.loads(data)  # type: ignore[assignment]
        summary = {**state["metadata"].get("mitmgate", {}), "ending": "interrupted"}
        state["metadata"]["mitmgate"] = summary
        state["comment"] = f"{state['comment']} interrupted"
        state["marked"] = ":boom:"
        request = state["request"]
        fields = {
            "exchange": state["id"],
            "method": request["method"].decode("ascii", "replace"),
            "path": request["path"].decode("ascii", "replace").partition("?")[0],
            "started": request["timestamp_start"],
            **summary,
        }
        return tnetstring.dumps(state), fields
    except (LookupError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(f"no flow of mitmproxy: {e}") from None


def _headers(
    headers: http.Headers, scrub: Container[str], parameters: Container[str] = ()
) -> tuple[tuple[bytes, bytes], ...]:
    """What is not in `scrub`; the query of a `Referer` without its secrets."""
    return tuple(
        (name, _target(value, parameters) if name.lower() == b"referer" else value)
        for name, value in headers.fields
        if name.decode("latin-1").lower() not in scrub
    )


def _sized(headers: tuple[tuple[bytes, bytes], ...], size: int) -> tuple[tuple[bytes, bytes], ...]:
    """`headers` with the length of the body that is kept: masking has changed it."""
    length = b"%d" % size
    return tuple(
        (name, length if name.lower() == b"content-length" else value) for name, value in headers
    )


def _target(target: bytes, parameters: Container[str]) -> bytes:
    return without_secrets(target.decode("latin-1"), parameters).encode("latin-1")
