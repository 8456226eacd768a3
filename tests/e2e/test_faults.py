"""A control that breaks refuses the exchange: nothing passes unjudged, unmasked or unrecorded.

One gate runs all cases: its addons raise where the header `x-fault: ADDON.HOOK` says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from harness import Gate, StandIn, Tokens, baseline
from processes import GATEWAY

BREAKABLE = """
import inspect
from mitmgate.approval import Approval
from mitmgate.commands import Commands
from mitmgate.credentials import Credentials
from mitmgate.guard import HOOKS
from mitmgate.identity import Identity
from mitmgate.masker import Masker
from mitmgate.recorder import Recorder


def breakable(cls):
    short = cls.name.split(".")[1]

    def made(event):
        inherited = getattr(cls, event, None)

        async def hook(self, flow):
            if flow.request.headers.get("x-fault") == f"{short}.{event}":
                raise RuntimeError("injected fault")
            result = inherited(self, flow) if inherited else None
            if inspect.isawaitable(result):
                await result

        return hook

    return type(cls.__name__, (cls,), {"name": cls.name, **{e: made(e) for e in HOOKS}})


addons = [breakable(c)() for c in (Identity, Commands, Approval, Masker, Recorder, Credentials)]
"""

ADDONS = ("identity", "commands", "approval", "masker", "recorder", "credentials")
CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def breakable(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    directory = tmp_path_factory.mktemp("breakable")
    script = directory / "breakable.py"
    script.write_text(BREAKABLE)
    rules = baseline(tokens, standin_server.url, directory)
    with Gate(directory, standin_server.url, rules, scripts=[script]) as gate:
        yield gate


async def ask(gate: Gate, tokens: Tokens, fault: str, **body: object) -> httpx.Response:
    async with gate.client(tokens.mint()) as client:
        return await client.post(
            "/v1/chat/completions", json={**BODY, **body}, headers={"x-fault": fault}
        )


def assert_refused(answer: httpx.Response, code: str = "gate_fault") -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-gate-rule"] == code
    assert answer.headers["x-gate-exchange"]
    assert answer.json()["error"]["code"] == code
    assert "jane" not in answer.text
    assert "injected" not in answer.text  # the reason is the operator's


async def test_without_a_fault_everything_passes(
    breakable: Gate, standin: StandIn, tokens: Tokens
) -> None:
    answer = await ask(breakable, tokens, "none")
    assert answer.status_code == 200
    assert "[EMAIL]" in answer.text
    assert len(standin.seen()) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("event", ["requestheaders", "request"])
@pytest.mark.parametrize("addon", ADDONS)
async def test_before_the_request_leaves(
    breakable: Gate, standin: StandIn, tokens: Tokens, addon: str, event: str, stream: bool
) -> None:
    answer = await ask(breakable, tokens, f"{addon}.{event}", stream=stream)
    assert_refused(answer)
    assert standin.seen() == []
    assert f"mitmgate.{addon}.{event} failed" in breakable.output


@pytest.mark.parametrize("addon", ADDONS)
async def test_when_a_whole_answer_comes_back(
    breakable: Gate, standin: StandIn, tokens: Tokens, addon: str
) -> None:
    for event in ("responseheaders", "response"):
        assert_refused(await ask(breakable, tokens, f"{addon}.{event}"))


@pytest.mark.parametrize("addon", ADDONS)
async def test_when_a_stream_begins(
    breakable: Gate, standin: StandIn, tokens: Tokens, addon: str
) -> None:
    assert_refused(await ask(breakable, tokens, f"{addon}.responseheaders", stream=True))


@pytest.mark.parametrize("addon", ADDONS)
async def test_when_an_exchange_fails(
    breakable: Gate, standin: StandIn, tokens: Tokens, addon: str
) -> None:
    messages = [{"role": "user", "content": "standin: cut=2\nsay: hello"}]
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(breakable, tokens, f"{addon}.error", stream=True, messages=messages)
    assert (await ask(breakable, tokens, "none")).status_code == 200


async def test_the_model_key_is_nowhere_even_when_credentials_breaks(
    breakable: Gate, standin: StandIn, tokens: Tokens
) -> None:
    await ask(breakable, tokens, "credentials.responseheaders")
    for file in (path for path in breakable.state.rglob("*") if path.is_file()):
        assert standin.key.encode() not in file.read_bytes(), file


async def test_other_exchanges_go_on(breakable: Gate, standin: StandIn, tokens: Tokens) -> None:
    async with breakable.client(tokens.mint()) as client:
        async with client.stream(
            "POST", "/v1/chat/completions", json={**BODY, "stream": True}
        ) as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("data:")
            assert_refused(await ask(breakable, tokens, "commands.request"))
            rest = [line async for line in lines]
        assert rest[-2:] == ["data: [DONE]", ""]


SKIPPING = '''
from pathlib import Path
from mitmgate.commands import Commands
from mitmgate.credentials import Credentials
from mitmgate.identity import Identity
from mitmgate.masker import Masker


class Raw:
    """No GateAddon: mitmproxy skips what stands behind it when it raises."""

    name = "raw"

    def __getattr__(self, name):
        def hook(flow):
            if flow.request.headers.get("x-fault") == f"raw.{name}":
                raise RuntimeError("injected fault")

        if name in ("requestheaders", "request", "responseheaders", "response"):
            return hook
        raise AttributeError(name)


addons = [Identity(), Raw(), Commands(), Masker(), Credentials()]
'''


@pytest.fixture(scope="module")
def skipping(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    directory = tmp_path_factory.mktemp("skipping")
    script = directory / "skipping.py"
    script.write_text(SKIPPING)
    rules = baseline(tokens, standin_server.url, directory)
    with Gate(directory, standin_server.url, rules, scripts=[script]) as gate:
        yield gate


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("event", ["request", "responseheaders", "response"])
async def test_a_skipped_hook_is_no_pass(
    skipping: Gate, standin: StandIn, tokens: Tokens, event: str, stream: bool
) -> None:
    answer = await ask(skipping, tokens, f"raw.{event}", stream=stream)
    if event == "response" and stream:
        assert "[EMAIL]" in answer.text  # masked on its way; there was nothing left to skip
        return
    assert_refused(answer, "gate_closed")
    assert event == "response" or event == "responseheaders" or standin.seen() == []


@pytest.mark.parametrize("event", ["request", "response"])
async def test_a_script_behind_the_gate_may_raise(
    start_gate: Callable[..., Gate], tmp_path: Path, standin: StandIn, tokens: Tokens, event: str
) -> None:
    script = tmp_path / "behind.py"
    script.write_text(f"def {event}(flow):\n    raise RuntimeError('not ours')\n")
    gate = start_gate(scripts=[GATEWAY, script])
    answer = await ask(gate, tokens, "none")
    assert answer.status_code == 200
    assert "[EMAIL]" in answer.text
    assert "not ours" in gate.output
    ledger = next((gate.state / "recordings").glob("*.jsonl")).read_text().splitlines()
    assert json.loads(ledger[1])["ending"] == "complete"


RAISING_FILTER = """
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon


class Filter:
    masks = False

    def channel(self):
        return self

    def feed(self, text):
        if "card" in text:
            raise RuntimeError("injected fault")
        return text

    def finish(self):
        return ""

    def whole(self, text):
        return text


class Breaking(GateAddon):
    name = "test.breaking"

    def responseheaders(self, flow):
        exchange = Exchange.of(flow)
        if exchange.streams:
            exchange.filters.append(Filter())


addons = [Breaking()]
"""


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (CHAT, b'data: {"error": {'),
        ("/v1/completions", b'data: {"error": {'),
        ("/v1/responses", b'data: {"type": "error", "code": "gate_fault"'),
        ("/v1/messages", b'data: {"type": "error", "error": {'),
        ("/api/chat", b'{"error": "'),
        ("/api/generate", b'{"error": "'),
    ],
)
async def test_a_stream_that_breaks_ends_with_the_dialects_error(
    start_gate: Callable[..., Gate],
    tmp_path: Path,
    standin: StandIn,
    tokens: Tokens,
    path: str,
    last: bytes,
) -> None:
    script = tmp_path / "breaking.py"
    script.write_text(RAISING_FILTER)
    gate = start_gate(scripts=[GATEWAY, script])
    text = "input" if path == "/v1/responses" else "prompt"
    body = {**BODY, text: "hello", "max_tokens": 99, "stream": True}
    async with gate.client(tokens.mint()) as client, asyncio.timeout(10):
        answer = await client.post(path, json=body)
        assert answer.status_code == 200  # the headers were out already
        end = answer.content.rstrip().splitlines()[-1]
        assert end.startswith(last)
        assert b"gate_fault" in end
        assert b"4111" not in answer.content
        assert b"[DONE]" not in answer.content
        assert (await client.get("/v1/models")).status_code == 200
    gate.stop()
    line = next((gate.state / "recordings").glob("*.jsonl")).read_text().splitlines()[1]
    assert json.loads(line)["ending"] == "refused"


async def test_an_upstream_that_leaves_http_is_refused(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n"
        writer.write(head + b"jane.doe@example.com")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(switch, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        gate = start_gate(upstream=f"http://127.0.0.1:{port}")
        async with gate.client(tokens.mint()) as client, asyncio.timeout(10):
            with pytest.raises(httpx.HTTPError) as error:
                answer = await client.get("/v1/models")
                raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
    assert "jane" not in str(error.value)
