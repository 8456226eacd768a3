"""What a killed worker left in its last recording: closed properly, nothing thrown away.

Bytes after the last ledger line (a torn write, or a flow whose line was never written) move to a
`.torn` file beside; their exchange is still in the journal. A recording that has less than its
ledger says, or a ledger that was changed, is left exactly as it is for `verify` to report.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mitmgate.core.ledger.chain import BEGIN, MAX_LINE, BadLine, Line, Tip, link, read_line
from mitmgate.core.ledger.entry import Entry
from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.files import write_all
from mitmgate.core.ledger.framing import whole_frames
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.search import flow_bytes
from mitmgate.core.ledger.signature import Signer
from mitmgate.core.ledger.slot import try_lock
from mitmgate.core.ledger.torn import cut


@dataclass(frozen=True, slots=True)
class Recovery:
    """Where a worker's chain goes on: after `previous` (a `.mitm` name; None: it begins) at `tip`.

    `notes` are sentences for the operator about what was found and done.
    """

    previous: str | None = None
    tip: Tip = BEGIN
    notes: tuple[str, ...] = ()


def pointer(directory: Path, worker: str) -> Path:
    """The file that names a worker's newest recording, so that its removal is noticed."""
    return directory / f"{worker}.last"


def recover(directory: Path, worker: str, signer: Signer | None = None) -> Recovery:
    """Bring a dead worker's last recording in order; its slot has to be held.

    Raises `RecordingError` when the files cannot be read or written.
    """
    try:
        _drop_unborn(directory, worker)
        newest = max(directory.glob(f"*-{worker}{LEDGER}"), default=None)
        named = _named(directory, worker)
        if named and (newest is None or newest.with_suffix(FLOWS).name < named):
            note = f"{directory / named} is missing; the ledger begins anew"
            return Recovery(named, notes=(note,))
        return _close(newest, signer) if newest else Recovery()
    except OSError as e:
        raise RecordingError.of(Path(e.filename or directory), e) from e


def recorded(
    directory: Path,
    exchanges: Iterable[str],
    since: float,
    go_on: Callable[[], None] = lambda: None,
) -> set[str]:
    """Those of `exchanges` that some ledger in `directory`, written to after `since`, has, and
    whose flow is in the recording as it was written.

    For journal leftovers: a worker may have died between recording an exchange and settling it.
    `since` is Unix seconds, at most the oldest leftover's. Raises `RecordingError`, and what
    `go_on` raises, which is called again and again.
    """
    wanted, found = set(exchanges), set[str]()
    for path in sorted(directory.glob(f"*{LEDGER}"), reverse=True):
        try:
            if wanted == found or path.stat().st_mtime < since - 1:
                continue
            with path.open("rb") as lines:
                for raw in lines:
                    go_on()
                    if not raw.endswith(b"\n"):
                        break  # recovery puts it aside, or a gate is writing it
                    try:
                        line = json.loads(raw)
                        if line.get("exchange") in wanted:
                            flow_bytes(Entry(path, 0, line))  # after a power cut it may be gone
                            found.add(line["exchange"])
                    except (ValueError, LookupError, AttributeError, TypeError):
                        continue  # no proof that anything is recorded
        except OSError as e:
            raise RecordingError.of(path, e) from e
    return found


def _drop_unborn(directory: Path, worker: str) -> None:
    """Remove a pair that died before its ledger had a name: it holds no exchange yet."""
    for part in directory.glob(f"*-{worker}{LEDGER}.part"):
        part.unlink()
    for flows in directory.glob(f"*-{worker}{FLOWS}"):
        if flows.stat().st_size == 0 and not flows.with_suffix(LEDGER).exists():
            flows.unlink()


def _named(directory: Path, worker: str) -> str | None:
    try:
        return pointer(directory, worker).read_text("utf-8", "replace").strip() or None
    except FileNotFoundError:
        return None


def _close(ledger: Path, signer: Signer | None) -> Recovery:
    flows = ledger.with_suffix(FLOWS)
    begin = Recovery(flows.name)
    lock = os.open(ledger, os.O_WRONLY | os.O_APPEND)
    try:
        if not try_lock(lock):
            raise RecordingError(ledger, "is being written by another gate")
        try:
            line, end = last_line(ledger)
        except BadLine as e:
            return replace(begin, notes=(f"{ledger}: its last line {e}; left for verify",))
        if line.kind == "end":
            return replace(begin, tip=line.tip)
        if not flows.exists() or flows.stat().st_size < line.tip.end:
            note = f"{flows} has less than its ledger says; left for verify"
            return replace(begin, tip=line.tip, notes=(note,))
        notes = [f"{ledger} was not closed; it is now"]
        with flows.open("rb") as file:
            whole, _ = whole_frames(file, line.tip.end, flows.stat().st_size)
        (loose, flows_torn), (half, ledger_torn) = cut(flows, line.tip.end), cut(ledger, end)
        if loose or half:
            notes.append(
                f"{flows}: {loose} bytes ({whole} whole flows) after the last ledger line,"
                f" and {half} bytes of ledger, moved to .torn files"
            )
        fields = {
            "time": time.time(),
            "recovered": {"flows": loose, "ledger": half},
            "torn": {"flows": flows_torn, "ledger": ledger_torn},
        }
        raw, tip = link(line.tip, "end", fields, signer=signer)
        try:
            write_all(lock, raw)
            os.fsync(lock)
        except OSError:
            os.ftruncate(lock, end)  # the next attempt finds what this one found
            raise
        return replace(begin, tip=tip, notes=tuple(notes))
    finally:
        os.close(lock)


def last_line(ledger: Path) -> tuple[Line, int]:
    """The last whole line and where it ends. Raises `BadLine` and `OSError`."""
    with ledger.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - 2 * MAX_LINE)
        file.seek(start)
        tail = file.read()
    end = tail.rfind(b"\n") + 1
    begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
    return read_line(tail[begin:end]), start + end
