"""What stands in the journal of workers that died: each becomes a record, and none is lost.

A request without an answer is recorded as interrupted, an exchange that was over as it ended. What
was torn while it was written is put aside, since nothing can be made of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mitmgate.core.ledger.errors import RecordingError
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.journal import Ended, Leftover
from mitmgate.core.ledger.recovery import recorded
from mitmgate.core.ledger.torn import TORN

# Makes a journaled flow one that was interrupted, with its ledger fields. Raises `ValueError`.
type Close = Callable[[bytes], tuple[bytes, Mapping[str, object]]]
# Runs a function in the writer's thread, and raises what it raises.
type Write = Callable[[Callable[[], object]], object]
type Record = Callable[[bytes, Mapping[str, object]], object]

NAMED = 10  # of many; the others are counted
BATCH = 200  # recorded between two syncs


def leftovers(
    left: Sequence[Leftover],
    directory: Path,
    close: Close,
    record: Record,
    sync: Callable[[], object],
    write: Write,
    go_on: Callable[[], None],
) -> Iterator[str]:
    """Record `left` in `directory`, one at a time. Yields sentences for the operator.

    They are forgotten after a `sync`. `go_on` is called before each. Raises `RecordingError`, and
    what `go_on` raises.
    """
    oldest = min((each.time for each in left), default=0.0)
    done = recorded(directory, (each.exchange for each in left), oldest, go_on)
    count = 0
    waiting: list[Leftover] = []
    for each in left:
        go_on()
        if each.exchange not in done:
            said = _settle(each, directory, close, record, write)
            count += said is not None
            if said and count <= NAMED:
                yield said
        waiting.append(each)
        if len(waiting) == BATCH or each is left[-1]:
            write(sync)
            for recorded_now in waiting:
                recorded_now.discard()
            waiting.clear()
    if count > NAMED:
        yield f"and {count - NAMED} more exchanges that were not recorded when a gate ended"


def _settle(
    left: Leftover, directory: Path, close: Close, record: Record, write: Write
) -> str | None:
    """What is to be said of one, if anything."""
    name, said = left.exchange, []
    try:
        if ended := left.ended():
            write(lambda: record(ended.flow, ended.fields))
            return f"exchange {name} had not been recorded when it ended; it is now"
        if left.over.exists():
            raise ValueError("it is cut short")
    except ValueError as e:
        said.append(f"the end of exchange {name} is torn ({e}); {_aside(left.over, directory)}")
    data = left.read()
    if data is None:
        return "; ".join(said) or None
    try:
        if sealed := Ended.decode(data):  # closed beforehand: nobody here can read it
            flow, fields = sealed.flow, sealed.fields
        elif is_frame(data):
            flow, fields = close(data)
        else:
            raise ValueError("it is cut short")
        write(lambda: record(flow, fields))
        said.append(f"exchange {name} was interrupted; it is recorded as such")
    except ValueError as e:
        said.append(f"the journal of exchange {name} is torn ({e}); {_aside(left.path, directory)}")
    return "; ".join(said)


def _aside(path: Path, directory: Path) -> str:
    place = directory / (path.name + TORN)
    try:
        size = path.stat().st_size
        if not size:
            return "nothing of it was written"
        shutil.move(path, place)
    except OSError as e:
        raise RecordingError.of(place, e) from e
    return f"its {size} bytes are in {place}"
