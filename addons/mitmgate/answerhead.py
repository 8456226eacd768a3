"""The head of an answer as the caller may see it.

A model server's headers are its own words, and no rule reads them: a list says which go on. Its
reason phrase is replaced by the standard one.
"""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.net.http import status_codes

_PASSED = frozenset(
    """
    cache-control connection content-encoding content-length content-type date keep-alive
    request-id retry-after transfer-encoding vary x-request-id x-should-retry
    openai-processing-ms openai-version
    mcp-session-id mcp-protocol-version
    """.split()
)
_PASSED_PREFIXES = ("ratelimit", "x-ratelimit-", "anthropic-ratelimit-", "x-gate-")


def trim(response: http.Response) -> None:
    """Take out what is not on the list."""
    response.reason = status_codes.RESPONSES.get(response.status_code, "")
    response.headers.fields = tuple(
        (name, value) for name, value in response.headers.fields if _passes(name)
    )


def _passes(name: bytes) -> bool:
    text = name.decode("latin-1").lower()
    return text in _PASSED or text.startswith(_PASSED_PREFIXES)
