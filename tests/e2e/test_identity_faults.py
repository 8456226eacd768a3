"""Faults and tricks around identity, against a real gate: each got through once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import Gate, Rules, StandIn, Tokens, baseline
from processes import GATEWAY, ProcessError
from test_http2 import client as http2_client

CHAT = "/v1/chat/completions"
StartGate = Callable[..., Gate]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def identity(tokens: Tokens, standin: StandIn, tmp_path: Path) -> Callable[..., Rules]:
    """identity.yaml of the baseline with other limits, and whatever else."""

    def rules(limits: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        usual = baseline(tokens, standin.url, tmp_path)["identity"]
        assert not isinstance(usual, str)
        grant = {"id": "all", "who": {"subject": "*"}, "operations": ["*"], "models": ["*"]}
        return {**usual, "grants": [{**grant, "limits": limits} if limits else grant], **more}

    return rules


async def test_a_method_is_judged_as_it_goes_out(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    """mitmproxy shows methods in capitals and sends them as they came."""
    for make in (gate.client, lambda token: http2_client(gate, token)):
        async with make(tokens.mint()) as client:
            request = client.build_request("POST", CHAT, json=said("hello"))
            request.method = "post"
            answer = await client.send(request)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "endpoint_unknown"
    assert standin.seen() == []


async def test_a_refused_stream_keeps_its_place_while_the_model_goes_on(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    rule = {
        "id": "answer-weights",
        "title": "Weights in answers",
        "action": "deny",
        "where": ["answer"],
        "match": "the weights are",
        "tests": {"match": ["the weights are"], "pass": ["weights"]},
    }
    rules = {
        "identity": identity({"concurrent": 1}),
        "commands": {"schema": 1, "rules": [rule]},
    }
    gate = start_gate(rules=rules)
    long = "standin: delay=0.05\nsay: the weights are " + "word " * 2000
    async with gate.client(tokens.mint()) as client, asyncio.timeout(20):
        async with client.stream("POST", CHAT, json=said(long, stream=True)) as answer:
            async for text in answer.aiter_text():
                if "answer-weights" in text:
                    break
            assert standin.seen()[0].outcome == "answering"
            second = await client.post(CHAT, json=said("hello"))
            assert second.status_code == 429
        while (await client.post(CHAT, json=said("hello"))).status_code == 429:
            await asyncio.sleep(0.1)  # the place is given back when the caller has gone


@asynccontextmanager
async def streaming(gate: Gate, token: str) -> AsyncIterator[AsyncIterator[str]]:
    """A stream of two minutes that has begun."""
    long = "standin: delay=0.05\nsay: " + "word " * 5000
    async with (
        asyncio.timeout(25),
        gate.client(token) as client,
        client.stream("POST", CHAT, json=said(long, stream=True)) as answer,
    ):
        assert answer.status_code == 200
        texts = answer.aiter_text()
        while "word" not in await anext(texts):
            pass
        yield texts


async def ending(texts: AsyncIterator[str]) -> str:
    text = ""
    async for piece in texts:
        text += piece
        if "invalid_token" in text:
            break
    return text


async def test_a_revoked_callers_stream_ends_though_its_token_has_expired(
    start_gate: StartGate, tokens: Tokens, identity: Callable[..., Rules], tmp_path: Path
) -> None:
    revoked = tmp_path / "revoked.txt"
    revoked.touch()
    gate = start_gate(rules={"identity": identity(revoked={"file": str(revoked)})})
    async with streaming(gate, tokens.mint("leaver", lifetime=2)) as texts:
        await asyncio.sleep(3)
        revoked.write_text("leaver\n")
        assert "The token is not accepted." in await ending(texts)


async def test_a_revoked_callers_stream_ends_though_the_gate_was_loaded_again(
    start_gate: StartGate, tokens: Tokens, identity: Callable[..., Rules], tmp_path: Path
) -> None:
    revoked = tmp_path / "revoked.txt"
    revoked.touch()
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY.read_text())
    rules = {"identity": identity(revoked={"file": str(revoked)})}
    gate = start_gate(rules=rules, scripts=[script])
    async with streaming(gate, tokens.mint("leaver")) as texts:
        mark = gate.process.mark()
        script.write_text(f"{script.read_text()}\n# edited\n")
        os.utime(script, (time.time() + 2,) * 2)
        await gate.logged("Loading script", since=mark)
        await asyncio.sleep(1)
        revoked.write_text("leaver\n")
        assert "The token is not accepted." in await ending(texts)


async def test_a_list_of_the_revoked_that_is_a_pipe_stops_nobody_else(
    start_gate: StartGate, tokens: Tokens, identity: Callable[..., Rules], tmp_path: Path
) -> None:
    revoked = tmp_path / "revoked.txt"
    revoked.touch()
    gate = start_gate(rules={"identity": identity(revoked={"file": str(revoked)})})
    async with gate.client(tokens.mint(), timeout=5) as client:
        assert (await client.post(CHAT, json=said("hello"))).status_code == 200
        revoked.unlink()
        os.mkfifo(revoked)
        async with asyncio.timeout(10):
            while (answer := await client.post(CHAT, json=said("hello"))).status_code == 200:
                await asyncio.sleep(0.1)
        assert answer.status_code == 503
        revoked.unlink()
        revoked.touch()
        async with asyncio.timeout(10):
            while (await client.post(CHAT, json=said("hello"))).status_code != 200:
                await asyncio.sleep(0.1)


async def test_a_slow_issuer_does_not_hold_up_the_list_of_the_revoked(
    start_gate: StartGate, tokens: Tokens, identity: Callable[..., Rules], tmp_path: Path
) -> None:
    """While it is asked about one exchange, the next is looked up all the same."""
    answers = 0

    async def introspect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        await reader.readuntil(b"\r\n\r\n")
        if answers > 2:  # both were let in: what is asked now is asked about streams
            await asyncio.sleep(2.5)
        body = b'{"active": true}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    revoked = tmp_path / "revoked.txt"
    revoked.touch()
    server = await asyncio.start_server(introspect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rules: Any = identity(revoked={"file": str(revoked)})
    rules["issuers"][0]["introspection"] = {
        "url": f"http://127.0.0.1:{port}/",
        "client_id": "gate",
        "client_secret": "secret",
        "cache": "1s",
    }
    gate = start_gate(rules={"identity": rules})
    async with (
        server,
        streaming(gate, tokens.mint("first")),
        streaming(gate, tokens.mint("second")) as texts,
    ):
        async with asyncio.timeout(10):
            while answers < 3:
                await asyncio.sleep(0.02)
        revoked.write_text("second\n")
        begun = time.monotonic()
        assert "The token is not accepted." in await ending(texts)
        assert time.monotonic() - begun < 2.4


def test_checks_of_what_comes_in_cannot_be_switched_off(start_gate: StartGate) -> None:
    """Without them a line break in a header of HTTP/2 is one on the wire, before a request more."""
    with pytest.raises(ProcessError, match="validate_inbound_headers cannot be switched off"):
        start_gate(options={"validate_inbound_headers": "false"})
