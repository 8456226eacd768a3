from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.file import Grant
from mitmgate.core.tokens.limits import Limiter, LimitReached

ANN, BOB = Principal("idp", "ann"), Principal("idp", "bob")


def grant(id="agents", **limits):
    return Grant.model_validate(
        {
            "id": id,
            "who": {"issuer": "idp"},
            "operations": "*",
            "models": "*",
            "limits": limits or None,
        }
    )


def taken(limiter, limits, principal=ANN, size=1, under_way=0):
    """The code of the refusal and how long to wait, or None."""
    try:
        limiter.take(limits, principal, size, under_way)
    except LimitReached as e:
        return e.code, e.retry_after
    return None


@pytest.fixture
def limiter(clock):
    return Limiter(clock=clock)


def test_no_limits(limiter):
    assert all(taken(limiter, grant(), size=1 << 40, under_way=1000) is None for _ in range(1000))


def test_requests_a_minute(limiter, clock):
    limits = grant(requests_per_minute=3)
    assert [taken(limiter, limits) for _ in range(3)] == [None] * 3
    assert taken(limiter, limits) == ("rate_limited", 20)
    clock.now += 19
    assert taken(limiter, limits) == ("rate_limited", 1)
    clock.now += 1
    assert taken(limiter, limits) is None
    assert taken(limiter, limits) == ("rate_limited", 20)
    clock.now += 60
    assert [taken(limiter, limits) for _ in range(3)] == [None] * 3


def test_each_caller_has_its_own(limiter):
    limits = grant(requests_per_minute=1)
    assert taken(limiter, limits) is None
    assert taken(limiter, limits, BOB) is None
    assert taken(limiter, limits) == ("rate_limited", 60)


def test_all_callers_together(limiter):
    limits = grant(requests_per_minute=1, per="grant")
    assert taken(limiter, limits) is None
    assert taken(limiter, limits, BOB) == ("rate_limited", 60)
    assert taken(limiter, grant("other", requests_per_minute=1, per="grant"), BOB) is None


def test_prompt_bytes_a_minute(limiter, clock):
    limits = grant(prompt_bytes_per_minute="1k")
    assert taken(limiter, limits, size=1024) is None
    assert taken(limiter, limits, size=512) == ("prompt_bytes_limited", 30)
    clock.now += 30
    assert taken(limiter, limits, size=512) is None


def test_what_could_never_pass_is_not_to_be_tried_again(limiter):
    limits = grant(prompt_bytes_per_minute="1k")
    assert taken(limiter, limits, size=1025) == ("prompt_bytes_limited", None)
    assert taken(limiter, limits, size=1024) is None


def test_exchanges_at_once(limiter):
    limits = grant(concurrent=2)
    assert taken(limiter, limits, under_way=1) is None
    assert taken(limiter, limits, under_way=2) == ("concurrency_limited", 1)


def test_a_refused_request_counts_for_nothing(limiter):
    limits = grant(requests_per_minute=2, prompt_bytes_per_minute="1k", concurrent=1)
    assert taken(limiter, limits, under_way=1) == ("concurrency_limited", 1)
    for _ in range(5):
        assert taken(limiter, limits, size=2000) == ("prompt_bytes_limited", None)
    assert taken(limiter, limits, size=500) is None
    assert taken(limiter, limits, size=500) is None
    assert taken(limiter, limits, size=1) == ("rate_limited", 30)


def test_memory_is_bounded(limiter, monkeypatch):
    monkeypatch.setattr("mitmgate.core.tokens.limits.REMEMBERED", 10)
    limits = grant(requests_per_minute=1)
    for i in range(100):
        assert taken(limiter, limits, Principal("idp", str(i))) is None
    assert len(limiter._due) == 10
    assert taken(limiter, limits, Principal("idp", "99")) == ("rate_limited", 60)


@given(
    allowed=st.integers(1, 20),
    steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=60),
)
def test_never_more_than_allowed_in_a_burst_and_over_time(allowed, steps):
    now = 0.0
    limiter = Limiter(clock=lambda: now)
    limits = grant(requests_per_minute=allowed)
    passed: list[float] = []
    for step in steps:
        now += step
        if taken(limiter, limits) is None:
            passed.append(now)
    for start in passed:
        for end in passed:
            if end >= start:
                count = sum(start <= at <= end for at in passed)
                assert count <= allowed + (end - start) * allowed / 60 + 1e-6


@given(waits=st.lists(st.integers(0, 30), max_size=20), allowed=st.integers(1, 10))
def test_who_waits_as_told_is_let_in(waits, allowed):
    now = 0.0
    limiter = Limiter(clock=lambda: now)
    limits = grant(requests_per_minute=allowed)
    for wait in waits:
        now += wait
        if refused := taken(limiter, limits):
            now += refused[1]
            assert taken(limiter, limits) is None
