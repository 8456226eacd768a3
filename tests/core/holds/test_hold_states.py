"""Every order of steps, with crashes in between, against a model of a few lines."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mitmgate.core.holds import HoldError, HoldStore
from mitmgate.core.principal import Principal

PEOPLE = [Principal("idp", name) for name in ("asker", "ann", "bob", "cim")]
DIGESTS = ["a" * 64, "b" * 64]
TTL = 100.0


class Model:
    """What the states should be, told as a story rather than as SQL."""

    def __init__(self, quorum, expires):
        self.quorum, self.expires = quorum, expires
        self.yes: set[str] = set()
        self.end = None

    def state(self, now):
        if self.end:
            return self.end
        if now >= self.expires:
            return "expired"
        return "approved" if len(self.yes) >= self.quorum else "pending"


class Holds(RuleBasedStateMachine):
    @initialize(quorum=st.integers(1, 3))
    def begin(self, quorum):
        self.quorum = quorum
        self.now = 1000.0
        self.directory = Path(tempfile.mkdtemp())
        self.models: dict[str, Model] = {}
        self.latest: dict[str, str] = {}
        self.uses: dict[str, int] = {}
        self.reopen()

    def reopen(self):
        self.store = HoldStore(self.directory / "holds.db", clock=lambda: self.now)

    @rule(digest=st.sampled_from(DIGESTS))
    def ask(self, digest):
        hold, new = self.store.open(
            digest, PEOPLE[0], operation="chat", model="m", rules=["r"], message="",
            excerpt="", exchange="x", ttl=TTL, quorum=self.quorum,
        )  # fmt: skip
        last = self.models.get(self.latest.get(digest, ""))
        open_still = last is not None and (
            last.state(self.now) in ("pending", "approved")
            or (last.state(self.now) == "denied" and self.now < last.expires)
        )
        assert new is not open_still
        if new:
            self.models[hold.id] = Model(self.quorum, self.now + TTL)
            self.latest[digest] = hold.id
        else:
            assert hold.id == self.latest[digest]

    @rule(
        digest=st.sampled_from(DIGESTS),
        who=st.sampled_from(PEOPLE),
        verdict=st.sampled_from(["approve", "approve", "deny"]),
    )
    def decide(self, digest, who, verdict):
        hold_id = self.latest.get(digest, "h-unknown")
        model = self.models.get(hold_id)
        allowed = (
            model is not None
            and model.state(self.now) in ("pending", "approved")
            and (verdict == "deny" or who != PEOPLE[0])
        )
        assert self.succeeds(lambda: self.store.decide(hold_id, who, verdict, "ok", "t")) is allowed
        if allowed and verdict == "deny":
            model.end = "denied"
        elif allowed:
            model.yes.add(who.subject)

    @rule(digest=st.sampled_from(DIGESTS))
    def consume(self, digest):
        hold_id = self.latest.get(digest, "")
        model = self.models.get(hold_id)
        allowed = model is not None and model.state(self.now) == "approved"
        assert self.succeeds(lambda: self.store.consume(digest, PEOPLE[0].name)) is allowed
        if allowed:
            model.end = "consumed"
            self.uses[hold_id] = self.uses.get(hold_id, 0) + 1

    @rule(seconds=st.sampled_from([1.0, 40.0, TTL]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def sweep(self):
        for hold in self.store.expire():
            assert self.models[hold.id].state(self.now) == "expired"

    @rule()
    def crash(self):
        self.store.close()
        self.reopen()

    @invariant()
    def states_agree(self):
        if not hasattr(self, "store"):
            return
        for hold_id, model in self.models.items():
            assert self.store.get(hold_id).state == model.state(self.now)
        assert all(count == 1 for count in self.uses.values())

    def succeeds(self, step) -> bool:
        try:
            step()
        except HoldError:
            return False
        return True

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)


Holds.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestHolds = Holds.TestCase
