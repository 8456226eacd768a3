"""Model servers that misbehave: nobody gets what is not theirs, or what nobody has read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy.io import FlowReader

from harness import UPSTREAM_KEY, Gate, StandIn, Tokens
from processes import GATEWAY, free_port

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
type Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def upstream(handle: Handler) -> AsyncIterator[str]:
    """A server that hands the head of each request on a connection to `handle`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                await handle(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def said(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"content": text}}]}).encode()


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
async def test_an_interim_answer_gives_nobody_the_answer_of_another(
    start_gate: Callable[..., Gate], tokens: Tokens, interim: str
) -> None:
    late = asyncio.Event()

    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"x-who: alice" in head:
            writer.write(f"HTTP/1.1 {interim}\r\nX-Mail: jane.doe@example.com\r\n\r\n".encode())
            await writer.drain()
            await late.wait()
            writer.write(answer(said("for alice"), "Content-Type: application/json"))
        else:
            writer.write(answer(said("for bob"), "Content-Type: application/json"))

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint()) as client:
            alice = await client.post(CHAT, json=BODY, headers={"x-who": "alice"})
            assert alice.status_code == 502
            assert alice.json()["error"]["code"] == "interim_answer"
            assert "jane" not in str(alice.headers)
            late.set()
            bob = await client.post(CHAT, json=BODY, headers={"x-who": "bob"})
    assert bob.json()["choices"][0]["message"]["content"] == "for bob"


async def test_the_head_of_an_answer_is_trimmed(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [
            "Content-Type: application/json",
            "X-Mail: jane.doe@example.com",
            "X-Request-Id: 7",
        ]
        lines += ["Set-Cookie: session=1", "Location: http://evil.example/"]
        writer.write(answer(said("hello"), *lines, status="200 jane.doe@example.com"))

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint()) as client:
            got = await client.post(CHAT, json=BODY)
    assert got.status_code == 200
    assert got.reason_phrase == "OK"
    assert got.headers["x-request-id"] == "7"
    assert not {"x-mail", "set-cookie", "location"} & set(got.headers)


@pytest.mark.parametrize("where", ["header", "body", "escaped", "stream", "reason"])
async def test_the_models_key_does_not_come_back(
    start_gate: Callable[..., Gate], tokens: Tokens, where: str
) -> None:
    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        key = UPSTREAM_KEY
        assert f"Bearer {key}".encode() in head
        kind = "Content-Type: application/json"
        if where == "header":
            writer.write(answer(said("hello"), kind, f"X-Request-Id: {key}"))
        elif where == "body":
            writer.write(answer(said(f"no such key: {key}"), kind, status="401 No"))
        elif where == "escaped":
            text = said(f"no such key: {key}").replace(b"sk-", b"\\u0073k-")
            writer.write(answer(text, kind, status="401 No"))
        elif where == "reason":
            writer.write(answer(said("hello"), kind, status=f"200 {key}"))
        else:
            events = [
                b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % piece
                for piece in (b"it is ", key[:9].encode(), key[9:].encode(), b" and more")
            ]
            writer.write(answer(b"".join(events), "Content-Type: text/event-stream"))

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint(groups=["cleared"])) as client:
            got = await client.post(CHAT, json={**BODY, "stream": where == "stream"})
        gate.stop()
    shown = got.text + str(got.headers) + got.reason_phrase
    assert UPSTREAM_KEY not in shown
    assert UPSTREAM_KEY[:9] not in shown
    assert ("key_echoed" in got.text) == (where != "reason")
    for path in (gate.state / "recordings").iterdir():
        assert UPSTREAM_KEY.encode() not in path.read_bytes()


async def test_mitmproxys_own_page_quotes_nothing(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(f"jane.doe@example.com {UPSTREAM_KEY}\r\n\r\n".encode())

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint()) as client:
            got = await client.post(CHAT, json=BODY)
        gate.stop()
    assert got.status_code == 502
    assert got.json()["error"]["code"] == "upstream_failed"
    assert "jane" not in got.text
    for path in (gate.state / "recordings").iterdir():
        assert UPSTREAM_KEY.encode() not in path.read_bytes()


async def test_a_model_server_that_is_down(start_gate: Callable[..., Gate], tokens: Tokens) -> None:
    gate = start_gate(upstream=f"http://127.0.0.1:{free_port()}")
    async with gate.client(tokens.mint()) as client:
        got = await client.post(CHAT, json=BODY)
    assert got.status_code == 502
    assert got.headers["x-gate-rule"] == "upstream_failed"
    gate.stop()
    assert (
        '"ending":"upstream_error"' in next((gate.state / "recordings").glob("*.jsonl")).read_text()
    )


async def test_a_refused_caller_causes_no_connection(
    start_gate: Callable[..., Gate],
) -> None:
    connected = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        gate = start_gate(upstream=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with gate.client() as client:
            assert (await client.post(CHAT, json=BODY)).status_code == 401
    assert not connected.is_set()


ANSWERING = """
from mitmproxy import http


def request(flow):
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "jane.doe@example.com"}}]}\\n\\n'
    kind = {"content-type": flow.request.headers["x-kind"]}
    if not flow.response:
        flow.response = http.Response.make(200, body, kind)
"""


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain"])
async def test_an_answer_made_by_another_script_is_read_like_any_other(
    start_gate: Callable[..., Gate], tmp_path: Path, standin: StandIn, tokens: Tokens, kind: str
) -> None:
    script = tmp_path / "answering.py"
    script.write_text(ANSWERING)
    gate = start_gate(scripts=[GATEWAY, script])
    async with gate.client(tokens.mint()) as client:
        got = await client.post(CHAT, json=BODY, headers={"x-kind": kind})
    assert "jane" not in got.text
    assert got.status_code == (200 if kind == "text/plain" else 502)
    assert standin.seen() == []


async def test_a_running_exchange_is_recorded_once_over_a_reload(
    start_gate: Callable[..., Gate], tmp_path: Path, standin: StandIn, tokens: Tokens
) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY.read_text())
    gate = start_gate(scripts=[script])
    slow = {**BODY, "messages": [{"role": "user", "content": "standin: slow=3"}]}
    async with gate.client(tokens.mint()) as client:
        asking = asyncio.create_task(client.post(CHAT, json=slow))
        await standin.wait_seen()
        mark = gate.process.mark()
        script.write_text(GATEWAY.read_text() + "\n")
        await gate.logged("Loading script", since=mark)
        await asking
    gate.stop()
    ids = []
    for path in (gate.state / "recordings").glob("*.mitm"):
        with path.open("rb") as file:
            ids += [flow.id for flow in FlowReader(file).stream()]  # type: ignore[arg-type]
    assert len(ids) == 1


async def test_what_is_edited_while_it_waits_does_not_go_on(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    port = str(free_port())
    options = {"web_port": port, "web_password": "x", "web_open_browser": "false"}
    gate = start_gate(program="mitmweb", options=options)
    held: dict[str, Any] = {**BODY, "messages": [{"role": "user", "content": "wire the money"}]}
    async with (
        gate.client(tokens.mint()) as client,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ui,
    ):
        ui.params = {"token": "x"}
        ui.cookies["_mitmproxy_xsrf"] = ui.headers["X-XSRFToken"] = "a" * 32
        asking = asyncio.create_task(client.post(CHAT, json=held))
        await gate.logged(r"mitmgate approve (h-\S+)")
        (flow,) = (await ui.get("/flows")).json()
        edit = {"request": {"content": json.dumps(held).replace("wire", "burn")}}
        assert (await ui.put(f"/flows/{flow['id']}", json=edit)).is_success
        assert (await ui.post(f"/flows/{flow['id']}/resume")).is_success
        got = await asking
    assert got.status_code == 409
    assert got.json()["error"]["code"] == "request_edited"
    assert standin.seen() == []


async def test_the_key_does_not_show_in_mitmweb_while_a_call_is_under_way(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    port = str(free_port())
    options = {"web_port": port, "web_password": "x", "web_open_browser": "false"}
    gate = start_gate(program="mitmweb", options=options)
    slow = {**BODY, "messages": [{"role": "user", "content": "standin: slow=1"}]}
    async with (
        gate.client(tokens.mint()) as client,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ui,
    ):
        ui.params = {"token": "x"}
        asking = asyncio.create_task(client.post(CHAT, json=slow))
        seen = await standin.wait_seen()
        assert seen.headers["authorization"] == f"Bearer {standin.key}"
        shown = (await ui.get("/flows")).text + (await ui.get("/flows/dump")).text
        assert "slow=1" in shown
        assert standin.key not in shown
        assert (await asking).status_code == 200


@pytest.mark.parametrize("kind", ["Content-Type: text/plain", "X-Nothing: here"])
async def test_a_stream_under_another_name_is_read_as_the_stream_it_is(
    start_gate: Callable[..., Gate], tokens: Tokens, kind: str
) -> None:
    pieces = (b"4111 ", b"1111 ", b"1111 ", b"1111", b" and jane.do", b"e@example.com", b".")

    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        events = [
            b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % piece
            for piece in pieces
        ]
        writer.write(answer(b"".join([*events, b"data: [DONE]\n\n"]), kind))

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint()) as client:
            got = await client.post(CHAT, json={**BODY, "stream": True})
    texts = [
        json.loads(line[6:])["choices"][0]["delta"]["content"]
        for line in got.text.splitlines()
        if line.startswith("data: {")
    ]
    assert "".join(texts) == "[CARD] and [EMAIL]."


async def test_a_caller_is_told_that_the_connection_closes_behind_a_stream(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async def handle(head: bytes, writer: asyncio.StreamWriter) -> None:
        kind = "text/event-stream" if b"x-stream: 1" in head else "application/json"
        body = b"data: [DONE]\n\n" if b"x-stream: 1" in head else said("hello")
        writer.write(answer(body, f"Content-Type: {kind}"))  # keep-alive, says the server

    async with upstream(handle) as url:
        gate = start_gate(upstream=url)
        async with gate.client(tokens.mint(), limits=httpx.Limits(max_connections=1)) as client:
            for i in range(20):
                asked = {**BODY, "stream": i % 2 == 0}
                got = await client.post(CHAT, json=asked, headers={"x-stream": str(1 - i % 2)})
                assert got.status_code == 200
                assert (got.headers.get("connection") == "close") == (i % 2 == 0)


RELABELLING = """
def responseheaders(flow):
    flow.response.headers["content-type"] = flow.request.headers["x-kind"]
"""


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/x-ndjson"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_script_that_relabels_an_answer_opens_nothing(
    start_gate: Callable[..., Gate],
    tmp_path: Path,
    standin: StandIn,
    tokens: Tokens,
    kind: str,
    stream: bool,
) -> None:
    script = tmp_path / "relabelling.py"
    script.write_text(RELABELLING)
    gate = start_gate(scripts=[GATEWAY, script])
    async with gate.client(tokens.mint()) as client:
        asked = {**BODY, "model": "stand-in", "stream": stream}
        got = await client.post(CHAT, json=asked, headers={"x-kind": kind})
    assert "jane.doe" not in got.text
    assert "4111" not in got.text


STREAMING = """
def requestheaders(flow):
    flow.request.stream = True


def responseheaders(flow):
    flow.response.stream = True
"""


async def test_a_script_that_streams_everything_opens_nothing(
    start_gate: Callable[..., Gate], tmp_path: Path, standin: StandIn, tokens: Tokens
) -> None:
    script = tmp_path / "streaming.py"
    script.write_text(STREAMING)
    gate = start_gate(scripts=[GATEWAY, script])
    async with gate.client(tokens.mint()) as client:
        for stream in (False, True):
            asked = {**BODY, "model": "stand-in", "stream": stream}
            got = await client.post(CHAT, json=asked)
            assert got.status_code == 200
            assert "[EMAIL]" in got.text
            assert "jane.doe" not in got.text
        denied = {**BODY, "messages": [{"role": "user", "content": "export the weights"}]}
        assert (await client.post(CHAT, json=denied)).status_code == 403
    assert len(standin.seen()) == 2
