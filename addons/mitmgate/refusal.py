"""A refusal, and how it is worded for the caller: as an answer, or as the last event of a stream.

Refusals speak the dialect of the path that was called, so that stock SDKs raise their own
exceptions, and carry the exchange's id and the rule's in headers of their own.
"""

from __future__ import annotations

import json
from typing import NoReturn

from mitmproxy import http

from mitmgate.core.wire import endpoints
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.framing import reader


class Refusal(Exception):
    """An exchange is refused. `code` is stable and names the rule; `message` is for the caller.

    Where the caller is to learn less than the operator, `public` stands in the place of `code`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        marker: str = ":no_entry:",
        public: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        self.marker = marker
        self.public = public or code


def deny(status: int, code: str, message: str, **headers: str) -> NoReturn:
    """Refuse the exchange at hand, from any hook. Raises `Refusal`."""
    raise Refusal(
        status, code, message, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def refusal_response(refusal: Refusal, exchange: str, path: str) -> tuple[http.Response, bytes]:
    """The answer, without its body, and the body. `exchange` is an id, `path` what was called."""
    dialect = endpoints.dialect_of(path)
    body = json.dumps(dialect.error(refusal.status, refusal.public, refusal.message)).encode()
    headers = {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Gate-Exchange": exchange,
        "X-Gate-Rule": refusal.public,
        **refusal.headers,
    }
    response = http.Response.make(refusal.status, b"", headers)
    response.headers["content-length"] = str(len(body))
    return response, body


def refusal_event(refusal: Refusal, endpoint: Endpoint | None) -> bytes:
    """The event that ends a stream with an error; nothing where a stream has no events."""
    stream = endpoint.stream if endpoint else None
    if endpoint is None or stream is None:
        return b""
    error = stream.error or endpoint.dialect.error
    data = json.dumps(error(refusal.status, refusal.public, refusal.message)).encode()
    return reader(stream.framing).encode(data, name=endpoint.dialect.error_event)
