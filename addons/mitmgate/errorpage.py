"""mitmproxy's own error page, in words that SDKs read and that give nothing away.

When no addon can answer (the model server is down or speaks no HTTP, a body is over the limit),
mitmproxy writes a page of HTML itself and quotes what went wrong, bytes of the model server
included. This puts an error object in its place that OpenAI's and Anthropic's clients both
understand. It rests on two names inside mitmproxy; where they are missing it stands down and says
so.
"""

from __future__ import annotations

import json
import logging

from mitmproxy.log import ALERT
from mitmproxy.net.http import status_codes
from mitmproxy.proxy.layers.http import _http1, _http2

logger = logging.getLogger(__name__)

_WORDS = {
    400: ("http_invalid", "invalid_request_error", "The request is not valid HTTP."),
    413: ("body_too_large", "request_too_large", "The request body is too large."),
    502: ("upstream_failed", "server_error", "The model server did not give a valid answer."),
}


def install() -> None:
    """Replace the page for all connections from now on. Calling it again changes nothing."""
    if not hasattr(_http1, "make_error_response") or not hasattr(_http2, "format_error"):
        logger.log(ALERT, "mitmproxy writes its error pages elsewhere: they stay as they are")
        return
    _http1.make_error_response = _response
    _http2.format_error = _body


def _response(status_code: int, message: str = "") -> bytes:
    head = f"HTTP/1.1 {status_code} {status_codes.RESPONSES.get(status_code, 'Error')}\r\n"
    body = _body(status_code, message)
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (
        f"{head}X-Gate-Rule: {_words(status_code)[0]}\r\nConnection: close\r\n\r\n".encode() + body
    )


def _body(status_code: int, message: str) -> bytes:
    code, kind, text = _words(status_code)
    error = {"message": text, "type": kind, "param": None, "code": code}
    return json.dumps({"type": "error", "error": error}).encode()


def _words(status_code: int) -> tuple[str, str, str]:
    return _WORDS.get(status_code, ("gate_fault", "server_error", "The exchange failed."))
