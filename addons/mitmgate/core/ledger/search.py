"""Find exchanges in ledgers, and read the flow of one: streaming, in bounded memory.

What a gate is writing at this moment can be searched, too. Whether nothing was taken out or put in
is not asked here: `core.ledger.verify` does that. A line that matches is checked by itself, and a
flow that is read against its line.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from mitmgate.core.ledger.chain import MAX_LINE, BadLine, read_line
from mitmgate.core.ledger.entry import Entry, Query
from mitmgate.core.ledger.inspection import Finding
from mitmgate.core.ledger.pair import LEDGER
from mitmgate.core.ledger.slot import try_lock

type Tell = Callable[[Finding], None]


class BadRecord(ValueError):
    """The flow of an exchange is not there, or not what was recorded. The text says where."""


def entries(path: Path, query: Query, tell: Tell) -> Iterator[Entry]:
    """The exchanges that `query` wants in a directory of recordings, or in one `.mitm` or `.jsonl`.

    In the order in which they ended, as far as ledgers of several workers tell. `tell` is given
    every line that cannot be read, and every file; both are left out. Of files that were closed
    before `query.since` none is opened. Raises `OSError` where there is no `path`.
    """
    if not path.is_dir():
        ledger = path.with_suffix(LEDGER)
        ledger.stat()
        return _of_file(ledger, query, tell)
    workers: dict[str, list[Path]] = {}
    for found in sorted(path.glob(f"*{LEDGER}")):
        workers.setdefault(found.stem.rpartition("-")[2], []).append(found)
    streams = [_of_worker(files, query, tell) for files in workers.values()]
    return (entry for _, entry in heapq.merge(*streams, key=lambda each: each[0]))


def flow_bytes(entry: Entry) -> bytes:
    """The flow of `entry` as it was recorded. Raises `BadRecord`."""
    offset, length = entry.fields["offset"], entry.fields["length"]
    what = f"{entry.flows}: the flow of {entry['exchange']} (byte {offset})"
    try:
        with entry.flows.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset + length:
                raise BadRecord(f"{what} is cut off or gone")
            file.seek(offset)
            data = file.read(length)
    except OSError as e:
        raise BadRecord(f"{what} cannot be read: {e.strerror}") from None
    if hashlib.sha256(data).hexdigest() != entry.fields.get("sha256"):
        raise BadRecord(f"{what} is not what was recorded")
    return data


def _of_worker(files: list[Path], query: Query, tell: Tell) -> Iterator[tuple[float, Entry]]:
    """With what to sort by; it never goes back, so that what one worker wrote stays in order."""
    last = 0.0
    for file, following in pairwise([*files, None]):
        assert file is not None
        if following and query.since is not None and _stamped(following) < query.since:
            continue  # a worker closes a file before it begins the next one
        for entry in _of_file(file, query, tell):
            last = max(last, entry.ended)
            yield last, entry


def _of_file(ledger: Path, query: Query, tell: Tell) -> Iterator[Entry]:
    begun = 0.0
    try:
        with ledger.open("rb") as file:
            for number, raw in _lines(ledger, file, tell):
                try:
                    line = json.loads(raw)
                    if line["kind"] == "head":
                        begun = float(line["time"])
                    if line["kind"] != "entry":
                        continue
                    entry = Entry(ledger, number, line, begun)
                    if query.matches(entry):
                        read_line(raw)
                        yield entry
                except BadLine as e:
                    tell(Finding(ledger, str(e), number))
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    tell(Finding(ledger, "is no line of a ledger", number))
    except OSError as e:
        tell(Finding(ledger, f"cannot be read: {e.strerror}"))


def _lines(ledger: Path, file: BinaryIO, tell: Tell) -> Iterator[tuple[int, bytes]]:
    """Whole lines with their numbers. A last one that a gate is still writing is none yet."""
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if raw.endswith(b"\n"):
            yield number, raw
        elif len(raw) > MAX_LINE:
            tell(Finding(ledger, "is longer than a line of a ledger can be", number))
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE + 1)
        elif not _grows(file):
            tell(Finding(ledger, "is cut off in this line", number))


def _grows(file: BinaryIO) -> bool:
    """Whether a gate holds it. Our own lock, if we get one, goes at once."""
    free = try_lock(file.fileno(), fcntl.LOCK_SH)
    if free:
        fcntl.flock(file, fcntl.LOCK_UN)
    return not free


def _stamped(ledger: Path) -> float:
    """When a file was begun, by its name; for a name of somebody else's, never."""
    said = re.match(r"(\d{8}T\d{6}\.\d{3})Z-", ledger.name)
    if not said:
        return float("inf")
    return datetime.strptime(said[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()
