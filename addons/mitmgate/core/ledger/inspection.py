"""Is one `.mitm`, with its ledger, as it was written? Streaming, up to the first fault.

What stands in other files is not looked at; `core.ledger.verify` puts the pairs together.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mitmgate.core.ledger.chain import BEGIN, FORMAT, MAX_LINE, BadLine, Line, Tip, read_line
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.removal import Removal
from mitmgate.core.ledger.signature import Verifier
from mitmgate.core.ledger.slot import try_lock
from mitmgate.core.ledger.torn import TORN, digest

type Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing wrong in a file. `line` counts from 1 in the ledger; `seq` is the record."""

    path: Path
    message: str
    line: int | None = None
    seq: int | None = None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.message}"


@dataclass(slots=True)
class Inspected:
    """What a pair of files turned out to be. `unsigned` entries stand after the last signature.

    `removals` are what it says of other files, with a key what it says under a signature.
    `incomplete` is True when one of the two is missing.
    """

    ledger: Path
    flows: Path
    head: Line | None = None
    tip: Tip = BEGIN
    entries: int = 0
    unsigned: int = 0
    end: Line | None = None
    removals: list[Removal] = field(default_factory=list)
    growing: bool = False
    incomplete: bool = False
    finding: Finding | None = None


class _Bad(Exception):
    def __init__(self, path: Path, message: str, line: int | None, seq: int | None = None) -> None:
        self.finding = Finding(path, message, line, seq)


def _unheard(read: int) -> None:
    pass


def inspect(
    directory: Path, stem: str, verifier: Verifier | None, progress: Progress = _unheard
) -> Inspected:
    """Read `<stem>.mitm` and `<stem>.jsonl` to the end or the first fault. Raises `OSError`.

    `progress` is told how many bytes were read, record by record; what it raises passes through.
    """
    file = Inspected(directory / (stem + LEDGER), directory / (stem + FLOWS))
    try:
        if not file.ledger.exists():
            if file.flows.stat().st_size:  # an empty one is a pair about to be made
                file.incomplete = True
                raise _Bad(file.flows, "has no ledger beside it", None)
            return file
        if not file.flows.exists():
            file.incomplete = True
            raise _Bad(file.ledger, f"its recording {file.flows.name} is missing", None)
        with file.ledger.open("rb") as ledger, file.flows.open("rb") as flows:
            _check(file, ledger, flows, verifier, progress)
    except _Bad as bad:
        file.finding = bad.finding
    return file


def growing(ledger: BinaryIO) -> bool:
    """Whether a gate is writing the file."""
    # a shared lock that is refused means that a writer holds the file; ours goes at once
    held = not try_lock(ledger.fileno(), fcntl.LOCK_SH)
    fcntl.flock(ledger, fcntl.LOCK_UN)
    return held


def _check(
    file: Inspected,
    ledger: BinaryIO,
    flows: BinaryIO,
    verifier: Verifier | None,
    progress: Progress,
) -> None:
    file.growing = growing(ledger)
    number = 0
    read = 0
    for number, line in _lines(file, ledger):
        _follow(file, number, line)
        if line.length:
            _compare(file, number, line, flows)
        if "signature" in line.fields and verifier:
            if not line.signed_by(verifier):
                raise _Bad(file.ledger, "the signature is not this key's", number, line.seq)
            file.unsigned = 0
        file.tip = line.tip
        if line.kind == "entry":
            file.entries += 1
            file.unsigned += 1
        if line.kind == "removed":
            _learn(file, number, line, verifier)
        file.end = line if line.kind == "end" else None
        if file.end and verifier and "signature" not in line.fields:
            raise _Bad(file.ledger, "its end is not signed", number, line.seq)
        progress(ledger.tell() + flows.tell() - read)
        read = ledger.tell() + flows.tell()
    if file.growing:
        return
    if file.end is None:
        message = "has no end: it was cut, or its gate was killed and not started since"
        raise _Bad(file.ledger, message, number)
    if flows.read(1):
        raise _Bad(file.flows, f"has bytes after its last record, from byte {file.tip.end}", None)
    _compare_torn(file, file.end)


def _learn(file: Inspected, number: int, line: Line, verifier: Verifier | None) -> None:
    try:
        said = Removal.of(line)
    except BadLine as bad:
        raise _Bad(file.ledger, f"record {line.seq} {bad}", number, line.seq) from None
    if verifier is None or "signature" in line.fields:
        file.removals.append(said)


def _compare_torn(file: Inspected, end: Line) -> None:
    """What recovery has cut off stands in side files, of which the end has the hashes."""
    said = end.fields.get("torn")
    torn = said if isinstance(said, dict) else {}
    for path, name in ((file.flows, "flows"), (file.ledger, "ledger")):
        side = path.with_name(path.name + TORN)
        found = digest(side) if side.exists() else None
        if found != torn.get(name):
            what = "is missing" if found is None else "is not what recovery put aside"
            raise _Bad(side, what, None)


def _lines(file: Inspected, ledger: BinaryIO) -> Iterator[tuple[int, Line]]:
    number = 0
    while raw := ledger.readline(MAX_LINE + 1):
        number += 1
        if not raw.endswith(b"\n"):
            if file.growing:
                return
            raise _Bad(file.ledger, "is cut off in this line", number)
        try:
            yield number, read_line(raw)
        except BadLine as bad:
            expected = file.tip.seq + 1 if file.head else bad.seq
            raise _Bad(file.ledger, f"record {expected} {bad}", number, expected) from None


def _follow(file: Inspected, number: int, line: Line) -> None:
    """Check that `line` is the one that has to come next."""

    def bad(message: str) -> _Bad:
        return _Bad(file.ledger, message, number, line.seq)

    if file.head is None:
        if line.kind != "head":
            raise bad(f"does not begin with its head: what stands before record {line.seq} is gone")
        if line.fields.get("file") != file.flows.name:
            raise bad(f"is the ledger of {line.fields.get('file')}")
        if line.fields.get("format") != FORMAT or line.offset or line.length:
            raise bad("has a head of another kind of ledger")
        file.head = line
        return
    due = file.tip.seq + 1
    if file.end or line.kind == "head":
        raise bad(f"record {line.seq} was put in here: {'after the end' if file.end else 'a head'}")
    if line.seq > due:
        raise bad(f"record {due} is missing before record {line.seq}")
    if line.seq < due:
        raise bad(f"record {line.seq} stands here again or too late; {due} is due")
    if line.prev != file.tip.hash:
        raise bad(
            f"record {line.seq} does not follow the record before it: one was put in its place"
        )
    if line.offset != file.tip.end or (line.length > 0) is not (line.kind == "entry"):
        raise bad(f"record {line.seq} does not say where its flow is")


def _compare(file: Inspected, number: int, line: Line, flows: BinaryIO) -> None:
    hashed = hashlib.sha256()
    left = line.length
    while left and (piece := flows.read(min(left, 1 << 16))):
        hashed.update(piece)
        left -= len(piece)
    what = f"the flow of record {line.seq} (byte {line.offset})"
    if left:
        raise _Bad(file.flows, f"ends within {what}", number, line.seq)
    if hashed.hexdigest() != line.fields.get("sha256"):
        raise _Bad(file.flows, f"{what} is not what was recorded", number, line.seq)
