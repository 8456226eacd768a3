"""The matcher: a set of rules, searched for in all views of every segment.

Hyperscan names the candidates, `regex` confirms them. What a rule's hit leads to is the caller's
business: hits of experimental rules are reported like any other, see `Rule.enforced`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import get_args

import regex

from mitmgate.core.matching.prefilter import Prefilter
from mitmgate.core.matching.search import WHOLE, search
from mitmgate.core.matching.superset import scannable
from mitmgate.core.matching.views import views_of
from mitmgate.core.matching.window import Reach, Window, windows
from mitmgate.core.principal import Principal
from mitmgate.core.rules.rule import Rule, Where
from mitmgate.core.wire.segment import Segment

INLINE = 16 << 10  # characters: 0.3 ms if ASCII, 2 ms if not; more is better scanned in a thread
SHOWN = 200  # characters of the matched text in a finding
PATIENCE = 5  # timeouts in one scan; after these a candidate counts as a hit untried


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's hit in one segment, in the first view that shows it.

    `start` and `end` are offsets in characters, into the segment's text where `view` is "raw",
    else into the text of that view, from which `text` (at most 200 characters) is then taken.
    With `view` "timeout" the search did not end in time, which counts as a hit: `text` is empty
    and the offsets span the text that was searched.
    """

    rule: Rule
    address: str
    start: int
    end: int
    text: str
    view: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule ready to be searched: its compiled pattern and the superset that stands for it.

    With a `reach` it is searched only around where the superset matches, else in the whole text.
    """

    rule: Rule
    compiled: regex.Pattern[str]
    superset: str
    reach: Reach | None


class Matcher:
    """A compiled set of rules. `compile` makes it, checks included; any thread may scan with it."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        """Raises `ValueError` if Hyperscan does not take one of the supersets."""
        self._patterns = tuple(patterns)
        self._keywords = tuple(
            tuple(word.lower() for word in pattern.rule.keywords) for pattern in patterns
        )
        self._covering = {
            where: frozenset(i for i, p in enumerate(patterns) if where in p.rule.where)
            for where in get_args(Where)
        }
        self._excepting = [i for i, pattern in enumerate(patterns) if pattern.rule.unless]
        self._prefilter = Prefilter(
            [pattern.superset for pattern in patterns],
            [i for i, pattern in enumerate(patterns) if pattern.reach],
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order of their file."""
        return tuple(pattern.rule for pattern in self._patterns)

    @property
    def prefiltered(self) -> bool:
        """False where Hyperscan is missing: the same findings, at hundreds of times the cost."""
        return self._prefilter.available

    def scan(self, segments: Iterable[Segment], principal: Principal | None) -> tuple[Finding, ...]:
        """All hits, in the order of segments, then of views: one per rule and segment.

        Rules that do not cover a segment's `where`, or that except `principal`, are left out. Scan
        `is_large` input in a thread; the long searches then let the event loop go on.
        """
        excepted = {
            i
            for i in self._excepting
            if any(who.matches(principal) for who in self._patterns[i].rule.unless)
        }
        covering = self._covering
        if excepted:
            covering = {where: rules - excepted for where, rules in covering.items()}
        attempt = _Attempt()
        findings: list[Finding] = []
        for segment in segments:
            searched = covering[segment.where]
            found: set[int] = set()
            for view, text in views_of(segment.text) if searched else ():
                for i, where in self._candidates(text, searched, found):
                    if finding := attempt.confirm(self._patterns[i], segment, view, text, where):
                        found.add(i)
                        findings.append(finding)
        return tuple(findings)

    def _candidates(
        self, text: str, searched: Set[int], found: Set[int]
    ) -> Iterator[tuple[int, Sequence[Window]]]:
        """The rules that `text` may break, of `searched` but not of `found`, and where in it."""
        data = scannable(text)
        lowered: str | None = None
        ends: dict[int, set[int]] = {}
        for i in self._prefilter.candidates(data):
            if i not in searched or i in found:
                continue
            if words := self._keywords[i]:
                lowered = text.lower() if lowered is None else lowered
                if not any(word in lowered for word in words):
                    continue
            if reach := self._patterns[i].reach:
                if i not in ends:
                    ends |= self._prefilter.ends(data, i)
                yield i, windows(data, ends[i], reach) if ends[i] else WHOLE
            else:
                yield i, WHOLE


class _Attempt:
    """The confirmations of one scan, which together may time out only so often."""

    def __init__(self) -> None:
        self._timeouts = 0

    def confirm(
        self, pattern: Pattern, segment: Segment, view: str, text: str, where: Sequence[Window]
    ) -> Finding | None:
        try:
            if self._timeouts >= PATIENCE:
                raise TimeoutError
            found = search(pattern.compiled, text, None, where)
        except TimeoutError:
            self._timeouts += 1
            return Finding(pattern.rule, segment.address, 0, len(text), "", "timeout")
        if not found:
            return None
        matched = found[0][:SHOWN]
        return Finding(pattern.rule, segment.address, found.start(), found.end(), matched, view)


def is_large(segments: Iterable[Segment]) -> bool:
    """True if scanning `segments` would hold up an event loop: more than `INLINE` characters."""
    return sum(len(segment.text) for segment in segments) > INLINE
