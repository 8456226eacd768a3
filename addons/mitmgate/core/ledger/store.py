"""What stands in a directory of recordings, by age: the pairs of all workers, and torn ends.

Names say when a file was begun and by whom; nothing is opened to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mitmgate.core.ledger.files import sync_directory
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.recovery import pointer
from mitmgate.core.ledger.torn import TORN

STEM = re.compile(r"(\d{8}T\d{6}\.\d{3}Z)-([a-z0-9]+)")
_SUFFIXES = (FLOWS, LEDGER, FLOWS + TORN, LEDGER + TORN)


@dataclass(frozen=True, slots=True)
class Stored:
    """A pair with its side files, or a torn end alone: then there is no `worker`.

    `begun` is Unix seconds, `size` bytes on disk.
    """

    directory: Path
    stem: str
    worker: str
    begun: float
    size: int

    @property
    def flows(self) -> Path:
        return self.directory / (self.stem + FLOWS)

    @property
    def ledger(self) -> Path:
        return self.directory / (self.stem + LEDGER)

    @property
    def unfinished(self) -> bool:
        """Whether only its ledger is left, as when a removal was cut short."""
        return bool(self.worker) and self.ledger.exists() and not self.flows.exists()

    def unlink(self) -> None:
        """Remove it; the ledger last, so that one that is cut short is seen. Raises `OSError`."""
        if not self.worker:
            (self.directory / self.stem).unlink(missing_ok=True)
            return
        for path in (self.flows, *(self._path(suffix) for suffix in _SUFFIXES[2:])):
            path.unlink(missing_ok=True)
        place = pointer(self.directory, self.worker)
        if place.exists() and place.read_text("utf-8", "replace").strip() == self.flows.name:
            place.unlink()
        self.ledger.unlink(missing_ok=True)
        sync_directory(self.directory)

    def _path(self, suffix: str) -> Path:
        return self.directory / (self.stem + suffix)


def stored(directory: Path) -> list[Stored]:
    """Everything that is stored, oldest first. Raises `OSError`."""
    sizes: dict[str, int] = {}
    lone: list[Stored] = []
    for path, stem in _files(directory):
        stat = path.stat()
        if STEM.fullmatch(stem):
            sizes[stem] = sizes.get(stem, 0) + stat.st_size
        elif path.suffix == TORN:
            lone.append(Stored(directory, path.name, "", stat.st_mtime, stat.st_size))
    pairs = [_pair(directory, stem, size) for stem, size in sizes.items()]
    return sorted((*pairs, *lone), key=lambda each: (each.begun, each.stem))


def _files(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in directory.iterdir():
        for suffix in _SUFFIXES:
            if path.name.endswith(suffix):
                yield path, path.name.removesuffix(suffix)
                break
        else:
            if path.suffix == TORN:
                yield path, ""


def _pair(directory: Path, stem: str, size: int) -> Stored:
    stamp, _, worker = stem.rpartition("-")
    begun = datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()
    return Stored(directory, stem, worker, begun, size)
