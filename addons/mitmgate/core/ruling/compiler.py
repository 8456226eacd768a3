"""Rules to a `Ruling`, or every reason why not, each with its file and line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmgate.core import matching
from mitmgate.core.matching.probe import shorten
from mitmgate.core.rules.loader import Loaded, Location, Problem, RuleError
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling.ruling import Ruling, hits, sample
from mitmgate.core.tokens import CREDENTIAL_HEADERS
from mitmgate.core.wire.endpoints import OPERATIONS


def compile(loaded: Loaded[Any], rules: Sequence[Rule], location: Location) -> Ruling:
    """The ruling of `rules`, which stand at `location` in the file, e.g. ("rules",).

    Raises `RuleError` with every problem. 500 rules take seconds: call it in a thread.
    """
    problems: list[Problem] = []
    for i, rule in enumerate(rules):
        problems += _unknown(loaded, rule, (*location, i))
        if rule.match is None:
            problems += _failed_tests(loaded, rule, (*location, i, "tests"))
    try:
        matcher = matching.compile(loaded, rules, location)
    except RuleError as e:
        raise RuleError([*problems, *e.problems]) from None
    if problems:
        raise RuleError(problems)
    return Ruling(rules, matcher)


def _unknown(loaded: Loaded[Any], rule: Rule, location: Location) -> list[Problem]:
    """Names in a rule that nothing can ever have."""
    found = [
        loaded.problem((*location, "operations", i), f"{rule.id}: no endpoint is {name!r}")
        for i, name in enumerate(rule.operations)
        if name not in OPERATIONS
    ]
    found += [
        loaded.problem(
            (*location, "headers", i),
            f"{rule.id}: {name} carries credentials, which are taken off before rules look",
        )
        for i, name in enumerate(rule.headers)
        if name in CREDENTIAL_HEADERS
    ]
    return found


def _failed_tests(loaded: Loaded[Any], rule: Rule, location: Location) -> list[Problem]:
    failed = []
    for key, samples in (("match", rule.tests.match), ("pass", rule.tests.not_match)):
        for i, text in enumerate(samples):
            try:
                found = hits(rule, sample(rule, text))
            except (ValueError, RecursionError) as e:
                message = f"is no request body in JSON: {e}"
            else:
                if found == (key == "match"):
                    continue
                message = "should match and does not" if key == "match" else "should pass and hits"
            shown = f"{rule.id}: {shorten(text)} {message}"
            failed.append(loaded.problem((*location, key, i), shown))
    return failed
