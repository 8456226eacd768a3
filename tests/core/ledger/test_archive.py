"""A worker's place as a whole: nothing is lost while the disk fails, or by a restart."""

import json
import os
import time
from pathlib import Path

import pytest

from mitmgate.core.ledger import Archive, RecorderFile, RecordingError, Stopped, claim, verify
from mitmgate.core.ledger import backlog as backlog_module
from mitmgate.core.ledger import leftovers as leftovers_module
from mitmgate.core.ledger.backlog import Backlog
from mitmgate.core.ledger.journal import Journal


def flow(n, size=100):
    text = f"flow {n} ".encode().ljust(size, b".")
    return b"%d:%s," % (len(text), text)


def fields(n, **more):
    return {"exchange": f"x-{n}", "ending": "complete", **more}


def rules(**keys):
    return RecorderFile.model_validate({"schema": 1, **keys})


def close_interrupted(data):
    if b"bad" in data:
        raise ValueError("no flow")
    text = data.partition(b":")[2].split()[1].decode()
    return data, {"exchange": f"x-{text}", "ending": "interrupted"}


def entries(state, directory="recordings"):
    found = []
    for path in sorted((state / directory).glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["exchange"], line["ending"]) for line in found if line["kind"] == "entry"]


def journal(state):
    return sorted(path.name for path in (state / "journal").glob("w*/*.*") if path.suffix)


class Full:
    """No write succeeds while `now` is set."""

    def __init__(self, monkeypatch):
        self.now = False
        real = os.write

        def write(file, data):
            if self.now:
                raise OSError(28, "No space left on device")
            return real(file, data)

        monkeypatch.setattr(os, "write", write)


@pytest.fixture
def disk(monkeypatch):
    return Full(monkeypatch)


def die(archive):
    """What the kernel does for a killed worker."""
    archive._recording.abandon()
    archive._slot.release()


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_admit_settle_close(tmp_path, fsync):
    archive = Archive(tmp_path, rules(fsync=fsync))
    archive.admit("x-1", flow(1))
    assert journal(tmp_path) == ["x-1.flow"]
    archive.settle("x-1", flow(1), fields(1))
    # until the record is durable the request stays: a power cut leaves one or the other
    assert journal(tmp_path) == (["x-1.flow"] if fsync == "interval" else [])
    archive.maintain()
    assert journal(tmp_path) == []
    archive.admit("x-2", flow(2))
    archive.settle("x-2", flow(2), fields(2))
    archive.admit("x-2", flow(2))  # mitmproxy's replay keeps the id
    archive.settle("x-2", flow(2), fields(2))
    archive.close()
    assert journal(tmp_path) == []
    assert len(entries(tmp_path)) == 3
    assert verify(tmp_path / "recordings").ok


@pytest.mark.parametrize(("fsync", "synced"), [("always", 2), ("interval", 2), ("never", 0)])
def test_the_journal_is_durable_before_the_request_goes(tmp_path, monkeypatch, fsync, synced):
    archive = Archive(tmp_path, rules(fsync=fsync))
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    archive.admit("x-1", flow(1))
    assert len(calls) == synced


def test_records_are_durable_before_their_requests_are_forgotten(tmp_path, monkeypatch):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    archive.settle("x-1", flow(1), fields(1))
    order = []
    real = Path.unlink
    monkeypatch.setattr(os, "fsync", lambda file: order.append("fsync"))
    monkeypatch.setattr(
        Path, "unlink", lambda path, **k: (order.append(path.suffix), real(path, **k))[1]
    )
    archive.maintain()
    assert order == ["fsync", "fsync", ".over", ".flow"]


def test_what_could_not_be_recorded_is_recorded_later(tmp_path, disk):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    disk.now = True
    with pytest.raises(RecordingError):
        archive.settle("x-1", flow(1), fields(1))
    archive.keep("x-1", flow(1), fields(1))
    with pytest.raises(RecordingError):
        archive.admit("x-2", flow(2))
    with pytest.raises(RecordingError):
        archive.maintain()
    assert journal(tmp_path) == ["x-1.flow"]
    disk.now = False
    archive.admit("x-2", flow(2))
    assert archive.maintain() == (
        "1 exchanges that could not be recorded at once are recorded now",
    )
    assert archive.maintain() == ()
    archive.settle("x-2", flow(2), fields(2))
    archive.close()
    assert entries(tmp_path) == [("x-1", "complete"), ("x-2", "complete")]
    assert journal(tmp_path) == []
    assert verify(tmp_path / "recordings").ok


def test_what_waits_on_disk_survives_a_death(tmp_path, direct):
    archive = Archive(tmp_path, rules())
    for n in (1, 2):
        archive.admit(f"x-{n}", flow(n))
    archive.keep("x-1", flow(1), fields(1, words="as it ended"))
    archive.keep("x-3", flow(3), fields(3, ending="refused"))  # it was never admitted
    assert journal(tmp_path) == ["x-1.flow", "x-1.over", "x-2.flow", "x-3.over"]
    die(archive)
    archive = Archive(tmp_path, rules())
    notes = list(archive.recover(close_interrupted, direct))
    assert "x-1 had not been recorded when it ended" in "".join(notes)
    assert "x-2 was interrupted" in "".join(notes)
    archive.close()
    assert entries(tmp_path) == [("x-1", "complete"), ("x-2", "interrupted"), ("x-3", "refused")]
    assert journal(tmp_path) == []


def test_what_is_recorded_already_is_not_recorded_again(tmp_path, direct):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    archive.keep("x-1", flow(1), fields(1))
    archive._recording.record(flow(1), fields(1))
    die(archive)
    archive = Archive(tmp_path, rules())
    assert len(list(archive.recover(close_interrupted, direct))) == 0
    assert entries(tmp_path) == [("x-1", "complete")]
    assert journal(tmp_path) == []


def test_the_backlog_is_bounded_in_memory(tmp_path, disk):
    backlog = Backlog(Journal(claim(tmp_path)), most=1000)
    disk.now = True
    for n in range(5):
        backlog.keep(f"x-{n}", flow(n), fields(n))
    with pytest.raises(RecordingError):
        backlog.keep("x-9", flow(9, 600), fields(9))
    settled = []
    assert backlog.retry(lambda exchange, data, about: settled.append((exchange, about))) == 5
    assert [exchange for exchange, _ in settled] == [f"x-{n}" for n in range(5)]
    assert settled[0][1] == fields(0)
    backlog.keep("x-9", flow(9, 600), fields(9))
    assert len(backlog) == 1


def test_the_backlog_takes_a_slice_of_the_time(tmp_path, monkeypatch):
    backlog = Backlog(Journal(claim(tmp_path)))
    for n in range(3):
        backlog.keep(f"x-{n}", flow(n), fields(n))
    ticks = iter(range(100))
    monkeypatch.setattr(backlog_module.time, "monotonic", lambda: next(ticks) * 0.15)
    assert backlog.retry(lambda *each: None) == 1
    assert len(backlog) == 2


def test_a_failing_retry_goes_on_where_it_was(tmp_path):
    backlog = Backlog(Journal(claim(tmp_path)))
    for n in range(3):
        backlog.keep(f"x-{n}", flow(n), fields(n))
    seen = []

    def settle(exchange, data, about):
        if exchange == "x-1" and len(seen) == 1:
            seen.append("failed")
            raise RecordingError(tmp_path, "full")
        seen.append(exchange)

    with pytest.raises(RecordingError):
        backlog.retry(settle)
    backlog.retry(settle)
    assert seen == ["x-0", "failed", "x-1", "x-2"]


def test_a_close_tries_once_more(tmp_path, disk):
    archive = Archive(tmp_path, rules())
    disk.now = True
    archive.keep("x-1", flow(1), fields(1))
    disk.now = False
    archive.close()
    assert entries(tmp_path) == [("x-1", "complete")]


def test_new_rules(tmp_path):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    archive.reopen(rules(directory="elsewhere"))
    archive.settle("x-1", flow(1), fields(1))
    archive.close()
    assert entries(tmp_path, "elsewhere") == [("x-1", "complete")]
    assert journal(tmp_path) == []


def test_rules_that_do_not_work_are_tried_again(tmp_path):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    (tmp_path / "bad").write_text("in the way")
    with pytest.raises(RecordingError, match="bad"):
        archive.reopen(rules(directory="bad"))
    for _ in range(300):  # more often than there are slots
        with pytest.raises(RecordingError):
            archive.maintain()
    with pytest.raises(RecordingError, match="could not begin"):
        archive.admit("x-2", flow(2))
    with pytest.raises(RecordingError):
        archive.settle("x-1", flow(1), fields(1))
    archive.keep("x-1", flow(1), fields(1))
    (tmp_path / "bad").unlink()
    notes = archive.maintain()
    assert "recording again" in notes[0]
    assert "1 exchanges" in notes[1]
    archive.close()
    assert entries(tmp_path, "bad") == [("x-1", "complete")]
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["w1"]


def test_a_recording_that_cannot_be_ended_is_taken_up_again(tmp_path, disk):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    archive.settle("x-1", flow(1), fields(1))
    disk.now = True
    with pytest.raises(RecordingError):
        archive.reopen(rules())
    with pytest.raises(RecordingError):
        archive.maintain()
    disk.now = False
    assert "was not closed; it is now" in archive.maintain()[0]
    archive.close()
    report = verify(tmp_path / "recordings")
    assert report.ok, report.findings
    assert report.entries == 1


def test_a_place_that_cannot_be_opened_is_free_again(tmp_path):
    (tmp_path / "recordings").write_text("in the way")
    for _ in range(3):
        with pytest.raises(RecordingError):
            Archive(tmp_path, rules())
    (tmp_path / "recordings").unlink()
    Archive(tmp_path, rules()).close()
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["w1"]


@pytest.mark.parametrize("data", [b"", b"99:cut", b"3:bad,"], ids=["empty", "cut", "no flow"])
def test_a_torn_journal_file_is_put_aside_and_told(tmp_path, direct, data):
    slot = tmp_path / "journal" / "w1"
    slot.mkdir(parents=True)
    (slot / "x-1.flow").write_bytes(data)
    (slot / "x-2.flow").write_bytes(flow(2))
    archive = Archive(tmp_path, rules())
    torn, interrupted = archive.recover(close_interrupted, direct)
    assert "the journal of exchange x-1 is torn" in torn
    assert "x-2 was interrupted" in interrupted
    side = tmp_path / "recordings" / "x-1.flow.torn"
    assert (side.read_bytes() if side.exists() else b"") == data
    assert side.exists() is bool(data)
    assert journal(tmp_path) == []
    archive.close()
    assert entries(tmp_path) == [("x-2", "interrupted")]
    assert verify(tmp_path / "recordings").ok


@pytest.mark.parametrize(
    "data",
    [b"", b"20:{}", b"2:{},9:half", b"2:{}", b"2:[],3:abc,", b"2:x},3:abc,", b"2:{},3:abc,"],
    ids=["empty", "fields", "flow", "no flow", "a list", "no JSON", "no exchange"],
)
@pytest.mark.parametrize("admitted", [False, True])
def test_a_torn_end_of_an_exchange_is_put_aside_and_told(tmp_path, direct, data, admitted):
    slot = tmp_path / "journal" / "w1"
    slot.mkdir(parents=True)
    (slot / "x-1.over").write_bytes(data)
    if admitted:
        (slot / "x-1.flow").write_bytes(flow(1))
    archive = Archive(tmp_path, rules())
    (said,) = archive.recover(close_interrupted, direct)
    assert "the end of exchange x-1 is torn" in said
    assert ("x-1 was interrupted" in said) is admitted
    side = tmp_path / "recordings" / "x-1.over.torn"
    assert (side.read_bytes() if side.exists() else b"") == data
    assert (str(side) in said) is bool(data)
    assert journal(tmp_path) == []
    assert list(archive.recover(close_interrupted, direct)) == []
    archive.close()
    assert entries(tmp_path) == ([("x-1", "interrupted")] if admitted else [])
    assert verify(tmp_path / "recordings").ok


def test_what_is_recorded_is_forgotten_before_another_directory_is_taken(tmp_path, direct):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1))
    archive.settle("x-1", flow(1), fields(1))
    archive.reopen(rules(directory="elsewhere"))
    die(archive)
    archive = Archive(tmp_path, rules(directory="elsewhere"))
    assert list(archive.recover(close_interrupted, direct)) == []
    archive.close()
    assert entries(tmp_path) == [("x-1", "complete")]
    assert entries(tmp_path, "elsewhere") == []


def leave(state, count):
    slot = state / "journal" / "w1"
    slot.mkdir(parents=True)
    for n in range(count):
        (slot / f"x-{n}.flow").write_bytes(flow(n))


def test_many_leftovers_are_counted_not_listed(tmp_path, direct):
    leave(tmp_path, 450)
    archive = Archive(tmp_path, rules(fsync="never"))
    notes = list(archive.recover(close_interrupted, direct))
    assert len(notes) == leftovers_module.NAMED + 1
    assert "440 more" in notes[-1]
    archive.close()
    assert len(entries(tmp_path)) == 450
    assert journal(tmp_path) == []


@pytest.mark.slow
def test_a_hundred_thousand_leftovers_do_not_hold_up_the_start(tmp_path, direct):
    leave(tmp_path, 100_000)
    begun = time.monotonic()
    archive = Archive(tmp_path, rules(fsync="never"))
    archive.admit("x-new", flow(1))
    assert time.monotonic() - begun < 10
    list(archive.recover(close_interrupted, direct, {"x-new"}))
    archive.close()
    assert verify(tmp_path / "recordings").entries == 100_000


def test_an_end_in_the_middle_loses_nothing(tmp_path):
    leave(tmp_path, 30)
    archive = Archive(tmp_path, rules())
    count = 0

    def write(work):
        nonlocal count
        count += 1
        if count == 10:
            archive.stop()
        return work()

    with pytest.raises(Stopped):
        list(archive.recover(close_interrupted, write))
    with pytest.raises(Stopped):
        list(archive.recover(close_interrupted, write))
    archive.close()
    archive = Archive(tmp_path, rules())
    list(archive.recover(close_interrupted, lambda work: work()))
    archive.close()
    assert sorted(entries(tmp_path)) == sorted((f"x-{n}", "interrupted") for n in range(30))


def test_what_is_under_way_is_no_leftover(tmp_path, direct):
    leave(tmp_path, 2)
    archive = Archive(tmp_path, rules())
    list(archive.recover(close_interrupted, direct, {"x-1"}))
    archive.close()
    assert entries(tmp_path) == [("x-0", "interrupted")]
    assert journal(tmp_path) == ["x-1.flow"]


def test_retention_of_an_archive(tmp_path, direct):
    archive = Archive(tmp_path, rules(retain={"size": "1k"}, rotate={"size": "1k"}))
    for n in range(4):
        archive.settle(f"x-{n}", flow(n, 900), fields(n))
    assert archive.retain(direct).removed
    stopping = Archive(tmp_path / "other", rules(retain={"size": "1k"}, rotate={"size": "1k"}))
    for n in range(4):
        stopping.settle(f"x-{n}", flow(n, 900), fields(n))
    stopping.stop()
    with pytest.raises(Stopped):
        stopping.retain(direct)

    def reopened_meanwhile(work):
        archive.reopen(rules(directory="elsewhere"))
        return work()

    with pytest.raises(Stopped):  # or the note would be in a directory that it does not speak of
        archive.retain(reopened_meanwhile)
    assert verify(tmp_path / "recordings").ok
    archive.close()
    with pytest.raises(RecordingError):
        archive.admit("x-9", flow(9))
