"""Callers over TLS and HTTP/2 that trust the gate's CA; one of them has its frames in hand."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from typing import Any, Self

import h2.connection
import h2.events

from harness import Gate


class OnlyHttp2(ssl.SSLContext):
    """Offers h2 alone: httpx offers HTTP/1.1 first, and mitmproxy takes the first it knows."""

    def set_alpn_protocols(self, protocols: Iterable[str]) -> None:
        super().set_alpn_protocols(["h2"])


def trusting(gate: Gate) -> OnlyHttp2:
    """Trusts mitmproxy's CA, as a caller of a real gate would."""
    context = OnlyHttp2(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(gate.directory / "confdir" / "mitmproxy-ca-cert.pem")
    context.set_alpn_protocols(["h2"])
    return context


class Streams:
    """One HTTP/2 connection to `gate`. An async context manager that closes it."""

    def __init__(self, gate: Gate, token: str) -> None:
        self._gate = gate
        self._token = token
        self._http2 = h2.connection.H2Connection()

    async def __aenter__(self) -> Self:
        host, port = self._gate.url.removeprefix("http://").split(":")
        self._reader, self._writer = await asyncio.open_connection(
            host, int(port), ssl=trusting(self._gate), server_hostname=host
        )
        self._http2.initiate_connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def post(self, path: str, body: Any) -> int:
        """Send a request; its stream."""
        stream = self._http2.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "https", ":authority": "gate", ":path": path}
        headers |= {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        content = json.dumps(body).encode()
        headers["content-length"] = str(len(content))
        self._http2.send_headers(stream, list(headers.items()))
        self._http2.send_data(stream, content, end_stream=True)
        self._writer.write(self._http2.data_to_send())
        return stream

    async def status(self, stream: int) -> int:
        """The status of its answer, once it has come whole."""
        status = 0
        while True:
            for event in await self._events():
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.StreamEnded):
                    return status

    async def reset(self, stream: int) -> None:
        """Reset it. The gate has read that when this returns: it has answered a ping behind it."""
        self._http2.reset_stream(stream)
        self._http2.ping(b"heard it")
        self._writer.write(self._http2.data_to_send())
        while not any(isinstance(e, h2.events.PingAckReceived) for e in await self._events()):
            pass

    async def _events(self) -> list[h2.events.Event]:
        data = await self._reader.read(1 << 16)
        assert data, "the gate has closed the connection"
        events = self._http2.receive_data(data)
        self._writer.write(self._http2.data_to_send())
        return events
