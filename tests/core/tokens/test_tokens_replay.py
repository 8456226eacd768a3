from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mitmgate.core.tokens.errors import ProofReplayed, ProofsUnavailable
from mitmgate.core.tokens.replay import Nonces, Replays


class TestReplays:
    def test_until_it_would_no_longer_be_accepted(self):
        replays = Replays()
        replays.remember("a", "1", until=10, now=0)
        with pytest.raises(ProofReplayed, match="of the key a with this jti"):
            replays.remember("a", "1", until=10, now=10)
        replays.remember("a", "1", until=20, now=10.5)

    def test_of_one_key_only(self):
        replays = Replays()
        replays.remember("a", "1", until=10, now=0)
        replays.remember("b", "1", until=10, now=0)

    def test_one_key_cannot_use_up_the_memory_of_others(self):
        replays = Replays(per_key=2, in_all=4)
        for jti in ("1", "2"):
            replays.remember("a", jti, until=10, now=0)
        with pytest.raises(ProofsUnavailable, match="2 proofs of the key a") as caught:
            replays.remember("a", "3", until=10, now=0)
        assert caught.value.status == 503
        replays.remember("b", "3", until=10, now=0)

    def test_where_it_is_full_nothing_is_forgotten(self):
        replays = Replays(per_key=2, in_all=3)
        for key, jti in (("a", "1"), ("a", "2"), ("b", "1")):
            replays.remember(key, jti, until=10, now=0)
        with pytest.raises(ProofsUnavailable, match="3 proofs are remembered"):
            replays.remember("c", "1", until=10, now=0)
        with pytest.raises(ProofReplayed):
            replays.remember("a", "1", until=10, now=0)
        replays.remember("c", "1", until=20, now=11)
        assert len(replays) == 1

    def test_what_is_refused_is_not_remembered(self):
        replays = Replays(per_key=1)
        replays.remember("a", "1", until=10, now=0)
        with pytest.raises(ProofsUnavailable):
            replays.remember("a", "2", until=10, now=0)
        replays.remember("a", "2", until=20, now=11)

    def test_a_clock_that_was_set_back(self):
        replays = Replays()
        replays.remember("a", "1", until=10, now=0)
        replays.remember("a", "2", until=200, now=100)
        with pytest.raises(ProofsUnavailable, match="clock went back"):
            replays.remember("a", "1", until=10, now=5)
        replays.remember("a", "3", until=11, now=5)


WINDOW = 10


class Model(RuleBasedStateMachine):
    """Clients with few keys and ids, honest and not, against a record of all that was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.replays = Replays(per_key=4, in_all=8)
        self.now = 1000.0
        self.taken: set[tuple[str, str, float]] = set()
        self.live: dict[tuple[str, str], float] = {}

    def forget(self) -> None:
        self.live = {pair: until for pair, until in self.live.items() if until >= self.now}

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10, 30, -2, -20]))
    def wait(self, seconds):
        self.now += seconds

    @rule(
        key=st.sampled_from("abc"),
        jti=st.sampled_from("123456"),
        age=st.sampled_from([0, -3, 5, WINDOW]),
    )
    def present(self, key, jti, age):
        until = self.now - age + WINDOW
        self.forget()
        known = (key, jti) in self.live
        try:
            self.replays.remember(key, jti, until, self.now)
        except ProofReplayed:
            assert known
        except ProofsUnavailable:
            assert not known
        else:
            assert not known
            assert (key, jti, until) not in self.taken
            self.taken.add((key, jti, until))
            self.live[key, jti] = until

    @rule(data=st.data())
    def replay(self, data):
        if not self.taken:
            return
        key, jti, until = data.draw(st.sampled_from(sorted(self.taken)))
        if self.now > until:
            return  # too old: it does not come as far as the memory
        self.forget()
        with pytest.raises((ProofReplayed, ProofsUnavailable)):
            self.replays.remember(key, jti, until, self.now)

    @invariant()
    def is_bounded(self):
        assert len(self.replays) <= 8
        assert len(self.replays._seen) <= len(self.replays)  # no key is kept for nothing


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class TestNonces:
    def test_good_for_its_stretch_and_the_next(self):
        nonces = Nonces(60)
        nonce = nonces.fresh(600)
        assert [nonces.accepts(nonce, now) for now in (599, 600, 719, 720)] == [
            False,
            True,
            True,
            False,
        ]

    def test_of_this_process_only(self):
        assert not Nonces(60).accepts(Nonces(60).fresh(0), 0)

    @pytest.mark.parametrize("nonce", [None, "", 1, True, ["x"], "é", "\ud800"])
    def test_nonsense(self, nonce):
        assert not Nonces(60).accepts(nonce, 0)
