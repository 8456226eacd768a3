"""The file under the store: who may read it, and files that are damaged, foreign or locked."""

import sqlite3
import time

import pytest

from mitmgate.core.holds import HoldStore, StoreError
from mitmgate.core.principal import Principal

AGENT = Principal("idp", "agent-7")
ANN = Principal("idp", "ann")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "holds.db"


@pytest.fixture
def store(path, clock):
    store = HoldStore(path, clock=clock)
    yield store
    store.close()


def ask(store, digest="d" * 64, **more):
    details = {
        "operation": "chat",
        "model": "m",
        "rules": ["r-one"],
        "message": "Ask first.",
        "excerpt": "drop the tables",
        "exchange": "x1",
        "ttl": 900.0,
    } | more
    return store.open(digest, AGENT, **details)


def test_files_are_for_the_owner_alone(store, path):
    ask(store)
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_a_command_makes_no_store(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        HoldStore(tmp_path / "holds.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database at all, but long enough" * 100, b"short"])
def test_a_file_that_is_no_database(tmp_path, content):
    path = tmp_path / "holds.db"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        HoldStore(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_corrupt_database(store, path):
    ask(store)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"holds\.db"):
        HoldStore(path)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("PRAGMA user_version = 3", "schema 3"),
        ("PRAGMA user_version = -1", "schema -1"),
        ("PRAGMA user_version = 0", "schema 0"),
        ("PRAGMA application_id = 7", "another program"),
    ],
)
def test_a_foreign_database(store, path, statement, reason):
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(StoreError, match=reason):
        HoldStore(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("decisions", "no json"),
        ("decisions", "5"),
        ("decisions", "[5]"),
        ("decisions", '[{"verdict": "approve"}]'),
        ("rules", "no json"),
        ("rules", "5"),
        ("person", "5"),
        ("why", "[1]"),
        ("why", '[{"rule": "r"}]'),
    ],
)
def test_a_row_that_is_no_hold(store, path, column, value):
    hold, _ = ask(store)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE hold SET {column} = ?", (value,))  # noqa: S608
    db.close()
    with pytest.raises(StoreError, match="no hold"):
        store.get(hold.id)


@pytest.mark.parametrize("value", ["no json", "5", "[{}]", '[{"marks": [{"start": 1}]}]'])
def test_a_row_that_is_no_prompt(store, path, value):
    hold, _ = ask(store)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE prompt SET passages = ?", (value,))
    db.close()
    with pytest.raises(StoreError, match="no prompt"):
        store.get(hold.id)


def test_a_locked_store_is_an_error_and_not_a_hang(path, clock):
    store = HoldStore(path, clock=clock, busy=0.1)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        ask(store)
    assert time.monotonic() - start < 2
    blocker.execute("ROLLBACK")
    blocker.close()
    assert ask(store)[1]
    store.close()


def test_an_unusable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        HoldStore(tmp_path / "file" / "holds.db")
