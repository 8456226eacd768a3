"""Several processes, threads and connections at once, and one that is killed within a step."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mitmgate.core.holds import AlreadyApproved, HoldDenied, HoldError, HoldStore
from mitmgate.core.principal import Principal

AGENT = Principal("idp", "agent-7")
ANN = Principal("idp", "ann")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "holds.db"


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


def at_once(steps):
    """What each step returned or raised, all of them started together."""
    ready, found = threading.Barrier(len(steps)), {}

    def work(n, step):
        ready.wait()
        try:
            found[n] = step()
        except HoldError as e:
            found[n] = e

    threads = [threading.Thread(target=work, args=each) for each in enumerate(steps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[n] for n in range(len(steps))]


def test_of_many_who_approve_at_once_only_the_quorum_counts(path):
    stores = [HoldStore(path) for _ in range(6)]
    hold, _ = ask(stores[0], quorum=3)
    found = at_once(
        [
            lambda s=store, n=n: s.decide(hold.id, Principal("idp", f"p{n}"), "approve", "ok", "t")
            for n, store in enumerate(stores)
        ]
    )
    assert sum(isinstance(each, AlreadyApproved) for each in found) == 3
    after = stores[0].get(hold.id)
    assert (after.state, after.approvals, len(after.decisions)) == ("approved", 3, 3)
    for store in stores:
        store.close()


def test_an_approval_and_a_denial_at_once_end_in_a_denial(path):
    one, two = HoldStore(path), HoldStore(path)
    hold, _ = ask(one)
    found = at_once(
        [
            lambda: one.decide(hold.id, ANN, "approve", "ok", "t"),
            lambda: two.decide(hold.id, Principal("idp", "bob"), "deny", "no", "t"),
        ]
    )
    assert one.get(hold.id).state == "denied"
    assert isinstance(found[0], HoldDenied) or found[0].state == "approved"
    one.close()
    two.close()


KILLED = """
import sys
from pathlib import Path
from mitmgate.core.holds import HoldStore
store = HoldStore(Path(sys.argv[1]))
with store._database.write() as db:
    db.execute("UPDATE hold SET state = 'approved'")
    print("within", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_is_killed_within_a_step_has_not_made_it(path):
    store = HoldStore(path)
    hold, _ = ask(store)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "within\n"
        process.kill()
    assert store.get(hold.id).state == "pending"
    assert store.decide(hold.id, ANN, "approve", "fine", "cli").state == "approved"
    store.close()
