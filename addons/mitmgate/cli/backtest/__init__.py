"""`mitmgate backtest`: a rule set over recorded exchanges, and what would change.

Recordings are read span by span, in one process or in several, and results come in the order of the
files, so a million exchanges take no more memory than a few. Nothing is written or fetched.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path

from mitmgate.cli.backtest.changes import KINDS
from mitmgate.cli.backtest.comparing import Compared, Comparison
from mitmgate.cli.backtest.outcomes import Lines, Objects, Tally
from mitmgate.cli.backtest.recorded import Span, UnreadableError, exchanges, recordings, spans
from mitmgate.cli.rulesets import RuleSet
from mitmgate.cli.searching import add_identity, identities
from mitmgate.core.ledger import Identities
from mitmgate.core.rules import Problem, RuleError

UNJUDGED = "unjudged"
AHEAD = 4  # spans under way for each process
PROGRESS = 0.5  # seconds between two progress lines

type Results = list[Compared | UnreadableError]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    help = "recordings, or directories with .mitm files in them or below"
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help=help)
    help = "the rule files to try"
    command.add_argument("--rules", type=Path, required=True, metavar="DIR", help=help)
    help = "compare with what these rule files make of it, not with what was recorded"
    command.add_argument("--against", type=Path, metavar="DIR", help=help)
    command.add_argument(
        "--fail-on",
        type=_kinds,
        default=(),
        metavar="KINDS",
        help=f"end with 1 on any of these, with commas between: {', '.join((*KINDS, UNJUDGED))}",
    )
    help = "processes that judge (default: 1); each loads the rules for itself"
    command.add_argument("--jobs", type=_jobs, default=1, metavar="N", help=help)
    add_identity(command)
    help = "leave out what was matched or masked, which may be personal"
    command.add_argument("--no-text", action="store_true", help=help)
    command.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Run other rules over recorded exchanges, and say what would change.

    Returns 1 where `--fail-on` says so, 2 where rules or recordings cannot be read.
    """
    logging.getLogger("mitmgate").addHandler(logging.NullHandler())  # all of it is in the output
    logging.getLogger("mitmgate").propagate = False
    try:
        files = recordings(options.files)
        directories = (options.rules, *([options.against] if options.against else []))
        keys = identities(options)
        results = _judged(_load(directories), files, directories, options.jobs, keys)
        begun = time.monotonic()
        tally = Tally(files=len(files), against=options.against is not None)
        report = (Objects if options.json else Lines)(tally, show_text=not options.no_text)
        progress = _Progress(sum(path.stat().st_size for path in files))
        for done, found in results:
            for each in found:
                tally.count(each)
                for line in report.lines(each):
                    print(line)
            progress.show(tally.exchanges, done)
    except (RuleError, BrokenExecutor, OSError, ValueError) as e:
        print(e if isinstance(e, RuleError) else f"mitmgate: {e}", file=sys.stderr)
        return 2
    progress.clear()
    failed = sorted(kind for kind in options.fail_on if tally.of(kind))
    for line in report.end(failed, time.monotonic() - begun):
        print(line)
    for error in tally.errors:
        print(f"mitmgate: {error}", file=sys.stderr)
    if (more := tally.unreadable - len(tally.errors)) > 0:
        print(f"mitmgate: {more} more places cannot be read", file=sys.stderr)
    if not tally.exchanges and not tally.errors:
        print("mitmgate: no exchange is in these recordings", file=sys.stderr)
    if tally.errors or not tally.exchanges:
        return 2
    return 1 if failed else 0


def _judged(
    comparison: Comparison,
    files: Iterable[Path],
    directories: tuple[Path, ...],
    jobs: int,
    keys: Identities | None,
) -> Iterator[tuple[int, Results]]:
    """What comes of every span, in their order, with the bytes that it has."""
    if jobs == 1:
        for each in _spans(files):
            if isinstance(each, Span):
                yield each.end - each.start, asyncio.run(_judge(comparison, each, keys))
            else:
                yield 0, [each]
        return
    with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(directories, keys)) as pool:
        under_way: deque[tuple[int, Future[Results] | Results]] = deque()
        for each in _spans(files):
            if isinstance(each, Span):
                under_way.append((each.end - each.start, pool.submit(_work, each)))
            else:
                under_way.append((0, [each]))
            if len(under_way) >= AHEAD * jobs:
                yield _next(under_way)
        while under_way:
            yield _next(under_way)


def _next(under_way: deque[tuple[int, Future[Results] | Results]]) -> tuple[int, Results]:
    size, found = under_way.popleft()
    return size, found.result() if isinstance(found, Future) else found


def _spans(files: Iterable[Path]) -> Iterator[Span | UnreadableError]:
    for path in files:
        try:
            yield from spans(path)
        except UnreadableError as e:
            yield e
        except OSError as e:
            yield UnreadableError(path, 0, f"cannot be read: {e.strerror}")


def _load(directories: tuple[Path, ...]) -> Comparison:
    """Raises `RuleError` with the problems of all directories."""
    problems: list[Problem] = []
    sets: list[RuleSet] = []
    for directory in directories:
        try:
            sets.append(RuleSet.read(directory))
        except RuleError as e:
            problems += e.problems
    if problems:
        raise RuleError(problems)
    return Comparison(*sets)


async def _judge(comparison: Comparison, span: Span, keys: Identities | None) -> Results:
    return [
        each if isinstance(each, UnreadableError) else await comparison.compare(each)
        for each in exchanges(span, keys)
    ]


# In a process of the pool

_given: list[tuple[Comparison, Identities | None]] = []


def _begin(directories: tuple[Path, ...], keys: Identities | None) -> None:
    logging.getLogger("mitmgate").addHandler(logging.NullHandler())
    logging.getLogger("mitmgate").propagate = False
    _given.append((_load(directories), keys))


def _work(span: Span) -> Results:
    comparison, keys = _given[0]
    return asyncio.run(_judge(comparison, span, keys))


class _Progress:
    """A line on a terminal that says how far it is."""

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._done = 0
        self._begun = self._shown = time.monotonic()
        self._on = sys.stderr.isatty()

    def show(self, exchanges: int, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if self._on and now - self._shown >= PROGRESS:
            self._shown = now
            share, rate = self._done / self._total, exchanges / (now - self._begun)
            line = f"{exchanges} exchanges, {share:.0%}, {rate:.0f}/s"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _kinds(given: str) -> tuple[str, ...]:
    kinds = tuple(each.strip() for each in given.split(",") if each.strip())
    known = (*KINDS, UNJUDGED)
    for kind in kinds:
        if kind not in known:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(known)}")
    return kinds


def _jobs(given: str) -> int:
    most = 4 * (os.cpu_count() or 1)
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 1 to {most}")
    return int(given)
