"""A gate that loses a script closes: editing, deleting or restoring gateway.py opens nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from harness import Gate, StandIn, Tokens
from processes import GATEWAY

BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def own(start_gate: Callable[..., Gate], tmp_path: Path) -> tuple[Gate, Path]:
    """A gate with a gateway.py of its own, to be edited."""
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY.read_text())
    return start_gate(scripts=[script]), script


def edit(script: Path, text: str) -> None:
    """Write, with a time that mitmproxy's watcher, which compares whole files' times, notices."""
    script.write_text(text)
    later = time.time() + 2
    os.utime(script, (later, later))


async def ask(gate: Gate, token: str) -> httpx.Response:
    async with gate.client(token) as client:
        return await client.post("/v1/chat/completions", json=BODY)


def assert_closed(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "gate_closed"


async def test_a_syntax_error_closes_and_a_good_file_opens_again(
    own: tuple[Gate, Path], standin: StandIn, tokens: Tokens
) -> None:
    gate, script = own
    good = script.read_text()
    answers: list[httpx.Response] = []
    done = asyncio.Event()

    async def traffic() -> None:
        while not done.is_set():
            answers.append(await ask(gate, "no token at all"))

    running = asyncio.create_task(traffic())
    assert (await ask(gate, tokens.mint())).status_code == 200

    edit(script, "this is no python")
    await gate.logged("mitmgate.identity is unloaded: the gate is closed")
    assert_closed(await ask(gate, tokens.mint()))
    seen = len(standin.seen())
    assert_closed(await ask(gate, tokens.mint()))

    mark = gate.process.mark()
    edit(script, good + "\n")
    await gate.logged("Loading script", since=mark)
    deadline = time.monotonic() + 10
    while (answer := await ask(gate, tokens.mint())).status_code != 200:
        assert_closed(answer)
        assert time.monotonic() < deadline
    assert "[EMAIL]" in answer.text

    done.set()
    await running
    assert {answer.status_code for answer in answers} <= {401, 503}
    assert answers
    assert all(request.headers.get("authorization") for request in standin.seen())
    assert len(standin.seen()) == seen + 1


async def test_a_deleted_script_closes_for_good(
    own: tuple[Gate, Path], standin: StandIn, tokens: Tokens
) -> None:
    gate, script = own
    good = script.read_text()
    script.unlink()
    await gate.logged("mitmgate.identity is unloaded: the gate is closed")
    assert_closed(await ask(gate, tokens.mint()))
    edit(script, good)  # mitmproxy no longer looks at a script that was once gone
    assert_closed(await ask(gate, tokens.mint()))
    assert standin.seen() == []


async def test_an_exchange_under_way_is_not_delivered_unmasked(
    own: tuple[Gate, Path], standin: StandIn, tokens: Tokens
) -> None:
    gate, script = own
    slow = {**BODY, "messages": [{"role": "user", "content": "standin: slow=2.5"}]}
    async with gate.client(tokens.mint()) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=slow))
        await standin.wait_seen()
        edit(script, "this is no python")
        await gate.logged("mitmgate.masker is unloaded: the gate is closed")
        assert_closed(await asking)


async def test_readyz_says_why(start_gate: Callable[..., Gate], tmp_path: Path) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY.read_text().replace("    Console(),\n", ""))
    console = tmp_path / "console.py"
    console.write_text("from mitmgate.console import Console\n\naddons = [Console()]\n")
    gate = start_gate(scripts=[script, console], console="127.0.0.1:0")
    url = gate.console
    assert httpx.get(f"{url}/readyz", trust_env=False).text == "ready\n"
    edit(script, "this is no python")
    await gate.logged("mitmgate.recorder is unloaded")
    answer = httpx.get(f"{url}/readyz", trust_env=False)
    assert answer.status_code == 503
    assert "mitmgate.masker is unloaded" in answer.text
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
