import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from mitmgate.core.ledger import (
    Journal,
    Recording,
    RecordingError,
    abandoned,
    claim,
    recorded,
    recover,
    verify,
)
from mitmgate.core.ledger import slot as slot_module
from mitmgate.core.ledger.framing import is_frame
from mitmgate.core.ledger.journal import Ended

FLOW = b"4:flow,"


def die(slot):
    """What the kernel does for a killed worker: drop its lock."""
    slot.release()


def left(journal):
    return [(each.exchange, each.read()) for found in journal.leftovers() for each in found]


def test_write_and_settle(tmp_path):
    slot = claim(tmp_path)
    journal = Journal(slot)
    journal.write("x-1", FLOW)
    assert (tmp_path / "w1" / "x-1.flow").read_bytes() == FLOW
    assert (tmp_path / "w1" / "x-1.flow").stat().st_mode & 0o077 == 0
    assert left(journal) == []
    journal.settle("x-1")
    journal.settle("x-1")
    assert list(tmp_path.glob("w1/*.flow")) == []


def test_what_an_earlier_holder_of_the_slot_left(tmp_path):
    slot = claim(tmp_path)
    Journal(slot).write("x-1", FLOW)
    (tmp_path / "w1" / "x-2.flow").write_bytes(FLOW[:-1])
    (tmp_path / "w1" / "x-3.flow").write_bytes(b"")
    die(slot)
    journal = Journal(claim(tmp_path))
    journal.write("x-9", FLOW)  # not a leftover: it is ours
    (found,) = journal.leftovers()
    assert [(each.exchange, each.read()) for each in found] == [
        ("x-1", FLOW),
        ("x-2", FLOW[:-1]),
        ("x-3", b""),
    ]
    assert found[0].time == found[0].path.stat().st_mtime
    for leftover in found[:2]:
        leftover.discard()
    found[0].discard()
    assert left(journal) == [("x-1", None), ("x-2", None), ("x-3", b"")]


def test_a_whole_exchange_beside_its_request(tmp_path):
    slot = claim(tmp_path)
    journal = Journal(slot)
    journal.write("x-1", FLOW)
    ended = Ended(b"5:ended,", {"exchange": "x-1", "words": "a:b,c"})
    journal.keep("x-1", ended.encode())
    journal.keep("x-2", ended.encode()[:-1])
    with pytest.raises(RecordingError):
        journal.keep("x-1", ended.encode())
    die(slot)
    (found,) = Journal(claim(tmp_path)).leftovers()
    assert [each.exchange for each in found] == ["x-1", "x-2"]
    assert [each.ended() for each in found] == [ended, None]
    for each in found:
        each.discard()
    assert [path.name for path in (tmp_path / "w1").iterdir()] == [".lock"]


@pytest.mark.parametrize("cut", range(60))
def test_a_part_of_an_exchange_is_none(cut):
    data = Ended(b"5:ended,", {"exchange": "x-1"}).encode()
    assert (Ended.decode(data[:cut]) is None) is (cut < len(data))


def test_workers_share_a_directory(tmp_path):
    slots = [claim(tmp_path) for _ in range(3)]
    assert [slot.name for slot in slots] == ["w1", "w2", "w3"]
    for n, slot in enumerate(slots):
        Journal(slot).write(f"x-{n}", FLOW)
    journal = Journal(slots[0])
    assert left(Journal(slots[1])) == [("x-1", FLOW)]  # its own, from before it was made
    assert [slot.name for slot in abandoned(tmp_path)] == []
    die(slots[2])
    assert [slot.name for slot in abandoned(tmp_path)] == ["w3"]
    found = journal.leftovers()
    assert [each.exchange for each in next(found)] == ["x-0"]
    assert [each.exchange for each in next(found)] == ["x-2"]
    assert claim(tmp_path).name == "w4"  # w3 is held while what it left is recorded
    found.close()
    assert claim(tmp_path).name == "w3"


def test_too_many_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(slot_module, "MOST", 2)
    slots = [claim(tmp_path), claim(tmp_path)]
    with pytest.raises(RecordingError, match="2 workers"):
        claim(tmp_path)
    assert len(slots) == 2


def test_an_unusable_base(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match=re.escape(str(tmp_path / "file"))):
        claim(tmp_path / "file")


@pytest.mark.parametrize("exchange", ["", "../x", "a/b", ".hidden", "-x", "x" * 101, "x\0"])
def test_names_that_are_no_exchange(tmp_path, exchange):
    with pytest.raises(ValueError, match="no exchange id"):
        Journal(claim(tmp_path)).write(exchange, FLOW)


def test_an_exchange_is_journaled_once(tmp_path):
    journal = Journal(claim(tmp_path))
    journal.write("x-1", FLOW)
    with pytest.raises(RecordingError, match="x-1"):
        journal.write("x-1", b"5:other,")
    assert (tmp_path / "w1" / "x-1.flow").read_bytes() == FLOW


@pytest.mark.parametrize("fails", ["write", "fsync", "open"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch, fails, call):
    journal = Journal(claim(tmp_path))
    real, count = getattr(os, fails), 0

    def failing(*args, **kwargs):
        nonlocal count
        count += 1
        if count == call:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, fails, failing)
        if (fails, call) == ("write", 2):
            journal.write("x-1", FLOW)  # one write() and no more
            journal.settle("x-1")
        else:
            with pytest.raises(RecordingError, match=r"x-1\.flow: No space left"):
                journal.write("x-1", FLOW)
    assert list(tmp_path.glob("w1/*.flow")) == []
    journal.write("x-1", FLOW)


def test_a_short_write_is_a_failure(tmp_path, monkeypatch):
    journal = Journal(claim(tmp_path))
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(RecordingError, match="No space left"):
        journal.write("x-1", FLOW)
    assert list(tmp_path.glob("w1/*.flow")) == []


def test_without_fsync(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", None)
    Journal(claim(tmp_path), fsync=False).write("x-1", FLOW)


def test_a_directory_that_goes_away(tmp_path):
    journal = Journal(claim(tmp_path / "j"))
    (tmp_path / "j" / "w1" / ".lock").unlink()
    (tmp_path / "j" / "w1").rmdir()
    with pytest.raises(RecordingError, match="x-1"):
        journal.write("x-1", FLOW)


WORKER = textwrap.dedent("""
    import itertools, sys
    from pathlib import Path
    from mitmgate.core.ledger import Journal, Recording, claim
    base = Path(sys.argv[1])
    slot = claim(base / "journal")
    journal = Journal(slot, fsync=False)
    recording = Recording(base / "recordings", slot.name, rotate_size=40_000, fsync="never")
    for n in itertools.count():
        exchange = f"{sys.argv[2]}-{n}"
        flow = b"%d:%s," % (2000 + len(exchange), exchange.encode() + b"." * 2000)
        journal.write(exchange, flow)
        print("sent", exchange, flush=True)
        recording.record(flow, {"exchange": exchange})
        journal.settle(exchange)
        print("settled", exchange, flush=True)
""")


def start(base, name):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(base), name], stdout=subprocess.PIPE, text=True
    )


def test_killed_workers_lose_nothing_and_double_nothing(tmp_path):
    """kill -9 at any point, several times over, two workers at once; then a start as the gate's."""
    said = {"sent": [], "settled": []}
    for round in range(3):
        workers = [start(tmp_path, f"r{round}{who}") for who in "ab"]
        for worker, lines in zip(workers, (60 + 7 * round, 150 + round), strict=True):
            for _ in range(lines):
                word, exchange = worker.stdout.readline().split()
                said[word].append(exchange)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            for line in worker.communicate()[0].splitlines(keepends=True):
                if line.endswith("\n"):
                    word, exchange = line.split()
                    said[word].append(exchange)
    slot = claim(tmp_path / "journal")
    journal = Journal(slot)
    recordings = tmp_path / "recordings"
    recording = Recording(recordings, slot.name)
    for dead in abandoned(tmp_path / "journal"):
        recover(recordings, dead.name)
    for leftover in (each for found in journal.leftovers() for each in found):
        done = recorded(recordings, [leftover.exchange], leftover.time)
        if is_frame(leftover.read()) and not done:
            fields = {"exchange": leftover.exchange, "ending": "interrupted"}
            recording.record(leftover.read(), fields)
        leftover.discard()
    recording.close()
    report = verify(recordings)
    assert report.ok, report.findings
    found = exchanges(recordings)
    assert len(found) == len(set(found)) == report.entries
    assert set(said["settled"]) <= set(said["sent"]) <= set(found)
    assert list((tmp_path / "journal").glob("*/*.flow")) == []


def exchanges(directory):
    """What is in the recordings themselves, not in what their ledgers say."""
    content = b"".join(path.read_bytes() for path in sorted(directory.glob("*.mitm")))
    return re.findall(r"\d+:(r\d[ab]-\d+)\.{2000},", content.decode())
