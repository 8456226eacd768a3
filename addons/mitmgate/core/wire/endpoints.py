"""Every endpoint of every dialect. A new dialect is one file and one line here."""

from __future__ import annotations

from mitmgate.core.wire import anthropic, kserve, llamacpp, mcp, ollama, openai, responses, tgi
from mitmgate.core.wire.dialect import Dialect, Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *responses.ENDPOINTS,
    *anthropic.ENDPOINTS,
    *ollama.ENDPOINTS,
    *llamacpp.ENDPOINTS,
    *tgi.ENDPOINTS,
    *kserve.ENDPOINTS,
    *mcp.ENDPOINTS,
)
OPERATIONS = frozenset(endpoint.operation for endpoint in ENDPOINTS)
GENERATING = frozenset(endpoint.operation for endpoint in ENDPOINTS if endpoint.generates)

_EXACT = {(e.method, e.path): e for e in ENDPOINTS if "{" not in e.path}
_TGI = {e.path for e in tgi.ENDPOINTS}
_PATTERNS = [e for e in ENDPOINTS if "{" in e.path]


def find(method: str, path: str) -> Endpoint | None:
    """The endpoint for a path without its query, spelled exactly; None for an unknown one."""
    found = _EXACT.get((method, path))
    return found or next((e for e in _PATTERNS if e.matches(method, path)), None)


def dialect_of(path: str) -> Dialect:
    """The dialect in which to word a refusal for a path, known or not."""
    if path.startswith("/v1/messages"):
        return anthropic.DIALECT
    if path.startswith("/api/"):
        return ollama.DIALECT
    path = path.partition("?")[0]
    if path == "/v2" or path.startswith("/v2/"):
        return kserve.DIALECT
    if path == "/mcp":
        return mcp.DIALECT
    if path in _TGI:
        return tgi.DIALECT
    return openai.DIALECT
