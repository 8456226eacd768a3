import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mitmgate.core.holds import (
    HoldConsumed,
    HoldDenied,
    HoldError,
    HoldExpired,
    HoldLimit,
    HoldNotYours,
    HoldPending,
    HoldStore,
    HoldUnknown,
    Limits,
    ReasonRefused,
    SelfApproval,
    StoreError,
)
from mitmgate.core.principal import Principal

AGENT = Principal("idp", "agent-7")
OTHER = Principal("idp", "agent-8")
ANN, BOB, CIM = (Principal("idp", name) for name in ("ann", "bob", "cim"))


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
    store = HoldStore(path, clock=clock, limits=Limits(per_principal=2, overall=3, excerpt=20))
    yield store
    store.close()


def ask(store, digest="d" * 64, who=AGENT, quorum=1, ttl=900.0, exchange="x1", **more):
    details = {
        "operation": "chat",
        "model": "m",
        "rules": ["r-one", "r-two"],
        "message": "Ask first.",
        "excerpt": "drop the tables",
    } | more
    return store.open(digest, who, exchange=exchange, ttl=ttl, quorum=quorum, **details)


def test_what_was_asked_is_what_is_read(store):
    hold, new = ask(store)
    assert new
    assert hold == store.get(hold.id) == store.list()[0]
    assert (hold.principal, hold.issuer, hold.subject) == ("idp:agent-7", "idp", "agent-7")
    assert (hold.operation, hold.model, hold.rules) == ("chat", "m", ("r-one", "r-two"))
    assert (hold.message, hold.excerpt, hold.exchange) == ("Ask first.", "drop the tables", "x1")
    assert (hold.created, hold.expires, hold.state) == (1000.0, 1900.0, "pending")
    assert hold.id.startswith("h-")
    assert len(hold.id) == 8


def test_a_long_excerpt_and_a_lone_surrogate_are_kept_as_text(store):
    hold, _ = ask(store, excerpt="\ud800" + "x" * 99, model="\udfff")
    assert hold == store.get(hold.id)
    assert len(hold.excerpt) == 20
    assert hold.excerpt.endswith("…")


def test_a_retry_attaches(store, clock):
    first, _ = ask(store)
    clock.now += 60
    assert ask(store, exchange="x2") == (first, False)
    store.decide(first.id, ANN, "approve", "fine", "cli")
    again, new = ask(store, exchange="x3")
    assert (again.id, again.state, new) == (first.id, "approved", False)


def test_a_denial_stands_until_its_time_is_over(store, clock):
    first, _ = ask(store)
    store.decide(first.id, ANN, "deny", "no", "cli")
    assert ask(store)[0].state == "denied"
    clock.now += 900
    assert ask(store)[1]


def test_after_use_or_expiry_the_same_request_is_asked_anew(store, clock):
    first, _ = ask(store)
    store.decide(first.id, ANN, "approve", "fine", "cli")
    store.consume(first.digest, AGENT.name)
    second, new = ask(store)
    assert new
    clock.now = second.expires
    third, new = ask(store)
    assert new
    assert len({first.id, second.id, third.id}) == 3
    assert store.get(second.id).state == "expired"


def test_an_approval_is_used_once(store):
    hold, _ = ask(store)
    after = store.decide(f" {hold.id.upper()} ", ANN, "approve", "I know them", "console")
    assert after.state == "approved"
    (decision,) = after.decisions
    assert (decision.who, decision.verdict, decision.reason) == (ANN_WHO, "approve", "I know them")
    assert (decision.channel, decision.time) == ("console", 1000.0)
    assert store.consume(hold.digest, AGENT.name).state == "consumed"
    with pytest.raises(HoldConsumed):
        store.consume(hold.digest, AGENT.name)


ANN_WHO = ("idp", "ann")


def test_an_approval_lets_no_other_request_and_no_other_caller_through(store):
    hold, _ = ask(store)
    store.decide(hold.id, ANN, "approve", "fine", "cli")
    with pytest.raises(HoldUnknown):
        store.consume("e" * 64, AGENT.name)
    with pytest.raises(HoldNotYours):
        store.consume(hold.digest, OTHER.name)
    assert store.get(hold.id).state == "approved"


def test_a_quorum_is_distinct_people(store):
    hold, _ = ask(store, quorum=2)
    assert store.decide(hold.id, ANN, "approve", "fine", "cli").state == "pending"
    again = store.decide(hold.id, ANN, "approve", "fine again", "console")
    assert (again.state, again.approvals, len(again.decisions)) == ("pending", 1, 1)
    with pytest.raises(HoldPending, match="1 of 2"):
        store.consume(hold.digest, AGENT.name)
    same_name_elsewhere = Principal("other-idp", "ann")
    assert store.decide(hold.id, same_name_elsewhere, "approve", "ok", "cli").state == "approved"


def test_approvals_are_people_even_if_they_are_written_down_twice(store):
    hold, _ = ask(store)
    decision = store.decide(hold.id, ANN, "approve", "fine", "cli").decisions[0]
    assert replace(hold, decisions=(decision, replace(decision, time=1.0))).approvals == 1


@pytest.mark.parametrize("approvals", [(), (ANN,), (ANN, BOB)])
def test_one_denial_ends_it(store, approvals):
    hold, _ = ask(store, quorum=2)
    for person in approvals:
        store.decide(hold.id, person, "approve", "fine", "cli")
    assert store.decide(hold.id, ANN, "deny", "changed my mind", "cli").state == "denied"
    with pytest.raises(HoldDenied, match="idp:ann: changed my mind"):
        store.consume(hold.digest, AGENT.name)


def refused(store, hold, clock, case):
    who, reason, hold_id = ANN, "fine", hold.id
    if case == "self":
        who = AGENT
    elif case == "no reason":
        reason = " \n"
    elif case == "long reason":
        reason = "x" * 2001
    elif case == "unknown":
        hold_id = "h-222222"
    elif case == "expired":
        clock.now = hold.expires
    elif case == "denied":
        store.decide(hold.id, BOB, "deny", "no", "cli")
    elif case == "consumed":
        store.decide(hold.id, BOB, "approve", "yes", "cli")
        store.consume(hold.digest, AGENT.name)
    store.decide(hold_id, who, "approve", reason, "cli")


@pytest.mark.parametrize(
    ("case", "error", "code"),
    [
        ("self", SelfApproval, "hold_self_approval"),
        ("no reason", ReasonRefused, "hold_reason"),
        ("long reason", ReasonRefused, "hold_reason"),
        ("unknown", HoldUnknown, "hold_unknown"),
        ("expired", HoldExpired, "hold_expired"),
        ("denied", HoldDenied, "hold_denied"),
        ("consumed", HoldConsumed, "hold_consumed"),
    ],
)
def test_refused_decisions(store, clock, case, error, code):
    hold, _ = ask(store)
    with pytest.raises(HoldError) as caught:
        refused(store, hold, clock, case)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert str(caught.value)
    assert not any(d.who == ANN_WHO for d in store.get(hold.id).decisions)


def test_the_requester_may_withdraw(store):
    hold, _ = ask(store)
    assert store.decide(hold.id, AGENT, "deny", "never mind", "cli").state == "denied"


def test_an_approval_expires_too(store, clock):
    hold, _ = ask(store)
    store.decide(hold.id, ANN, "approve", "fine", "cli")
    clock.now = hold.expires
    with pytest.raises(HoldExpired):
        store.consume(hold.digest, AGENT.name)


def test_expire_returns_each_hold_once_and_readers_do_not_wait_for_it(store, clock):
    hold, _ = ask(store)
    later, _ = ask(store, digest="e" * 64, ttl=2000)
    clock.now = hold.expires
    assert store.get(hold.id).state == "expired"
    assert [h.id for h in store.list(["expired"])] == [hold.id]
    assert [h.id for h in store.list(["pending", "approved"])] == [later.id]
    assert [(h.id, h.state) for h in store.expire()] == [(hold.id, "expired")]
    assert store.expire() == ()
    assert [h.id for h in store.expire(now=later.expires)] == [later.id]


def test_limits(store, clock):
    first, _ = ask(store, digest="1" * 64)
    ask(store, digest="2" * 64)
    with pytest.raises(HoldLimit, match="idp:agent-7 has 2"):
        ask(store, digest="3" * 64)
    assert ask(store, digest="2" * 64)[1] is False
    ask(store, digest="4" * 64, who=OTHER)
    with pytest.raises(HoldLimit, match=r"^3 requests"):
        ask(store, digest="5" * 64, who=ANN)
    store.decide(first.id, ANN, "deny", "no", "cli")
    assert ask(store, digest="5" * 64, who=ANN)[1]
    clock.now = first.expires
    assert ask(store, digest="6" * 64)[1]


def test_who_waits(store, clock):
    hold, _ = ask(store)
    assert not store.get(hold.id).waiting
    store.attend(hold.id, "x1", 1010)
    store.attend(hold.id, "x2", 1010)
    store.attend(hold.id, "x2", 1050)
    store.leave("x1")
    assert store.list()[0].waiting
    clock.now = 1049
    assert store.get(hold.id).waiting
    clock.now = 1050
    assert not store.get(hold.id).waiting
    store.attend(hold.id, "x2", 1080)
    store.abandon()
    assert not store.get(hold.id).waiting
    with pytest.raises(HoldUnknown):
        store.attend("h-222222", "x1", 2000)


def test_a_restart_loses_nothing(store, path, clock):
    hold, _ = ask(store, quorum=2)
    store.decide(hold.id, ANN, "approve", "fine", "cli")
    store.close()
    again = HoldStore(path, clock=clock)
    assert again.decide(hold.id, BOB, "approve", "fine", "cli").state == "approved"
    again.close()
    again.close()
    with pytest.raises(StoreError, match="closed"):
        again.list()


def test_version_changes_for_every_writer_and_for_nothing_else(store, path, clock):
    hold, _ = ask(store)
    before = store.version()
    store.list()
    store.get(hold.id)
    assert store.version() == before
    with HoldStoreOf(path, clock) as cli:
        cli.decide(hold.id, ANN, "approve", "fine", "cli")
    after = store.version()
    assert after != before
    store.consume(hold.digest, AGENT.name)
    assert store.version() != after


class HoldStoreOf:
    def __init__(self, path, clock):
        self.store = HoldStore(path, clock=clock, create=False)

    def __enter__(self):
        return self.store

    def __exit__(self, *exc):
        self.store.close()


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
        ("PRAGMA user_version = 2", "schema 2"),
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
        ("decisions", '[{"verdict": "approve"}]'),
        ("rules", "no json"),
        ("rules", "5"),
    ],
)
def test_a_row_that_is_no_hold(store, path, column, value):
    hold, _ = ask(store)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE hold SET {column} = ?", (value,))  # noqa: S608
    db.close()
    with pytest.raises(StoreError, match="no hold"):
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


RACER = """
import sys
from pathlib import Path
from mitmgate.core.holds import HoldConsumed, HoldStore
path, digest, principal = sys.argv[1:]
sys.stdin.readline()
store = HoldStore(Path(path))
try:
    store.consume(digest, principal)
    print("won")
except HoldConsumed:
    print("lost")
store.close()
"""


def test_two_processes_race_and_one_wins(path):
    store = HoldStore(path)
    racers = []
    rounds = 3
    for n in range(rounds):
        hold, _ = ask(store, digest=str(n) * 64)
        store.decide(hold.id, ANN, "approve", "fine", "cli")
        racers.append([racer(path, hold) for _ in range(2)])
    for pair in racers:
        for process in pair:
            process.stdin.write("go\n")
            process.stdin.flush()
        outcomes = sorted(process.communicate()[0].strip() for process in pair)
        assert outcomes == ["lost", "won"]
    store.close()


def racer(path: Path, hold) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RACER, str(path), hold.digest, AGENT.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_threads_share_a_store_and_race_to_open_it(path):
    stores, found = [], []

    def work():
        store = HoldStore(path)
        stores.append(store)
        found.append(ask(store))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert len(found) == 8
    assert len({hold.id for hold, _ in found}) == 1
    assert sum(new for _, new in found) == 1
