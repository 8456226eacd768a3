"""A caller that leaves a hold: an approval runs nothing for it, and is there for its retry."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harness import Gate, StandIn, Tokens
from http2 import Streams
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal
from processes import GATEWAY

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
HELD = {**BODY, "messages": [{"role": "user", "content": "wire the money"}]}
ANN = Principal(issuer="os", subject="ann")
WAITS = r"mitmgate approve (h-\S+)"
LEFT = r"refused 499 client_left"


async def approve(gate: Gate, hold: str) -> None:
    """As `mitmgate approve` does, and at once."""
    with closing(HoldStore(gate.state / "holds.sqlite", create=False)) as store:
        await asyncio.to_thread(store.decide, hold, ANN, "approve", "fine", "cli")


def states(gate: Gate) -> dict[str, str]:
    with closing(sqlite3.connect(gate.state / "holds.sqlite")) as db:
        return dict(db.execute("SELECT id, state FROM hold").fetchall())


async def test_a_reset_over_http2_is_seen_while_others_wait(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with Streams(gate, tokens.mint()) as caller:
        left = caller.post(CHAT, HELD)
        hold = (await gate.logged(WAITS))[1]
        mark = gate.process.mark()
        stays = caller.post(CHAT, {**HELD, "seed": 1})
        other = (await gate.logged(WAITS, since=mark))[1]
        await caller.reset(left)
        await gate.logged(LEFT)
        assert gate.output.count("client_left") == 1
        await approve(gate, hold)
        await approve(gate, other)
        assert await caller.status(stays) == 200
        assert [seen.json.get("seed") for seen in standin.seen()] == [1]
        assert states(gate) == {hold: "approved", other: "consumed"}
        assert await caller.status(caller.post(CHAT, HELD)) == 200
    assert [seen.json.get("seed") for seen in standin.seen()] == [1, None]
    assert states(gate) == {hold: "consumed", other: "consumed"}
    assert "Traceback" not in gate.output


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_an_approval_just_after_a_caller_has_left_stays_for_its_retry(
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    protocol: str,
) -> None:
    """Nothing looks at who waits but the waiter itself, so the approval is what it sees first."""
    script = tmp_path / "blind.py"
    script.write_text(
        "from mitmgate.approval import Approval\n"
        "Approval.client_disconnected = lambda *_: None\n"
        "poll = Approval._poll\n"
        "async def late(self):\n"
        "    while 'approved' not in self._approvals.store.states(\n"
        "        [each.hold for each in self._waiting.values()]\n"
        "    ).values():\n"
        "        await asyncio.sleep(0.02)\n"
        "    for waiter in self._waiting.values():\n"
        "        waiter.wake.set()\n"
        "import asyncio\n"
        "Approval._poll = late\n"
    )
    gate = start_gate(scripts=(GATEWAY, script))
    token = tokens.mint()
    if protocol == "h2":
        async with Streams(gate, token) as caller:
            stream = caller.post(CHAT, HELD)
            hold = (await gate.logged(WAITS))[1]
            await caller.reset(stream)
            await approve(gate, hold)
            await gate.logged(LEFT)
    else:
        writer = await half_closed(gate, token)
        hold = (await gate.logged(WAITS))[1]
        writer.write_eof()
        await gate.logged(r"client disconnect")
        await approve(gate, hold)
        await gate.logged(LEFT)
        writer.close()
    assert states(gate) == {hold: "approved"}
    async with gate.client(token) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert len(standin.seen()) == 1
        assert (await client.post(CHAT, json=HELD)).status_code == 200
        assert len(standin.seen()) == 2
    assert states(gate) == {hold: "consumed"}


async def test_half_closed_over_http1_is_left(gate: Gate, standin: StandIn, tokens: Tokens) -> None:
    """mitmproxy takes a FIN for the end of a caller, whatever it still reads."""
    token = tokens.mint("half")
    writer = await half_closed(gate, token)
    hold = (await gate.logged(WAITS))[1]
    writer.write_eof()
    await gate.logged(LEFT)
    await approve(gate, hold)
    async with gate.client(token) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert [seen.json["messages"] for seen in standin.seen()] == [BODY["messages"]]
        assert states(gate)[hold] == "approved"
        assert (await client.post(CHAT, json=HELD)).status_code == 200
    assert states(gate)[hold] == "consumed"
    writer.close()


async def test_a_mitmproxy_that_is_another_inside_is_told_of_and_nothing_goes_on(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    script = tmp_path / "another.py"
    script.write_text(
        "from mitmproxy.proxy.layers.http import HttpLayer\n"
        "from mitmgate import presence\n"
        "presence.HttpLayer = type('Another', (), {})\n"
    )
    gate = start_gate(scripts=(GATEWAY, script))
    async with Streams(gate, tokens.mint()) as caller:
        stream = caller.post(CHAT, HELD)
        hold = (await gate.logged(WAITS))[1]
        await gate.logged("mitmproxy is another inside")
        await caller.reset(stream)
        await approve(gate, hold)
        await gate.logged(f"{hold} was approved")
        assert await caller.status(caller.post(CHAT, BODY)) == 200
    assert len(standin.seen()) == 1
    assert gate.output.count("another inside") == 1


async def half_closed(gate: Gate, token: str) -> asyncio.StreamWriter:
    """A held request on a connection whose other half can be closed."""
    host, port = gate.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(HELD).encode()
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return writer
