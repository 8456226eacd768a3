"""Do the rules' own tests notice when a rule is broken?

Every pattern is broken in many ways, and its samples are tried again. Each of a pattern's
outermost alternatives must have a sample that only it finds. Further in that would be a sample
for every word of a list; there the share that is noticed must not fall.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
import regex

from mitmgate.core.matching.syntax import compile_pattern, parse
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling

NOTICED = 0.18  # of the breakages further in, at least

TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[:=!]|<[=!]|-i:)|[()|]|[?*+]\??|\{\d+(?:,\d*)?\}\??|.",
    re.DOTALL,
)
QUANTIFIER = re.compile(r"[?*]|\{0,")


def tokens(pattern: str) -> list[str]:
    return TOKEN.findall(pattern)


def closing(parts: list[str], opening: int) -> int:
    depth = 0
    for i in range(opening, len(parts)):
        if parts[i].startswith("("):
            depth += 1
        elif parts[i] == ")":
            depth -= 1
            if depth == 0:
                return i
    raise ValueError("never closed")


def without_alternatives(parts: list[str], begin: int, end: int) -> Iterator[str]:
    """The pattern without each of the alternatives that stand from `begin` to `end`."""
    bars, depth = [begin - 1], 0
    for i in range(begin, end):
        if parts[i].startswith("("):
            depth += 1
        elif parts[i] == ")":
            depth -= 1
        elif parts[i] == "|" and depth == 0:
            bars.append(i)
    bars.append(end)
    if len(bars) > 2:
        for left, right in pairwise(bars):
            first = left < begin
            kept = [] if first else parts[begin:left]
            kept += parts[right + first : end]
            yield "".join(parts[:begin] + kept + parts[end:])


def outermost(pattern: str) -> list[str]:
    parts = tokens(pattern)
    return list(without_alternatives(parts, 0, len(parts)))


def further_in(pattern: str) -> Iterator[str]:
    parts = tokens(pattern)
    for i, part in enumerate(parts):
        if part.startswith("("):
            end = closing(parts, i)
            yield from without_alternatives(parts, i + 1, end)
            if end + 1 < len(parts) and QUANTIFIER.match(parts[end + 1]):
                yield "".join(parts[:i] + parts[end + 2 :])
            if part in ("(?!", "(?<!"):
                yield "".join(parts[:i] + parts[end + 1 :])
        elif part == r"\b":
            yield "".join(parts[:i] + parts[i + 1 :])
    for word in re.finditer(r"(?<![\\\w{(?<])[a-z]{4,}(?![\w}>])", pattern):
        yield f"{pattern[: word.start()]}qqq{pattern[word.end() :]}"


def views(text: str) -> list[str]:
    return list(dict.fromkeys((text, " ".join(text.split()))))


def notices(rule: Rule, broken: str) -> bool:
    """Whether one of the rule's own tests fails with the pattern `broken`."""
    try:
        pattern = compile_pattern(broken)
        parse(broken)
    except (regex.error, ValueError):
        return True
    return not all(any(map(pattern.search, views(text))) for text in found_plainly(rule)) or any(
        pattern.search(view) for text in rule.tests.not_match for view in views(text)
    )


def found_plainly(rule: Rule) -> list[str]:
    """The samples that need no decoding."""
    assert rule.match
    pattern = compile_pattern(rule.match)
    return [text for text in rule.tests.match if any(map(pattern.search, views(text)))]


def test_every_outermost_alternative_is_tested(commands: Ruling, approval: Ruling) -> None:
    untested = [
        (rule.id, broken)
        for rule in (*commands.rules, *approval.rules)
        if rule.match
        for broken in outermost(rule.match)
        if not notices(rule, broken)
    ]
    shown = [f"{name}: {_missing(commands, approval, name, broken)}" for name, broken in untested]
    assert not shown, "\n".join(shown)


def _missing(commands: Ruling, approval: Ruling, name: str, broken: str) -> str:
    """What the broken pattern lacks."""
    (rule,) = [rule for rule in (*commands.rules, *approval.rules) if rule.id == name]
    whole = rule.match or ""
    start = next((i for i, (a, b) in enumerate(zip(whole, broken, strict=False)) if a != b), 0)
    return whole[start : start + len(whole) - len(broken)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_breakages_further_in_are_noticed_as_often_as_before(
    commands: Ruling, approval: Ruling
) -> None:
    noticed = [
        notices(rule, broken)
        for rule in (*commands.rules, *approval.rules)
        if rule.match
        for broken in further_in(rule.match)
    ]
    assert len(noticed) > 2000
    assert noticed.count(True) > NOTICED * len(noticed)


def test_breaking_a_pattern() -> None:
    assert outermost("a(?:b|c)|d") == ["d", "a(?:b|c)"]
    assert outermost("a|b|c") == ["b|c", "a|c", "a|b"]
    assert outermost("abc") == []
    assert list(further_in(r"\bx(?:b|[|)]c)?(?!d)")) == [
        r"x(?:b|[|)]c)?(?!d)",
        r"\bx(?:[|)]c)?(?!d)",
        r"\bx(?:b)?(?!d)",
        r"\bx(?!d)",
        r"\bx(?:b|[|)]c)?",
    ]
