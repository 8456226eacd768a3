"""Two people decide over the JSON API: who counts as two, what they read, what is kept of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens, baseline

CHAT = "/v1/chat/completions"
TEXT = "wire the money to jane.doe@example.com, card 4111 1111 1111 1111"
MITMGATE = str(Path(sys.executable).with_name("mitmgate"))
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": TEXT}]}
WAITS = r"mitmgate approve (h-\S+)"


@pytest.fixture
def guarded(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> Gate:
    """Two approvals are asked for, and approvers read prompts through a masking profile."""
    rules = baseline(tokens, standin.url, tmp_path)
    approval: Any = {
        **rules["approval"],  # type: ignore[dict-item]
        "approvers": {"who": {"issuer": "test-idp", "groups": ["approvers"]}, "profile": "second"},
        "quorum": 2,
        "same_person": ["sub", "email"],
    }
    masker: Any = dict(rules["masker"])
    masker["profiles"] = {
        **masker["profiles"],
        "second": {"answer": ["email", "payment-card"], "prompt": []},
    }
    return start_gate(rules={"approval": approval, "masker": masker}, console="127.0.0.1:0")


class People:
    """Approvers by token, each with a connection to the console's API."""

    def __init__(self, gate: Gate, tokens: Tokens, stack: AsyncExitStack) -> None:
        self._gate = gate
        self._tokens = tokens
        self._stack = stack

    async def __call__(self, subject: str, email: str, *groups: str) -> httpx.AsyncClient:
        token = self._tokens.mint(subject, (), groups or ("approvers",), email=email)
        client = self._gate.client(token, base_url=self._gate.console)
        return await self._stack.enter_async_context(client)


@pytest.fixture
async def people(guarded: Gate, tokens: Tokens) -> AsyncIterator[People]:
    async with AsyncExitStack() as stack:
        yield People(guarded, tokens, stack)


@asynccontextmanager
async def asking(
    gate: Gate, tokens: Tokens
) -> AsyncIterator[tuple[asyncio.Task[httpx.Response], str]]:
    """A request that waits, and the id of its hold."""
    token = tokens.mint("agent-7", email="owner@example.com")
    async with gate.client(token) as client:
        task = asyncio.create_task(client.post(CHAT, json=BODY))
        yield task, (await gate.logged(WAITS))[1]


async def decide(client: httpx.AsyncClient, hold: str, verdict: str, reason: str) -> Any:
    """Its status, and what the API says: the hold after it, or the code of the error."""
    answer = await client.post(f"/api/holds/{hold}/{verdict}", json={"reason": reason})
    said = answer.json()
    return answer.status_code, said["error"]["code"] if "error" in said else said["hold"]


def kept(gate: Gate) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the recording's metadata and the ledger say of the only exchange."""
    (path,) = (gate.state / "recordings").glob("*.mitm")
    with path.open("rb") as file:
        (flow,) = FlowReader(file).stream()
    assert isinstance(flow, http.HTTPFlow)
    lines = map(json.loads, path.with_suffix(".jsonl").read_text("utf-8").splitlines())
    (line,) = (line for line in lines if line["kind"] == "entry")
    return flow.metadata["mitmgate"], line


async def test_two_people_approve_and_what_they_said_is_kept(
    guarded: Gate, people: People, standin: StandIn, tokens: Tokens
) -> None:
    begun = time.time()
    ann = await people("ann", "ann@example.com")
    ann_again = await people("ann-admin", "Ann@Example.com")
    owner = await people("owner-admin", "owner@example.com")
    ben = await people("ben", "ben@example.com")
    eve = await people("eve", "eve@example.com", "staff")
    async with asking(guarded, tokens) as (task, hold):
        # Nobody reads more than the profile lets them.
        shown = (await ann.get(f"/api/holds/{hold}")).json()["hold"]
        assert shown["masked"] is True
        assert (shown["quorum"], shown["approvals"]) == (2, 0)
        assert "wire the money to [EMAIL], card [CARD]" in json.dumps(shown)
        listed = (await ben.get("/api/holds")).text
        for text in (json.dumps(shown), listed):
            assert "jane.doe" not in text
            assert "4111" not in text

        assert await decide(eve, hold, "approve", "me too") == (404, "hold_unknown")
        assert await decide(owner, hold, "approve", "mine") == (403, "hold_self_approval")
        status, after = await decide(ann, hold, "approve", "The invoice is known")
        assert (status, after["state"], after["approvals"]) == (200, "pending", 1)
        assert await decide(ann, hold, "approve", "again") == (409, "hold_already_approved")
        assert await decide(ann_again, hold, "approve", "as another") == (
            409,
            "hold_already_approved",
        )
        await asyncio.sleep(0.5)  # longer than the gate takes to notice a decision
        assert not task.done()
        assert standin.seen() == []
        status, after = await decide(ben, hold, "approve", "Called Bob")
        assert (status, after["approvals"]) == (200, 2)
        assert after["state"] in ("approved", "consumed")
        assert (await task).status_code == 200
    assert len(standin.seen()) == 1
    assert "jane.doe@example.com" in standin.seen()[0].json["messages"][0]["content"]
    guarded.stop()
    metadata, line = kept(guarded)
    assert metadata["approvals"] == line["approvals"]
    assert metadata["hold"] == line["hold"] == hold
    said = [{key: each[key] for key in each if key != "time"} for each in line["approvals"]]
    common = {"issuer": "test-idp", "verdict": "approve", "channel": "console"}
    assert said == [
        {**common, "subject": "ann", "reason": "The invoice is known"},
        {**common, "subject": "ben", "reason": "Called Bob"},
    ]
    times = [float(each["time"]) for each in line["approvals"]]
    moments = [begun, *times, time.time()]
    assert moments == sorted(moments)


async def test_one_denial_ends_it(
    guarded: Gate, people: People, standin: StandIn, tokens: Tokens
) -> None:
    ann, ben = await people("ann", "ann@example.com"), await people("ben", "ben@example.com")
    async with asking(guarded, tokens) as (task, hold):
        await decide(ann, hold, "approve", "The invoice is known")
        status, after = await decide(ben, hold, "deny", "Bob has left")
        assert (status, after["state"]) == (200, "denied")
        answer = await task
        assert answer.status_code == 403
        assert "Bob has left" in answer.json()["error"]["message"]
        assert await decide(ann, hold, "approve", "all the same") == (409, "hold_denied")
    assert standin.seen() == []
    guarded.stop()
    metadata, line = kept(guarded)
    assert metadata["approvals"] == line["approvals"]
    assert [(each["subject"], each["verdict"], each["reason"]) for each in line["approvals"]] == [
        ("ann", "approve", "The invoice is known"),
        ("ben", "deny", "Bob has left"),
    ]
    assert {each["channel"] for each in line["approvals"]} == {"console"}


async def test_the_command_goes_by_the_rules_of_its_gate(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    """Which are not those that a command without a gate would find."""
    rules = baseline(tokens, standin.url, tmp_path)["approval"]
    assert not isinstance(rules, str)
    named = {**rules, "hold": "1s", "approvers": {"who": {"groups": ["approvers"]}}}
    gate = start_gate(rules={"approval": named})
    async with gate.client(tokens.mint()) as client:
        answer = await client.post("/v1/chat/completions", json=BODY)
    hold = answer.headers["x-gate-hold"]
    process = await asyncio.create_subprocess_exec(
        *(MITMGATE, "approve", hold, "--reason", "mine", "--state", str(gate.state)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"is not among the approvers" in said
