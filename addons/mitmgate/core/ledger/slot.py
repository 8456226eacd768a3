"""A worker's place in a shared state directory: a numbered directory, held by a lock.

Several gates share one directory; each claims the lowest free number. The lock is the kernel's
(flock), so it is free again the moment a worker dies, and whoever finds it free may clean up.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mitmgate.core.ledger.errors import RecordingError

MOST = 256  # workers on one state directory


class Slot:
    """A held place. `name` (`w1`, `w2` ...) is unique among the workers that live."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @property
    def name(self) -> str:
        """The worker's name in files and ledgers."""
        return self.path.name

    def release(self) -> None:
        """Give the place up. What is in it stays."""
        os.close(self._lock)


def claim(base: Path) -> Slot:
    """The lowest free place under `base`, which is made if need be. Raises `RecordingError`."""
    for number in range(1, MOST + 1):
        if slot := hold(base, f"w{number}"):
            return slot
    raise RecordingError(base, f"{MOST} workers hold it already")


def abandoned(base: Path) -> Iterator[Slot]:
    """The places of workers that died, each held while it is yielded."""
    for path in sorted(base.glob("w*/.lock")):
        if slot := hold(base, path.parent.name):
            try:
                yield slot
            finally:
                slot.release()


def hold(base: Path, name: str) -> Slot | None:
    """The place called `name`, which is made if need be; None while somebody holds it.

    Raises `RecordingError`.
    """
    path = base / name
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise RecordingError.of(path, e) from e
    if try_lock(lock):
        return Slot(path, lock)
    os.close(lock)
    return None


def try_lock(file: int, operation: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file without waiting; False if somebody else holds it."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
