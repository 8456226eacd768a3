"""Exchanges to disk: flow bytes to `<UTC stamp>-<worker>.mitm`, a chained line to the `.jsonl`.

A new pair of files begins with the process and whenever the old one is large or old enough; the
chain runs on through all of a worker's files. All calls come from one thread, the writer's, and
may block on the disk. What a flow may contain is the caller's business.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from mitmgate.core.ledger.abridgement import abridged
from mitmgate.core.ledger.chain import FORMAT, MAX_LINE, LineTooLong, Tip, link
from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.files import replace_text
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.pair import Pair
from mitmgate.core.ledger.recovery import pointer, recover
from mitmgate.core.ledger.removal import Removal
from mitmgate.core.ledger.signature import Signer

Fsync = Literal["always", "interval", "never"]

INTERVAL = 1.0  # seconds of traffic that `interval` may lose to a power cut (none to a crash)
CHECKPOINT_EVERY = 100  # entries
ROOM = MAX_LINE - 4096  # bytes of a line for what it says of an exchange


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an exchange went: bytes `offset` to `offset + length` of `path`, ledger line `seq`."""

    path: Path
    seq: int
    offset: int
    length: int


class Recording:
    """The recording of one worker, whose name is that of the `Slot` it holds.

    Making one brings in order what an earlier worker of that name left (`notes` says what was
    done, for the operator) and raises `RecordingError` if it cannot.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        *,
        rotate_size: int = 256 << 20,
        rotate_age: float = 86400.0,
        fsync: Fsync = "interval",
        signer: Signer | None = None,
        checkpoint_every: int = CHECKPOINT_EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]+", worker):
            raise ValueError("a worker's name is lower-case letters and digits")
        self._directory = directory
        self._worker = worker
        self._rotate_size = rotate_size
        self._rotate_age = rotate_age
        self._fsync = fsync
        self._signer = signer
        self._checkpoint_every = checkpoint_every
        self._clock = clock
        self._pair: Pair | None = None
        self._begun = self._synced = clock()
        self._unsigned = 0
        self._pointed = False
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise RecordingError.of(directory, e) from e
        found = recover(directory, worker, signer)
        self.notes = found.notes
        self._previous = found.previous
        self._tip = found.tip

    def record(self, flow: bytes, fields: Mapping[str, object]) -> Recorded:
        """Append one exchange: its serialised flow, and what its ledger line says beside.

        `fields` is JSON and has the `exchange` id; what is too much for a line is cut, and the line
        says so. Raises `RecordingError`, after which nothing of it is recorded and the next call
        may succeed, and `ValueError` for what is no flow or no ledger line.
        """
        if not is_frame(flow):
            raise ValueError("not one serialised flow")
        if not isinstance(fields.get("exchange"), str):
            raise ValueError("a ledger entry names its exchange")
        self.maintain()
        if self._pair and self._pair.size and self._pair.size + len(flow) > self._rotate_size:
            self.close()
        if not self._pair:
            self._entry(fields)  # wrong fields are found before a file is made
        pair = self._open()
        lines, tip = self._entry(fields, flow)
        recorded = Recorded(pair.flows, tip.seq, self._tip.end, len(flow))
        due = self._signer is not None and self._unsigned + 1 >= self._checkpoint_every
        if due:
            checkpoint, tip = link(tip, "checkpoint", {}, signer=self._signer)
            lines += checkpoint
        self._append(pair, flow, lines)
        self._tip = tip
        self._unsigned = 0 if due else self._unsigned + 1
        return recorded

    def note(self, removals: Iterable[Removal]) -> None:
        """Put `removals` on disk, before the files go. Raises `RecordingError`."""
        pair = self._open()
        tip, lines = self._tip, b""
        for removal in removals:
            line, tip = link(tip, "removed", removal.fields, signer=self._signer)
            lines += line
        self._append(pair, b"", lines)
        self._tip = tip
        self._unsigned = 0 if self._signer else self._unsigned
        pair.sync()

    def sync(self) -> None:
        """Make what was recorded durable, unless `fsync` is `never`. Raises `RecordingError`."""
        if self._pair and self._fsync != "never":
            self._pair.sync()
            self._synced = self._clock()

    def maintain(self) -> None:
        """Sync and rotate what is due, also when there is no traffic. Raises `RecordingError`."""
        now = self._clock()
        if self._fsync == "interval" and now - self._synced >= INTERVAL:
            self.sync()
        if self._pair and now - self._begun >= self._rotate_age:
            self.close()

    def close(self) -> None:
        """End the open pair, signed if there is a key; a later `record` begins another.

        Raises `RecordingError`. If the end could not be written the pair is open as it was.
        """
        if not self._pair:
            return
        pair = self._pair
        line, tip = link(self._tip, "end", {"time": self._clock()}, signer=self._signer)
        self._append(pair, b"", line)
        self._pair, self._tip = None, tip
        try:
            if self._fsync != "never":
                pair.sync()
        finally:
            pair.close()

    def abandon(self) -> None:
        """Let go of a pair that could not be ended: who comes next recovers it."""
        if self._pair:
            pair, self._pair = self._pair, None
            pair.close()

    def _entry(self, fields: Mapping[str, object], flow: bytes = b"") -> tuple[bytes, Tip]:
        try:
            return link(self._tip, "entry", fields, flow=flow)
        except LineTooLong:
            return link(self._tip, "entry", abridged(fields, ROOM), flow=flow)

    def _open(self) -> Pair:
        pair = self._pair or self._begin()
        if not self._pointed:
            self._point(pair)
        return pair

    def _begin(self) -> Pair:
        now = self._clock()
        stem = f"{_stamp(now, self._previous)}-{self._worker}"
        fields = {
            "format": FORMAT,
            "file": f"{stem}.mitm",
            "previous": self._previous,
            "worker": self._worker,
            "time": now,
        }
        head, tip = link(replace(self._tip, end=0), "head", fields)
        pair = Pair(self._directory, stem, head, durable=self._fsync == "always")
        self._pair, self._tip, self._previous = pair, tip, pair.flows.name
        self._begun = self._synced = now
        self._unsigned = 0
        self._pointed = False
        return pair

    def _point(self, pair: Pair) -> None:
        place = pointer(self._directory, self._worker)
        try:
            replace_text(place, pair.flows.name + "\n")
        except OSError as e:
            raise RecordingError.of(place, e) from e
        self._pointed = True

    def _append(self, pair: Pair, flow: bytes, lines: bytes) -> None:
        try:
            pair.append(flow, lines)
        except RecordingError:
            if pair.lost:
                pair.close()
                self._pair = None
            raise


def _stamp(now: float, previous: str | None) -> str:
    """UTC to the millisecond, always later than that of the `previous` file: names sort by age."""
    moment = datetime.fromtimestamp(now, UTC)
    if previous and (said := re.match(r"(\d{8}T\d{6}\.\d{3})Z-", previous)):
        last = datetime.strptime(said[1] + "Z", "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
        moment = max(moment, last + timedelta(milliseconds=1))
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z"
