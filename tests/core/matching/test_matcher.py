"""The matcher: whose rules, which segments, what is reported, and that threads may share it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mitmgate.core.matching import INLINE, Matcher, size_of
from mitmgate.core.matching import matcher as matching
from mitmgate.core.matching import prefilter as prefiltering
from mitmgate.core.principal import Principal
from mitmgate.core.wire.segment import Segment

type Make = Callable[..., Matcher]

ALICE = Principal("idp", "alice", groups=frozenset(["model-ops"]))
BOB = Principal("idp", "bob")


def prompt(text: str) -> list[Segment]:
    return [Segment("prompt", "messages[0].content", text)]


def test_a_finding_says_what_and_where(make: Make):
    matcher = make(dict())
    (finding,) = matcher.scan(prompt("a FORBIDDEN word"), BOB)
    assert finding.rule is matcher.rules[0]
    assert (finding.address, finding.view) == ("messages[0].content", "raw")
    assert (finding.start, finding.end, finding.text) == (2, 11, "FORBIDDEN")


def test_text_of_another_view_is_quoted_from_that_view(make: Make):
    (finding,) = make(dict()).scan(prompt("a f\u200borbidden word"), BOB)
    assert (finding.view, finding.text, finding.start) == ("normalised", "forbidden", 2)
    (finding,) = make(dict()).scan(prompt("%66orbidden"), BOB)
    assert (finding.view, finding.text) == ("decoded", "forbidden")


def test_quoted_text_is_cut(make: Make):
    (finding,) = make(dict(match="x{9,5000}", hit="x" * 9)).scan(prompt("x" * 4000), BOB)
    assert (len(finding.text), finding.end) == (200, 4000)


def test_one_finding_per_rule_and_segment(make: Make):
    matcher = make(dict(id="one"), dict(id="two"))
    segments = [*prompt("forbidden forbidden"), Segment("system", "system", "forbidden")]
    found = [(f.rule.id, f.address) for f in matcher.scan(segments, None)]
    assert found == [
        ("one", "messages[0].content"),
        ("two", "messages[0].content"),
        ("one", "system"),
        ("two", "system"),
    ]


def test_only_the_segments_that_a_rule_covers(make: Make):
    matcher = make(dict(where=["tool_calls"]))
    assert not matcher.scan(prompt("forbidden"), BOB)
    assert matcher.scan([Segment("tool_calls", "x", "forbidden")], BOB)


def test_a_rule_covers_all_request_text_and_no_answer_unless_it_says_so(make: Make):
    matcher = make(dict())
    for where in ("prompt", "system", "tools", "tool_calls", "tool_results", "path"):
        assert matcher.scan([Segment(where, "x", "forbidden")], BOB)
    assert not matcher.scan([Segment("answer", "x", "forbidden")], BOB)


def test_exceptions_are_for_those_they_name(make: Make):
    matcher = make(dict(unless=[{"groups": ["model-ops"]}]), dict(id="other"))
    assert [f.rule.id for f in matcher.scan(prompt("forbidden"), ALICE)] == ["other"]
    assert len(matcher.scan(prompt("forbidden"), BOB)) == 2
    assert len(matcher.scan(prompt("forbidden"), None)) == 2


def test_keywords_are_alternatives_in_any_case_and_any_view(make: Make):
    matcher = make(dict(match=r"\b\w{1,20}ed", hit="Gated", keywords=["gate", "LOCK"]))
    assert matcher.scan(prompt("locked"), BOB)
    assert matcher.scan(prompt("l\u200bocked"), BOB)
    assert not matcher.scan(prompt("opened"), BOB)


def test_a_part_of_a_rule_may_mind_case(make: Make):
    matcher = make(dict(match="key (?-i:AKIA)", hit="KEY AKIA"))
    assert matcher.scan(prompt("Key  AKIA"), BOB)
    assert not matcher.scan(prompt("key  akia"), BOB)


def test_experimental_rules_are_reported(make: Make):
    (finding,) = make(dict(status="experimental")).scan(prompt("forbidden"), BOB)
    assert not finding.rule.enforced


def test_a_timeout_is_a_hit(make: Make, monkeypatch: pytest.MonkeyPatch):
    matcher = make(dict())
    monkeypatch.setattr(matching, "search", _never_ends)
    (finding,) = matcher.scan(prompt("forbidden"), BOB)
    assert (finding.view, finding.text) == ("timeout", "")
    assert (finding.start, finding.end) == (0, 9)


def test_after_some_timeouts_candidates_count_as_hits_untried(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    matcher = make(*(dict(id=f"rule-{i}") for i in range(9)))
    tried: list[object] = []

    def note(*args: object) -> None:
        tried.append(args)
        raise TimeoutError

    monkeypatch.setattr(matching, "search", note)
    assert len(matcher.scan(prompt("forbidden"), BOB)) == 9
    assert len(tried) == matching.PATIENCE


def _never_ends(*args: object) -> None:
    raise TimeoutError


def test_without_hyperscan_the_findings_are_the_same(make: Make, monkeypatch: pytest.MonkeyPatch):
    entries = [
        dict(id="one"),
        dict(match=r"\bécole\b", id="two", hit="école"),
        dict(match="q", id="x", hit="q"),
    ]
    fast = make(*entries)
    assert fast.prefiltered
    texts = ("forbidden", "une École", "f\u200borbidden q", "", "neither")
    wanted = [fast.scan(prompt(text), BOB) for text in texts]
    fast.ready()
    monkeypatch.setattr(prefiltering, "hyperscan", None)
    slow = make(*entries)
    assert not slow.prefiltered
    assert [slow.scan(prompt(text), BOB) for text in texts] == wanted


def test_many_threads_share_a_matcher(make: Make):
    matcher = make(dict(), dict(match="other", id="two", hit="other"))
    texts = ["forbidden " * 2000, "other " * 2000, "nothing " * 2000] * 20

    def count(text: str) -> int:
        return len(matcher.scan(prompt(text), BOB))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count, texts)) == [1, 1, 0] * 20


def test_no_rules_find_nothing():
    assert Matcher([]).scan(prompt("anything"), BOB) == ()


def test_large_input_is_told_apart():
    half = Segment("prompt", "x", "x" * (INLINE // 2))
    assert size_of([half, half]) == INLINE
    assert size_of([half, half, Segment("prompt", "x", "x")]) > INLINE


def test_a_rule_without_a_bound_sees_what_is_around_leetspeak(make: Make):
    filler = "- " * 300
    matcher = make(dict(match="forbidden.*secret", hit="forbidden secret"))
    text = f"{filler}f0rb1dd3n {'and so on ' * 40}secret {filler}"
    for _ in range(2):
        assert [finding.view for finding in matcher.scan(prompt(text), BOB)] == ["leet"]
        matcher.ready()
