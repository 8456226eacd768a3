"""A worker's whole place on disk: its slot, its journal, its recordings, and what it inherits.

The one object that a recorder needs: `admit` before the request goes out, `settle` when the
exchange is over. All calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

from mitmgate.core.ledger.file import RecorderFile
from mitmgate.core.ledger.journal import Journal, Leftover
from mitmgate.core.ledger.recording import Recording
from mitmgate.core.ledger.recovery import recorded, recover
from mitmgate.core.ledger.slot import abandoned, claim

type Close = Callable[[bytes], tuple[bytes, Mapping[str, object]]]


class Archive:
    """Opens a place below `state`. Raises `RecordingError`, and `ValueError` for a bad key."""

    def __init__(self, state: Path, rules: RecorderFile) -> None:
        signer = rules.sign.signer() if rules.sign else None
        self._signer = signer
        self._directory = state / rules.directory
        self._journals = state / "journal"
        self._slot = claim(self._journals)
        self._journal = Journal(self._slot, fsync=rules.fsync == "always")
        self._recording = Recording(
            self._directory,
            self._slot.name,
            rotate_size=rules.rotate.size,
            rotate_age=rules.rotate.age,
            fsync=rules.fsync,
            signer=signer,
        )

    def recover(self, close: Close, alive: Container[str] = ()) -> Iterator[str]:
        """Record what dead workers left, as `close` makes it: the flow and its ledger fields.

        `alive` are exchanges of this process that are still under way.

        Yields sentences for the operator. Raises `RecordingError`.
        """
        yield from self._recording.notes
        for slot in abandoned(self._journals):
            yield from recover(self._directory, slot.name, self._signer).notes
        left = [each for each in self._journal.leftovers() if each.exchange not in alive]
        done = recorded(self._directory, (each.exchange for each in left), _oldest(left))
        for leftover in left:
            if leftover.whole and leftover.exchange not in done:
                self._recording.record(*close(leftover.data))
                yield f"exchange {leftover.exchange} was interrupted; it is recorded as such"
            self._journal.discard(leftover)

    def admit(self, exchange: str, flow: bytes) -> None:
        """Put a request on disk that is about to be sent. Raises `RecordingError`."""
        self._journal.write(exchange, flow)

    def settle(self, exchange: str, flow: bytes, fields: Mapping[str, object]) -> None:
        """Record an exchange that is over. Raises `RecordingError`; then it stays journaled."""
        self._recording.record(flow, fields)
        self._journal.settle(exchange)

    def maintain(self) -> None:
        """Sync and rotate what is due. Raises `RecordingError`."""
        self._recording.maintain()

    def close(self) -> None:
        """Close the recording and give the place up. Raises `RecordingError`."""
        try:
            self._recording.close()
        finally:
            self._slot.release()


def _oldest(leftovers: list[Leftover]) -> float:
    return min((leftover.time for leftover in leftovers), default=0.0)
