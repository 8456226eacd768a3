import sqlite3
from dataclasses import replace

import pytest

from mitmgate.core.holds import (
    AlreadyApproved,
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
    Mark,
    Passage,
    ReasonRefused,
    SelfApproval,
    StoreError,
    Why,
)
from mitmgate.core.principal import Principal

AGENT = Principal("idp", "agent-7")
OTHER = Principal("idp", "agent-8")
ANN, BOB, CIM = (Principal("idp", name) for name in ("ann", "bob", "cim"))
FEW = Limits(per_caller=2, in_all=3)


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
    hold, _ = ask(store, excerpt="\ud800" + "x" * 9999, model="\udfff")
    assert hold == store.get(hold.id)
    assert len(hold.excerpt) == 2000
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
    with pytest.raises(AlreadyApproved, match=r"you have approved .* before; it has 1 of 2"):
        store.decide(hold.id, ANN, "approve", "fine again", "console")
    with pytest.raises(HoldPending, match="1 of 2"):
        store.consume(hold.digest, AGENT.name)
    with pytest.raises(AlreadyApproved):
        store.decide(hold.id, Principal("other-idp", "Ann"), "approve", "ok", "cli")
    assert len(store.get(hold.id).decisions) == 1
    assert store.decide(hold.id, BOB, "approve", "ok", "cli").state == "approved"
    with pytest.raises(AlreadyApproved, match="was approved by idp:bob already"):
        store.decide(hold.id, CIM, "approve", "ok", "cli")


def test_people_are_told_apart_by_the_words_that_are_given_for_them(store):
    hold, _ = ask(store, quorum=3, person=["agent-7", "dan@x.io"])
    with pytest.raises(SelfApproval):
        store.decide(hold.id, ANN, "approve", "ok", "cli", person=["DAN@x.io"])
    store.decide(hold.id, ANN, "approve", "ok", "cli", person=["ann@x.io"])
    other_ann = Principal("other-idp", "ann")
    store.decide(hold.id, other_ann, "approve", "ok", "cli", person=["ann@y.io"])
    with pytest.raises(AlreadyApproved):
        store.decide(hold.id, BOB, "approve", "ok", "cli", person=["b", "ann@y.io"])
    assert store.decide(hold.id, BOB, "approve", "ok", "cli", person=[]).state == "approved"


def test_who_decided_is_kept_as_people_know_them(store):
    hold, _ = ask(store, who=Principal("idp", "agent-7", display="Agent Seven"))
    after = store.decide(hold.id, Principal("idp", "ann", display="Ann"), "deny", "no", "cli")
    assert (after.display, after.decisions[0].display) == ("Agent Seven", "Ann")
    assert store.get(hold.id) == after


def test_approvals_are_people_even_if_they_are_written_down_twice(store):
    hold, _ = ask(store)
    decision = store.decide(hold.id, ANN, "approve", "fine", "cli").decisions[0]
    assert replace(hold, decisions=(decision, replace(decision, time=1.0))).approvals == 1
    elsewhere = replace(decision, issuer="other-idp", subject="a")
    assert replace(hold, decisions=(decision, elsewhere)).approvals == 1


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
    elif case == "approved":
        store.decide(hold.id, BOB, "approve", "yes", "cli")
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
        ("approved", AlreadyApproved, "hold_already_approved"),
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
    with pytest.raises(HoldLimit, match="idp:agent-7 has 2 requests"):
        ask(store, digest="3" * 64, limits=FEW)
    assert ask(store, digest="2" * 64, limits=FEW)[1] is False
    ask(store, digest="4" * 64, who=OTHER)
    with pytest.raises(HoldLimit, match=r"^3 requests"):
        ask(store, digest="5" * 64, who=ANN, limits=FEW)
    store.decide(first.id, ANN, "deny", "no", "cli")
    assert ask(store, digest="5" * 64, who=ANN, limits=FEW)[1]
    clock.now = first.expires
    assert ask(store, digest="6" * 64, limits=FEW)[1]


def test_connections_that_wait_for_one_hold_are_limited(store, clock):
    for exchange in ("x1", "x2"):
        assert ask(store, exchange=exchange, until=1010.0, limits=FEW)[0].waiting
    with pytest.raises(HoldLimit, match="idp:agent-7 has 2 connections"):
        ask(store, exchange="x3", until=1010.0, limits=FEW)
    hold, new = ask(store, exchange="x3", limits=FEW)
    assert (new, hold.waiting) == (False, True)
    ask(store, digest="e" * 64, who=OTHER, exchange="x4", until=1010.0, limits=FEW)
    with pytest.raises(HoldLimit, match=r"^3 connections"):
        ask(store, digest="f" * 64, who=ANN, exchange="x5", until=1010.0, limits=FEW)
    assert len(store.list()) == 2, "a connection that may not wait leaves no hold"
    store.leave("x1")
    assert ask(store, exchange="x3", until=1010.0, limits=FEW)
    clock.now = 1010.0
    assert ask(store, exchange="x6", until=1020.0, limits=FEW)


def test_nobody_waits_for_what_is_decided(store):
    hold, _ = ask(store)
    store.decide(hold.id, ANN, "approve", "fine", "cli")
    assert not ask(store, exchange="x2", until=1010.0)[0].waiting


def test_who_waits(store, clock):
    hold, _ = ask(store)
    assert not store.get(hold.id).waiting
    store.attend(hold.id, "x1", 1010)
    store.attend_all({"x2": (hold.id, 1010)})
    store.attend_all({"x2": (hold.id, 1050)})
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
        store.attend_all({"x2": (hold.id, 2000), "x1": ("h-222222", 2000)})
    assert not store.get(hold.id).waiting


def test_states_of_many(store, clock):
    one, two, three = (ask(store, digest=n * 64, ttl=100.0 * int(n))[0] for n in "123")
    store.decide(two.id, ANN, "deny", "no", "cli")
    clock.now += 100
    found = store.states([one.id, two.id, three.id.upper(), "h-222222"])
    assert found == {one.id: "expired", two.id: "denied", three.id: "pending"}
    assert store.states([]) == {}


def test_what_lives_is_listed_oldest_first_and_what_ended_newest_first(store, clock):
    ids = {}
    for n, end in enumerate(("denied", "pending", "consumed", "overdue", "approved", "pending")):
        clock.now += 1
        hold, _ = ask(store, digest=str(n) * 64, ttl=10.0 if end == "overdue" else 900.0)
        ids[n] = hold.id
        if end not in ("pending", "overdue"):
            verdict = "deny" if end == "denied" else "approve"
            store.decide(hold.id, ANN, verdict, "so", "cli")
        if end == "consumed":
            store.consume(hold.digest, AGENT.name)
    clock.now += 10

    def listed(*states, limit=500):
        return [list(ids.values()).index(h.id) for h in store.list(states, limit=limit)]

    everything = ("pending", "approved", "denied", "expired", "consumed")
    assert listed(*everything) == [1, 4, 5, 3, 2, 0]
    assert listed(*everything, limit=4) == [1, 4, 5, 3]
    assert listed(*everything, limit=2) == [1, 4]
    assert listed("pending") == [1, 5]
    assert listed("denied", "consumed") == [2, 0]
    assert listed("expired") == [3]
    store.expire()
    assert listed("expired") == [3]
    assert listed(limit=9) == []


PROMPT = (
    Passage("system", "system", "Be \ud83d brief."),
    Passage("prompt", "messages[0].content", "drop \u0000 d\u00fc", (Mark(0, 4, "r-one"),)),
)
WHY = (Why("r-one", "Dropping", "Ask first."), Why("r-two", "Two", "Ask."))


def test_approvers_see_what_was_judged_and_why(store):
    hold, _ = ask(store, prompt=PROMPT, why=WHY)
    found = store.get(hold.id)
    assert found.why == hold.why == WHY
    assert found.prompt == (replace(PROMPT[0], text="Be \ufffd brief."), PROMPT[1])
    assert store.list()[0] == hold == replace(found, prompt=())
    assert ask(store, prompt=PROMPT[:1])[0].prompt == ()
    assert store.get(hold.id) == found


def test_a_prompt_is_bounded(store):
    long = [Passage("prompt", "prompt", "x" * 9000)]
    hold, _ = ask(store, prompt=long, limits=Limits(prompt="1k"))
    (passage,) = store.get(hold.id).prompt
    assert len(passage.text) <= 1024
    assert passage.text.endswith("characters left out …]")


@pytest.mark.parametrize("end", ["denied", "consumed", "expired", "overdue"])
def test_a_prompt_goes_when_its_hold_ends(store, path, clock, end):
    secret = "a very particular sentence"
    hold, _ = ask(store, prompt=[Passage("prompt", "prompt", secret)])
    store.decide(hold.id, ANN, "approve", "fine", "cli")
    assert store.get(hold.id).prompt
    if end == "denied":
        store.decide(hold.id, ANN, "deny", "no", "cli")
    elif end == "consumed":
        store.consume(hold.digest, AGENT.name)
    else:
        clock.now = hold.expires
        if end == "expired":
            store.expire()
    assert store.get(hold.id).prompt == ()
    assert store.get(hold.id).excerpt == hold.excerpt
    store.close()
    with sqlite3.connect(path) as db:
        kept = db.execute("SELECT count(*) FROM prompt").fetchone()[0]
    db.close()
    assert kept == (end == "overdue")
    assert (secret.encode() in path.read_bytes()) == (end == "overdue")


def test_old_holds_are_forgotten_once_they_have_ended(store, clock):
    used, _ = ask(store, digest="1" * 64, until=1010.0)
    store.decide(used.id, ANN, "approve", "fine", "cli")
    store.consume(used.digest, AGENT.name)
    overdue, _ = ask(store, digest="2" * 64)
    later, _ = ask(store, digest="3" * 64, ttl=2000)
    clock.now = 2500.0
    assert store.prune(1900.0) == 0
    assert store.prune(2000.0) == 1
    with pytest.raises(HoldUnknown):
        store.get(used.id)
    assert store.expire()[0].id == overdue.id
    assert store.prune(2000.0) == 1
    assert store.prune(2000.0) == 0
    assert store.states([used.id, overdue.id, later.id]) == {later.id: "pending"}


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


def test_version_changes_for_what_people_would_see(store, path, clock):
    seen = [store.version()]

    def changed() -> bool:
        seen.append(store.version())
        return seen[-1] != seen[-2]

    hold, _ = ask(store)
    assert changed()
    store.list()
    store.get(hold.id)
    ask(store)
    assert not changed()
    store.attend(hold.id, "x1", 1010)
    assert changed()
    store.attend(hold.id, "x1", 1020)
    store.attend_all({"x1": (hold.id, 1030)})
    assert not changed()
    store.leave("x1")
    assert changed()
    store.leave("x1")
    assert not changed()
    with HoldStoreOf(path, clock) as cli:
        cli.decide(hold.id, ANN, "approve", "fine", "cli")
    assert changed()
    with pytest.raises(AlreadyApproved):
        store.decide(hold.id, ANN, "approve", "fine", "cli")
    assert not changed()
    store.consume(hold.digest, AGENT.name)
    assert changed()


class HoldStoreOf:
    def __init__(self, path, clock):
        self.store = HoldStore(path, clock=clock, create=False)

    def __enter__(self):
        return self.store

    def __exit__(self, *exc):
        self.store.close()
