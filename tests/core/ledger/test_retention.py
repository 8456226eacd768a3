"""What is old or too much goes, in a way that verify accepts; nothing else does, at any point."""

import fcntl
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mitmgate.core.ledger import (
    Recording,
    RecordingError,
    Removal,
    Retention,
    Signer,
    abandoned,
    claim,
    recover,
    verify,
)
from mitmgate.core.ledger import retention as retention_module
from mitmgate.core.ledger import store as store_module
from mitmgate.core.ledger.chain import Tip, link
from mitmgate.core.ledger.store import stored

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
DAY = 86400.0


def flow(n, size=1000):
    text = f"flow {n} ".encode().ljust(size, b".")
    return b"%d:%s," % (len(text), text)


class Gate:
    """A worker with its slot, its recording and its retention, on a clock of its own."""

    def __init__(self, state, clock, *, signer=None, age=None, size=None):
        self.directory = state / "recordings"
        self.slot = claim(state / "journal")
        self.clock = clock
        for dead in abandoned(state / "journal"):
            recover(self.directory, dead.name, signer)
        self.recording = Recording(self.directory, self.slot.name, signer=signer, clock=clock)
        self.retention = Retention(
            self.directory,
            state / "journal",
            self.slot.name,
            age=age,
            size=size,
            verifier=signer.verifier if signer else None,
            clock=clock,
        )

    def write(self, *days):
        """A closed file for each of `days`, one exchange in each."""
        for _ in days:
            self.recording.record(flow(1), {"exchange": "x"})
            self.clock.now += 1
            self.recording.close()
            self.clock.now += DAY - 1

    def step(self, note=None):
        return self.retention.step(note or self.recording.note, lambda read: None)

    def steps(self):
        done = 0
        while self.step().removed:
            done += 1
        return done

    def die(self):
        self.recording.abandon()
        self.slot.release()


@pytest.fixture(params=[False, True], ids=["unsigned", "signed"])
def signer(request):
    return Signer(KEY) if request.param else None


def check(state, signer=None):
    report = verify(state / "recordings", PUBLIC if signer else None)
    assert report.ok, report.findings
    return report


def names(gate):
    return [path.name for path in sorted(gate.directory.glob("*.mitm"))]


def test_without_bounds_everything_stays(tmp_path, clock):
    gate = Gate(tmp_path, clock)
    gate.write(*range(5))
    clock.now += 1000 * DAY
    assert gate.steps() == 0
    assert len(names(gate)) == 5


def test_what_is_old_goes_and_the_gap_is_told(tmp_path, clock, signer):
    gate = Gate(tmp_path, clock, signer=signer, age=3 * DAY)
    gate.write(*range(6))
    before = names(gate)
    step = gate.step()
    assert step.removed
    assert before[0].removesuffix(".mitm") in step.notes[0]
    assert gate.steps() == 2
    assert names(gate)[:3] == before[3:]
    report = check(tmp_path, signer)
    assert [each.file for each in report.removed] == before[:3]
    first = report.removed[0]
    assert (first.first, first.last, first.entries, first.reason) == (0, 2, 1, "age")
    assert first.time == clock.now
    assert report.unsigned == (0 if signer else 3)
    gate.recording.close()
    check(tmp_path, signer)


def test_the_end_counts_not_the_beginning(tmp_path, clock):
    gate = Gate(tmp_path, clock, age=3 * DAY)
    gate.recording.record(flow(1), {"exchange": "x"})
    clock.now += 4 * DAY
    assert gate.steps() == 0  # it is being written
    gate.recording.close()
    os.utime(next(gate.directory.glob("*.jsonl")), (0, 0))  # a date that says nothing
    clock.now += 2 * DAY
    assert gate.steps() == 0
    clock.now += 1 * DAY
    assert gate.steps() == 1
    check(tmp_path)


def test_the_oldest_go_while_there_is_too_much(tmp_path, clock, signer):
    gate = Gate(tmp_path, clock, signer=signer, size=6000)
    gate.write(*range(8))
    (gate.directory / (names(gate)[0] + ".torn")).write_bytes(b"")
    (gate.directory / (names(gate)[0] + ".torn")).unlink()
    before = names(gate)
    total = sum(each.size for each in stored(gate.directory))
    removed = gate.steps()
    assert 0 < removed < 8
    left = stored(gate.directory)
    assert sum(each.size for each in left) <= 6000 < total
    assert names(gate)[: 8 - removed] == before[removed:]
    assert {each.reason for each in check(tmp_path, signer).removed} == {"size"}


def test_nothing_is_left_but_what_is_written(tmp_path, clock):
    gate = Gate(tmp_path, clock, size=1)
    gate.write(1, 2)
    gate.recording.record(flow(3), {"exchange": "x"})
    open_file = names(gate)[-1]
    assert gate.steps() == 2
    assert names(gate) == [open_file]
    step = gate.step()
    assert not step.removed
    check(tmp_path)
    gate.recording.close()
    gate.recording.record(flow(3), {"exchange": "x"})
    assert gate.steps() == 1
    check(tmp_path)


def test_more_than_can_be_removed_is_told_once(tmp_path, clock):
    gate = Gate(tmp_path, clock, size=1)
    gate.recording.record(flow(3), {"exchange": "x"})
    assert "nothing of them can be removed" in gate.step().alerts[0]
    assert gate.step().alerts == ()


def test_an_idle_gate_removes_its_newest_file_too(tmp_path, clock, signer):
    gate = Gate(tmp_path, clock, signer=signer, age=DAY)
    gate.write(1)
    clock.now += 10 * DAY
    assert gate.steps() == 1
    gate.recording.close()
    report = check(tmp_path, signer)
    assert (report.entries, len(report.removed)) == (0, 1)
    gate.write(2)
    check(tmp_path, signer)
    clock.now += 10 * DAY
    while gate.steps():
        gate.recording.close()
        clock.now += 0.1
    check(tmp_path, signer)
    assert not any(path.stat().st_size for path in gate.directory.glob("*.mitm"))


def test_a_file_that_does_not_verify_stays_and_is_named_once(tmp_path, clock, signer):
    gate = Gate(tmp_path, clock, signer=signer, age=DAY)
    gate.write(*range(4))
    bad = gate.directory / names(gate)[1]
    bad.write_bytes(bad.read_bytes().replace(b"flow", b"FLOW"))
    assert gate.steps() == 2
    assert bad.exists()
    assert gate.retention._kept
    clock.now += 10 * DAY
    fresh = Gate.__new__(Gate)
    fresh.__dict__.update(gate.__dict__)
    fresh.retention._kept.clear()
    step = fresh.step()
    assert bad.name in step.alerts[0]
    assert "not what was recorded" in step.alerts[0]
    assert bad.exists()
    gate.steps()
    assert bad.exists()
    gate.recording.close()
    (finding,) = verify(gate.directory, PUBLIC if signer else None).findings
    assert finding.path == bad


def test_a_file_without_its_signature_stays(tmp_path, clock):
    Gate(tmp_path, clock).write(1)
    clock.now += 10 * DAY
    Path(tmp_path / "journal" / "w1" / ".lock").unlink()  # another life of the same worker
    gate = Gate(tmp_path, clock, signer=Signer(KEY), age=DAY)
    step = gate.step()
    assert not step.removed
    assert "its end is not signed" in step.alerts[0]
    assert gate.step().alerts == ()


@pytest.mark.parametrize("remove", ["before retention", "behind retention"])
def test_what_somebody_deletes_is_still_found(tmp_path, clock, signer, remove):
    gate = Gate(tmp_path, clock, signer=signer, age=3 * DAY)
    gate.write(*range(6))
    gone = names(gate)[1] if remove == "before retention" else names(gate)[4]
    for path in gate.directory.glob(gone.removesuffix("mitm") + "*"):
        path.unlink()
    before = names(gate)
    steps = gate.steps()
    gate.recording.close()
    report = verify(gate.directory, PUBLIC if signer else None)
    assert any(gone in str(finding) for finding in report.findings)
    if remove == "before retention":
        # what follows the missing file is the evidence of it
        assert steps == 1
        assert names(gate)[: len(before) - 1] == before[1:]


def test_a_made_up_note_is_no_excuse(tmp_path, clock):
    """Somebody without the key deletes a file and says in a chain of their own that it went."""
    gate = Gate(tmp_path, clock, signer=Signer(KEY))
    gate.write(1, 2, 3)
    victim = gate.directory / names(gate)[0]
    (head, *_, end) = verify_lines(victim.with_suffix(".jsonl"))
    for suffix in (".mitm", ".jsonl"):
        victim.with_suffix(suffix).unlink()
    said = Removal(victim.name, head.seq, end.seq, end.hash, 1, 9, "age", clock.now)
    stem = "20300101T000000.000Z-w9"
    fields = {"format": 1, "file": f"{stem}.mitm", "worker": "w9", "previous": None}
    first, tip = link(Tip(), "head", fields)
    second, tip = link(tip, "removed", said.fields)
    last, _ = link(tip, "end", {"time": clock.now})
    (gate.directory / f"{stem}.mitm").write_bytes(b"")
    (gate.directory / f"{stem}.jsonl").write_bytes(first + second + last)
    assert verify(gate.directory).ok  # an unsigned chain says what its writer likes
    found = [str(each) for each in verify(gate.directory, PUBLIC).findings]
    assert any(victim.name in each and "is missing" in each for each in found)
    assert any("its end is not signed" in each for each in found)


def verify_lines(ledger):
    from mitmgate.core.ledger.chain import read_line

    return [read_line(raw) for raw in ledger.read_bytes().splitlines(keepends=True)]


@pytest.mark.parametrize(
    "change", [{"last_hash": "f" * 64}, {"last": 7}, {"file": "other.mitm"}, {"last": "x"}]
)
def test_a_note_that_does_not_fit(tmp_path, clock, change):
    gate = Gate(tmp_path, clock, age=DAY)
    gate.write(1, 2)

    def wrong(removals):
        gate.recording.note([SimpleNamespace(fields={**removals[0].fields, **change})])

    clock.now -= DAY / 2
    assert gate.step(wrong).removed
    gate.recording.close()
    assert not verify(gate.directory).ok


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", range(12))
@pytest.mark.parametrize("who", ["own", "dead", "dead and back"])
def test_killed_at_any_step(tmp_path, clock, monkeypatch, signer, call, who):
    """Between the note and the unlinks, at each of them and behind: verify accepts it all."""
    if who != "own":
        other = Gate(tmp_path, clock, signer=signer)
        gate = Gate(tmp_path, clock, signer=signer, age=DAY)
        other.write(1)
        other.recording.record(flow(2), {"exchange": "torn"})
        other.die()
        for slot in abandoned(tmp_path / "journal"):
            recover(gate.directory, slot.name, signer)
        clock.now = 2e9
    else:
        gate = Gate(tmp_path, clock, signer=signer, age=DAY)
        gate.write(1, 2)
    clock.now += 9 * DAY
    count = 0

    def killing(real):
        def call_or_die(*args, **kwargs):
            nonlocal count
            if count == call:
                raise Killed
            count += 1
            return real(*args, **kwargs)

        return call_or_die

    with monkeypatch.context() as patch:
        patch.setattr(store_module.Path, "unlink", killing(Path.unlink))
        patch.setattr(store_module, "sync_directory", killing(store_module.sync_directory))
        patch.setattr(retention_module, "inspect", killing(retention_module.inspect))
        try:
            while gate.step().removed:
                pass
        except Killed:
            pass
    check(tmp_path, signer)
    gate.die()
    if who == "dead and back":
        back = [Gate(tmp_path, clock, signer=signer) for _ in range(2)]
        for each in back:  # one of them is the worker whose files went
            each.recording.record(flow(7), {"exchange": "new"})
        check(tmp_path, signer)
        for each in back:
            each.die()
    after = Gate(tmp_path, clock, signer=signer, age=DAY)
    check(tmp_path, signer)
    clock.now += 9 * DAY
    while after.step().removed:
        check(tmp_path, signer)
    after.recording.close()
    report = check(tmp_path, signer)
    assert [each for each in stored(after.directory) if each.unfinished] == []
    assert report.entries <= 2 * (who == "dead and back")


def test_notes_that_are_still_needed_move_on(tmp_path, clock, signer):
    """The file that tells of a gap goes before the file behind the gap."""
    teller = Gate(tmp_path, clock, signer=signer, age=3 * DAY)
    other = Gate(tmp_path, clock, signer=signer)
    other.write(1)  # this one goes, and the teller's open file says so
    clock.now += 3 * DAY
    other.recording.record(flow(1), {"exchange": "behind the gap"})
    other.die()
    for slot in abandoned(tmp_path / "journal"):
        recover(teller.directory, slot.name, signer)
    clock.now += 1
    assert teller.steps() == 1
    teller.recording.close()
    assert check(tmp_path, signer).removed
    behind = next(each for each in stored(teller.directory) if each.worker == "w2")
    stay = [each for each in stored(teller.directory) if each.worker == "w1"]
    teller.retention._size, teller.retention._age = 1, None
    back = claim(tmp_path / "journal")
    assert back.name == "w2"  # that one is back, so its file stays
    assert teller.step().removed
    assert not stay[0].ledger.exists()
    assert behind.ledger.exists()
    teller.recording.close()
    report = check(tmp_path, signer)
    assert {each.file for each in report.removed} >= {stay[0].flows.name}
    assert len(report.removed) == 2


def test_files_of_gates_that_live_stay(tmp_path, clock):
    one, two = (Gate(tmp_path, clock, age=DAY) for _ in range(2))
    one.write(1, 2)
    two.write(1, 2)
    clock.now += 9 * DAY
    assert one.steps() == 2
    left = {each.worker for each in stored(one.directory)}
    assert left == {"w1", "w2"}
    assert two.steps() == 2
    check(tmp_path)


def test_files_of_gates_that_are_gone_go(tmp_path, clock):
    one, two = (Gate(tmp_path, clock, age=DAY) for _ in range(2))
    two.write(1, 2)
    two.die()
    clock.now += 9 * DAY
    assert one.steps() == 2
    assert not list(one.directory.glob("*w2*"))
    again = Gate(tmp_path, clock)
    assert again.recording.notes == ()
    again.write(3)
    report = check(tmp_path)
    assert len(report.removed) == 2


@pytest.mark.parametrize("worker", ["w1", "w2"])
def test_a_file_that_is_about_to_be_begun_stays(tmp_path, clock, worker):
    gate = Gate(tmp_path, clock, age=DAY)
    unborn = tmp_path / "recordings" / f"20200101T000000.000Z-{worker}.mitm"
    unborn.touch()
    gate.write("a", "b")
    clock.now += 2 * DAY
    assert gate.steps() == 2
    assert names(gate)[0] == unborn.name


def test_one_at_a_time(tmp_path, clock):
    gate = Gate(tmp_path, clock, age=DAY)
    gate.write(1)
    clock.now += 9 * DAY
    for operation in (fcntl.LOCK_EX, fcntl.LOCK_SH):  # another gate, or a verify
        with (gate.directory / retention_module.LOCK).open("a") as lock:
            fcntl.flock(lock, operation)
            assert not gate.step().removed
    assert gate.step().removed


def test_torn_ends_go_with_their_file(tmp_path, clock):
    gate = Gate(tmp_path, clock, age=DAY)
    gate.recording.record(flow(1), {"exchange": "x"})
    gate.recording.abandon()
    with (gate.directory / names(gate)[0]).open("ab") as file:
        file.write(b"9:half")
    gate.slot.release()
    gate = Gate(tmp_path, clock, age=DAY)
    lone = gate.directory / "x-9.flow.torn"
    lone.write_bytes(b"5:ha")
    assert len(list(gate.directory.glob("*.torn"))) == 2
    clock.now = max(clock.now, lone.stat().st_mtime) + 9 * DAY
    assert gate.steps() == 2
    assert not list(gate.directory.glob("*.torn"))
    check(tmp_path)


def test_a_disk_that_fails_removes_nothing(tmp_path, clock, monkeypatch):
    gate = Gate(tmp_path, clock, age=DAY)
    gate.write(1)
    clock.now += 9 * DAY

    def full(removals):
        raise RecordingError(gate.directory, "No space left on device")

    with pytest.raises(RecordingError):
        gate.step(full)
    assert len(names(gate)) == 1
    assert gate.step().removed
    check(tmp_path)


def test_a_directory_that_is_gone(tmp_path, clock):
    gate = Gate(tmp_path, clock, age=DAY)
    shutil.rmtree(gate.directory)
    with pytest.raises(OSError, match="No such file"):
        gate.step()


def test_other_files_are_not_touched(tmp_path, clock):
    gate = Gate(tmp_path, clock, age=DAY, size=1)
    for name in ("notes.txt", "mine.mitm", "mine.jsonl"):
        (gate.directory / name).write_text("mine")
        os.utime(gate.directory / name, (0, 0))
    assert gate.steps() == 0
    assert {path.name for path in gate.directory.iterdir()} >= {"notes.txt", "mine.mitm"}
