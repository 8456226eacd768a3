"""What recording costs for each exchange, beside mitmdump's own `-w`.

The same flows through the recorder's copy, journal, recording and ledger, and through mitmproxy's
`FlowWriter`, which keeps no journal, hashes nothing and scrubs nothing.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from mitmproxy import http
from mitmproxy.io import FlowWriter, tnetstring
from mitmproxy.test import tflow

from bench.figures import KB, Effort, Figure, Section, medians
from mitmgate import scrubbing
from mitmgate.core.ledger import Archive, RecorderFile
from mitmgate.exchange import Exchange

SIZES = {"4 KB": 4 * KB, "100 KB": 100 * KB}
PERIOD = 1e-4  # seconds between two looks at whether the event loop could have run


def measure(effort: Effort) -> Section:
    figures: list[Figure] = []
    count = effort.exchanges
    for name, size in SIZES.items():
        rounds = [
            [flow(size, round, n) for n in range(count)] for round in range(effort.rounds + 1)
        ]
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            taken = medians(contenders(Path(directory), stack), rounds)
        for label in ("never", "interval", "always"):
            figures.append(
                Figure(
                    f"exchange of {name}, fsync {label}",
                    "us",
                    taken[label] / count * 1e6,
                    taken["naive"] / count * 1e6,
                )
            )
    with tempfile.TemporaryDirectory() as directory:
        gate, naive = stalls(Path(directory), effort)
    title = f"event loop stands still, {effort.large / KB / KB:.2g} MB"
    figures.append(Figure(title, "ms", gate * 1e3, naive * 1e3))
    return Section(
        "Recording an exchange",
        tuple(figures),
        (
            "CPU time of all threads: copy of the flow, journal, recording, ledger line with its "
            "hashes, without a signature; naive: mitmproxy's FlowWriter, once for each exchange, "
            "as mitmdump -w does, which never forces anything to disk",
            "fsync waits are not in CPU time: they delay a request, and no other on the event loop",
            "event loop: the longest that another thread waited while one exchange was recorded "
            "(prompt and answer of this size each), by the stop watch",
        ),
    )


def flow(size: int, round: int, number: int) -> tuple[http.HTTPFlow, Exchange]:
    """A chat whose prompt and answer have `size` bytes together."""
    chance = random.Random(round << 20 | number)  # noqa: S311  (the same flows in every run)
    made = tflow.tflow(resp=True)
    made.request.path = "/v1/chat/completions"
    made.request.content = chance.randbytes(size // 2)
    made.response.content = chance.randbytes(size // 2)  # type: ignore[union-attr]
    made.id = f"bench-{round}-{number}"
    return made, Exchange.begin(made)


type Flows = list[tuple[http.HTTPFlow, Exchange]]


def contenders(directory: Path, stack: ExitStack) -> dict[str, Callable[[Flows], object]]:
    def recorder(fsync: str) -> Callable[[Flows], object]:
        rules = RecorderFile.model_validate({"schema": 1, "fsync": fsync})
        archive = stack.enter_context(closing(Archive(directory / fsync, rules)))

        def record(flows: Flows) -> None:
            for each, exchange in flows:
                admitted = scrubbing.copy(each, exchange, each.request.headers, rules)
                archive.admit(each.id, tnetstring.dumps(admitted))
                settle(archive, each, exchange, rules)
            archive.maintain()

        return record

    file = stack.enter_context((directory / "naive.mitm").open("wb"))
    writer = FlowWriter(file)

    def naive(flows: Flows) -> None:
        for each, _ in flows:
            writer.add(each)
            file.flush()

    return {**{each: recorder(each) for each in ("never", "interval", "always")}, "naive": naive}


def settle(archive: Archive, each: http.HTTPFlow, exchange: Exchange, rules: RecorderFile) -> None:
    state = scrubbing.copy(each, exchange, each.request.headers, rules)
    fields = {"exchange": exchange.id, **exchange.summary()}
    archive.settle(exchange.id, tnetstring.dumps(state), fields)


def stalls(directory: Path, effort: Effort) -> tuple[float, float]:
    """The longest pause of this thread, in seconds, beside the writer's and writing by itself."""
    rules = RecorderFile.model_validate({"schema": 1, "fsync": "never"})
    gate, naive = [], []
    with (
        closing(Archive(directory, rules)) as archive,
        ThreadPoolExecutor(1) as thread,
        (directory / "naive.mitm").open("wb") as file,
    ):
        for round in range(effort.rounds + 1):
            made, exchange = flow(2 * effort.large, round, 0)
            last, longest = time.perf_counter(), 0.0
            state = scrubbing.copy(made, exchange, made.request.headers, rules)
            fields = {"exchange": exchange.id, **exchange.summary()}

            def write(state: dict[str, Any] = state, fields: dict[str, Any] = fields) -> None:
                archive.settle(exchange.id, tnetstring.dumps(state), fields)  # noqa: B023

            written = thread.submit(write)
            while not written.done():
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
                time.sleep(PERIOD)
            written.result()
            gate.append(longest)
            begun = time.perf_counter()
            FlowWriter(file).add(made)
            file.flush()
            naive.append(time.perf_counter() - begun)
    return median(gate[1:]), median(naive[1:])
