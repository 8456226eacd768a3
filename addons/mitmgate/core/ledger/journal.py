"""Admitted requests, on disk before they go out, so that a killed gate leaves no gap.

One file per exchange in the worker's slot, `journal/<worker>/<exchange>.flow`, removed when the
exchange is recorded. Calls come from the one writer thread. What a request may contain (no tokens)
is the caller's business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.files import create, sync_directory, write_all
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.slot import Slot, abandoned

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A journaled request whose exchange nobody has settled.

    `data` is the flow as journaled. `whole` is False if the worker died while writing it: such a
    request was never sent. `time` is when it was journaled, in Unix seconds.
    """

    exchange: str
    data: bytes
    whole: bool
    time: float
    path: Path


class Journal:
    """The journal of the worker that holds `slot`. `fsync=False` trusts the page cache."""

    def __init__(self, slot: Slot, *, fsync: bool = True) -> None:
        self._slot = slot
        self._fsync = fsync
        self._found = _flows(slot.path)  # what an earlier holder of the slot left

    def write(self, exchange: str, flow: bytes) -> None:
        """Put an admitted request on disk. Raises `RecordingError`; then nothing is left there."""
        path = self._path(exchange)
        try:
            file = create(path)
        except OSError as e:
            raise RecordingError.of(path, e) from e
        try:
            write_all(file, flow)
            if self._fsync:
                os.fsync(file)
                sync_directory(path.parent)
        except OSError as e:
            path.unlink(missing_ok=True)
            raise RecordingError.of(path, e) from e
        finally:
            os.close(file)

    def settle(self, exchange: str) -> None:
        """Forget a request whose exchange is recorded; no error if it is not there."""
        _unlink(self._path(exchange))

    def leftovers(self) -> Iterator[Leftover]:
        """What this slot's earlier holders and other dead workers left.

        A dead worker's slot is held while its leftovers are yielded: two gates that start together
        do not both record them. Raises `RecordingError`.
        """
        yield from _leftovers(self._found)
        for slot in abandoned(self._slot.path.parent):
            yield from _leftovers(_flows(slot.path))

    def discard(self, leftover: Leftover) -> None:
        """Forget a leftover that is recorded now."""
        _unlink(leftover.path)

    def _path(self, exchange: str) -> Path:
        if not _NAME.fullmatch(exchange):
            raise ValueError(f"no exchange id: {exchange[:40]!r}")
        return self._slot.path / f"{exchange}.flow"


def _flows(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(directory.glob("*.flow")))


def _leftovers(paths: tuple[Path, ...]) -> Iterator[Leftover]:
    for path in paths:
        try:
            data, time = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:
            continue  # discarded since
        except OSError as e:
            raise RecordingError.of(path, e) from e
        yield Leftover(path.stem, data, is_frame(data), time, path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise RecordingError.of(path, e) from e
