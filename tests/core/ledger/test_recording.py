import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mitmgate.core.ledger import Recording, RecordingError, Signer, recorded, recover, verify
from mitmgate.core.ledger import recording as recording_module
from mitmgate.core.ledger.chain import MAX_LINE
from mitmgate.core.ledger.framing import is_frame, whole_frames


def flow(n, size=40):
    text = f"flow {n} ".encode().ljust(size, b".")
    return b"%d:%s," % (len(text), text)


def put(recording, n, size=40, **more):
    return recording.record(flow(n, size), {"exchange": f"x-{n}", **more})


def lines(directory, which=-1):
    path = sorted(directory.glob("*.jsonl"))[which]
    return [json.loads(line) for line in path.read_text().splitlines()]


def entries(directory):
    found = [line for n in range(len(names(directory))) for line in lines(directory, n)]
    return [line["exchange"] for line in found if line["kind"] == "entry"]


def names(directory, suffix=".mitm"):
    return [path.name for path in sorted(directory.glob(f"*{suffix}"))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mitmproxy's use of pyparsing
def test_real_flows_can_be_read_back(tmp_path, clock):
    from mitmproxy.io import FlowReader, FlowWriter
    from mitmproxy.test import tflow

    recording = Recording(tmp_path, "w1", clock=clock)
    for _ in range(3):
        written = io.BytesIO()
        FlowWriter(written).add(tflow.tflow(resp=True))
        where = recording.record(written.getvalue(), {"exchange": "x"})
    recording.close()
    with where.path.open("rb") as file:
        assert len(list(FlowReader(file).stream())) == 3
        file.seek(where.offset)
        assert len(list(FlowReader(file).stream())) == 1


def test_names_and_lines(tmp_path, clock):
    recording = Recording(tmp_path / "new" / "recordings", "w1", clock=clock)
    directory = tmp_path / "new" / "recordings"
    assert names(directory) == []
    put(recording, 1, principal="idp:a", coverage={"read": ["prompt"], "ratio": 0.5}, verdict=None)
    where = put(recording, 2)
    recording.close()
    assert names(directory) == ["20270115T080000.000Z-w1.mitm"]
    head, one, two, end = lines(directory)
    assert (head["kind"], head["previous"], head["prev"], head["seq"]) == (
        "head",
        None,
        "0" * 64,
        0,
    )
    assert (head["file"], head["worker"]) == ("20270115T080000.000Z-w1.mitm", "w1")
    assert (one["exchange"], one["principal"], one["verdict"]) == ("x-1", "idp:a", None)
    assert one["coverage"] == {"read": ["prompt"], "ratio": 0.5}
    assert (two["offset"], two["length"]) == (one["length"], len(flow(2)))
    assert (where.seq, where.offset, where.length) == (2, two["offset"], two["length"])
    assert [line["prev"] for line in (one, two, end)] == [head["hash"], one["hash"], two["hash"]]
    assert where.path.read_bytes() == flow(1) + flow(2)


def test_files_are_for_the_owner_alone(tmp_path, clock):
    put(Recording(tmp_path, "w1", clock=clock), 1)
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        (b"", {"exchange": "x"}, "not one serialised flow"),
        (b"3:abc,3:abc,", {"exchange": "x"}, "not one serialised flow"),
        (b"3:abc", {"exchange": "x"}, "not one serialised flow"),
        (b"3:abc,", {}, "names its exchange"),
        (b"3:abc,", {"exchange": 5}, "names its exchange"),
        (b"3:abc,", {"exchange": "x", "seq": 7}, "own words"),
        (b"3:abc,", {"exchange": "x", "hash": ""}, "own words"),
        (b"3:abc,", {"exchange": "x", "groups": {"a"}}, "have to be JSON"),
        (b"3:abc,", {"exchange": "x", "ms": float("nan")}, "JSON"),
        (b"3:abc,", {"exchange": "x", **{f"m-{n}": "m" for n in range(MAX_LINE)}}, "ledger line"),
    ],
)
def test_what_is_no_record(tmp_path, clock, data, fields, reason):
    recording = Recording(tmp_path, "w1", clock=clock)
    with pytest.raises(ValueError, match=reason):
        recording.record(data, fields)
    assert names(tmp_path) == []
    put(recording, 1)
    with pytest.raises(ValueError, match=reason):
        recording.record(data, fields)
    put(recording, 2)
    recording.close()
    assert verify(tmp_path).entries == 2
    assert verify(tmp_path).ok


def findings(count):
    rules = [*["often"] * (count - 2), "once", "often"]
    return [{"rule": rule, "address": f"messages[{n}]"} for n, rule in enumerate(rules)]


@pytest.mark.parametrize(
    ("more", "left_out"),
    [
        ({"findings": findings(60_000)}, {"findings": 58_976}),
        ({"model": "m" * MAX_LINE}, {"model": MAX_LINE - 1024}),
        ({"masked": {f"n-{n}": n for n in range(100_000)}}, {"masked": 98_976}),
        (
            {"path": "\N{PILE OF POO}" * 90_000, "groups": ["g"] * 2000},
            {"path": 88_976, "groups": 976},
        ),
        ({"deep": [{"a": "b" * MAX_LINE}] * 5}, {}),
        ({"deep": [{"a" * 5000: "b" * 5000}] * 2000}, {"deep": 1488}),
    ],
    ids=["findings", "text", "counts", "several", "deep", "deep and many"],
)
def test_what_is_too_much_for_a_line_is_cut_and_counted(tmp_path, clock, more, left_out):
    recording = Recording(tmp_path, "w1", clock=clock)
    for n in range(2):
        put(recording, n, ending="refused", **more)
    recording.close()
    report = verify(tmp_path)
    assert report.ok, report.findings
    _, one, two, _ = lines(tmp_path)
    assert (one["exchange"], two["exchange"]) == ("x-0", "x-1")
    assert one["ending"] == "refused"
    assert one["left_out"] == left_out
    if "findings" in more:
        assert one["found"] == {"often": 59_999, "once": 1}
        assert len(one["findings"]) == 1024
        assert {each["rule"] for each in one["findings"]} == {"often", "once"}


def test_what_fits_is_not_cut(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1, findings=findings(5000))
    recording.close()
    assert "left_out" not in lines(tmp_path)[1]
    assert len(lines(tmp_path)[1]["findings"]) == 5000


def test_a_record_without_the_end_of_its_line_is_none(tmp_path):
    where = put(Recording(tmp_path, "w1"), 1)
    assert recorded(tmp_path, ["x-1"], 0.0) == {"x-1"}
    ledger = where.path.with_suffix(".jsonl")
    ledger.write_bytes(ledger.read_bytes()[:-1])
    assert recorded(tmp_path, ["x-1"], 0.0) == set()


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_a_record_without_its_flow_is_none(tmp_path, damage):
    where = put(Recording(tmp_path, "w1"), 1)
    whole = where.path.read_bytes()
    if damage == "gone":
        where.path.unlink()
    else:
        where.path.write_bytes(whole[:-1] if damage == "cut" else bytes(len(whole)))
    assert recorded(tmp_path, ["x-1"], 0.0) == set()


def test_keys_that_json_turns_into_strings(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1, counts={10: 1, 9: 2, "a": ()})
    recording.close()
    assert verify(tmp_path).ok


@pytest.mark.parametrize("worker", ["", "w-1", "W1", "../w"])
def test_names_of_workers(tmp_path, worker):
    with pytest.raises(ValueError, match="worker"):
        Recording(tmp_path, worker)


def test_rotation_by_size(tmp_path, clock):
    size = len(flow(0))
    recording = Recording(tmp_path, "w1", rotate_size=2 * size, clock=clock)
    for n in range(5):
        put(recording, n)
    put(recording, 5, size=5 * size)  # larger than a file may be: alone in one
    put(recording, 6)
    recording.close()
    assert [(tmp_path / name).stat().st_size // size for name in names(tmp_path)] == [2, 2, 1, 5, 1]
    assert verify(tmp_path).ok
    for before, after in ((0, 1), (1, 2)):
        assert lines(tmp_path, after)[0]["previous"] == names(tmp_path)[before]
        assert lines(tmp_path, after)[0]["prev"] == lines(tmp_path, before)[-1]["hash"]


def test_rotation_by_age_also_without_traffic(tmp_path, clock):
    recording = Recording(tmp_path, "w1", rotate_age=60, clock=clock)
    put(recording, 1)
    clock.now += 59
    recording.maintain()
    assert len(lines(tmp_path)) == 2
    clock.now += 1
    recording.maintain()
    assert lines(tmp_path)[-1]["kind"] == "end"
    recording.maintain()
    put(recording, 2)
    clock.now += 60
    put(recording, 3)
    assert len(names(tmp_path)) == 3
    recording.close()
    assert verify(tmp_path).ok


def test_a_clock_that_goes_back_does_not_disorder_names(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    recording.close()
    clock.now -= 3600
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 2)
    recording.close()
    assert names(tmp_path)[1] == "20270115T080000.001Z-w1.mitm"
    assert verify(tmp_path).ok


def test_the_chain_goes_on_after_a_restart(tmp_path, clock):
    for n in range(3):
        recording = Recording(tmp_path, "w1", clock=clock)
        assert recording.notes == ()
        put(recording, n)
        recording.close()
        recording.close()
    report = verify(tmp_path)
    assert report.ok, report.findings
    assert (report.files, report.entries) == (3, 3)


def test_a_file_being_written_is_no_fault(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    report = verify(tmp_path)
    assert report.ok
    assert [path.name for path in report.growing] == names(tmp_path)
    with next(tmp_path.glob("*.jsonl")).open("ab") as half_a_line:
        half_a_line.write(b'{"half')
    assert verify(tmp_path).ok
    recording._pair.close()
    assert "cut off" in str(verify(tmp_path).findings[0])


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_fsync(tmp_path, clock, monkeypatch, fsync):
    synced = []
    recording = Recording(tmp_path, "w1", fsync=fsync, clock=clock)
    put(recording, 1)
    monkeypatch.setattr(os, "fsync", synced.append)
    put(recording, 2)
    clock.now += recording_module.INTERVAL
    put(recording, 3)
    assert len(synced) == {"always": 4, "interval": 2, "never": 0}[fsync]


def crash(recording):
    """What the kernel does for a killed process: close its files."""
    recording._pair.close()


@pytest.mark.parametrize("flows_tail", [b"", b"99:half a flow", flow(9), flow(9) + b"12:x"])
@pytest.mark.parametrize("ledger_tail", [b"", b'{"kind":"entry","se'])
def test_a_torn_tail_moves_aside(tmp_path, clock, flows_tail, ledger_tail):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    crash(recording)
    (flows,), (ledger,) = tmp_path.glob("*.mitm"), tmp_path.glob("*.jsonl")
    for path, tail in ((flows, flows_tail), (ledger, ledger_tail)):
        with path.open("ab") as file:
            file.write(tail)
    assert not verify(tmp_path).ok
    recording = Recording(tmp_path, "w1", clock=clock)
    assert verify(tmp_path).ok
    assert flows.read_bytes() == flow(1)
    for path, tail in ((flows, flows_tail), (ledger, ledger_tail)):
        torn = path.with_name(path.name + ".torn")
        assert (torn.read_bytes() if torn.exists() else b"") == tail
    assert lines(tmp_path)[-1]["recovered"] == {
        "flows": len(flows_tail),
        "ledger": len(ledger_tail),
    }
    assert len(recording.notes) == (2 if flows_tail or ledger_tail else 1)
    assert (b"1 whole flows" in recording.notes[-1].encode()) is flows_tail.startswith(flow(9))
    put(recording, 2)
    recording.close()
    assert verify(tmp_path).ok
    assert Recording(tmp_path, "w1", clock=clock).notes == ()


def damage_short(flows, ledger):
    flows.write_bytes(flows.read_bytes()[:-1])


def damage_line(flows, ledger):
    ledger.write_bytes(ledger.read_bytes().replace(b"x-2", b"x-9"))


def damage_gone(flows, ledger):
    flows.unlink()


def damage_empty(flows, ledger):
    ledger.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_short, damage_line, damage_gone, damage_empty])
def test_damage_is_kept_and_reported(tmp_path, clock, damage):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    put(recording, 2)
    crash(recording)
    (flows,), (ledger,) = tmp_path.glob("*.mitm"), tmp_path.glob("*.jsonl")
    damage(flows, ledger)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    recording = Recording(tmp_path, "w1", clock=clock)
    assert len(recording.notes) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    put(recording, 3)
    recording.close()
    report = verify(tmp_path)
    assert report.findings[0].path.stem == flows.stem
    assert verify(sorted(tmp_path.glob("*.jsonl"))[-1]).ok


def test_a_removed_newest_file_is_reported(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    recording.close()
    put(recording, 2)
    recording.close()
    newest = names(tmp_path)[-1].removesuffix(".mitm")
    for path in tmp_path.glob(f"{newest}.*"):
        path.unlink()
    assert newest in str(verify(tmp_path).findings[0])
    recording = Recording(tmp_path, "w1", clock=clock)
    assert newest in recording.notes[0]
    put(recording, 3)
    recording.close()
    assert newest in str(verify(tmp_path).findings[0])


@pytest.mark.parametrize("left", ["-w1.jsonl.part", "-w1.mitm"])
def test_a_pair_that_was_never_born(tmp_path, clock, left):
    (tmp_path / f"20270115T080000.000Z{left}").write_bytes(b"")
    recording = Recording(tmp_path, "w1", clock=clock)
    assert list(tmp_path.iterdir()) == []
    put(recording, 1)
    recording.close()
    assert verify(tmp_path).ok


def test_an_orphan_with_flows_is_left_and_reported(tmp_path, clock):
    orphan = tmp_path / "20270115T080000.000Z-w1.mitm"
    orphan.write_bytes(flow(1))
    recording = Recording(tmp_path, "w1", clock=clock)
    clock.now += 1
    put(recording, 2)
    recording.close()
    assert orphan.read_bytes() == flow(1)
    assert "no ledger" in str(verify(tmp_path).findings[0])


def test_another_gate_with_the_same_name(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    with pytest.raises(RecordingError, match="another gate"):
        Recording(tmp_path, "w1", clock=clock)


def test_recovery_for_somebody_else(tmp_path, clock):
    recording = Recording(tmp_path, "w2", clock=clock)
    put(recording, 1)
    crash(recording)
    own = Recording(tmp_path, "w1", clock=clock)
    assert own.notes == ()
    assert len(recover(tmp_path, "w2").notes) == 1
    assert verify(tmp_path).ok


def test_recorded_tells_settled_from_lost(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    recording.close()
    put(recording, 2)
    newest = max(path.stat().st_mtime for path in tmp_path.glob("*.jsonl"))
    assert recorded(tmp_path, ["x-1", "x-2", "x-3"], newest - 60) == {"x-1", "x-2"}
    assert recorded(tmp_path, ["x-1"], newest + 60) == set()
    next(tmp_path.glob("*.jsonl")).write_bytes(b"no\n[]\n7\n")
    assert recorded(tmp_path, ["x-1", "x-2"], newest - 60) == {"x-2"}


@pytest.mark.parametrize("change", ["remove", "grow", "cut"])
@pytest.mark.parametrize("suffix", ["mitm", "jsonl"])
def test_a_file_changed_under_the_writer(tmp_path, clock, change, suffix):
    recording = Recording(tmp_path, "w1", clock=clock)
    put(recording, 1)
    path = next(tmp_path.glob(f"*.{suffix}"))
    content = path.read_bytes()
    path.unlink() if change == "remove" else path.write_bytes(
        content + b"x" if change == "grow" else content[:-1]
    )
    clock.now += 1
    with pytest.raises(RecordingError, match="by somebody else"):
        put(recording, 2)
    put(recording, 3)
    recording.close()
    first, *_ = verify(tmp_path).findings
    assert first.path.stem == path.stem
    assert verify(sorted(tmp_path.glob("*.mitm"))[-1]).entries == 1


def test_an_unwritable_directory(tmp_path, clock):
    (tmp_path / "recordings").write_text("a file")
    with pytest.raises(RecordingError, match="recordings"):
        Recording(tmp_path / "recordings", "w1", clock=clock)


@pytest.mark.parametrize("fails", ["write", "fsync", "open", "rename"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("size", [1 << 20, 1], ids=["one-file", "a-file-each"])
@pytest.mark.parametrize("call", range(1, 14))
def test_any_failing_call_leaves_all_consistent(
    tmp_path, clock, monkeypatch, fails, first, size, call
):
    """The nth call fails once: that exchange is refused, the next is recorded."""
    recording = Recording(tmp_path, "w1", fsync="always", rotate_size=size, clock=clock)
    if not first:
        put(recording, 0)
    target = (Path, "rename") if fails == "rename" else (os, fails)
    real, count = getattr(*target), 0

    def failing(*args, **kwargs):
        nonlocal count
        count += 1
        if count == call:
            raise OSError(28, "No space left on device", str(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(*target, failing)
    outcomes, messages = [], []
    for n in (1, 2):
        try:
            put(recording, n)
            outcomes.append(f"x-{n}")
        except RecordingError as e:
            messages.append(str(e))
    monkeypatch.undo()
    assert all("No space left" in text and str(tmp_path) in text for text in messages)
    assert len(outcomes) == 2 or count >= call
    put(recording, 3)
    recording.close()
    report = verify(tmp_path)
    assert report.ok, report.findings
    assert entries(tmp_path) == ([] if first else ["x-0"]) + [*outcomes, "x-3"]


SMALL_DISK = """
    import json, resource, sys
    from pathlib import Path
    from mitmgate.core.ledger import Recording, RecordingError
    recording = Recording(Path(sys.argv[1]), "w1", fsync="never")
    def put(n):
        text = (b"%d" % n).ljust(1000, b".")
        recording.record(b"1000:%s," % text, {"exchange": f"x-{n}"})
    put(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    for n in range(1, 100):
        try:
            put(n)
        except RecordingError as error:
            message = str(error)
            break
    else:
        sys.exit("never full")
    for _ in range(3):
        try:
            put(n)
            sys.exit("full and not full")
        except RecordingError:
            pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    put(100)
    recording.close()
    print(n, message)
"""


@pytest.mark.parametrize("limit", [5000, 3018, 7001, 10])
def test_a_full_disk_and_space_again(tmp_path, limit):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SMALL_DISK), str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    full, message = done.stdout.split(" ", 1)
    assert str(tmp_path) in message
    report = verify(tmp_path)
    assert report.ok, report.findings
    assert entries(tmp_path) == [f"x-{n}" for n in range(int(full))] + ["x-100"]


def test_checkpoints(tmp_path, clock):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signer = Signer(Ed25519PrivateKey.generate())
    recording = Recording(tmp_path, "w1", signer=signer, checkpoint_every=2, clock=clock)
    for n in range(5):
        put(recording, n)
    recording.close()
    kinds = [line["kind"] for line in lines(tmp_path)]
    assert kinds == ["head", *["entry", "entry", "checkpoint"] * 2, "entry", "end"]
    signed = [line for line in lines(tmp_path) if "signature" in line]
    assert [line["kind"] for line in signed] == ["checkpoint", "checkpoint", "end"]
    assert {line["key"] for line in signed} == {signer.key_id}


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"0:~", True),
        (b"3:abc,", True),
        (b"5:1:a,x}", True),
        (b"", False),
        (b":,", False),
        (b"03:abc,", False),
        (b"3:abc?", False),
        (b"3:ab,", False),
        (b"-1:,", False),
        (b"9999999999999:,", False),
    ],
)
def test_frames(data, frame):
    assert is_frame(data) is frame
    file = io.BytesIO(b"##" + flow(1) + data)
    count, end = whole_frames(file, 2, len(file.getvalue()))
    expected = (2, len(file.getvalue())) if frame else (1, 2 + len(flow(1)))
    assert (count, end) == expected
