"""`mitmgate verify`: recordings against their ledgers, with a progress bar for people.

Reads and says; what is checked is in `core.ledger`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from mitmgate.core import ledger

EVERY = 0.1  # seconds between two drawings of the bar
WIDTH = 40


def read(options: argparse.Namespace) -> ledger.Report:
    """What is in order and what is not. Raises `OSError` and `ValueError`."""
    key = options.public_key.read_bytes() if options.public_key else None
    path = options.path or options.state / "recordings"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name another PATH, or --state DIR")
    bar = Bar() if sys.stderr.isatty() else None
    try:
        return ledger.verify(path, key, bar.show if bar else lambda done, total: None)
    finally:
        if bar:
            bar.clear()


def summary(report: ledger.Report, *, signed: bool) -> Iterator[str]:
    """Lines for people; `signed` says that a public key was given."""
    line = f"{report.files} files, {report.entries} exchanges"
    line += f", {report.unsigned} not covered by a signature" if signed else ""
    yield line + (f", {len(report.growing)} still being written" if report.growing else "")
    if report.removed:
        last = datetime.fromtimestamp(report.removed[-1].time, UTC)
        exchanges = sum(each.entries for each in report.removed)
        yield (
            f"{len(report.removed)} files with {exchanges} exchanges were removed under retention, "
            f"the last at {last:%Y-%m-%dT%H:%M:%SZ}"
        )
    yield "every record is as it was written" if report.ok else f"{len(report.findings)} findings"


class Bar:
    """How much is read, on one line of a terminal."""

    def __init__(self) -> None:
        self._shown = 0.0

    def show(self, done: int, total: int) -> None:
        """`done` of `total` bytes."""
        if time.monotonic() - self._shown < EVERY:
            return
        self._shown = time.monotonic()
        full = WIDTH * done // max(total, 1)
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {done >> 20} of {total >> 20} MB"
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line as it was."""
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
