"""Tampering of every kind is found, and the right record is named."""

import fcntl
import re
import shutil
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.ledger import Recording, Retention, Signer, chain, verify
from mitmgate.core.ledger.chain import BadLine, Tip, link, read_line
from mitmgate.core.ledger.store import stored

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def public(key=KEY):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def flow(n, size=40):
    text = f"flow {n} ".encode().ljust(size, b".")
    inner = b"%d:%s;" % (len(text), text)
    return b"%d:%s}" % (len(inner), inner)


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        self.now += 0.25
        return self.now


def write(directory, files=3, entries=5, worker="w1", signer=None):
    recording = Recording(
        directory, worker, fsync="never", signer=signer, checkpoint_every=2, clock=Clock()
    )
    for _ in range(files):
        for n in range(entries):
            recording.record(flow(n), {"exchange": f"x-{n}", "principal": "idp:a", "ms": 1.5})
        recording.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    directory = tmp_path_factory.mktemp("good")
    write(directory, signer=Signer.from_pem(PRIVATE))
    return directory


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tampered") / "recordings"


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "copy")


def pairs(directory):
    return sorted(directory.glob("*.mitm")), sorted(directory.glob("*.jsonl"))


def test_what_was_written_is_in_order(good):
    for key in (None, public(), public().decode()):
        report = verify(good, key)
        assert report.ok, report.findings
        assert (report.files, report.entries, report.growing) == (3, 15, ())
        assert report.unsigned == (15 if key is None else 0)


def test_unsigned_is_in_order_too(tmp_path):
    write(tmp_path)
    assert verify(tmp_path).ok
    report = verify(tmp_path, public())
    assert not report.ok
    assert "its end is not signed" in str(report.findings[0])


def test_one_file_alone(good):
    flows, ledgers = pairs(good)
    assert verify(flows[1]).entries == verify(ledgers[1]).entries == 5
    assert verify(flows[1]).ok


def test_an_empty_directory(tmp_path):
    assert verify(tmp_path).ok
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nothing.mitm")


def test_another_key(good):
    report = verify(good, public(Ed25519PrivateKey.generate()))
    assert "signature is not this key's" in str(report.findings[0])


@pytest.mark.parametrize("key", [b"nonsense", PRIVATE])
def test_no_key(good, key):
    with pytest.raises(ValueError, match="public key"):
        verify(good, key)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(good, place, data):
    tampered(good, place)
    path = data.draw(st.sampled_from(sorted(place.glob("*-w1.*"))))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    first = verify(place).findings[0]
    assert first.path.stem == path.stem
    if path.suffix == ".jsonl":
        assert first.line == bytes(path.read_bytes()[:at]).count(b"\n") + 1 or content[at] == 10
    else:
        assert first.seq == records(path)[at]


def records(flows):
    """For every byte of a `.mitm` the number of its record."""
    found = []
    for raw in flows.with_suffix(".jsonl").read_bytes().splitlines(keepends=True):
        line = read_line(raw)
        found += [line.seq] * line.length
    return found


def tampered(good, place):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good, place)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_edit_of_lines_is_found(good, place, data):
    tampered(good, place)
    path = data.draw(st.sampled_from(pairs(place)[1]))
    lines = path.read_bytes().splitlines(keepends=True)
    before = list(lines)
    i, j = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    match data.draw(st.sampled_from(["delete", "repeat", "swap", "move", "cut", "foreign"])):
        case "delete":
            del lines[i]
        case "repeat":
            lines.insert(j, lines[i])
        case "swap":
            lines[i], lines[j] = lines[j], lines[i]
        case "move":
            lines.insert(j, lines.pop(i))
        case "cut":
            del lines[i:]
        case "foreign":
            other = data.draw(st.sampled_from(pairs(good)[1]))
            lines[i] = other.read_bytes().splitlines(keepends=True)[j]
    path.write_bytes(b"".join(lines))
    report = verify(place)
    assert report.ok is (lines == before)
    if lines != before:
        differ = [a != b for a, b in zip(lines, before, strict=False)]
        assert report.findings[0].path.stem == path.stem
        if True in differ and lines:
            assert report.findings[0].line == differ.index(True) + 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_truncation_is_found(good, place, data):
    tampered(good, place)
    path = data.draw(st.sampled_from(sorted(place.glob("*-w1.*"))))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert verify(place).findings[0].path.stem == path.stem


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_reordering_of_flows_is_found(good, place, data):
    tampered(good, place)
    path = data.draw(st.sampled_from(pairs(place)[0]))
    flows = [flow(n) for n in range(5)]
    assert b"".join(flows) == path.read_bytes()
    order = data.draw(st.lists(st.integers(0, 4), max_size=7).filter(lambda o: o != [*range(5)]))
    path.write_bytes(b"".join(flows[n] for n in order))
    first = verify(place).findings[0]
    assert first.path == path
    kept = sum(a == b for a, b in zip(order, range(5), strict=False) if order[:b] == [*range(b)])
    if order[:5] != [*range(5)]:
        assert first.seq == records(path)[kept * len(flows[0]) :][0]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("suffixes", [(".mitm",), (".jsonl",), (".mitm", ".jsonl")])
def test_a_missing_file_is_named(copy, which, suffixes):
    stem = pairs(copy)[0][which].stem
    for suffix in suffixes:
        (copy / (stem + suffix)).unlink()
    assert any(stem in str(finding) for finding in verify(copy).findings)


@pytest.fixture(scope="module", params=["unsigned", "signed"])
def whole(request, tmp_path_factory):
    """All that a directory can hold: two workers, a torn end, a gap of retention, checkpoints."""
    state = tmp_path_factory.mktemp("whole")
    place = state / "recordings"
    signer = Signer.from_pem(PRIVATE) if request.param == "signed" else None
    write(place, signer=signer)
    write(place, files=1, worker="w2", signer=signer)
    dead = Recording(place, "w2", signer=signer, clock=Clock())
    dead.record(flow(8), {"exchange": "x-8"})
    for path in (dead._pair.flows, dead._pair.ledger):
        with path.open("ab") as file:
            file.write(b"9:torn")
    dead.abandon()
    clock = Clock()
    recording = Recording(place, "w1", signer=signer, clock=clock)
    limits = {"age": None, "size": sum(each.size for each in stored(place)) - 1}
    key = signer.verifier if signer else None
    retention = Retention(place, state / "journal", "w1", **limits, verifier=key, clock=clock)
    assert retention.step(recording.note, lambda read: None).removed
    recording.record(flow(9), {"exchange": "x-9"})
    recording.close()
    Recording(place, "w2", signer=signer)
    (place / ".retention").unlink()
    assert len(list(place.iterdir())) == 5 * 2 + 2 + 2
    assert verify(place, public() if signer else None).ok
    return place, public() if signer else None


EDITS = (
    "flip drop insert cut delete empty duplicate copy-over swap-files swap-lines drop-line "
    "repeat-line insert-line delete-pair"
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_single_edit_is_found(whole, place, data):
    """Of any byte, any line, any record, any file: head, end, checkpoint, pointer, torn end."""
    source, key = whole
    tampered(source, place)
    path = data.draw(st.sampled_from(sorted(place.iterdir())))
    other = data.draw(st.sampled_from(sorted(place.iterdir())))
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    i, j = (data.draw(st.integers(0, max(0, len(lines) - 1))) for _ in range(2))
    edit = data.draw(st.sampled_from(EDITS.split()))
    match edit:
        case "flip":
            mask = data.draw(st.integers(1, 255))
            path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
        case "drop":
            path.write_bytes(content[:at] + content[at + data.draw(st.integers(1, 50)) :])
        case "insert":
            path.write_bytes(content[:at] + data.draw(st.binary(min_size=1)) + content[at:])
        case "cut":
            path.write_bytes(content[:at])
        case "delete":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "duplicate":
            name = data.draw(st.sampled_from(["20300101T000000.000Z-w1", "other", "w9"]))
            copy = place / (name + "".join(path.suffixes[-1:]))
            if path.suffix != ".torn":  # a torn end alone is no record
                copy.write_bytes(content)
        case "copy-over":
            path.write_bytes(other.read_bytes())
        case "swap-files":
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case "swap-lines":
            lines[i], lines[j] = lines[j], lines[i]
            path.write_bytes(b"".join(lines))
        case "drop-line":
            path.write_bytes(b"".join([*lines[:i], *lines[i + 1 :]]))
        case "repeat-line":
            path.write_bytes(b"".join([*lines[:j], lines[i], *lines[j:]]))
        case "insert-line":
            line = data.draw(st.sampled_from(other.read_bytes().splitlines(keepends=True)))
            path.write_bytes(b"".join([*lines[:i], line, *lines[i:]]))
        case "delete-pair":
            for each in place.glob(f"{path.name.split('.mitm')[0].split('.jsonl')[0]}*"):
                each.unlink()
    report = verify(place, key)
    assert report.ok is (contents(place) == contents(source)), (edit, path.name, other.name)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_file_that_goes_on_though_another_follows_is_found(copy):
    """Whoever holds the lock of an old file could pass a cut off as a file being written."""
    ledger = pairs(copy)[1][0]
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:3]))
    with ledger.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "goes on, and yet this follows it" in str(verify(copy).findings[0])


def test_progress_is_told(good):
    told = []
    verify(good, progress=lambda done, total: told.append((done, total)))
    size = sum(path.stat().st_size for path in good.glob("*-w1.*"))
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_swapped_ledgers(copy):
    one, other, _ = pairs(copy)[1]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    report = verify(copy)
    assert f"is the ledger of {other.stem}.mitm" in str(report.findings[0])


def test_swapped_pairs(copy):
    for suffix in range(2):
        one, other, _ = pairs(copy)[suffix]
        one.rename(copy / "aside")
        other.rename(one)
        (copy / "aside").rename(other)
    assert "is the ledger of" in str(verify(copy).findings[0])


def test_a_pair_from_another_recording(copy, tmp_path):
    write(tmp_path / "other", files=1)
    for path in (tmp_path / "other").glob("*-w1.*"):
        shutil.copy(path, copy / path.name)
    assert not verify(copy).ok


def test_a_second_beginning(copy, tmp_path):
    write(tmp_path / "other", files=1)
    path = pairs(tmp_path / "other")[0][0]
    stem = "20300101T000000.000Z-w1"
    name_in = path.with_suffix(".jsonl").read_bytes()
    tip, lines = Tip(), []
    for raw in name_in.splitlines(keepends=True):
        line = read_line(raw)
        own = {"kind", "seq", "offset", "length", "sha256", "prev", "hash"}
        fields = {k: v for k, v in line.fields.items() if k not in own}
        if line.kind == "head":
            fields["file"] = f"{stem}.mitm"
        content = path.read_bytes()[line.offset : line.offset + line.length]
        written, tip = link(tip, line.kind, fields, flow=content)
        lines.append(written)
    shutil.copy(path, copy / f"{stem}.mitm")
    (copy / f"{stem}.jsonl").write_bytes(b"".join(lines))
    assert verify(copy / f"{stem}.mitm").ok
    assert "follows the same file as" in str(verify(copy).findings[0])


def test_a_rewritten_chain_is_found_by_its_signatures(copy, tmp_path):
    """Somebody without the key makes it all anew, hashes included."""
    write(tmp_path / "forged")
    assert verify(tmp_path / "forged").ok
    assert len(verify(tmp_path / "forged", public()).findings) == 3


def test_a_chain_signed_by_somebody_else(tmp_path):
    write(tmp_path, signer=Signer(Ed25519PrivateKey.generate()))
    assert verify(tmp_path).ok
    assert len(verify(tmp_path, public()).findings) == 3


def forge(ledger, number, tip, kind="entry", *, keep=True, **fields):
    """Put a line in that is sound in itself: somebody who knows the format made it."""
    lines = ledger.read_bytes().splitlines(keepends=True)
    line, _ = link(tip, kind, fields, flow=flow(number - 1) if kind == "entry" else b"")
    lines[number : number + (not keep)] = [line]
    ledger.write_bytes(b"".join(lines))


def tip_before(ledger, number):
    return read_line(ledger.read_bytes().splitlines(keepends=True)[number - 1]).tip


@pytest.fixture
def plain(tmp_path):
    write(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize(
    ("number", "change", "kind", "message"),
    [
        (2, {"hash": "f" * 64}, "entry", "does not follow the record before it"),
        (2, {"end": 3}, "entry", "does not say where its flow is"),
        (2, {"seq": 2}, "entry", "record 2 is missing before record 3"),
        (2, {"seq": 0}, "entry", "stands here again"),
        (2, {}, "head", "was put in here: a head"),
        (2, {}, "entry", "does not follow|was changed|was put|stands here again"),
        (7, {}, "checkpoint", "was put in here: after the end"),
    ],
)
def test_a_forged_line(plain, number, change, kind, message):
    ledger = pairs(plain)[1][0]
    tip = replace(tip_before(ledger, number), **change)
    forge(ledger, number, tip, kind, exchange="x-forged", keep=number == 7 or not change)
    first = verify(plain).findings[0]
    assert re.search(message, first.message)
    assert first.line == (number + 1 if change or kind != "entry" else number + 2)


@pytest.mark.parametrize(
    ("old", "new"), [(b'{"', b'{ "'), (b'":', b'": '), (b"1.5", b"1.50"), (b"idp", b"\\u0069dp")]
)
def test_the_same_json_in_other_bytes(plain, old, new):
    ledger = pairs(plain)[1][0]
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new, 1)
    ledger.write_bytes(b"".join(lines))
    first = verify(plain).findings[0]
    assert "not canonical" in first.message
    assert first.seq == 2


def test_a_repeated_key(plain):
    ledger = pairs(plain)[1][0]
    ledger.write_bytes(ledger.read_bytes().replace(b'{"', b'{"seq":99,"', 1))
    assert verify(plain).findings[0].line == 1


@pytest.mark.parametrize("tail", [b"x", flow(5)])
def test_bytes_after_the_last_record(plain, tail):
    flows = pairs(plain)[0][1]
    with flows.open("ab") as file:
        file.write(tail)
    (finding,) = verify(plain).findings
    assert finding.path == flows
    assert "bytes after its last record" in finding.message


@pytest.mark.parametrize(
    ("tip", "previous", "message"),
    [
        (Tip(20, "0" * 64, 0), None, "says that it is the first"),
        (Tip(-1, "f" * 64, 0), None, "says that it is the first"),
        (Tip(20, "f" * 64, 0), "before", "does not go on where"),
    ],
)
def test_a_file_put_in_with_a_head_of_its_own(plain, tip, previous, message):
    newest = pairs(plain)[0][-1].name
    stem = "20300101T000000.000Z-w3"
    head = {"format": 1, "file": f"{stem}.mitm", "worker": "w3"}
    head["previous"] = newest if previous else None
    first, tip = link(tip, "head", head)
    last, _ = link(tip, "end", {})
    (plain / f"{stem}.mitm").write_bytes(b"")
    (plain / f"{stem}.jsonl").write_bytes(first + last)
    (finding,) = verify(plain).findings
    assert message in finding.message


@pytest.mark.parametrize("change", [{"format": 2}, {"file": "other.mitm"}])
def test_a_head_of_something_else(tmp_path, change):
    first, tip = link(Tip(), "head", {"format": 1, "file": "a-w1.mitm", "previous": None} | change)
    (tmp_path / "a-w1.jsonl").write_bytes(first + link(tip, "end", {})[0])
    (tmp_path / "a-w1.mitm").write_bytes(b"")
    assert len(verify(tmp_path).findings) == 1


@pytest.mark.parametrize("raw", [b"[]\n", b"7\n", b"{}\n", b"{\n", b"\xff\n", b"[" * 99999 + b"\n"])
def test_lines_that_are_none(plain, raw):
    ledger = pairs(plain)[1][0]
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:2], raw, *lines[2:]]))
    assert verify(plain).findings[0].line == 3


def test_a_line_without_end_takes_no_memory(plain):
    ledger = pairs(plain)[1][0]
    with ledger.open("ab") as file:
        file.write(b" " * (3 << 20) + b"\n")
    assert "cut off" in verify(plain).findings[0].message


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in ("seq", "offset", "length") for value in (-1, "x", True, 1.0, None)]
    + [("kind", "tail"), ("kind", []), ("kind", None), ("prev", None)],
)
def test_sound_lines_that_say_nonsense(key, value):
    """A hash can be made for anything; what is hashed still has to be a ledger line."""
    body = {"kind": "entry", "seq": 1, "offset": 0, "length": 0, "prev": "0" * 64, key: value}
    if value is None:
        del body[key]
    body["hash"] = chain._hash(body)
    with pytest.raises(BadLine, match=r"lacks|no line"):
        read_line(chain._canonical(body) + b"\n")


def test_two_workers(copy):
    write(copy, worker="w2", signer=Signer.from_pem(PRIVATE))
    report = verify(copy, public())
    assert report.ok, report.findings
    assert (report.files, report.entries) == (6, 30)
