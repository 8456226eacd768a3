"""Figures and how they are taken: CPU time of this process, contenders in turn, the median round.

CPU time rather than a stop watch, since the machine is rarely idle; in turn, since a machine that
slows down then slows all of them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

KB = 1024  # characters


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. Sizes are per round; one more round than `rounds` warms up."""

    rounds: int
    prompts: int  # of 10 KB
    bodies: int  # of 4 KB
    deltas: int
    tokens: int
    rules: int = 500
    recognizers: int = 40
    large: int = 10_000_000  # characters of a large prompt
    seconds: float = 5.0  # of each turn of small requests beside it
    rate: float = 40.0  # small requests a second
    turns: int = 2
    held: int = 200  # requests that wait for approval
    exchanges: int = 100  # recorded


FULL = Effort(rounds=9, prompts=16, bodies=48, deltas=6000, tokens=300)
QUICK = Effort(
    rounds=3,
    prompts=6,
    bodies=16,
    deltas=2000,
    tokens=60,
    large=400_000,
    seconds=0.8,
    turns=1,
    held=50,
    exchanges=30,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, in `unit`. `naive` is what the simple loop took, `target` the most that
    it should be."""

    name: str
    unit: str
    measured: float
    naive: float | None = None
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as much the simple loop takes."""
        return self.naive / self.measured if self.naive is not None and self.measured else None

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.measured <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one part, and what a reader must know about how they were taken."""

    title: str
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()


def medians[T](
    contenders: Mapping[str, Callable[[T], object]], rounds: Sequence[T]
) -> dict[str, float]:
    """The median CPU seconds of each contender for what it does with one round's input.

    The first input only warms up. Each round has an input of its own, so that nobody gains by
    remembering the last one.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for given in rounds:
        for name, run in contenders.items():
            gc.collect()  # nobody pays for what another left behind
            begun = time.process_time()
            run(given)
            taken[name].append(time.process_time() - begun)
    return {name: median(times[1:]) for name, times in taken.items()}
