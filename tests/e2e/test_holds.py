"""A held request waits for a person, and an approval lets exactly that request through, once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import Gate, StandIn, Tokens, baseline
from processes import free_port

MITMGATE = str(Path(sys.executable).with_name("mitmgate"))
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "wire the money to Bob"}]}
CHAT = "/v1/chat/completions"


async def mitmgate(*arguments: str) -> tuple[int, str]:
    """Run the command; its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        MITMGATE, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def waiting(gate: Gate, *, since: int = 0) -> str:
    """The id of the hold that a connection waits for, once it does."""
    return (await gate.logged(r"mitmgate approve (h-\S+)", since=since))[1]


def short(tokens: Tokens, standin: StandIn, directory: Path, **approval: Any) -> dict[str, Any]:
    """The baseline's approval rules, with keys put in place."""
    rules = baseline(tokens, standin.url, directory)["approval"]
    assert isinstance(rules, dict)
    return {"approval": {**rules, **approval}}


async def test_approved_from_the_shell_goes_on_with_its_answer(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    mark = gate.process.mark()
    async with gate.client(tokens.mint()) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate, since=mark)
        state = ("--state", str(gate.state))
        assert standin.seen() == []
        code, listed = await mitmgate("holds", *state)
        assert code == 0
        assert hold in listed
        assert "wire-transfer" in listed
        assert "messages[0].content: wire the money" in listed
        code, output = await mitmgate("approve", hold, "--reason", "Bob is fine", *state)
        assert (code, output) == (0, f"{hold} is approved\n")
        answer = await asking
        assert answer.status_code == 200
        assert "[EMAIL]" in answer.text
        assert len(standin.seen()) == 1

        mark = gate.process.mark()
        again = asyncio.create_task(client.post(CHAT, json=BODY))
        other = await waiting(gate, since=mark)
        assert other != hold  # an approval is used once
        code, output = await mitmgate("approve", hold, "--reason", "again", *state)
        assert code == 1
        assert "has been used" in output
        await mitmgate("deny", other, "--reason", "not twice", *state)
        answer = await again
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "wire-transfer"
    assert "not twice" in answer.json()["error"]["message"]
    assert answer.headers["x-gate-hold"] == other
    assert len(standin.seen()) == 1


async def test_not_decided_in_time_is_409_and_a_retry_attaches(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate(rules=short(tokens, standin, tmp_path, hold="300ms"))
    token = tokens.mint()
    async with gate.client(token) as client:
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 409
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["x-should-retry"] == "true"
        hold = answer.headers["x-gate-hold"]
        assert hold in answer.json()["error"]["message"]

        # The same request in other words for JSON is the same request.
        spaced = json.dumps(dict(reversed(BODY.items())), indent=1).encode()
        kind = {"content-type": "application/json"}
        answer = await client.post(CHAT, content=spaced, headers=kind)
        assert answer.headers["x-gate-hold"] == hold

        code, output = await mitmgate(
            "approve", hold, "--reason", "fine", "--state", str(gate.state)
        )
        assert code == 0
        assert "nobody waits on the line" in output
        assert standin.seen() == []  # an approval runs nothing by itself

        changed = {**BODY, "temperature": 1}
        assert (await client.post(CHAT, json=changed)).headers["x-gate-hold"] != hold
    async with gate.client(tokens.mint("agent-8")) as other:
        assert (await other.post(CHAT, json=BODY)).headers["x-gate-hold"] != hold
    assert standin.seen() == []
    async with gate.client(token) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert (await client.post(CHAT, json=BODY)).status_code == 409
    assert len(standin.seen()) == 1


async def test_prefer_respond_async_does_not_wait(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    async with gate.client(tokens.mint("async")) as client:
        answer = await client.post(CHAT, json=BODY, headers={"prefer": "respond-async"})
    assert answer.status_code == 409
    assert standin.seen() == []


async def test_expired_is_denied(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate(rules=short(tokens, standin, tmp_path, hold="400ms", ttl="500ms"))
    token = tokens.mint()
    async with gate.client(token) as client:
        first = await client.post(CHAT, json=BODY)
        hold = first.headers["x-gate-hold"]
        second = await client.post(CHAT, json=BODY)
    assert {first.status_code, second.status_code} <= {403, 409}
    code, output = await mitmgate("approve", hold, "--reason", "late", "--state", str(gate.state))
    assert code == 1
    assert "expired" in output
    assert standin.seen() == []


async def test_the_caller_leaves_and_a_later_approval_runs_nothing(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    mark = gate.process.mark()
    token = tokens.mint("leaver")
    async with gate.client(token) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate, since=mark)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await gate.logged(r"refused 499 client_left", since=mark)
    state = ("--state", str(gate.state))
    _, output = await mitmgate("holds", *state)
    assert f"{hold} pending" in output
    assert "nobody waits on the line" in output.split(hold)[1].splitlines()[0]
    await mitmgate("approve", hold, "--reason", "fine", *state)
    async with gate.client(token) as client:
        await client.get("/v1/models")  # the gate has had every chance to act on it
        assert [seen.path for seen in standin.seen()] == ["/v1/models"]
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    ledger = next((gate.state / "recordings").glob("*.jsonl")).read_text()
    assert '"ending":"client_aborted"' in ledger


async def test_a_killed_gate_keeps_its_holds(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    token = tokens.mint()
    async with gate.client(token) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate)
        gate.kill9()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
    gate.start()
    await mitmgate("approve", hold, "--reason", "fine", "--state", str(gate.state))
    async with gate.client(token) as client:
        answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 200
    assert len(standin.seen()) == 1


async def test_a_store_that_does_not_answer_refuses(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    store = gate.state / "holds.sqlite"
    blocker = sqlite3.connect(store, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "gate_fault"
        harmless = {**BODY, "messages": [{"role": "user", "content": "hello"}]}
        assert (await client.post(CHAT, json=harmless)).status_code == 200
    blocker.close()
    assert len(standin.seen()) == 1


async def test_those_who_wait_outlast_a_store_that_is_locked(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client, asyncio.timeout(20):
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate)
        blocker = sqlite3.connect(gate.state / "holds.sqlite", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        await gate.logged(r"holds.sqlite is locked by another process")
        assert not asking.done()
        blocker.close()
        state = ("--state", str(gate.state))
        _, output = await mitmgate("approve", hold, "--reason", "fine", *state)
        assert "is approved" in output
        assert (await asking).status_code == 200
    assert len(standin.seen()) == 1


async def test_too_many_holds_are_429(gate: Gate, standin: StandIn, tokens: Tokens) -> None:
    headers = {"prefer": "respond-async"}
    async with gate.client(tokens.mint("flooder")) as client:
        statuses = []
        for i in range(22):
            answer = await client.post(CHAT, json={**BODY, "seed": i}, headers=headers)
            statuses.append(answer.status_code)
    assert statuses == [409] * 20 + [429] * 2
    assert answer.json()["error"]["code"] == "hold_limit"
    assert answer.headers["retry-after"]
    assert standin.seen() == []


@pytest.mark.parametrize(("action", "status"), [("resume", 200), ("kill", 403)])
async def test_mitmweb_shows_the_hold_and_decides_it(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, action: str, status: int
) -> None:
    port = str(free_port())
    options = {"web_port": port, "web_password": "secret", "web_open_browser": "false"}
    gate = start_gate(program="mitmweb", options=options)
    async with (
        gate.client(tokens.mint()) as client,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ui,
    ):
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate)
        await ui.get("/", params={"token": "secret"})
        (flow,) = (await ui.get("/flows", params={"token": "secret"})).json()
        assert flow["intercepted"] is True
        assert flow["marked"] == "\N{HOURGLASS}"  # it renders :hourglass:
        assert "wire-transfer" in flow["comment"]
        assert hold in flow["comment"]
        ui.cookies["_mitmproxy_xsrf"] = "a" * 32  # what its page would send, in both places
        headers = {"X-XSRFToken": "a" * 32}
        done = await ui.post(
            f"/flows/{flow['id']}/{action}", params={"token": "secret"}, headers=headers
        )
        assert done.is_success, done.text
        async with asyncio.timeout(5):
            answer = await asking
    assert answer.status_code == status
    assert len(standin.seen()) == (1 if status == 200 else 0)
    with sqlite3.connect(gate.state / "holds.sqlite") as db:
        ((state, decisions),) = db.execute("SELECT state, decisions FROM hold").fetchall()
    db.close()
    assert state == ("consumed" if status == 200 else "denied")
    assert '"channel":"mitmweb"' in decisions.replace(" ", "")


@pytest.mark.parametrize(("command", "status"), [("gate.approve", 200), ("gate.deny", 403)])
async def test_commands_in_mitmproxys_own_interface(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, command: str, status: int
) -> None:
    port = str(free_port())
    options = {"web_port": port, "web_password": "secret", "web_open_browser": "false"}
    gate = start_gate(program="mitmweb", options=options)
    async with (
        gate.client(tokens.mint()) as client,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ui,
    ):
        ui.params = {"token": "secret"}
        ui.cookies["_mitmproxy_xsrf"] = "a" * 32
        ui.headers["X-XSRFToken"] = "a" * 32
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = await waiting(gate)

        async def run(name: str, *arguments: str) -> dict[str, Any]:
            answer = await ui.post(f"/commands/{name}", json={"arguments": list(arguments)})
            result: dict[str, Any] = answer.json()
            return result

        assert hold in (await run("gate.holds"))["value"]
        assert "a decision needs a reason" in (await run(command, hold, " "))["error"]
        assert "error" not in await run(command, hold, "seen in mitmweb")
        async with asyncio.timeout(5):
            answer = await asking
        assert "error" in await run("gate.approve", "h-unknown", "x")
    assert answer.status_code == status
