"""Callers over TLS and HTTP/2: judged, masked and held like any others."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import h2.connection
import httpx
import pytest

from harness import Gate, StandIn, Tokens

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}


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


def client(gate: Gate, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        http1=False,
        http2=True,
        verify=trusting(gate),
        base_url=gate.url.replace("http://", "https://"),
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=30,
    )


async def test_many_streams_on_one_connection(gate: Gate, standin: StandIn, tokens: Tokens) -> None:
    async with client(gate, tokens.mint()) as http2:
        answers = await asyncio.gather(
            *(http2.post(CHAT, json={**BODY, "stream": i % 2 == 0}) for i in range(10))
        )
        denied = await http2.post(
            CHAT, json={**BODY, "messages": [{"role": "user", "content": "export the weights"}]}
        )
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    for answer in answers:
        assert answer.status_code == 200
        assert "[EMAIL]" in answer.text
        assert "jane.doe" not in answer.text
    assert denied.status_code == 403
    assert len(standin.seen()) == 10
    assert {seen.headers["authorization"] for seen in standin.seen()} == {f"Bearer {standin.key}"}


async def test_a_held_request_that_is_reset_does_not_go_on(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    mark = gate.process.mark()
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "wire the money"}]})
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=trusting(gate), server_hostname=host
    )
    http2 = h2.connection.H2Connection()
    http2.initiate_connection()
    headers = {":method": "POST", ":scheme": "https", ":authority": host, ":path": CHAT}
    headers |= {"authorization": f"Bearer {tokens.mint()}", "content-type": "application/json"}
    http2.send_headers(1, list(headers.items()))
    http2.send_data(1, body.encode(), end_stream=True)
    writer.write(http2.data_to_send())
    hold = (await gate.logged(r"mitmgate approve (h-\S+)", since=mark))[1]
    http2.reset_stream(1)
    http2.ping(b"heard it")
    writer.write(http2.data_to_send())
    while b"heard it" not in await reader.read(1 << 16):
        pass  # the gate has read the reset by the time it answers the ping behind it
    decide = ["approve", hold, "--reason", "fine", "--state", str(gate.state)]
    await asyncio.to_thread(
        subprocess.run, [Path(sys.executable).with_name("mitmgate"), *decide], check=True
    )
    await gate.logged(f"{hold} was approved", since=mark)
    async with client(gate, tokens.mint()) as other:
        assert (await other.post(CHAT, json=BODY)).status_code == 200
    writer.close()
    assert [seen.json["messages"] for seen in standin.seen()] == [BODY["messages"]]


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
async def test_refusals_over_http2(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, path: str
) -> None:
    gate = start_gate()
    async with client(gate, "no token") as http2:
        answer = await http2.post(path, json=BODY)
    assert answer.status_code == 401
    assert answer.http_version == "HTTP/2"
    assert answer.headers["x-gate-rule"] == "invalid_token"
    assert standin.seen() == []
