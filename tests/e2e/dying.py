"""A gate that dies as in a power cut, at a point in the life of a held request that a test names.

`SCRIPT` goes behind the gate; `Dying` says where. It dies once: started again, it lives.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from harness import Gate

SCRIPT = """
import os
import signal
from pathlib import Path

from mitmgate.core.holds import HoldStore, store
from mitmgate.core.ledger import Archive

POINT = Path("die-at")


def die(point):
    try:
        named = POINT.read_text()
    except FileNotFoundError:
        return
    if named == point:
        POINT.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def watch(place, name):
    step = getattr(place, name)

    def watched(*arguments, **named):
        die(f"before {name}")
        result = step(*arguments, **named)
        die(f"after {name}")
        return result

    setattr(place, name, watched)


for name in ("open", "attend_all", "leave", "consume"):
    watch(HoldStore, name)
watch(store, "save")  # inside the transaction that uses an approval
for name in ("admit", "settle"):
    watch(Archive, name)


def server_connected(data):
    die("connected")


def responseheaders(flow):
    die("answering")
"""
# In the order in which a request comes to them.
NOT_HELD = ("before open",)
PENDING = ("after open", "before attend_all", "after attend_all")
APPROVED = ("before leave", "after leave", "before consume", "before save", "after save")
USED = ("after consume", "before admit", "after admit", "connected")
SENT = ("answering", "before settle", "after settle")
POINTS = (*NOT_HELD, *PENDING, *APPROVED, *USED, *SENT)


def script(directory: Path) -> Path:
    path = directory / "dying.py"
    path.write_text(SCRIPT, "utf-8")
    return path


def arm(gate: Gate, point: str) -> None:
    """Let `gate` die where the next request comes to `point`."""
    draft = gate.directory / "die-at.draft"
    draft.write_text(point)
    draft.replace(gate.directory / "die-at")


async def death(gate: Gate) -> None:
    """Wait for it. Fails if the gate ends in any other way."""
    assert await asyncio.to_thread(gate.process.wait_exit) == -signal.SIGKILL
