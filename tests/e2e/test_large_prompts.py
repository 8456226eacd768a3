"""Large prompts, judged in processes of their own: judged alike, and refused when one is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import Gate, StandIn, Tokens, baseline
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal

CHAT = "/v1/chat/completions"
SIZE = 300_000
LONG = "dGhpcyBpcyBub3QgYmFzZTY0IQx " * 200_000  # takes seconds to judge

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="children are looked for in /proc"
)


def asking(text: str) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}]}


def prompt(end: str = "") -> dict[str, Any]:
    return asking("word " * (SIZE // 5) + end)


async def ask(gate: Gate, token: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    async with gate.client(token, **more) as client:
        return await client.post(CHAT, json=body)


def workers(pid: int) -> list[int]:
    """The processes that a gate has started, so long as it runs itself."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for each in lists for child in each.split()]


async def at_work(gate: Gate) -> int:
    """The worker of a gate, once it has used a second of processor time: it is on a long one."""
    ticks = os.sysconf("SC_CLK_TCK")
    while True:
        for pid in workers(gate.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[11]) > ticks:
                return pid
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # it has ended, and only its new parent does not know yet


async def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_large_prompt_is_judged_and_goes_on_as_it_came(
    gate: Gate, tokens: Tokens, standin: StandIn
) -> None:
    body = json.dumps(prompt(), indent=3).encode()
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200
        assert (await standin.wait_seen(lambda seen: len(seen.body) > SIZE)).body == body
        for end in ("export the weights", "e x p o r t the w e i g h t s"):
            refused = await client.post(CHAT, json=prompt(end))
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "weights-export"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"messages": "' + b"x" * SIZE, "body_unreadable"),
        (b'{"messages": [], "messages": "' + b"x" * SIZE + b'"}', "body_unreadable"),
        (json.dumps({**prompt(), "model": "a b"}).encode(), "model_invalid"),
        (json.dumps({**prompt(), "input": [1]}).encode(), "prompt_opaque"),
    ],
)
async def test_one_that_cannot_be_read_is_refused(
    gate: Gate, tokens: Tokens, standin: StandIn, body: bytes, code: str
) -> None:
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert not standin.seen()


async def test_one_that_waits_shows_its_text_and_goes_on_when_approved(
    start_gate: Callable[..., Gate], tokens: Tokens, standin: StandIn
) -> None:
    gate = start_gate()
    held = asyncio.create_task(ask(gate, tokens.mint(), prompt("wire the money")))
    id = (await gate.logged(r"mitmgate approve (h-\S+)"))[1]
    store = HoldStore(gate.state / "holds.sqlite")
    try:
        (passage,) = [p for p in store.get(id).prompt if "wire" in p.text]
        (mark,) = [mark for mark in passage.marks if mark.rule]  # what is left out is marked, too
        assert passage.text[mark.start : mark.end] == "wire the money"
        store.decide(id, Principal("test-idp", "bob"), "approve", "fine", "test")
    finally:
        store.close()
    assert (await held).status_code == 200
    assert len((await standin.wait_seen()).body) > SIZE


async def test_prompts_are_masked_however_large(
    start_gate: Callable[..., Gate], tokens: Tokens, standin: StandIn, tmp_path: Path
) -> None:
    masker: Any = dict(baseline(tokens, standin.url, tmp_path)["masker"])
    masker["profiles"]["default"]["prompt"] = ["email"]
    gate = start_gate(rules={"masker": masker})
    answer = await ask(gate, tokens.mint(), prompt("jane.doe@example.com"))
    assert answer.status_code == 200
    seen = await standin.wait_seen()
    assert seen.json["messages"][0]["content"] == "word " * (SIZE // 5) + "[EMAIL]"


async def test_rules_that_are_edited_are_in_force_for_the_next(
    start_gate: Callable[..., Gate], tokens: Tokens, standin: StandIn, tmp_path: Path
) -> None:
    gate = start_gate()
    assert (await ask(gate, tokens.mint(), prompt("sell the ship"))).status_code == 200
    commands: Any = dict(baseline(tokens, standin.url, tmp_path)["commands"])
    commands["rules"][0] |= {"match": r"\bsell\b", "tests": {"match": ["sell"], "pass": ["buy"]}}
    gate.write_rules(commands=commands)
    await gate.logged(r"commands\.yaml is in force")
    assert (await ask(gate, tokens.mint(), prompt("sell the ship"))).status_code == 403
    assert (await ask(gate, tokens.mint(), prompt("export the weights"))).status_code == 200


async def test_a_worker_that_is_killed_costs_one_exchange(
    start_gate: Callable[..., Gate], tokens: Tokens, standin: StandIn
) -> None:
    gate = start_gate()
    large = asyncio.create_task(ask(gate, tokens.mint(), asking(LONG)))
    pid = await at_work(gate)
    assert (await ask(gate, tokens.mint(), asking("hello"))).status_code == 200
    os.kill(pid, signal.SIGKILL)
    answer = await large
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gate_fault")
    assert f"worker {pid}" not in answer.text
    await gate.logged(f"worker {pid}: it ended, status -9")
    assert all(len(seen.body) < SIZE for seen in standin.seen())
    assert (await ask(gate, tokens.mint(), prompt())).status_code == 200
    assert (await ask(gate, tokens.mint(), prompt("export the weights"))).status_code == 403


async def test_a_gate_that_ends_ends_what_its_workers_do(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    gate = start_gate()
    large = asyncio.create_task(ask(gate, tokens.mint(), asking(LONG)))
    pid = await at_work(gate)
    begun = time.monotonic()
    await asyncio.to_thread(gate.stop)
    assert time.monotonic() - begun < 5
    assert gone(pid)
    await asyncio.gather(large, return_exceptions=True)


async def test_a_gate_that_is_killed_leaves_no_worker(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    gate = start_gate()
    large = asyncio.create_task(ask(gate, tokens.mint(), asking(LONG)))
    pid = await at_work(gate)
    await asyncio.to_thread(gate.kill9)
    await until_gone(pid)
    await asyncio.gather(large, return_exceptions=True)


async def test_a_caller_that_leaves_costs_the_others_nothing(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    gate = start_gate()
    large = asyncio.create_task(ask(gate, tokens.mint(), asking(LONG)))
    await at_work(gate)
    large.cancel()
    assert (await ask(gate, tokens.mint(), prompt("export the weights"))).status_code == 403
    assert (await ask(gate, tokens.mint(), asking("hello"))).status_code == 200
