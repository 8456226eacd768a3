"""Rules to a `Matcher`, or every reason why not, each with its file and line.

A rule is checked alone (syntax, empty matches, catastrophic backtracking, Hyperscan's consent),
then the good ones together: their own tests run through the very matcher that would judge traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import regex

from mitmgate.core.matching import prefilter
from mitmgate.core.matching.matcher import Matcher
from mitmgate.core.matching.probe import shorten, witness
from mitmgate.core.matching.sieve import Pattern
from mitmgate.core.matching.syntax import compile_pattern, parse
from mitmgate.core.rules.loader import Loaded, Location, Problem, RuleError
from mitmgate.core.rules.rule import CALLS, Rule, Where
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.segment import Segment

MOST = 1000


def compile(loaded: Loaded[Any], rules: Sequence[Rule], location: Location) -> Matcher:
    """The matcher for `rules`, which stand at `location` in the file, e.g. ("rules",).

    Raises `RuleError` with every problem. 500 rules take seconds: call it in a thread.
    """
    if len(rules) > MOST:
        message = f"{len(rules)} rules are more than the {MOST} that one file may hold"
        raise RuleError([loaded.problem(location, message)])
    problems = _duplicates(loaded, rules, location)
    patterns: dict[int, Pattern] = {}
    for i, rule in enumerate(rules):
        if rule.match is None:
            continue
        try:
            patterns[i] = _pattern(rule, rule.match)
        except ValueError as e:
            problems.append(loaded.problem((*location, i, "match"), f"{rule.id}: {e}"))
        problems += [
            loaded.problem((*location, i, "keywords", k), f"{rule.id}: a keyword is blank")
            for k, word in enumerate(rule.keywords)
            if not word.strip()
        ]
    try:
        matcher = Matcher(list(patterns.values()))
    except ValueError as whole:
        refused = prefilter.refusals({i: p.superset for i, p in patterns.items()})
        if not refused:  # each is taken alone, but not all of them at once
            raise RuleError([*problems, loaded.problem(location, f"Hyperscan: {whole}")]) from None
        for i, reason in refused.items():
            message = f"{rules[i].id}: Hyperscan does not take it: {reason}"
            problems.append(loaded.problem((*location, i, "match"), message))
            del patterns[i]
        matcher = Matcher(list(patterns.values()))
    for i in patterns:
        problems += _failed_tests(loaded, matcher, rules[i], (*location, i, "tests"))
    if problems:
        raise RuleError(problems)
    return matcher


def _duplicates(loaded: Loaded[Any], rules: Sequence[Rule], location: Location) -> list[Problem]:
    first: dict[str, int] = {}
    return [
        loaded.problem(
            (*location, i, "id"), f"{rule.id}: this id is taken by rule {first[rule.id]}"
        )
        for i, rule in enumerate(rules)
        if first.setdefault(rule.id, i) != i
    ]


def _pattern(rule: Rule, match: str) -> Pattern:
    """Raises `ValueError` that says why this rule cannot be searched for."""
    try:
        compiled = compile_pattern(match)
    except (regex.error, RecursionError) as e:
        raise ValueError(f"is not a regular expression: {e}") from None
    tree = parse(match)
    if (text := witness(compiled, tree)) is not None:
        raise ValueError(f"backtracks for too long on {shorten(text)}; bound its repeats")
    return Pattern.of(rule, compiled, tree)


def _traffic(rule: Rule, where: Where, address: str, sample: str) -> list[Segment]:
    """A sample as what it would be in a request: a header, a tool call's arguments, a text."""
    if where == "headers":
        return [Segment(where, address, sample, rule.headers[0])]
    return [
        Segment(where, address, sample),
        *(unfold(where, address, sample) if where in CALLS else ()),
    ]


def _failed_tests(
    loaded: Loaded[Any], matcher: Matcher, rule: Rule, location: Location
) -> list[Problem]:
    where = min(CALLS & rule.where if rule.arguments else rule.where)
    failed = []
    for key, samples in (("match", rule.tests.match), ("pass", rule.tests.not_match)):
        for i, sample in enumerate(samples):
            segments = _traffic(rule, where, f"tests.{key}[{i}]", sample)
            findings = matcher.scan(segments, None)
            views = [finding.view for finding in findings if finding.rule is rule]
            if "timeout" in views:
                message = "takes too long to search"
            elif key == "match" and not views:
                message = "should match and does not"
            elif key == "pass" and views:
                message = f"should pass and matches ({views[0]} text)"
            else:
                continue
            shown = f"{rule.id}: {shorten(sample)} {message}"
            failed.append(loaded.problem((*location, key, i), shown))
    return failed
