"""What a very large prompt costs other callers: how much later small requests are answered.

A real gate with the rules that ship, and a bare mitmdump beside it. Small requests come at a fixed
rate, whether or not those before were answered (an open loop), alone and while large prompts are
sent one after another, until the last of these has been answered; the two take turns.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import yaml

from bench import corpus
from bench.figures import KB, Effort, Figure, Section
from mitmgate.core.tokens import devissuer
from processes import ROOT, Process, gate_command, wait_for_proxy

SMALL = 2 * KB
FIRST = 200 * KB
LIMIT = 30.0  # ms of p99 that large prompts may add, beyond what they add to a bare mitmdump
PATH = "/v1/chat/completions"


@dataclass(slots=True)
class Taken:
    """Milliseconds that small requests took, by what happened meanwhile; large ones in `large`."""

    small: dict[str, list[float]] = field(default_factory=dict)
    large: dict[str, list[float]] = field(default_factory=dict)
    first: float = 0.0

    def p50(self, meanwhile: str) -> float:
        return median(self.small[meanwhile])

    def p99(self, meanwhile: str) -> float:
        return quantiles(self.small[meanwhile], n=100, method="inclusive")[98]

    def longest(self, meanwhile: str) -> float:
        return max(self.small[meanwhile])

    def added(self, meanwhile: str) -> float:
        return self.p99(meanwhile) - self.p99("")


def measure(effort: Effort) -> Section:
    large = {"prose": prose(effort.large), "base64-like words": adversarial(effort.large)}
    taken: dict[str, Taken] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server(name)) for name in ("gate", "bare")}
        for name, (address, token, _) in servers.items():
            taken[name] = asyncio.run(_begin(address, token, effort))
        for _ in range(effort.turns):
            for name, (address, token, _) in servers.items():
                asyncio.run(_turn(taken[name], address, token, large, effort))
    figures: list[Figure] = []
    gate, bare = taken["gate"], taken["bare"]
    first = Figure("the first large prompt", "ms", gate.first, bare.first)
    for meanwhile in ("", *large):
        title = f"beside {meanwhile}" if meanwhile else "alone"
        figures += [
            Figure(f"small request {title}, p50", "ms", gate.p50(meanwhile), bare.p50(meanwhile)),
            Figure(f"small request {title}, p99", "ms", gate.p99(meanwhile), bare.p99(meanwhile)),
            Figure("  the longest", "ms", gate.longest(meanwhile), bare.longest(meanwhile)),
        ]
        if meanwhile:
            limit = max(0.0, bare.added(meanwhile)) + LIMIT
            figures += [
                Figure(
                    f"  added p99, {meanwhile}",
                    "ms",
                    max(0.0, gate.added(meanwhile)),
                    max(0.0, bare.added(meanwhile)),
                    limit,
                ),
                Figure(
                    f"  a large one, {meanwhile}",
                    "ms",
                    median(gate.large[meanwhile]),
                    median(bare.large[meanwhile]),
                ),
            ]
    return Section(
        f"Other callers beside prompts of {effort.large / KB / KB:.3g} MB",
        (*figures, first),
        (
            f"small chats of 2 KB, {effort.rate:g} a second; {effort.turns} turns of "
            f"{effort.seconds:g} s alone and beside each kind of large prompt, in turn, "
            "and for as long as the last of these takes",
            f"the first large prompt is of {FIRST >> 10} KB, and starts what is kept for the next",
            "wall-clock time over one real gate (every addon, rules/ as shipped, recording) and a "
            "model server that answers at once; naive: the same through a bare mitmdump",
            f"target: {LIMIT:g} ms more than what is added to the bare mitmdump",
        ),
    )


# Prompts


def prose(size: int) -> list[bytes]:
    """Bodies whose prompt is English of about `size` characters."""
    text = corpus.prose()
    text *= -(-size // len(text))
    return [body(text[at : at + size]) for at in (0, size // 3)]


def adversarial(size: int) -> list[bytes]:
    """Bodies whose prompt is words that could be base64 and are not, which costs the most."""
    chance = random.Random(11)  # noqa: S311  (the same texts in every run)
    words = (base64.b64encode(chance.randbytes(18)).decode() for _ in range(size // 25))
    return [body(" ".join(words))]


def body(text: str) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "stand-in", "messages": messages}).encode()


def message(content: bytes, token: str) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


# Servers


@contextmanager
def server(name: str, approval: str | None = None) -> Iterator[tuple[str, str, Path]]:
    """The gate, or a bare mitmdump, in front of a model server: address, a token, its state.

    All rules that ship are searched for; what they find passes. `approval` stands in the place of
    approval.yaml.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="mitmgate-bench-"))
        stack.callback(shutil.rmtree, directory)
        sink = stack.enter_context(Process([sys.executable, Path(__file__).with_name("sink.py")]))
        upstream = "http://" + sink.wait_line(r"sink at (\S+)")[1]
        options = {"flow_detail": "0", "body_size_limit": "64m"}
        rules, state = directory / "rules", directory / ".mitmgate"
        shutil.copytree(ROOT / "rules", rules)
        for path in (rules / "commands.yaml", rules / "approval.yaml"):
            # Prose about everything hits something.
            path.write_text(
                path.read_text("utf-8").replace("schema: 1\n", "schema: 1\nmode: audit\n", 1)
            )
        if approval:
            (rules / "approval.yaml").write_text(approval)
        (rules / "credentials.yaml").write_text(yaml.safe_dump({"schema": 1, "upstreams": []}))
        command = gate_command(
            "mitmdump",
            upstream=upstream,
            rules=rules,
            state=state,
            confdir=directory / "confdir",
            options=options,
        )
        if name == "bare":
            command = bare(command)
        token = devissuer.issue(
            state / "dev-issuer", subject="agent-7", scopes=["inference"], lifetime=3600
        )
        gate = stack.enter_context(Process(command, cwd=directory))
        yield wait_for_proxy(gate).removeprefix("http://"), token, state


def bare(command: list[str]) -> list[str]:
    """The command line without the gate and without its options."""
    left = [part for part in command if "gateway.py" not in part]
    del left[left.index("-s")]
    at = [i for i, part in enumerate(left) if part.startswith("gate_")]
    return [part for i, part in enumerate(left) if i not in at and i + 1 not in at]


# Clients


def _small(token: str) -> bytes:
    return message(body(corpus.prose()[:SMALL]), token)


async def _begin(address: str, token: str, effort: Effort) -> Taken:
    """Warm up, and see what the first large prompt takes."""
    await burst(address, _small(token), effort.rate, 0.5)
    first = message(prose(FIRST)[0], token)
    return Taken(first=(await _one_after_another(address, [first], 0))[0])


async def _turn(
    taken: Taken, address: str, token: str, large: dict[str, list[bytes]], effort: Effort
) -> None:
    """Small requests alone, and beside each kind of large ones."""
    for meanwhile in ("", *large):
        big = None
        if meanwhile:
            bodies = [message(each, token) for each in large[meanwhile]]
            big = asyncio.create_task(_one_after_another(address, bodies, effort.seconds))
        times = await burst(address, _small(token), effort.rate, effort.seconds, big)
        taken.small.setdefault(meanwhile, []).extend(times)
        if big:
            taken.large.setdefault(meanwhile, []).extend(await big)


async def burst(
    address: str,
    content: bytes,
    rate: float,
    seconds: float,
    beside: asyncio.Task[Any] | None = None,
) -> list[float]:
    """Small requests, each when it is its turn, for so long and until what is `beside` is over.

    Returns milliseconds from when it is the turn of each to its answer.
    """
    idle: list[Connection] = []
    begun = time.perf_counter()

    async def one(due: float) -> float:
        connection = idle.pop() if idle else await Connection.to(address)
        await connection.ask(content)
        idle.append(connection)
        return (time.perf_counter() - due) * 1e3

    asked: list[asyncio.Task[float]] = []
    while len(asked) < rate * seconds or (beside and not beside.done()):
        due = begun + len(asked) / rate
        await asyncio.sleep(due - time.perf_counter())
        asked.append(asyncio.create_task(one(due)))
    try:
        return list(await asyncio.gather(*asked))
    finally:
        for connection in idle:
            connection.close()


async def _one_after_another(address: str, contents: list[bytes], seconds: float) -> list[float]:
    """Large requests, the last of them begun within `seconds`. Returns how many milliseconds each
    of them took."""
    over = time.perf_counter() + seconds
    took: list[float] = []
    connection = await Connection.to(address)
    while not took or time.perf_counter() < over:
        begun = time.perf_counter()
        await connection.ask(contents[len(took) % len(contents)])
        took.append((time.perf_counter() - begun) * 1e3)
    connection.close()
    return took


class Connection:
    """One connection of a client that costs next to nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, address: str) -> Connection:
        return cls(*await asyncio.open_connection(*address.split(":")))

    async def ask(self, content: bytes) -> None:
        """Send a request and read its answer. Raises `RuntimeError` if that is not a 200."""
        self._writer.write(content)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        said = await self._reader.readexactly(size)
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"the answer is {head[:20]!r}, {said[:300]!r}")

    def close(self) -> None:
        self._writer.close()
