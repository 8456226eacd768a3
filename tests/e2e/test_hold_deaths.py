"""`kill -9` at every step of a hold's life: nothing goes twice or unapproved, no hold is lost.

What one approval lets through may be lost with the gate: then it is used up, and asked for again.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from dying import APPROVED, NOT_HELD, PENDING, POINTS, SENT, USED, arm, death, holds_script
from harness import Gate, StandIn, Tokens, baseline
from mitmgate.core import holds
from mitmgate.core.holds import Hold, HoldStore
from mitmgate.core.principal import Principal
from processes import GATEWAY

CHAT = "/v1/chat/completions"
ANN = Principal(issuer="os", subject="ann")
ALL: tuple[holds.State, ...] = ("pending", "approved", "denied", "expired", "consumed")
ASYNC = {"prefer": "respond-async"}
QUICK, CAMPAIGN = 10, 40  # deaths
CALLERS = 12
NEVER, DENIED = (0, 1), (2,)  # callers whom nobody answers, and one that is denied
SLICE = 0.03  # seconds between two looks of the approver


def body(word: str = "") -> dict[str, Any]:
    content = f"standin: delay=0.02\nwire the money {word}"
    return {"model": "stand-in", "messages": [{"role": "user", "content": content}]}


def rules(tokens: Tokens, standin: StandIn, directory: Path, **approval: Any) -> Any:
    files = dict(baseline(tokens, standin.url, directory))
    return {**files, "approval": {**files["approval"], **approval}}  # type: ignore[dict-item]


def verified(gate: Gate) -> str:
    """What `mitmgate verify` prints when it is content."""
    command = [Path(sys.executable).with_name("mitmgate"), "verify", "--state", gate.state]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ledger(gate: Gate) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted((gate.state / "recordings").glob("*.jsonl")):
        lines += map(json.loads, path.read_text("utf-8").splitlines())
    return [line for line in lines if line["kind"] == "entry"]


def held(gate: Gate, subject: str) -> list[tuple[str, str]]:
    """The holds of a caller, the oldest first: id and state."""
    with closing(sqlite3.connect(gate.state / "holds.sqlite")) as db:
        found: list[tuple[str, str]] = db.execute(
            "SELECT id, state FROM hold WHERE subject = ? ORDER BY created, rowid", (subject,)
        ).fetchall()
    return found


# At a named step


@pytest.fixture(scope="module")
def mortal(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    """A gate that every test kills and starts again; its holds and recordings stay."""
    directory = tmp_path_factory.mktemp("mortal")
    files = rules(tokens, standin_server, directory)
    scripts = (GATEWAY, holds_script(directory))
    with Gate(directory, standin_server.url, files, scripts=scripts) as gate:
        yield gate
        gate.stop()
        verified(gate)


async def approve(gate: Gate, subject: str) -> str:
    """Approve what waits for `subject` as soon as it does. Its id."""
    with closing(HoldStore(gate.state / "holds.sqlite", create=False)) as store:
        async with asyncio.timeout(10):
            while True:
                for hold in store.list():
                    if hold.subject == subject:
                        store.decide(hold.id, ANN, "approve", "fine", "cli")
                        return hold.id
                await asyncio.sleep(SLICE)


@pytest.mark.parametrize("point", POINTS)
async def test_a_death(mortal: Gate, standin: StandIn, tokens: Tokens, point: str) -> None:
    gate, subject = mortal, point.replace(" ", "-")
    token = tokens.mint(subject)
    arm(gate, point)
    async with gate.client(token) as client:
        asking = asyncio.create_task(client.post(CHAT, json=body()))
        if point not in (*NOT_HELD, *PENDING):
            await approve(gate, subject)
        await death(gate)
        with pytest.raises(httpx.TransportError):
            await asking
    assert len(standin.seen()) == (1 if point in SENT else 0)
    kept = held(gate, subject)
    left = {NOT_HELD: [], PENDING: ["pending"], APPROVED: ["approved"]}
    (states,) = [left[points] for points in left if point in points] or [["consumed"]]
    assert [state for _, state in kept] == states

    await asyncio.to_thread(gate.start)
    standin.reset()
    async with gate.client(token, headers={"authorization": f"Bearer {token}", **ASYNC}) as client:
        again = await client.post(CHAT, json=body())
        if point not in APPROVED:
            assert again.status_code == 409
            assert (again.headers["x-gate-hold"] in dict(kept)) is (point in PENDING)
            assert standin.seen() == []
            assert await approve(gate, subject) == again.headers["x-gate-hold"]
            again = await client.post(CHAT, json=body())
        assert again.status_code == 200
        assert len(standin.seen()) == 1
        assert (await client.post(CHAT, json=body())).status_code == 409
        assert len(standin.seen()) == 1
    assert [state for _, state in held(gate, subject)].count("consumed") == (
        2 if point in (*USED, *SENT) else 1
    )


# At any moment, under load


class Approver:
    """Decides what waits, whether the gate lives or not, and watches every hold all the time."""

    def __init__(self, gate: Gate, seed: int) -> None:
        self._store = HoldStore(gate.state / "holds.sqlite", create=False)
        self._chance = random.Random(seed)
        self._last: dict[str, Hold] = {}
        self.approved: Counter[str] = Counter()

    async def work(self) -> None:
        with closing(self._store):
            while True:
                for hold in await asyncio.to_thread(self._store.list, ALL, limit=10_000):
                    self._check(hold)
                    if hold.state == "pending" and self._chance.random() < 0.3:
                        await self._decide(hold)
                await asyncio.sleep(SLICE)

    def _check(self, hold: Hold) -> None:
        """No hold goes back, and its decisions stay."""
        before = self._last.get(hold.id, hold)
        if before.state != hold.state:
            assert (before.state, hold.state) in {
                ("pending", "approved"),
                ("pending", "consumed"),
                ("pending", "denied"),
                ("approved", "consumed"),
            }
        assert hold.decisions[: len(before.decisions)] == before.decisions
        self._last[hold.id] = hold

    async def _decide(self, hold: Hold) -> None:
        number = int(hold.subject)
        if number in NEVER:
            return
        verdict: holds.Verdict = "deny" if number in DENIED else "approve"
        await asyncio.to_thread(self._store.decide, hold.id, ANN, verdict, "seen", "cli")
        if verdict == "approve":
            self.approved[hold.subject] += 1

    def seen(self) -> set[str]:
        """Every hold that ever was."""
        return set(self._last)


class Caller:
    """Asks the same again and again, as an SDK does that retries whatever happens."""

    def __init__(self, number: int) -> None:
        self.subject = str(number)
        self.answers: Counter[int] = Counter()
        self.over = False  # the last answer is waited for

    async def work(self, gate: Gate, token: str) -> None:
        asked = {**body(self.subject), "stream": int(self.subject) % 2 == 0}
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            client.headers["authorization"] = f"Bearer {token}"
            while not self.over:
                with suppress(httpx.TransportError):
                    answer = await client.post(gate.url + CHAT, json=asked)
                    self.answers[answer.status_code] += 1
                    assert answer.status_code in (200, 409, 403), answer.text
                await asyncio.sleep(0.05)


async def kill(gate: Gate, chance: random.Random) -> None:
    """End it at a named point, where one is come to soon, or else at a moment of chance."""
    if chance.random() < 0.5:
        arm(gate, chance.choice(POINTS))
        with suppress(AssertionError, TimeoutError):
            async with asyncio.timeout(1.5):
                while gate.process.popen.poll() is None:
                    await asyncio.sleep(0.01)
    else:
        await asyncio.sleep(chance.uniform(0.02, 0.8))
    gate.kill9()
    (gate.directory / "die-at").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "deaths",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(CAMPAIGN, id="campaign", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
async def test_deaths_at_any_moment(
    tmp_path: Path, standin: StandIn, tokens: Tokens, deaths: int
) -> None:
    seed = time.time_ns()
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    files = rules(tokens, standin, tmp_path, hold="2s", ttl="20m")
    with Gate(tmp_path, standin.url, files, scripts=(GATEWAY, holds_script(tmp_path))) as gate:
        approver = Approver(gate, seed)
        callers = [Caller(number) for number in range(CALLERS)]
        deciding = asyncio.create_task(approver.work())
        asking = [
            asyncio.create_task(each.work(gate, tokens.mint(each.subject, lifetime=3000)))
            for each in callers
        ]
        for _ in range(deaths):
            await kill(gate, chance)
            await asyncio.to_thread(gate.start)
            for task in (deciding, *asking):
                if task.done():
                    task.result()  # raises
        for caller in callers:
            caller.over = True
        await asyncio.gather(*asking)
        deciding.cancel()
        with suppress(asyncio.CancelledError):
            await deciding
        gate.stop()
        report = verified(gate)

        forwarded: Counter[str] = Counter()
        for seen in standin.seen():
            forwarded[seen.json["messages"][0]["content"].split()[-1]] += 1
        admitted = [line for line in ledger(gate) if line["ending"] in ("complete", "interrupted")]
        by_hold = Counter(line["hold"] for line in admitted)
        used = 0
        for caller in callers:
            of_caller = held(gate, caller.subject)
            states = Counter(state for _, state in of_caller)
            consumed = states["consumed"]
            recorded = [line for line in admitted if line["subject"] == caller.subject]
            assert caller.answers[200] <= forwarded[caller.subject] <= len(recorded) <= consumed
            assert consumed <= approver.approved[caller.subject]
            # Retries have attached: there is one hold at a time, and a new one after each use.
            assert [state for _, state in of_caller[:-1]] == ["consumed"] * (len(of_caller) - 1)
            assert {line["hold"] for line in recorded} <= {
                hold for hold, state in of_caller if state == "consumed"
            }
            used += consumed
        assert set(by_hold.values()) == {1}  # no approval was used for two requests
        assert not any(forwarded[str(number)] for number in (*NEVER, *DENIED))
        assert callers[DENIED[0]].answers[403]
        assert used > deaths  # it was no idle campaign
        with closing(HoldStore(gate.state / "holds.sqlite", create=False)) as store:
            left = {hold.id for hold in store.list(ALL, limit=10_000)}
        assert approver.seen() <= left
        total = sum(forwarded.values())
        told = f"{deaths} deaths, {used} approvals used, {total} forwarded"
        sys.stdout.write(f"{told}; {report}")
