"""A recorded request made ready to be sent again by `mitmdump -C`, through a gate.

The answer is dropped, the gate's address and a fresh token are put in; the body stays as it was
recorded. The flow keeps its id, so that both answers can be put side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mitmproxy import http
from mitmproxy.io import tnetstring

# What is about a body or a connection that are not there any more.
_DROPPED = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"te", b"trailer")
)
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where requests go."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def parse(url: str) -> Gateway:
        """From `http://HOST:PORT`. Raises `ValueError`."""
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("the gate's address takes no name and password: the token is given")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} should be the gate's address, like http://127.0.0.1:8080")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"{url} should end with the port: paths are those of the requests")
        return Gateway(
            parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        )

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def checked(token: str) -> str:
    """A token without the white space around it. Raises `ValueError`, and does not say it."""
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token should be one word of printable ASCII")
    return token


def prepared(flow: http.HTTPFlow, gateway: Gateway, token: str) -> bytes:
    """The bytes of a flow that `mitmdump -C` sends."""
    state: dict[str, Any] = flow.get_state()
    request = state["request"]
    content: bytes = request["content"] or b""
    headers = [(name, value) for name, value in request["headers"] if name.lower() not in _DROPPED]
    headers += [
        (b"host", gateway.authority.encode()),
        (b"authorization", f"Bearer {token}".encode()),
    ]
    if content:
        headers.append((b"content-length", b"%d" % len(content)))
    request.update(
        scheme=gateway.scheme.encode(),
        host=gateway.host,
        port=gateway.port,
        authority=b"",
        http_version=b"HTTP/1.1",
        headers=tuple(headers),
        content=content,
        trailers=None,
    )
    state.update(
        response=None,
        error=None,
        metadata={},
        marked="",
        comment=f"{flow.id} again",
        backup=None,
    )
    return tnetstring.dumps(state)
