"""Exchanges are found by what the ledger says, and their flows read as they were recorded."""

import contextlib
import fcntl
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.ledger import (
    VERDICTS,
    BadRecord,
    Entry,
    Query,
    Recording,
    RecordingError,
    entries,
    flow_bytes,
)
from mitmgate.core.ledger.chain import MAX_LINE

START = 1_800_000_000.0


def flow(n, size=40):
    text = f"flow {n} ".encode().ljust(size, b".")
    return b"%d:%s," % (len(text), text)


def put(recording, n, **more):
    fields = {
        "exchange": f"x-{n}",
        "principal": f"idp:agent-{n}",
        "subject": f"agent-{n}",
        "operation": "chat",
        "model": "llama",
        "session": "",
        "ending": "complete",
        "refusal": "",
        "started": START + n,
        "ended": START + n + 0.5,
        **more,
    }
    return recording.record(flow(n), fields)


def find(path, told=None, **wanted):
    told = [] if told is None else told
    return [entry["exchange"] for entry in entries(path, Query(**wanted), told.append)]


@pytest.fixture
def recording(tmp_path, clock):
    recording = Recording(tmp_path, "w1", clock=clock)
    yield recording
    with contextlib.suppress(RecordingError):  # where a test has changed its files
        recording.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3, 4]),
        ({"principals": ("agent-2",)}, [2]),
        ({"principals": ("agent-*",)}, [1, 2, 4]),
        ({"principals": ("idp:agent-1", "idp/agent-2")}, [1, 2]),
        ({"principals": ("other/*",)}, [3]),
        ({"principals": ("other:spiffe://td/sa",)}, [3]),
        ({"principals": ("spiffe://td/*",)}, [3]),
        ({"principals": ("nobody",)}, []),
        ({"models": ("gpt-*",)}, [2]),
        ({"models": ("gpt",)}, []),
        ({"operations": ("embeddings",)}, [3]),
        ({"sessions": ("s-1",)}, [1, 2]),
        ({"sessions": ("s-1",), "models": ("gpt-*",)}, [2]),
        ({"verdicts": ("refused", "client_aborted")}, [3, 4]),
        ({"verdicts": ("denied",)}, [4]),
        ({"verdicts": ("masked",)}, [1]),
        ({"rules": ("weights-export",)}, [4]),
        ({"rules": ("client_left", "email")}, [1]),
        ({"exchanges": ("x-3",)}, [3]),
        ({"exchanges": ("x-",)}, [1, 2, 3, 4]),
        ({"since": START + 2}, [2, 3, 4]),
        ({"until": START + 2}, [1]),
        ({"since": START + 2, "until": START + 3}, [2]),
    ],
)
def test_what_is_wanted(tmp_path, recording, wanted, found):
    put(recording, 1, session="s-1", masked={"email": 2})
    put(recording, 2, session="s-1", model="gpt-oss")
    spiffe = {"principal": "other:spiffe://td/sa", "subject": "spiffe://td/sa"}
    put(recording, 3, **spiffe, operation="embeddings", ending="client_aborted")
    finding = {"rule": "weights-export", "action": "deny"}
    put(recording, 4, ending="refused", refusal="weights-export", findings=[finding], status=403)
    assert find(tmp_path, **wanted) == [f"x-{n}" for n in found]


FOUND = {"findings": [{"rule": "money-move"}], "refusal": "money-move", "ending": "refused"}


@pytest.mark.parametrize(
    ("fields", "verdicts"),
    [
        ({"ending": "complete"}, ["complete"]),
        ({"ending": "complete", "masked": {"email": 1}}, ["complete", "masked"]),
        ({"ending": "refused", "refusal": "token_missing", "status": 401}, ["refused"]),
        ({**FOUND, "status": 403}, ["refused", "denied"]),
        ({**FOUND, "status": 200}, ["refused", "denied"]),  # a stream that was cut
        ({**FOUND, "status": 409, "hold": "h-1"}, ["refused", "held"]),
        (
            {**FOUND, "status": 403, "hold": "h-1", "approvals": [{"verdict": "deny"}]},
            ["refused", "denied", "held"],
        ),
        (
            {"ending": "complete", "hold": "h-1", "approvals": [{"verdict": "approve"}]},
            ["complete", "held", "approved"],
        ),
    ],
)
def test_verdicts(tmp_path, fields, verdicts):
    entry = Entry(tmp_path, 1, fields)
    assert list(entry.verdicts) == verdicts
    assert set(verdicts) <= set(VERDICTS)


def test_a_line_that_says_little(tmp_path, recording):
    recording.record(flow(1), {"exchange": "x-1"})
    (entry,) = entries(tmp_path, Query(), pytest.fail)
    assert (entry["principal"], entry.issuer, entry.found) == ("", "", ())
    assert entry.started == entry.ended == START  # of the file


def test_all_workers_in_the_order_of_time(tmp_path, clock):
    recordings = [Recording(tmp_path, f"w{n}", rotate_size=100, clock=clock) for n in range(3)]
    for n in range(30):
        clock.now += 1
        put(recordings[n % 3], n)
    assert len(list(tmp_path.glob("*.jsonl"))) > 9
    assert find(tmp_path) == [f"x-{n}" for n in range(30)]
    for each in recordings:
        each.close()


def test_one_file(tmp_path, recording):
    path = put(recording, 1).path
    assert find(path) == find(path.with_suffix(".jsonl")) == ["x-1"]
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "nosuch.mitm")


def test_files_that_were_closed_before_are_not_opened(tmp_path, clock):
    recording = Recording(tmp_path, "w1", rotate_age=10, clock=clock)
    for n in (0, 20, 40):
        clock.now = START + n
        put(recording, n)
    recording.close()
    first, second, _ = sorted(tmp_path.glob("*.jsonl"))
    first.write_bytes(b"junk\n")
    told = []
    assert find(tmp_path, told, since=START + 20.5) == ["x-40"]
    assert told == []
    # it may have been open when the request came, and have the request
    assert find(tmp_path, told, since=START + 19.9) == ["x-20", "x-40"]
    assert [str(fault) for fault in told] == [f"{first}:1: is no line of a ledger"]
    second.unlink()
    assert find(tmp_path, since=START + 20.5) == ["x-40"]


def test_a_live_gate_that_is_just_writing(tmp_path, recording):
    ledger = put(recording, 1).path.with_suffix(".jsonl")
    with ledger.open("ab") as file:
        file.write(b'{"kind":"entry","exch')
    assert find(tmp_path, told := []) == ["x-1"]
    assert told == []


def test_a_cut_line_of_a_dead_gate(tmp_path, recording):
    put(recording, 1)
    ledger = put(recording, 2).path.with_suffix(".jsonl")
    recording.close()
    os.truncate(ledger, ledger.stat().st_size - 5)
    assert find(tmp_path, told := []) == ["x-1", "x-2"]
    assert [str(fault) for fault in told] == [f"{ledger}:4: is cut off in this line"]
    with ledger.open("rb") as file:  # nobody was kept from it
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "is no line of a ledger"),
        (b"junk", "is no line of a ledger"),
        (b"[]", "is no line of a ledger"),
        (b"{}", "is no line of a ledger"),
        (b'"entry"', "is no line of a ledger"),
        (b"[" * 9000, "is no line of a ledger"),
        (b'{"kind":"entry"}', "was changed: its hash does not fit"),
        (b'{"kind":"entry","findings":[1]}', "was changed: its hash does not fit"),
        (b'{"kind":"entry","approvals":{"a":1}}', "was changed: its hash does not fit"),
        (b'"' + b"x" * MAX_LINE * 2 + b'"', "is longer than a line of a ledger can be"),
    ],
)
def test_a_broken_line_is_told_and_left_out(tmp_path, recording, line, reason):
    put(recording, 1)
    ledger = put(recording, 2).path.with_suffix(".jsonl")
    lines = ledger.read_bytes().splitlines()
    ledger.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    told = []
    assert find(tmp_path, told, verdicts=("complete", "")) == ["x-1", "x-2"]
    assert [str(fault) for fault in told] == [f"{ledger}:3: {reason}"]


def test_a_changed_line_is_told_and_left_out(tmp_path, recording):
    ledger = put(recording, 1).path.with_suffix(".jsonl")
    put(recording, 2)
    ledger.write_bytes(ledger.read_bytes().replace(b"idp:agent-1", b"idp:agent-9"))
    assert find(tmp_path, told := [], principals=("*",)) == ["x-2"]
    assert [str(fault) for fault in told] == [f"{ledger}:2: was changed: its hash does not fit"]


def test_a_ledger_that_cannot_be_opened(tmp_path, recording):
    put(recording, 1)
    (tmp_path / "20270115T080000.000Z-w2.jsonl").symlink_to(tmp_path / "gone")
    assert find(tmp_path, told := []) == ["x-1"]
    assert "cannot be read: No such file or directory" in str(told[0])


@given(st.binary(max_size=200))
def test_any_bytes_are_told_or_nothing(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("any")
    (directory / "a-w1.jsonl").write_bytes(data)
    told = []
    assert find(directory, told) == []
    assert bool(told) is bool(data)


@pytest.mark.parametrize("value", [None, 5, "text", ["a"], {"a": 1}])
@pytest.mark.parametrize("name", ["principal", "model", "hold", "started", "ended", "refusal"])
def test_a_field_of_another_kind_fits_nothing(tmp_path, name, value):
    entry = Entry(tmp_path, 1, {name: value})
    assert Query().matches(entry)
    assert not Query(models=("nosuch",)).matches(entry)
    assert not Query(since=START).matches(entry)


def test_flows(tmp_path, recording):
    for n in range(3):
        put(recording, n)
    found = [flow_bytes(entry) for entry in entries(tmp_path, Query(), pytest.fail)]
    assert found == [flow(0), flow(1), flow(2)]


def test_a_flow_that_is_not_what_was_recorded(tmp_path, recording):
    put(recording, 1)
    path = put(recording, 2).path
    data = path.read_bytes()
    one, two = entries(tmp_path, Query(), pytest.fail)
    path.write_bytes(data[:-2] + b"x,")
    assert flow_bytes(one) == flow(1)
    with pytest.raises(BadRecord, match=r"mitm: the flow of x-2 \(byte \d+\) is not what was"):
        flow_bytes(two)
    path.write_bytes(data[:-1])
    with pytest.raises(BadRecord, match="is cut off or gone"):
        flow_bytes(two)
    path.unlink()
    with pytest.raises(BadRecord, match="cannot be read: No such file"):
        flow_bytes(one)
