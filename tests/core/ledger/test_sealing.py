"""Encrypted records: nothing of a flow is in any file, and all else works without a key."""

import json
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.ledger import (
    Archive,
    BadRecord,
    Identities,
    IdentityNeeded,
    Query,
    RecorderFile,
    RecordingError,
    age,
    entries,
    opened,
    opened_flow,
    sealed_part,
    verify,
)
from mitmgate.core.ledger.framing import is_frame, read_frame
from mitmgate.core.ledger.sealing import Sealing
from mitmgate.core.rules import RuleError, load

pyrage = pytest.importorskip(
    "pyrage", reason="needs pyrage, of the extra `encryption` (scripts/test installs it)"
)

SECRET = b"the launch codes"
OWNER, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()


def identities(*keys):
    text = "# created: 2026-03-02T09:00:00Z\n"
    text += "".join(f"# public key: {key.to_public()}\n{key}\n" for key in keys)
    return Identities(text.encode(), "key.txt")


def flow(n, size=100):
    text = b"flow %d %s " % (n, SECRET)
    text = text.ljust(size, b".")
    return b"%d:%s," % (len(text), text)


def fields(n, **more):
    return {"exchange": f"x-{n}", "ending": "complete", "session": "run-1", **more}


def rules(*keys, **more):
    if keys:
        more["encrypt"] = {"recipients": [str(key.to_public()) for key in keys]}
    return RecorderFile.model_validate({"schema": 1, **more})


def close(data):
    number = int(data.partition(b":")[2].split()[1])
    return data.replace(b"flow", b"dead"), fields(number, ending="interrupted")


def die(archive):
    """What the kernel does for a killed worker."""
    archive._recording.abandon()
    archive._slot.release()


def found(state):
    return list(entries(state / "recordings", Query(), lambda fault: pytest.fail(str(fault))))


def holding(state, secret=SECRET):
    """The files below `state` that have `secret` in them."""
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if secret in path.read_bytes()]


@pytest.fixture
def sealing(tmp_path):
    return Sealing(str(OWNER.to_public()), tmp_path)


def test_an_exchange_from_journal_to_record(tmp_path):
    archive = Archive(tmp_path, rules(OWNER))
    archive.admit("x-1", flow(1), close)
    assert holding(tmp_path) == []
    archive.settle("x-1", flow(1), fields(1))
    archive.close()
    assert holding(tmp_path) == []
    assert verify(tmp_path / "recordings").ok
    (entry,) = found(tmp_path)
    assert (entry["session"], entry["encrypted"]) == ("run-1", "age")
    assert opened_flow(entry, identities(OTHER, OWNER)) == flow(1)
    with entry.flows.open("rb") as file:
        assert is_frame(frame := read_frame(file))
        assert len(frame) == entry.fields["length"]


def test_who_may_not_read(tmp_path):
    archive = Archive(tmp_path, rules(OWNER))
    archive.settle("x-1", flow(1), fields(1))
    archive.close()
    (entry,) = found(tmp_path)
    with pytest.raises(IdentityNeeded, match=r"x-1 \(byte 0\) is encrypted: .*--identity FILE"):
        opened_flow(entry, None)
    with pytest.raises(BadRecord, match="none of these identities is one of its recipients"):
        opened_flow(entry, identities(OTHER))


def test_each_of_several_recipients_reads(tmp_path):
    archive = Archive(tmp_path, rules(OWNER, OTHER))
    archive.settle("x-1", flow(1), fields(1))
    archive.close()
    (entry,) = found(tmp_path)
    for key in (OWNER, OTHER):
        assert opened_flow(entry, identities(key)) == flow(1)


def test_a_dead_workers_journal_is_recorded_without_a_key(tmp_path, direct):
    archive = Archive(tmp_path, rules(OWNER))
    archive.admit("x-1", flow(1), close)
    archive.admit("x-2", flow(2), close)
    archive.keep("x-2", flow(2), fields(2, approvals=[{"reason": "launch codes", "subject": "a"}]))
    die(archive)
    assert holding(tmp_path, b"launch codes") == []
    archive = Archive(tmp_path, rules(OWNER))
    notes = "".join(archive.recover(close, direct))
    assert "x-1 was interrupted" in notes
    assert "x-2 had not been recorded when it ended" in notes
    archive.close()
    assert holding(tmp_path, b"launch codes") == []
    assert verify(tmp_path / "recordings").ok
    one, two = found(tmp_path)
    assert (one["exchange"], one["ending"], two["ending"]) == ("x-1", "interrupted", "complete")
    assert opened_flow(one, identities(OWNER)) == close(flow(1))[0]
    assert opened_flow(two, identities(OWNER)) == flow(2)
    assert not list((tmp_path / "journal").glob("w*/x-*"))


@pytest.mark.parametrize("cut", [1, 40, 200, 300, -1])
def test_a_torn_journal_is_put_aside(tmp_path, direct, cut):
    archive = Archive(tmp_path, rules(OWNER))
    archive.admit("x-1", flow(1), close)
    die(archive)
    (path,) = (tmp_path / "journal").glob("w*/x-1.flow")
    os.truncate(path, len(path.read_bytes()[:cut]))
    archive = Archive(tmp_path, rules(OWNER))
    (note,) = archive.recover(refused, direct)
    assert "x-1 is torn" in note
    archive.close()
    assert (tmp_path / "recordings" / "x-1.flow.torn").exists()


def test_a_journal_that_ends_behind_its_header_is_torn(tmp_path, direct):
    archive = Archive(tmp_path, rules(OWNER))
    archive.admit("x-1", flow(1), close)
    die(archive)
    (path,) = (tmp_path / "journal").glob("w*/x-1.flow")
    with path.open("rb") as file:
        os.truncate(path, len(read_frame(file)))
    archive = Archive(tmp_path, rules(OWNER))
    (note,) = archive.recover(refused, direct)
    assert "x-1 is torn (no flow)" in note
    archive.close()


def refused(data):
    raise ValueError("no flow")


def test_nothing_is_admitted_encrypted_that_could_not_be_told_later(tmp_path):
    archive = Archive(tmp_path, rules(OWNER))
    with pytest.raises(ValueError, match="interrupted"):
        archive.admit("x-1", flow(1))
    archive.close()


def test_recovery_counts_whole_records_behind_the_last_line(tmp_path):
    archive = Archive(tmp_path, rules(OWNER))
    archive.settle("x-1", flow(1), fields(1))
    die(archive)
    (path,) = (tmp_path / "recordings").glob("*.mitm")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole + whole[:-5])
    archive = Archive(tmp_path, rules(OWNER))
    assert "(1 whole flows)" in "".join(archive.notes)
    archive.close()
    assert verify(tmp_path / "recordings").ok
    assert holding(tmp_path) == []


def test_an_edit_begins_a_new_file_and_both_are_read(tmp_path, direct):
    archive = Archive(tmp_path, rules())
    archive.admit("x-0", flow(0), close)
    archive.keep("x-1", flow(1), fields(1))  # waits in the clear, as it was asked for then
    archive.settle("x-2", flow(2), fields(2))
    archive.reopen(rules(OWNER))
    archive.maintain()  # what waited
    archive.settle("x-3", flow(3), fields(3))
    archive.reopen(rules())
    archive.settle("x-4", flow(4), fields(4))
    archive.close()
    kept = found(tmp_path)
    assert [each["encrypted"] for each in kept] == ["", "age", "age", ""]
    assert len({each.flows for each in kept}) == 3
    assert [opened_flow(each, identities(OWNER)) for each in kept] == [
        flow(n) for n in (2, 1, 3, 4)
    ]
    with_key = {each.flows.name for each in kept if not each["encrypted"]}
    assert {name for name in holding(tmp_path / "recordings")} == with_key
    assert verify(tmp_path / "recordings").ok


def test_a_journal_in_the_clear_is_recorded_encrypted_after_an_edit(tmp_path, direct):
    archive = Archive(tmp_path, rules())
    archive.admit("x-1", flow(1), close)
    die(archive)
    archive = Archive(tmp_path, rules(OWNER))
    list(archive.recover(close, direct))
    archive.close()
    assert holding(tmp_path) == []
    assert opened_flow(found(tmp_path)[0], identities(OWNER)) == close(flow(1))[0]


def test_an_encrypted_journal_stays_so_after_an_edit(tmp_path, direct):
    archive = Archive(tmp_path, rules(OWNER))
    archive.admit("x-1", flow(1), close)
    die(archive)
    archive = Archive(tmp_path, rules())
    list(archive.recover(close, direct))
    archive.close()
    (entry,) = found(tmp_path)
    assert (entry["ending"], entry["encrypted"]) == ("interrupted", "age")
    assert holding(tmp_path) == []
    assert opened_flow(entry, identities(OWNER)) == close(flow(1))[0]


def test_retention_needs_no_key(tmp_path, direct):
    archive = Archive(tmp_path, rules(OWNER, rotate={"size": "1k"}, retain={"size": "3k"}))
    for n in range(6):
        archive.settle(f"x-{n}", flow(n, 600), fields(n))
    steps = [archive.retain(direct) for _ in range(8)]
    archive.close()
    assert sum(step.removed for step in steps) >= 3
    assert not any(step.alerts for step in steps if step.removed)
    report = verify(tmp_path / "recordings")
    assert report.ok
    assert len(report.removed) == sum(step.removed for step in steps)
    assert opened_flow(found(tmp_path)[-1], identities(OWNER)) == flow(5, 600)


def test_what_fails_to_encrypt_is_not_written(tmp_path, monkeypatch):
    archive = Archive(tmp_path, rules(OWNER))

    def fail(*_):
        raise pyrage.EncryptError("no entropy")

    with monkeypatch.context() as patched:
        patched.setattr(pyrage, "encrypt", fail)
        calls = (
            lambda: archive.admit("x-1", flow(1), close),
            lambda: archive.settle("x-1", flow(1), fields(1)),
            lambda: archive.keep("x-1", flow(1), fields(1)),
        )
        for call in calls:
            with pytest.raises(RecordingError, match="cannot be encrypted: no entropy"):
                call()
    assert not list((tmp_path / "journal").glob("w*/x-*"))
    archive.settle("x-2", flow(2), fields(2))  # and it goes on
    archive.close()
    assert [each["exchange"] for each in found(tmp_path)] == ["x-2"]
    assert holding(tmp_path) == []


def test_a_panic_of_the_library_is_a_recording_error(sealing, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(*_):
        raise PanicException("called unwrap on None")

    monkeypatch.setattr(pyrage, "encrypt", panic)
    with pytest.raises(RecordingError, match="called unwrap"):
        sealing.record(flow(1), fields(1))


def test_the_ledger_leaves_out_what_may_quote_a_prompt(sealing):
    told = {
        "findings": [{"rule": "r-1", "address": "tools[0].the launch codes", "view": "raw"}],
        "approvals": [{"subject": "ann", "reason": "launch codes are fine"}],
        "masked": {"email": 1},
        "coverage": {"prompt:text": 3},
    }
    _, kept = sealing.record(flow(1), fields(1, **told))
    assert "launch codes" not in json.dumps(kept)
    assert kept["findings"] == [{"rule": "r-1", "address": "", "view": "raw"}]
    assert kept["approvals"] == [{"subject": "ann", "reason": ""}]
    assert (kept["masked"], kept["coverage"]) == (told["masked"], told["coverage"])


@pytest.mark.parametrize("changed", [20, 90, 150, -3])
def test_a_changed_record_is_found_without_a_key(tmp_path, changed):
    archive = Archive(tmp_path, rules(OWNER))
    archive.settle("x-1", flow(1), fields(1))
    archive.close()
    (path,) = (tmp_path / "recordings").glob("*.mitm")
    data = bytearray(path.read_bytes())
    data[changed] ^= 1
    path.write_bytes(data)
    (finding,) = verify(tmp_path / "recordings").findings
    assert "is not what was recorded" in finding.message
    with pytest.raises(BadRecord, match="is not what was recorded"):
        opened_flow(found(tmp_path)[0], identities(OWNER))


def test_what_was_damaged_or_holds_something_else_is_said(sealing):
    frame, _ = sealing.record(flow(1), fields(1))
    broken = frame[:-10] + bytes(8) + frame[-2:]
    with pytest.raises(BadRecord, match=r"^here: cannot be decrypted"):
        opened(broken, identities(OWNER), "here")
    other, _ = sealing.record(b"no frame", fields(1))
    with pytest.raises(BadRecord, match="what is encrypted there is no flow"):
        opened(other, identities(OWNER), "here")


@pytest.mark.parametrize("size", [0, 100, age.PIECE, 3 * age.PIECE + 5])
def test_any_size(sealing, size):
    data = flow(1, size)
    frame, _ = sealing.record(data, fields(1))
    assert is_frame(frame)
    assert SECRET not in frame
    assert opened(frame, identities(OWNER), "") == data
    assert sealing.record(frame, fields(1))[0] == frame  # once is enough


@given(st.binary(max_size=300))
def test_what_is_not_sealed_is_left_alone(data):
    assert sealed_part(data) is None
    assert opened(data, None, "") == data


# recorder.yaml


def read(tmp_path, text):
    path = tmp_path / "recorder.yaml"
    path.write_text("schema: 1\n" + text)
    return load(path, RecorderFile).file


def test_recipients_in_the_file_and_elsewhere(tmp_path, monkeypatch):
    third = pyrage.x25519.Identity.generate()
    (tmp_path / "them.txt").write_text(f"# auditors\n{OTHER.to_public()}\n\n{third.to_public()}\n")
    monkeypatch.setenv("RECIPIENT", str(OWNER.to_public()))
    file = read(tmp_path, "encrypt: {recipients: ['${env:RECIPIENT}', '${file:them.txt}']}\n")
    frame, _ = file.encrypt.sealing(tmp_path).record(flow(1), fields(1))
    for key in (OWNER, OTHER, third):
        assert opened(frame, identities(key), "") == flow(1)


@pytest.mark.parametrize("kind", [("ed25519",), ("rsa", "-b", "2048")])
def test_ssh_keys(tmp_path, kind):
    key = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-N", "", "-f", key, "-t", *kind]
    subprocess.run(command, check=True)
    file = read(tmp_path, "encrypt: {recipients: ['${file:id.pub}']}\n")
    frame, _ = file.encrypt.sealing(tmp_path).record(flow(1), fields(1))
    assert opened(frame, Identities.read(key), "") == flow(1)


@pytest.mark.parametrize(
    ("recipients", "said"),
    [
        ("[]", "recipients: should have one entry at least"),
        ("[3]", r"recipients\[0\]: should be a string"),
        ("[age1nonsense]", r"recipients\[0\]: is no recipient"),
        ("[ssh-ed25519 AAAA]", "is no recipient"),
        ("[ssh-dss AAAA]", "is no recipient"),
        ("['${file:none.txt}']", "cannot read the file"),
        ("['${file:empty.txt}']", "names no recipient"),
        ("['${file:second.txt}']", "line 2 is no recipient"),
        ("[<secret>]", "is a secret key, which belongs on no gate"),
        ("[<public>]\n  passphrase: x", "unknown key"),
    ],
)
def test_what_is_no_recipient_is_told_with_its_line(tmp_path, recipients, said):
    (tmp_path / "empty.txt").write_text("# nobody yet\n")
    (tmp_path / "second.txt").write_text(f"{OWNER.to_public()}\nann@example.com\n")
    with pytest.raises(RuleError, match=said) as caught:
        read(tmp_path, f"fsync: never\nencrypt:\n  recipients: {_filled(recipients)}\n")
    assert f"recorder.yaml:{5 if 'passphrase' in recipients else 4}: " in str(caught.value)
    assert str(OWNER) not in str(caught.value)


def test_without_the_library_it_is_an_error_to_ask_for_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(RuleError, match=r"recorder\.yaml:2: .*need pyrage.*pip install pyrage"):
        read(tmp_path, f"encrypt: {{recipients: [{OWNER.to_public()}]}}\n")
    assert read(tmp_path, "").encrypt is None
    with pytest.raises(ValueError, match="need pyrage"):
        _ = identities(OWNER).keys


# Identity files


def _filled(text: str) -> str:
    """Keys that are made anew in every run are in no test's name, or its workers disagree on it."""
    return text.replace("<secret>", str(OWNER)).replace("<public>", str(OWNER.to_public()))


def test_identities_go_to_other_processes_and_show_nothing():
    keys = identities(OWNER)
    assert "SECRET" not in repr(keys) + str(keys)
    assert len(pickle.loads(pickle.dumps(keys)).keys) == 1  # noqa: S301  (just made)
    assert len(keys.keys) == 1
    assert len(pickle.loads(pickle.dumps(keys)).keys) == 1  # noqa: S301


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "key.txt has no secret key in it"),
        (b"# created: 2026\n", "has no secret key in it"),
        (b"# x\n<public>\n", "key.txt:2: is no secret key"),
        (b"<secret>\nAGE-SECRET-KEY-1QQ\n", "key.txt:2: is no secret key"),
        (b"\xff\xfe\x00", "key.txt:1: is no secret key"),
        (b"AGE-PLUGIN-YUBIKEY-1QQPQ\n", "of plugins are not supported"),
        (b"age-encryption.org/v1\n-> scrypt", r"passphrase.*--identity <\(age -d key.txt\)"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "passphrase"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "is no SSH key of type ed25519 or RSA"),
    ],
)
def test_what_is_no_identity_is_told_and_not_quoted(sealing, data, said):
    frame, _ = sealing.record(flow(1), fields(1))
    with pytest.raises(ValueError, match=said) as caught:
        opened(frame, Identities(_filled(data.decode("latin-1")).encode("latin-1"), "key.txt"), "")
    assert str(OWNER)[:30] not in str(caught.value)


def test_an_ssh_key_with_a_passphrase(tmp_path):
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-N", "secret", "-f", key, "-t", "ed25519"], check=True)
    with pytest.raises(ValueError, match="without a passphrase"):
        _ = Identities.read(key).keys
