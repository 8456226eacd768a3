"""A gate that dies as in a power cut, at a point in an exchange's life that a test names.

`holds_script` and `recorder_script` go behind the gate; `arm` says where. It dies once: started
again, it lives.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from harness import Gate
from processes import ProcessError

_DEATH = """
import os
import signal
from pathlib import Path

POINT = Path("die-at")


def named(point):
    try:
        return POINT.read_text() == point
    except FileNotFoundError:
        return False


def die(point):
    if named(point):
        POINT.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def watch(place, name, called=""):
    step, called = getattr(place, name), called or name

    def watched(*arguments, **named):
        die(f"before {called}")
        result = step(*arguments, **named)
        die(f"after {called}")
        return result

    setattr(place, name, watched)


def server_connected(data):
    die("connected")


def responseheaders(flow):
    die("answering")
"""
_HOLDS = """
from mitmgate.core.holds import HoldStore, store
from mitmgate.core.ledger import Archive

for name in ("open", "attend_all", "leave", "consume"):
    watch(HoldStore, name)
watch(store, "save")  # inside the transaction that uses an approval
for name in ("admit", "settle"):
    watch(Archive, name)
"""
_RECORDER = """
from mitmgate.core.ledger import Archive, Journal, journal, leftovers, pair, recording, recovery
from mitmgate.core.ledger import Leftover, retention, torn
from mitmgate.core.ledger.store import Stored


def watch_writes(place, name_of):
    step = place.write_all

    def write_all(file, data):
        name = name_of(data)
        die(f"before {name}")
        if named(f"within {name}"):
            os.write(file, data[: len(data) // 2])
        die(f"within {name}")
        step(file, data)
        die(f"after {name}")

    place.write_all = write_all


def kind(data):
    for each in ("head", "entry", "removed", "end"):
        if data.startswith(b"{") and b'"kind":"%s"' % each.encode() in data:
            return each
    return "flow"


for name in ("admit", "settle"):
    watch(Archive, name)
watch(Journal, "settle", "forget")
watch_writes(journal, lambda data: "request")
watch_writes(pair, kind)
watch(recording, "replace_text", "pointer")
watch_writes(recovery, lambda data: "closing")
watch(recovery, "cut")
watch(torn.shutil, "copyfileobj", "copy")
watch(leftovers, "_settle", "leftover")
watch(Leftover, "discard")
watch(Stored, "unlink", "removal")


def unlink(self):
    if named("within removal"):
        self.flows.unlink()
    die("within removal")
    removal(self)


removal, Stored.unlink = Stored.unlink, unlink
"""
# In the order in which a request comes to them.
NOT_HELD = ("before open",)
PENDING = ("after open", "before attend_all", "after attend_all")
APPROVED = ("before leave", "after leave", "before consume", "before save", "after save")
USED = ("after consume", "before admit", "after admit", "connected")
SENT = ("answering", "before settle", "after settle")
POINTS = (*NOT_HELD, *PENDING, *APPROVED, *USED, *SENT)


def holds_script(directory: Path) -> Path:
    """Goes behind the gate."""
    return _script(directory, _HOLDS)


def recorder_script(directory: Path, addons: str) -> Path:
    """Is the gate: `addons` is the source of a script with the gate's own, which stand behind the
    points, so that it can die while it starts."""
    return _script(directory, f"{_RECORDER}\n{addons}")


def _script(directory: Path, source: str) -> Path:
    path = directory / "dying.py"
    path.write_text(_DEATH + source, "utf-8")
    return path


def arm(gate: Gate, point: str) -> None:
    """Let `gate` die where the next request comes to `point`."""
    draft = gate.directory / "die-at.draft"
    draft.write_text(point)
    draft.replace(gate.directory / "die-at")


def disarm(gate: Gate) -> None:
    (gate.directory / "die-at").unlink(missing_ok=True)


async def death(gate: Gate) -> None:
    """Wait for it. Fails if the gate ends in any other way, or elsewhere."""
    assert await asyncio.to_thread(gate.process.wait_exit) == -signal.SIGKILL
    assert not (gate.directory / "die-at").exists()


async def death_at_start(gate: Gate, point: str) -> None:
    """Start it and wait for its death at `point`, before it is up or soon after."""
    arm(gate, point)
    with suppress(ProcessError):
        await asyncio.to_thread(gate.start)
    await death(gate)
