"""Exchanges that are over and could not be recorded: kept until they can be, without a restart.

On disk beside the journaled request where that is possible, else in memory up to a bound, since a
full disk takes neither. What is beyond the bound stays journaled, and is recorded as interrupted at
the next start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.journal import Ended, Journal

MOST = 64 << 20  # bytes in memory
SLICE = 0.2  # seconds that one `retry` may take from the traffic


class Backlog:
    """What waits, oldest first. All calls come from the writer's thread."""

    def __init__(self, journal: Journal, most: int = MOST) -> None:
        self._journal = journal
        self._most = most
        self._held = 0
        self._waiting: dict[str, bytes | None] = {}  # None: on disk

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, exchange: str, flow: bytes, fields: Mapping[str, object]) -> None:
        """Take an exchange that could not be recorded. Raises `RecordingError` for lack of room."""
        ended = Ended(flow, fields).encode()
        try:
            self._journal.keep(exchange, ended)
        except RecordingError:
            if self._held + len(ended) > self._most:
                raise
            self._held += len(ended)
            self._waiting[exchange] = ended
        else:
            self._waiting[exchange] = None

    def retry(self, settle: Callable[[str, bytes, Mapping[str, object]], object]) -> int:
        """`settle` what waits, for a moment; how many that were. Raises `RecordingError`."""
        begun, done = time.monotonic(), 0
        for exchange, held in list(self._waiting.items()):
            if time.monotonic() - begun > SLICE:
                break
            data = self._journal.kept(exchange) if held is None else held
            if data and (ended := Ended.decode(data)):
                settle(exchange, ended.flow, ended.fields)
                done += 1
            self._held -= len(held or b"")
            del self._waiting[exchange]
        return done
