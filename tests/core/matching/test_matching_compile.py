"""What `compile` refuses, all of it at once and each with its line."""

from collections.abc import Callable

import pytest

from mitmgate.core.matching import Matcher, compiler
from mitmgate.core.matching import matcher as matching
from mitmgate.core.rules import RuleError

type Make = Callable[..., Matcher]


def problems(make: Make, *entries: dict[str, object]) -> list[str]:
    with pytest.raises(RuleError) as caught:
        make(*entries)
    return [f"{p.line}: {p.where}: {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ("a(b", "6: rules[0].match: rule: is not a regular expression: missing )"),
        ("(a)?", "rule: can match the empty text, so it would hit everything"),
        (r"\p{L}+", "rule: goes beyond the syntax of Python's re"),
        ("(a|a)*c", "rule: backtracks for too long on 'a"),
        ("x{40000}", "rule: Hyperscan does not take it: "),
    ],
)
def test_a_pattern_is_refused_with_its_reason(make: Make, match: str, said: str):
    (problem,) = problems(make, dict(match=match))
    assert said in problem


def test_a_test_that_should_match_must(make: Make):
    (problem,) = problems(make, dict(hit="permitted"))
    assert problem == "9: rules[0].tests.match[0]: rule: 'permitted' should match and does not"


def test_a_test_that_should_pass_must_in_every_view(make: Make):
    tests = {"match": ["forbidden"], "pass": ["fine", "f\u200borbidden", "forbidden"]}
    found = problems(make, dict(tests=tests))
    assert [p.split(": ", 3)[3] for p in found] == [
        "'f\\u200borbidden' should pass and matches (normalised text)",
        "'forbidden' should pass and matches (raw text)",
    ]


def test_keywords_take_part_in_the_tests(make: Make):
    (problem,) = problems(make, dict(keywords=["elsewhere"]))
    assert "should match and does not" in problem


def test_a_rule_is_tested_where_it_looks_and_against_nobody(make: Make):
    assert make(dict(where=["answer"], unless=[{"subject": ["*"]}]))


def test_a_test_that_takes_too_long_fails(make: Make, monkeypatch: pytest.MonkeyPatch):
    def never_ends(*args: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(matching, "search", never_ends)
    assert "'forbidden' takes too long to search" in problems(make, dict())[0]


def test_blank_keywords_are_refused(make: Make):
    (problem,) = problems(make, dict(keywords=["forbidden", " "]))
    assert problem.endswith("rules[0].keywords[1]: rule: a keyword is blank")


def test_an_id_stands_once(make: Make):
    (problem,) = problems(make, dict(), dict())
    assert problem.endswith("rules[1].id: rule: this id is taken by rule 0")


def test_there_is_a_most(make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler, "MOST", 2)
    assert make(dict(id="a"), dict(id="b"))
    (problem,) = problems(make, dict(id="a"), dict(id="b"), dict(id="c"))
    assert problem == "2: rules: 3 rules are more than the 2 that one file may hold"


def test_rules_that_only_together_are_too_much(make: Make, monkeypatch: pytest.MonkeyPatch):
    def refuse(patterns: object) -> None:
        raise ValueError("too large")

    monkeypatch.setattr(compiler, "Matcher", refuse)
    assert problems(make, dict()) == ["2: rules: Hyperscan: too large"]


def test_all_problems_are_told_at_once(make: Make):
    found = problems(
        make,
        dict(match="(", id="syntax"),
        dict(match="x*", id="empty"),
        dict(id="wrong", hit="permitted"),
        dict(match="x{40000}", id="large"),
        dict(id="fine"),
        dict(id="fine"),
    )
    named = ["syntax", "empty", "wrong", "large", "fine"]
    assert [next(n for n in named if f": {n}: " in p) for p in found] == named
