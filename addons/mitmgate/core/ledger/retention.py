"""Retention: old recordings go, and the oldest while there are too many, and nothing else does.

A file is verified before it is removed, and its removal is in the ledger before the file is gone,
so that `verify` tells it from one that somebody has deleted. A file that is being written, one of
another gate that lives, and one that does not verify all stay.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.ledger.chain import BadLine, read_line
from mitmgate.core.ledger.inspection import Inspected, Progress, growing, inspect
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.recovery import last_line
from mitmgate.core.ledger.removal import Reason, Removal, removals
from mitmgate.core.ledger.signature import Verifier
from mitmgate.core.ledger.slot import hold, try_lock
from mitmgate.core.ledger.store import Stored, stored

LOCK = ".retention"

type Note = Callable[[Sequence[Removal]], None]


@dataclass(frozen=True, slots=True)
class Step:
    """What one look has done: whether something went, and sentences for the operator."""

    removed: bool
    notes: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()


class Retention:
    """Of one `directory`, for the `worker` whose slot is in `journals`.

    `age` is seconds since a file's end, `size` bytes of all files together; None is no bound.
    """

    def __init__(
        self,
        directory: Path,
        journals: Path,
        worker: str,
        *,
        age: float | None,
        size: int | None,
        verifier: Verifier | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._journals = journals
        self._worker = worker
        self._age = age
        self._size = size
        self._verifier = verifier
        self._clock = clock
        self._kept: dict[str, object] = {}  # what does not verify, as it was then
        self._read: dict[Path, tuple[object, list[Removal]]] = {}
        self._full = False

    def step(self, note: Note, progress: Progress) -> Step:
        """Remove the oldest file that is due, if there is one and no other gate is at it.

        May take as long as reading a file does: call it beside the writer's thread. `note` puts
        removals in the ledger, on that thread. What `note` and `progress` raise passes through;
        raises `OSError` for what cannot be read or removed.
        """
        if self._age is None and self._size is None:
            return Step(False)
        with alone(self._directory) as mine:
            return self._step(note, progress) if mine else Step(False)

    def _step(self, note: Note, progress: Progress) -> Step:
        files = stored(self._directory)
        total = sum(each.size for each in files)
        over = self._size is not None and total > self._size
        alerts: list[str] = []
        for each in files:
            if each.unfinished:
                reason: Reason = "age"
            elif self._too_old(each):
                reason = "age"
            elif over:
                reason = "size"
            else:
                continue
            with self._owned(each) as owned:
                if owned and self._remove(each, reason, note, progress, alerts):
                    self._full = False
                    said = f"{each.stem} is removed under retention ({reason})"
                    return Step(True, (said,), tuple(alerts))
        if over and not self._full:
            alerts.append(
                f"{self._directory}: {total} bytes are more than retain.size, "
                "and nothing of them can be removed"
            )
        self._full = over
        return Step(False, (), tuple(alerts))

    def _too_old(self, each: Stored) -> bool:
        if self._age is None or each.begun + self._age > self._clock():
            return False
        if not each.worker:
            return True
        try:
            end, _ = last_line(each.ledger)
        except (BadLine, FileNotFoundError):
            return True  # looked at, and found wrong
        said = end.fields.get("time")
        return not isinstance(said, float | int) or said + self._age <= self._clock()

    @contextmanager
    def _owned(self, each: Stored) -> Iterator[bool]:
        """Whether it is this worker's or a dead one's, whose place is held meanwhile."""
        if each.worker in ("", self._worker):
            yield True
            return
        slot = hold(self._journals, each.worker)
        try:
            yield slot is not None
        finally:
            if slot:
                slot.release()

    def _remove(
        self, each: Stored, reason: Reason, note: Note, progress: Progress, alerts: list[str]
    ) -> bool:
        if not each.worker:
            each.unlink()
            return True
        stamp = _stamp(each.flows, each.ledger)
        if self._kept.get(each.stem) == stamp or _growing(each.ledger):
            return False
        noted = self._noted()
        if each.unfinished and each.flows.name in {removal.file for removal in noted}:
            each.unlink()
            return True
        file = inspect(self._directory, each.stem, self._verifier, progress)
        if file.growing or (file.head is None and file.finding is None):
            return False  # without a head it is about to be begun, or recovery removes it
        if problem := str(file.finding or "") or self._gap(file, noted):
            self._kept[each.stem] = stamp
            alerts.append(f"retention: {each.flows.name} is kept, it does not verify: {problem}")
            return False
        assert file.head is not None  # what has none does not verify
        gone = Removal(
            each.flows.name,
            file.head.seq,
            file.tip.seq,
            file.tip.hash,
            file.entries,
            each.size,
            reason,
            self._clock(),
        )
        if file.removals:
            note([])  # begins a file, if none is open, which may follow what it tells of
        note([*self._still_needed(file), gone])
        each.unlink()
        return True

    def _gap(self, file: Inspected, noted: Sequence[Removal]) -> str:
        """What is wrong with the place of a file in its chain: evidence is not removed."""
        assert file.head is not None
        previous = file.head.fields.get("previous")
        if previous is None or (self._directory / str(previous)).exists():
            return ""
        if any(each.file == previous and each.precedes(file.head) for each in noted):
            return ""
        return f"the file before it, {previous}, is missing"

    def _noted(self, aside: Path | None = None) -> list[Removal]:
        """What the ledgers, but for `aside`, say was removed. Files that have not changed since
        they were last read are not read again."""
        known, self._read = self._read, {}
        for ledger in self._directory.glob(f"*{LEDGER}"):
            stamp = _stamp(ledger)
            before = known.get(ledger)
            if before is None or before[0] != stamp:
                before = stamp, list(removals(ledger, self._verifier))
            self._read[ledger] = before
        return [each for path, (_, said) in self._read.items() if path != aside for each in said]

    def _still_needed(self, file: Inspected) -> Iterator[Removal]:
        """What only the file says of others that something else still follows."""
        if not file.removals:
            return
        elsewhere = {(each.file, each.last_hash) for each in self._noted(file.ledger)}
        needed = set[object]()
        for ledger in self._directory.glob(f"*{LEDGER}"):
            if ledger == file.ledger:
                continue
            needed.add(ledger.with_suffix(FLOWS).name)
            with ledger.open("rb") as lines:
                try:
                    needed.add(read_line(lines.readline()).fields.get("previous"))
                except BadLine:
                    continue
        for place in self._directory.glob("*.last"):
            needed.add(place.read_text("utf-8", "replace").strip())
        for each in file.removals:
            if each.file in needed and (each.file, each.last_hash) not in elsewhere:
                yield each


def _growing(ledger: Path) -> bool:
    if not ledger.exists():
        return False
    with ledger.open("rb") as file:
        return growing(file)


def _stamp(*paths: Path) -> object:
    stats = [path.stat() for path in paths if path.exists()]
    return [(stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats]


@contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Whether nobody else removes recordings, or verifies them; they cannot while this holds."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield try_lock(lock)
    finally:
        os.close(lock)


@contextmanager
def undisturbed(directory: Path) -> Iterator[None]:
    """Nothing is removed meanwhile. Waits for a removal that is under way. Raises `OSError`."""
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        yield  # retention has never been here
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)
