"""A worker dies before every single change that it makes on disk, and in the middle of a write.

Real kills are in `tests/e2e/test_recording_deaths.py`; here none is left out. What the kernel does
for a dead process is done for it: its files are closed, and so unlocked, and nothing else.
"""

import fcntl
import os
import shutil
from collections import Counter

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mitmgate.core.ledger import Archive, Query, RecorderFile, entries, flow_bytes, verify
from mitmgate.core.ledger import torn as torn_module

EXCHANGES = 5
ANSWERED = b"answered"


class Killed(BaseException):
    """Not even a `finally` puts anything on disk after it."""


class Disk:
    """Counts the changes on disk of whoever is watched, and ends it at number `last`."""

    def __init__(self, monkeypatch):
        self._patch = monkeypatch
        self.last = None
        self.count = 0
        self.names = []
        self._open = set()
        self._real = {}
        for name in ("write", "ftruncate", "truncate", "rename", "unlink", "mkdir"):
            self._watch(os, name)
        self._watch(shutil, "copyfileobj", torn_module.shutil)
        self._watch_files()
        monkeypatch.setattr(os, "fsync", lambda file: None)

    def _watch(self, module, name, place=None):
        real = self._real[name] = getattr(module, name)
        half = {"write": self._half_write, "copyfileobj": self._half_copy}.get(name)

        def call(*arguments, **named):
            self._step(name)
            if half:
                self._step(f"half a {name}", lambda: half(*arguments))
            return real(*arguments, **named)

        self._patch.setattr(place or module, name, call)

    def _watch_files(self):
        opening, closing, wrapping = os.open, os.close, os.fdopen

        def open_file(path, flags, *more, **named):
            if flags & os.O_CREAT and not os.path.exists(path):  # noqa: PTH110
                self._step("open")
            file = opening(path, flags, *more, **named)
            if self.last is not None:
                self._open.add(file)
            return file

        def close_file(file):
            self._open.discard(file)
            closing(file)

        def wrap_file(file, *arguments):
            self._open.discard(file)  # its wrapper closes it
            return wrapping(file, *arguments)

        self._patch.setattr(os, "fdopen", wrap_file)
        self._patch.setattr(os, "open", open_file)
        self._patch.setattr(os, "close", close_file)

    def _half_write(self, file, data):
        self._real["write"](file, data[: len(data) // 2])

    def _half_copy(self, source, target):
        target.write(source.read()[:-3])
        target.flush()

    def _step(self, name, part=None):
        if self.last is None:
            return
        self.count += 1
        if self.count == self.last:
            self.names.append(name)
            if part:
                part()
        if self.count >= self.last:
            raise Killed

    def watch(self, last, work, *arguments):
        """Run `work` up to its change number `last`; whether it died there."""
        self.last, self.count = last, 0
        try:
            work(*arguments)
        except BaseException:
            if self.count < last:
                raise
            return True  # with whatever its `finally` made of it
        else:
            return False
        finally:
            self.last = None
            for file in list(self._open):  # those of a worker that lives on are nobody's
                os.close(file)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    made = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    path = tmp_path_factory.mktemp("key") / "key.pem"
    path.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return path, public


def frame(text):
    return b"%d:%s," % (len(text), text)


def interrupted(data):
    return data, {"exchange": data.split(b" ")[1].decode(), "ending": "interrupted"}


def direct(work):
    return work()


class World:
    """What lives on when the gate dies: the model server, and the callers."""

    def __init__(self, state, **keys):
        self.state = state
        self.rules = RecorderFile.model_validate({"schema": 1, **keys})
        self.forwarded = []
        self.delivered = []

    def start(self):
        return Archive(self.state, self.rules)

    def live(self, worker="a", archive=None):
        """Some exchanges; every second one is over when the next has begun, files are rotated."""
        archive = archive or self.start()
        list(archive.recover(interrupted, direct))
        under_way = []
        for n in range(EXCHANGES):
            exchange = f"{worker}-{n}"
            archive.admit(exchange, frame(f"asked {exchange} ".encode().ljust(300)))
            self.forwarded.append(exchange)
            under_way.append(exchange)
            if n % 2:
                for each in under_way:
                    self.settle(archive, each)
                under_way.clear()
                archive.maintain()
        for each in under_way:
            archive.keep(each, *self.answer(each))  # as if there were no space for its record
        archive.close()

    def answer(self, exchange):
        answer = frame(f"asked {exchange} ".encode().ljust(300) + ANSWERED)
        return answer, {"exchange": exchange, "ending": "complete"}

    def settle(self, archive, exchange):
        archive.settle(exchange, *self.answer(exchange))
        self.delivered.append(exchange)

    def recover(self):
        archive = self.start()
        list(archive.recover(interrupted, direct))
        archive.close()

    def check(self, public):
        """All that went to the model is recorded, once, and as it was; the chain is whole."""
        directory = self.state / "recordings"
        report = verify(directory, public)
        assert report.ok, report.findings
        assert not report.growing
        found = list(entries(directory, Query(), pytest.fail))
        assert len(found) == report.entries
        recorded = Counter(entry["exchange"] for entry in found)
        assert set(recorded.values()) <= {1}
        assert set(self.forwarded) <= set(recorded)
        ending = {entry["exchange"]: entry["ending"] for entry in found}
        assert {ending[each] for each in self.delivered} <= {"complete"}
        for entry in found:
            data = flow_bytes(entry)
            assert f"asked {entry['exchange']} ".encode() in data
            assert (ANSWERED in data) is (entry["ending"] == "complete")
        left = [path for path in self.state.rglob("*") if path.suffix in (".flow", ".over")]
        assert not left
        return report


def worlds(tmp_path, key, **keys):
    path, _ = key
    number = 0
    while True:
        number += 1
        yield World(
            tmp_path / str(number),
            rotate={"size": "700"},
            sign={"key": f"${{file:{path}}}"},
            **keys,
        )


@pytest.mark.parametrize("fsync", ["interval", "always"])
def test_a_death_at_every_step(tmp_path, disk, key, fsync):
    for step, world in enumerate(worlds(tmp_path, key, fsync=fsync), 1):
        if not disk.watch(step, world.live):
            break
        world.recover()
        world.check(key[1])
        world.live("b")
        world.check(key[1])
        shutil.rmtree(world.state)
    world.check(key[1])
    seen = set(disk.names)
    assert {"open", "write", "half a write", "rename", "unlink", "mkdir"} <= seen
    assert step > 80


@pytest.mark.parametrize(
    "stride",
    [
        pytest.param(7, id="quick"),
        pytest.param(1, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_a_death_at_every_step_of_the_recovery_from_one(tmp_path, disk, key, stride):
    made = worlds(tmp_path, key)
    step, deaths = 0, 0
    while True:
        step += stride
        again = 0
        while True:
            again += 1
            world = next(made)
            if not disk.watch(step, world.live):
                again = 0
                break
            if not disk.watch(again, world.recover):
                break
            deaths += 1
            world.recover()
            world.check(key[1])
            shutil.rmtree(world.state)
        if not again:
            break
    assert {"truncate", "copyfileobj", "half a copyfileobj"} <= set(disk.names)
    assert deaths > 100


def test_a_death_beside_a_worker_that_lives(tmp_path, disk, key):
    for step, world in enumerate(worlds(tmp_path, key), 1):
        living = world.start()
        list(living.recover(interrupted, direct))
        living.admit("l-0", frame(b"asked l-0 "))
        world.forwarded.append("l-0")
        died = disk.watch(step, world.live)
        living.admit("l-1", frame(b"asked l-1 "))
        world.forwarded.append("l-1")
        world.settle(living, "l-1")
        world.settle(living, "l-0")
        third = world.start()  # in the place of the dead one
        list(third.recover(interrupted, direct))
        living.close()
        third.close()
        world.check(key[1])
        shutil.rmtree(world.state)
        if not died:
            break
    assert step > 80


def test_a_second_worker_dies_while_it_records_what_a_first_one_left(tmp_path, disk, key):
    for step, world in enumerate(worlds(tmp_path, key), 1):
        living = world.start()  # takes the first place: the others are recovered from beside it
        living.admit("l-0", frame(b"asked l-0 "))
        world.forwarded.append("l-0")
        assert disk.watch(60, world.live)
        died = disk.watch(step, world.recover)
        world.settle(living, "l-0")
        list(living.recover(interrupted, direct))
        living.close()
        world.check(key[1])
        shutil.rmtree(world.state)
        if not died:
            break
    assert step > 15


def test_locks_of_the_dead_are_free(tmp_path, disk, key):
    """What the simulation rests on: a killed worker holds nothing, one that lives does."""
    world = next(worlds(tmp_path, key))
    assert disk.watch(40, world.live)
    with (world.state / "journal" / "w1" / ".lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    archive = world.start()
    with (
        (world.state / "journal" / "w1" / ".lock").open("r+b") as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    archive.close()
