"""A file that an earlier mitmgate wrote opens, keeps its holds, and is as one made today."""

import sqlite3
from contextlib import closing

import pytest

from mitmgate.core.holds import AlreadyApproved, HoldStore, SelfApproval, StoreError, schema
from mitmgate.core.principal import Principal

# As version 1 wrote it; never to be changed.
VERSION_1 = """
CREATE TABLE hold (
  id TEXT PRIMARY KEY, digest TEXT NOT NULL, principal TEXT NOT NULL, issuer TEXT NOT NULL,
  subject TEXT NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, rules TEXT NOT NULL,
  message TEXT NOT NULL, excerpt TEXT NOT NULL, exchange TEXT NOT NULL, created REAL NOT NULL,
  expires REAL NOT NULL, quorum INTEGER NOT NULL, state TEXT NOT NULL, decisions TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_live_hold ON hold (digest) WHERE state IN ('pending', 'approved');
CREATE INDEX hold_digest ON hold (digest, created);
CREATE INDEX hold_state ON hold (state, created);
CREATE TABLE waiter (
  hold TEXT NOT NULL REFERENCES hold, exchange TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY (hold, exchange)
) STRICT;
INSERT INTO hold VALUES ('h-aaaaaa', 'aa', 'idp:agent-7', 'idp', 'agent-7', 'chat', 'm',
  '["r-one", "r-two"]', 'Ask first.', 'drop it', 'x1', 1000.0, 1900.0, 2, 'pending',
  '[{"issuer": "idp", "subject": "ann", "verdict": "approve", "reason": "ok", "channel": "cli",
     "time": 1001.0}]');
INSERT INTO hold VALUES ('h-bbbbbb', 'bb', 'idp:agent-7', 'idp', 'agent-7', 'chat', 'm',
  '["r-one"]', 'Ask first.', 'drop it', 'x1', 900.0, 1800.0, 1, 'denied',
  '[{"issuer": "idp", "subject": "bob", "verdict": "deny", "reason": "no", "channel": "cli",
     "time": 901.0}]');
INSERT INTO waiter VALUES ('h-aaaaaa', 'x1', 2000.0);
PRAGMA application_id = 0x6D676174;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "holds.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
    return path


def test_holds_of_version_1_are_kept_and_decided(old):
    store = HoldStore(old, clock=lambda: 1100.0)
    live, ended = store.list(("pending", "denied"))
    assert (live.id, live.state, live.approvals, live.waiting) == ("h-aaaaaa", "pending", 1, True)
    assert (live.display, live.person) == ("", ("agent-7",))
    assert [(why.rule, why.message) for why in live.why] == [
        ("r-one", "Ask first."),
        ("r-two", "Ask first."),
    ]
    assert store.get(live.id).prompt == ()
    assert (ended.id, ended.decisions[0].reason) == ("h-bbbbbb", "no")
    with pytest.raises(SelfApproval):
        store.decide(live.id, Principal("os", "agent-7"), "approve", "ok", "cli")
    with pytest.raises(AlreadyApproved):
        store.decide(live.id, Principal("os", "ann"), "approve", "ok", "cli")
    assert store.decide(live.id, Principal("idp", "bob"), "approve", "ok", "cli").approvals == 2
    assert store.consume("aa", "idp:agent-7").state == "consumed"
    assert store.prune(2000.0) == 2
    store.close()


def test_an_old_file_becomes_what_a_new_one_is(old, tmp_path):
    for path in (old, tmp_path / "new.sqlite"):
        HoldStore(path).close()
    structures = []
    for path in (old, tmp_path / "new.sqlite"):
        with closing(sqlite3.connect(path)) as db:
            found = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
            structures.append(
                [(kind, name, " ".join((sql or "").split())) for kind, name, sql in found]
            )
            assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert structures[0] == structures[1]


def test_two_open_an_old_file_one_after_the_other(old):
    one, two = HoldStore(old), HoldStore(old)
    assert one.version() == two.version() == 0
    assert one.get("h-aaaaaa") == two.get("h-aaaaaa")
    one.close()
    two.close()


@pytest.mark.parametrize("last", range(len(schema.STEPS[1])))
def test_a_migration_that_fails_leaves_the_old_file(old, monkeypatch, last):
    broken = (*schema.STEPS[1][:last], "NO SUCH STATEMENT")
    with monkeypatch.context() as patched:
        patched.setattr(schema, "STEPS", (schema.STEPS[0], broken))
        with pytest.raises(StoreError, match="does not answer"):
            HoldStore(old)
    store = HoldStore(old, clock=lambda: 1100.0)
    assert store.get("h-aaaaaa").person == ("agent-7",)
    store.close()
