"""Admitted requests, on disk before they go out, so that a killed gate leaves no gap.

One file per exchange in the worker's slot, `journal/<worker>/<exchange>.flow`, removed when the
exchange is recorded; beside it `<exchange>.over` with the whole exchange, where that could not be
recorded at once. What a request may contain (no tokens) is the caller's business.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.files import create, sync_directory, write_all
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.slot import Slot, abandoned

ADMITTED, OVER = ".flow", ".over"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")


@dataclass(frozen=True, slots=True)
class Ended:
    """A whole exchange and its ledger fields."""

    flow: bytes
    fields: Mapping[str, object]

    def encode(self) -> bytes:
        """As one string: the fields as a frame of JSON, then the flow. Raises `ValueError`."""
        fields = json.dumps(dict(self.fields)).encode()
        return b"%d:%s," % (len(fields), fields) + self.flow

    @classmethod
    def decode(cls, data: bytes) -> Ended | None:
        """What `encode` made, or None for a part of it, and for anything else."""
        head, _, rest = data.partition(b":")
        try:
            length = int(head)
            fields = json.loads(rest[:length])
        except (ValueError, RecursionError):
            return None
        flow = rest[length + 1 :]
        whole = rest[length : length + 1] == b"," and is_frame(flow)
        return cls(flow, fields) if whole and isinstance(fields, dict) else None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A journaled request whose exchange nobody has settled; `time` is Unix seconds."""

    exchange: str
    time: float
    directory: Path

    @property
    def path(self) -> Path:
        """Where the request is."""
        return self.directory / (self.exchange + ADMITTED)

    def read(self) -> bytes | None:
        """The flow as journaled, or None if it was settled since. Raises `RecordingError`."""
        return _read(self.path)

    @property
    def over(self) -> Path:
        """Where the whole exchange is, if that had been put down."""
        return self.directory / (self.exchange + OVER)

    def ended(self) -> Ended | None:
        """The whole exchange, where that had been put down whole. Raises `RecordingError`."""
        data = _read(self.over)
        return Ended.decode(data) if data else None

    def discard(self) -> None:
        """Forget it: it is recorded now. Raises `RecordingError`."""
        _forget(self.directory, self.exchange)


class Journal:
    """The journal of the worker that holds `slot`. `fsync=False` trusts the page cache."""

    def __init__(self, slot: Slot, *, fsync: bool = True) -> None:
        self._slot = slot
        self.fsync = fsync
        self._found = _leftovers(slot.path)  # what an earlier holder of the slot left

    def write(self, exchange: str, flow: bytes) -> None:
        """Put an admitted request on disk. Raises `RecordingError`; then nothing is left there."""
        self._put(exchange, ADMITTED, flow)

    def keep(self, exchange: str, ended: bytes) -> None:
        """Put an `Ended` exchange beside its request. Raises `RecordingError`, as `write`."""
        self._put(exchange, OVER, ended)

    def kept(self, exchange: str) -> bytes | None:
        """What `keep` has put there. Raises `RecordingError`."""
        return _read(self._path(exchange, OVER))

    def settle(self, exchange: str) -> None:
        """Forget a request whose exchange is recorded; no error if it is not there."""
        self._path(exchange, ADMITTED)
        _forget(self._slot.path, exchange)

    def leftovers(self) -> Iterator[tuple[Leftover, ...]]:
        """What this slot's earlier holders left, then what other dead workers did, slot by slot.

        A dead worker's slot is held while its leftovers are yielded: two gates that start together
        do not both record them. Raises `RecordingError`.
        """
        yield self._found
        for slot in abandoned(self._slot.path.parent):
            yield _leftovers(slot.path)

    def _put(self, exchange: str, suffix: str, data: bytes) -> None:
        path = self._path(exchange, suffix)
        try:
            file = create(path)
        except OSError as e:
            raise RecordingError.of(path, e) from e
        try:
            write_all(file, data)
            if self.fsync:
                os.fsync(file)
                sync_directory(path.parent)
        except OSError as e:
            path.unlink(missing_ok=True)
            raise RecordingError.of(path, e) from e
        finally:
            os.close(file)

    def _path(self, exchange: str, suffix: str) -> Path:
        if not _NAME.fullmatch(exchange):
            raise ValueError(f"no exchange id: {exchange[:40]!r}")
        return self._slot.path / (exchange + suffix)


def _leftovers(directory: Path) -> tuple[Leftover, ...]:
    """Everything in a slot, by name."""
    found: dict[str, float] = {}
    try:
        for path in directory.iterdir():
            if path.suffix in (ADMITTED, OVER):
                time = path.stat().st_mtime
                found[path.stem] = min(time, found.get(path.stem, time))
    except OSError as e:
        raise RecordingError.of(directory, e) from e
    return tuple(Leftover(name, found[name], directory) for name in sorted(found))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise RecordingError.of(path, e) from e


def _forget(directory: Path, exchange: str) -> None:
    for suffix in (OVER, ADMITTED):
        path = directory / (exchange + suffix)
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            raise RecordingError.of(path, e) from e
