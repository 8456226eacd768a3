"""What held requests cost everybody else, and how soon an approved one is answered.

A real gate with the rules that ship and one hold rule. Small requests come at a fixed rate, with
nothing held and with many requests held; the two take turns.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from bench import corpus, stalls
from bench.figures import Effort, Figure, Section
from bench.stalls import SMALL, Connection, Taken
from mitmgate.approvals import POLL
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal

ADDED = 10.0  # ms of p99 that held requests may add to others
ANSWERED = 400.0  # ms from an approval to the answer
APPROVALS = 20  # given one by one while the others wait
HELD = "held"
RULES = r"""
schema: 1
ttl: 1h
hold: 1h
limits: {per_caller: 10000, in_all: 10000}
rules:
  - id: wire-transfer
    title: Transfer of money
    action: hold
    match: 'wire the money \d+-\d+'
    tests: {match: [wire the money 1-2], pass: [wire the money]}
"""
_ANN = Principal(issuer="os", subject="ann")


def measure(effort: Effort) -> Section:
    with stalls.server("gate", RULES) as (address, token, state):
        taken, answered, last = asyncio.run(_measure(address, token, state, effort))
    figures = [
        Figure("small request, nothing held, p50", "ms", taken.p50("")),
        Figure("small request, nothing held, p99", "ms", taken.p99("")),
        Figure(f"small request, {effort.held} held, p50", "ms", taken.p50(HELD), taken.p50("")),
        Figure(f"small request, {effort.held} held, p99", "ms", taken.p99(HELD), taken.p99("")),
        Figure("  added p99", "ms", max(0.0, taken.added(HELD)), None, ADDED),
        Figure("approval to answer, p50", "ms", median(answered), None, ANSWERED),
        Figure("approval to answer, longest", "ms", max(answered)),
        Figure("all others approved at once, to the last answer", "ms", median(last)),
    ]
    return Section(
        f"Other callers beside {effort.held} held requests",
        tuple(figures),
        (
            f"small chats of 2 KB, {effort.rate:g} a second; {effort.turns} turns of "
            f"{effort.seconds:g} s with nothing held and of as long with {effort.held} held",
            "wall-clock time over one real gate (every addon, rules/ as shipped, recording) and a "
            "model server that answers at once; naive: the same with nothing held",
            f"approvals come from another process; the gate looks for them every {POLL * 1e3:g} ms",
        ),
    )


async def _measure(
    address: str, token: str, state: Path, effort: Effort
) -> tuple[Taken, list[float], list[float]]:
    """What small requests took; milliseconds from an approval to its answer, and to the last."""
    taken, answered, last = Taken(), [], []
    chance = random.Random(5)  # noqa: S311  (the same moments in every run)
    small = stalls.message(stalls.body(corpus.prose()[:SMALL]), token)
    await stalls.burst(address, small, effort.rate, 0.5)  # warm-up
    with closing(HoldStore(state / "holds.sqlite", create=False)) as store:
        for turn in range(effort.turns):
            taken.small.setdefault("", []).extend(
                await stalls.burst(address, small, effort.rate, effort.seconds)
            )
            held = await Held.begin(address, token, store, turn, effort.held)
            taken.small.setdefault(HELD, []).extend(
                await stalls.burst(address, small, effort.rate, effort.seconds)
            )
            for _ in range(min(APPROVALS, effort.held - 1)):
                await asyncio.sleep(chance.uniform(0, POLL))  # or all come just after a look
                answered.append(await held.approve(1))
            last.append(await held.approve(effort.held))
    return taken, answered, last


class Held:
    """Requests that wait for approval, each on a connection of its own."""

    def __init__(self, store: HoldStore) -> None:
        self._store = store
        self._asking: dict[str, asyncio.Task[None]] = {}  # by the text that the hold shows

    @classmethod
    async def begin(cls, address: str, token: str, store: HoldStore, turn: int, count: int) -> Held:
        """Send `count` requests and wait until all of them wait."""
        held = cls(store)
        for number in range(count):
            text = f"wire the money {turn}-{number}"
            content = stalls.message(stalls.body(text), token)
            held._asking[text] = asyncio.create_task(_ask(address, content))
        while len(await asyncio.to_thread(store.list, limit=count)) < count:
            await asyncio.sleep(0.05)
        return held

    async def approve(self, count: int) -> float:
        """Approve the `count` oldest. Milliseconds until the last of their answers was there."""
        holds = await asyncio.to_thread(self._store.list, limit=count)
        texts = [hold.excerpt.partition(": ")[2] for hold in holds]
        answers = [self._asking.pop(text) for text in texts]
        begun = 0.0
        for hold in holds:
            begun = begun or time.perf_counter()
            await asyncio.to_thread(self._store.decide, hold.id, _ANN, "approve", "fine", "cli")
        await asyncio.gather(*answers)
        return (time.perf_counter() - begun) * 1e3


async def _ask(address: str, content: bytes) -> None:
    connection = await Connection.to(address)
    try:
        await connection.ask(content)
    finally:
        connection.close()
