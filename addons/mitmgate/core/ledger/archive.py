"""A worker's whole place on disk: its slot, its journal, its recordings, and what it inherits.

The one object that a recorder needs: `admit` before the request goes out, `settle` when the
exchange is over. `recover` and `retain` may take long and belong in a thread of their own; all
else is called from the writer's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event

from mitmgate.core.ledger.backlog import Backlog
from mitmgate.core.ledger.errors import RecordingError, Stopped
from mitmgate.core.ledger.file import RecorderFile
from mitmgate.core.ledger.journal import Ended, Journal
from mitmgate.core.ledger.leftovers import Close, Write, leftovers
from mitmgate.core.ledger.recording import Recording
from mitmgate.core.ledger.recovery import recover
from mitmgate.core.ledger.removal import Removal
from mitmgate.core.ledger.retention import Retention, Step
from mitmgate.core.ledger.slot import abandoned, claim


def _nobody(flow: bytes) -> tuple[bytes, Mapping[str, object]]:
    raise ValueError("what is encrypted is admitted together with what makes it an interrupted one")


class Archive:
    """Opens a place below `state`. Raises `RecordingError`, and `ValueError` for a bad key."""

    def __init__(self, state: Path, rules: RecorderFile) -> None:
        self.state = state
        self._stopped = Event()
        self._journals = state / "journal"
        self._slot = claim(self._journals)
        self._recording: Recording | None = None
        self._unsynced: list[str] = []  # recorded, and journaled until that is durable
        try:
            self._journal = Journal(self._slot)
            self._backlog = Backlog(self._journal)
            self.reopen(rules)
        except BaseException:
            self._slot.release()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the operator about what opening it found and did."""
        return self._recording.notes if self._recording else ()

    def reopen(self, rules: RecorderFile) -> tuple[str, ...]:
        """Go on as `rules` say. Returns sentences for the operator.

        After an error nothing is recorded until it has succeeded; `maintain` tries it again.
        Raises as the constructor does.
        """
        self._rules = rules
        before = self._recording
        if before:
            try:
                self._sync()  # nobody looks for it in another directory
                before.close()
            except RecordingError:
                before.abandon()
        self._recording = None
        self._directory = self.state / rules.directory
        self._sealing = rules.encrypt.sealing(self._directory) if rules.encrypt else None
        self._signer = rules.sign.signer() if rules.sign else None
        self._journal.fsync = rules.fsync != "never"
        self._retention = Retention(
            self._directory,
            self._journals,
            self._slot.name,
            age=rules.retain.age,
            size=rules.retain.size,
            verifier=self._signer.verifier if self._signer else None,
        )
        self._recording = Recording(
            self._directory,
            self._slot.name,
            rotate_size=rules.rotate.size,
            rotate_age=rules.rotate.age,
            fsync=rules.fsync,
            signer=self._signer,
        )
        return self._recording.notes

    def recover(self, close: Close, write: Write, alive: Container[str] = ()) -> Iterator[str]:
        """Record what dead workers left, as `close` makes it: the flow and its ledger fields.

        `write` runs a function in the writer's thread; `alive` are exchanges of this process that
        are still under way. Yields sentences for the operator. Raises `RecordingError`, and
        `Stopped` behind `stop`; what is left is then done the next time.
        """
        for slot in abandoned(self._journals):
            self._go_on()
            yield from recover(self._directory, slot.name, self._signer).notes
        for left in self._journal.leftovers():
            yield from leftovers(
                [each for each in left if each.exchange not in alive],
                self._directory,
                close,
                self._record,
                lambda: self._open.sync(),
                write,
                self._go_on,
            )

    def retain(self, write: Write) -> Step:
        """Remove the oldest recording that is due under retention, if there is one.

        Raises `RecordingError` and `OSError`, and `Stopped` behind `stop`.
        """

        retention = self._retention

        def note(removals: Sequence[Removal]) -> None:
            def put() -> None:
                if retention is not self._retention:
                    raise Stopped  # reopened meanwhile, perhaps in another directory
                self._open.note(removals)

            write(put)

        return retention.step(note, lambda _: self._go_on())

    def admit(self, exchange: str, flow: bytes, close: Close = _nobody) -> None:
        """Put a request on disk that is about to be sent. Raises `RecordingError`.

        What is encrypted cannot be read by who finds it, so `close` makes of it now what is to be
        recorded should the exchange be interrupted.
        """
        _ = self._open  # what could not be recorded afterwards does not leave
        if exchange in self._unsynced:  # sent again at once, as by mitmproxy's replay
            self._sync()
        if self._sealing:
            flow = Ended(*self._sealing.record(*close(flow))).encode()
        self._journal.write(exchange, flow)

    def settle(self, exchange: str, flow: bytes, fields: Mapping[str, object]) -> None:
        """Record an exchange that is over. Raises `RecordingError`; then `keep` it."""
        self._record(flow, fields)
        if self._rules.fsync == "interval":
            self._unsynced.append(exchange)
        else:
            self._journal.settle(exchange)

    def keep(self, exchange: str, flow: bytes, fields: Mapping[str, object]) -> None:
        """Hold what `settle` could not record until `maintain` can. Raises `RecordingError`."""
        if self._sealing:
            flow, fields = self._sealing.record(flow, fields)
        self._backlog.keep(exchange, flow, fields)

    def maintain(self) -> tuple[str, ...]:
        """Sync, rotate and record what is due. Returns sentences for the operator.

        Raises `RecordingError`, and `ValueError` for a bad key.
        """
        notes: tuple[str, ...] = ()
        if self._recording is None:
            notes = (*self.reopen(self._rules), f"recording again, in {self._directory}")
        self._open.maintain()
        self._sync()
        if done := self._backlog.retry(self.settle):
            notes += (f"{done} exchanges that could not be recorded at once are recorded now",)
        return notes

    def stop(self) -> None:
        """End `recover` and `retain`, which raise `Stopped`. From any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Close the recording and give the place up. Raises `RecordingError`."""
        try:
            if self._recording:
                try:
                    while self._backlog.retry(self.settle):
                        pass
                    self._sync()
                finally:
                    self._recording.close()
        finally:
            if self._recording:
                self._recording.abandon()
            self._recording = None
            self._slot.release()

    @property
    def _open(self) -> Recording:
        if self._recording is None:
            raise RecordingError(self._directory, "the recorder could not begin to write")
        return self._recording

    def _record(self, flow: bytes, fields: Mapping[str, object]) -> None:
        recording = self._open
        if self._sealing:
            flow, fields = self._sealing.record(flow, fields)
        recording.record(flow, fields)

    def _sync(self) -> None:
        """Forget requests, after their records are durable: a power cut leaves one or the other."""
        if self._unsynced:
            self._open.sync()
            for exchange in self._unsynced:
                self._journal.settle(exchange)
            self._unsynced.clear()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped
