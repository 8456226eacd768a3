"""Callers over TLS and HTTP/2: judged, masked and held like any others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from harness import Gate, StandIn, Tokens
from http2 import trusting

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}


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


async def test_a_body_without_a_length_arrives_whole(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    """Legal in HTTP/2; over HTTP/1 it would be taken for the next request."""
    gate = start_gate()

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(BODY).encode()

    headers = {"content-type": "application/json"}
    async with client(gate, tokens.mint()) as http2:
        answer = await http2.post(CHAT, content=body(), headers=headers)
    assert answer.status_code == 200
    (seen,) = standin.seen()
    assert seen.json == BODY
