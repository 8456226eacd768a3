"""A `.mitm` and the `.jsonl` beside it, open for appending: both grow, or neither does."""

from __future__ import annotations

import os
from pathlib import Path

from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.files import create, sync_directory, write_all
from mitmgate.core.ledger.slot import try_lock

FLOWS, LEDGER = ".mitm", ".jsonl"


class Pair:
    """Two new files, `<stem>.mitm` and `<stem>.jsonl`, the latter beginning with `head`.

    `durable` syncs them at every append. `lost` turns True when somebody else has changed, removed
    or replaced a file: nothing can be appended then, and what is there is left as it is.
    """

    def __init__(self, directory: Path, stem: str, head: bytes, *, durable: bool) -> None:
        self.flows = directory / (stem + FLOWS)
        self.ledger = directory / (stem + LEDGER)
        self.lost = False
        self._durable = durable
        self._dirty = False
        self._sizes = (0, len(head))
        self._files = self._create(head)

    @property
    def size(self) -> int:
        """Bytes of flows."""
        return self._sizes[0]

    def append(self, flow: bytes, lines: bytes) -> None:
        """Append `flow` and the ledger's `lines` for it. Raises `RecordingError`.

        After an error both files end where they ended before, if need be by the next call, so that
        writing goes on by itself once there is space again.
        """
        self._restore()
        self._check()
        for i, data in enumerate((flow, lines)):  # the ledger never speaks of what is not there
            if not data:
                continue
            try:
                write_all(self._files[i], data)
                if self._durable:
                    os.fsync(self._files[i])
            except OSError as e:
                self._dirty = True
                self._restore()
                raise RecordingError.of(self._path(i), e) from e
        self._sizes = (self._sizes[0] + len(flow), self._sizes[1] + len(lines))

    def sync(self) -> None:
        """Make what was appended durable. Raises `RecordingError`."""
        for i, file in enumerate(self._files):
            try:
                os.fsync(file)
            except OSError as e:
                raise RecordingError.of(self._path(i), e) from e

    def close(self) -> None:
        """Close the files; this also unlocks the ledger."""
        for file in self._files:
            os.close(file)

    def _create(self, head: bytes) -> tuple[int, int]:
        aside = self.ledger.with_name(self.ledger.name + ".part")
        made: dict[Path, int] = {}
        path = self.flows
        try:
            made[path] = create(path)
            path = aside
            made[path] = create(path)
            # held as long as the file is open: says to `verify` that it may still grow
            try_lock(made[path])
            write_all(made[path], head)
            os.fsync(made[path])
            path.rename(self.ledger)  # with its head and its lock, or not at all
            sync_directory(path.parent)
        except OSError as e:
            for path_made, file in made.items():
                os.close(file)
                path_made.unlink(missing_ok=True)
            if len(made) == 2:
                self.ledger.unlink(missing_ok=True)
            raise RecordingError.of(path, e) from e
        return made[self.flows], made[aside]

    def _restore(self) -> None:
        if not self._dirty:
            return
        for i, file in enumerate(self._files):
            try:
                os.ftruncate(file, self._sizes[i])
            except OSError as e:
                raise RecordingError.of(self._path(i), e) from e
        self._dirty = False

    def _check(self) -> None:
        for i, file in enumerate(self._files):
            found = os.fstat(file)
            if found.st_nlink == 0 or found.st_size != self._sizes[i]:
                self.lost = True
                what = "removed" if found.st_nlink == 0 else "changed"
                raise RecordingError(
                    self._path(i), f"was {what} by somebody else; a new file follows"
                )

    def _path(self, i: int) -> Path:
        return (self.flows, self.ledger)[i]
