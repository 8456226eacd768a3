"""Every order of steps by several people through two connections, against a model of a few lines.

The gate dies at any point: what is on disk then is all that is left, a transaction that somebody
had begun and not ended included.
"""

import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mitmgate.core.holds import (
    ApprovalFile,
    HoldError,
    HoldLimit,
    HoldStore,
    Limits,
    Passage,
    may_decide,
)
from mitmgate.core.principal import Principal


def person(subject, mail, *groups):
    return Principal("idp", subject, groups=frozenset(groups), claims={"email": mail})


ASKERS = [person("asker", "asker@x.io", "security"), person("robot", "bot@x.io")]
PEOPLE = [
    *ASKERS,
    person("ann", "ann@x.io", "security", "finance"),
    person("second-ann", "ANN@x.io", "security", "finance"),  # Ann again, by another name
    person("bob", "bob@x.io", "security"),
    person("cim", "cim@x.io", "security", "finance"),
    person("dan", "dan@x.io", "finance"),
    person("owner", "bot@x.io", "security", "finance"),  # who lets the robot ask
    Principal("os", "root"),
]
HUMAN = {"second-ann": "ann", "owner": "robot"}  # by subject, where it is not the subject
MEMORY = Path("/dev/shm")  # noqa: S108 - a disk would be synchronised ten thousand times
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]
LIMITS = Limits(per_caller=2, in_all=3, prompt="1k")
TTL = {"plain": 100.0, "money": 60.0}
RULES = [("plain",), ("money",), ("plain", "money")]


def rule_of(id, **own):
    tests = {"match": ["x"], "pass": ["y"]}
    return {"id": id, "title": id, "action": "hold", "match": "x", "tests": tests} | own


FILE = ApprovalFile.model_validate(
    {
        "schema": 1,
        "approvers": {"who": {"groups": ["security"]}},
        "quorum": 1,
        "ttl": "100s",
        "same_person": ["sub", "email"],
        "rules": [
            rule_of("plain"),
            rule_of("money", approvers={"who": {"groups": ["finance"]}}, quorum=2, ttl="60s"),
        ],
    }
)


def human(who: Principal) -> str:
    return HUMAN.get(who.subject, who.subject)


class Model:
    """What a hold should be, told as a story rather than as SQL."""

    def __init__(self, asker, rules, expires):
        self.asker, self.rules, self.expires = asker, rules, expires
        self.quorum = 2 if "money" in rules else 1
        self.groups = {"finance" if rule == "money" else "security" for rule in rules}
        self.yes: set[str] = set()
        self.end = None
        self.uses = 0

    def state(self, now):
        if self.end:
            return self.end
        if now >= self.expires:
            return "expired"
        return "approved" if len(self.yes) >= self.quorum else "pending"

    def alive(self, now):
        return self.state(now) in ("pending", "approved")

    def may(self, who):
        return human(who) != human(self.asker) and self.groups <= who.groups


class Holds(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.now = 1000.0
        self.directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.lives = 0
        self.models: dict[str, Model] = {}
        self.latest: dict[tuple[str, str], str] = {}
        self.start()

    def start(self):
        self.path = self.directory / str(self.lives) / "holds.db"
        self.stores = [HoldStore(self.path, clock=lambda: self.now, busy=0.0) for _ in range(2)]

    def pending(self, asker=None):
        return sum(
            model.state(self.now) == "pending" and asker in (None, model.asker)
            for model in self.models.values()
        )

    @rule(
        asker=st.sampled_from(ASKERS),
        what=st.sampled_from(DIGESTS),
        rules=st.sampled_from(RULES),
        through=st.integers(0, 1),
    )
    def ask(self, asker, what, rules, through):
        terms = FILE.terms(rules)
        key = (asker.subject, what)
        last = self.models.get(self.latest.get(key, ""))
        attaches = last is not None and (
            last.alive(self.now) or (last.state(self.now) == "denied" and self.now < last.expires)
        )
        full = self.pending(asker) >= 2 or self.pending() >= 3
        try:
            hold, new = self.stores[through].open(
                asker.subject + what, asker, operation="chat", model="m", rules=rules, message="",
                excerpt="", exchange="x", ttl=terms.ttl, quorum=terms.quorum, limits=LIMITS,
                person=FILE.person(asker), prompt=[Passage("prompt", "p", "x" * 2000)],
            )  # fmt: skip
        except HoldLimit:
            assert full
            assert not attaches
            return
        assert new is not attaches
        if new:
            assert not full
            expires = self.now + min(TTL[rule] for rule in rules)
            self.models[hold.id] = Model(asker, rules, expires)
            self.latest[key] = hold.id
        else:
            assert hold.id == self.latest[key]

    def decide(self, key, who, verdict, through):
        hold_id = self.latest[key]
        model = self.models[hold_id]
        store = self.stores[through]
        state = model.state(self.now)

        def step():
            may_decide(FILE, store.get(hold_id), who)
            store.decide(hold_id, who, verdict, "so", "test", FILE.person(who))

        allowed = model.may(who) and (
            (verdict == "deny" and state in ("pending", "approved"))
            or (verdict == "approve" and state == "pending" and human(who) not in model.yes)
        )
        assert self.succeeds(step) is allowed
        if allowed and verdict == "deny":
            model.end = "denied"
        elif allowed:
            model.yes.add(human(who))

    @precondition(lambda self: self.latest)
    @rule(data=st.data(), who=st.sampled_from(PEOPLE), through=st.integers(0, 1))
    def somebody_denies(self, data, who, through):
        self.decide(data.draw(st.sampled_from(sorted(self.latest))), who, "deny", through)

    @precondition(lambda self: self.latest)
    @rule(data=st.data(), some=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=6))
    def some_approve(self, data, some):
        key = data.draw(st.sampled_from(sorted(self.latest)))
        for n, who in enumerate(some):
            self.decide(key, who, "approve", n % 2)

    @precondition(lambda self: self.latest)
    @rule(data=st.data(), some=st.permutations(PEOPLE))
    def everybody_is_asked(self, data, some):
        key = data.draw(st.sampled_from(sorted(self.latest)))
        for n, who in enumerate(some):
            self.decide(key, who, "approve", n % 2)

    @precondition(lambda self: self.latest)
    @rule(data=st.data(), some=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=6))
    def some_approve_without_asking_whether_they_may(self, data, some):
        """The store itself never counts the requester, nor one person twice."""
        hold_id = self.latest[data.draw(st.sampled_from(sorted(self.latest)))]
        model = self.models[hold_id]
        for who in some:
            allowed = (
                model.state(self.now) == "pending"
                and human(who) != human(model.asker)
                and human(who) not in model.yes
            )
            decision = (hold_id, who, "approve", "so", "test", FILE.person(who))
            done = self.succeeds(lambda decision=decision: self.stores[0].decide(*decision))
            assert done is allowed
            if allowed:
                model.yes.add(human(who))

    @precondition(lambda self: self.latest)
    @rule(data=st.data())
    def consume(self, data):
        key = data.draw(st.sampled_from(sorted(self.latest)))
        model = self.models[self.latest[key]]
        allowed = model.state(self.now) == "approved"
        digest, asker = "".join(key), model.asker.name
        other = next(each for each in ASKERS if each is not model.asker).name
        assert not self.succeeds(lambda: self.stores[0].consume(digest, other))
        wins = [
            self.succeeds(lambda store=store: store.consume(digest, asker)) for store in self.stores
        ]
        assert wins == [allowed, False]
        if allowed:
            model.end = "consumed"
            model.uses += 1

    @rule(seconds=st.sampled_from([1.0, 40.0, 60.0, 100.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def sweep(self):
        for hold in self.stores[1].expire():
            assert self.models[hold.id].state(self.now) == "expired"

    @rule(days=st.sampled_from([0.0, 50.0]))
    def prune(self, days):
        before = self.now - days
        self.stores[0].expire()
        gone = {
            id
            for id, model in self.models.items()
            if not model.alive(self.now) and model.expires < before
        }
        assert self.stores[0].prune(before) == len(gone)
        self.models = {id: model for id, model in self.models.items() if id not in gone}
        self.latest = {key: id for key, id in self.latest.items() if id not in gone}

    @rule()
    def restart(self):
        for store in self.stores:
            store.close()
        self.start()

    @rule(within=st.booleans())
    def kill(self, within):
        """Nothing is closed: the files are taken as they are, perhaps within somebody's step."""
        if within:
            half = sqlite3.connect(self.path, isolation_level=None)
            half.execute("PRAGMA cache_size = 1")  # what is not committed goes to disk, too
            half.execute("BEGIN IMMEDIATE")
            half.execute("UPDATE hold SET state = 'consumed', message = hex(zeroblob(9000))")
        self.lives += 1
        left = self.directory / str(self.lives)
        left.mkdir()
        for name in ("holds.db", "holds.db-wal"):
            shutil.copy(self.path.parent / name, left / name)
        if within:
            half.close()
        for store in self.stores:
            store.close()
        self.start()

    @invariant()
    def states_agree(self):
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            found = store.states(self.models)
            assert found == {id: model.state(self.now) for id, model in self.models.items()}
        for hold_id, model in self.models.items():
            hold = self.stores[0].get(hold_id)
            assert (hold.state, hold.quorum) == (model.state(self.now), model.quorum)
            assert bool(hold.prompt) is model.alive(self.now)
            yes = {
                HUMAN.get(d.subject, d.subject) for d in hold.decisions if d.verdict == "approve"
            }
            assert yes == model.yes
            assert hold.approvals == len(yes)
            assert human(model.asker) not in yes
            assert model.uses <= 1
            if model.uses:
                assert hold.state == "consumed"
            if hold.state in ("approved", "consumed"):
                assert len(yes) >= model.quorum

    @invariant()
    def the_living_are_listed_first(self):
        if not hasattr(self, "stores"):
            return
        listed = self.stores[1].list(("pending", "approved", "denied", "expired", "consumed"))
        assert {hold.id for hold in listed} == set(self.models)
        alive = [hold.alive for hold in listed]
        assert alive == sorted(alive, reverse=True)

    def succeeds(self, step) -> bool:
        try:
            step()
        except HoldError:
            return False
        return True

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            shutil.rmtree(self.directory)


Holds.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestHolds = Holds.TestCase
