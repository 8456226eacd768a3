"""The matcher: a set of rules, searched for in all views of every segment.

Hyperscan names the candidates, `regex` confirms them. What a rule's hit leads to is the caller's
business: hits of experimental rules are reported like any other, see `Rule.enforced`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import get_args

import regex

from mitmgate.core.matching.letters import Lexicon
from mitmgate.core.matching.prefilter import Hints, Prefilter
from mitmgate.core.matching.reading import Reading
from mitmgate.core.matching.search import WHOLE, search
from mitmgate.core.matching.superset import scannable
from mitmgate.core.matching.views import ENTIRE, views_of
from mitmgate.core.matching.window import Reach, Window, windows
from mitmgate.core.principal import Principal
from mitmgate.core.rules.rule import Rule, View, Where
from mitmgate.core.wire.segment import Segment

TURNED = ("rot13", "reversed")  # views in which a text that was not turned round has no words
INLINE = 4 << 10  # characters: 0.3 ms of prose, 25 ms of letters set apart; more in a thread
SHOWN = 200  # characters of the matched text in a finding
PATIENCE = 5  # timeouts in one scan; after these a candidate counts as a hit untried


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's hit in one segment, in the first view that shows it.

    `start` and `end` are offsets in characters into the segment's text, whatever the view: what
    stands there is, or was read as, `text` (at most 200 characters, as seen in the view). Of what
    is encoded in one piece, they span the piece.
    With `view` "timeout" the search did not end in time, which counts as a hit: `text` is empty
    and the offsets span all of the segment's text.
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
    With `words`, every match has one of them.
    """

    rule: Rule
    compiled: regex.Pattern[str]
    superset: str
    reach: Reach | None
    words: frozenset[str] = frozenset()


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
        # Rules that look at some texts only of a part: headers, arguments by name.
        self._choosy = frozenset(
            i for i, p in enumerate(patterns) if p.rule.headers or p.rule.arguments
        )
        self._excepting = [i for i, pattern in enumerate(patterns) if pattern.rule.unless]
        self.lexicon = Lexicon(
            text
            for pattern in patterns
            for text in (
                pattern.compiled.pattern,
                *pattern.rule.tests.match,
                *pattern.rule.keywords,
            )
        )
        self._searching = {
            view: frozenset(i for i, p in enumerate(patterns) if view in p.rule.views)
            for view in get_args(View)
        }
        reaches = [pattern.reach for pattern in patterns if pattern.reach]
        self._margin = max((each.width + each.ahead for each in reaches), default=0)
        far = frozenset(i for i, pattern in enumerate(patterns) if not pattern.reach)
        unhinted = frozenset(i for i, pattern in enumerate(patterns) if not pattern.words)
        self._searching[ENTIRE] = self._searching["decoded"] & far
        self._far = {where: some & far for where, some in self._covering.items()}
        self._unhinted = {where: some & unhinted for where, some in self._covering.items()}
        self._hints = Hints([pattern.words for pattern in patterns])
        self._prefilter = Prefilter(
            [pattern.superset for pattern in patterns],
            [i for i, pattern in enumerate(patterns) if pattern.reach],
            [*self._covering.values(), *self._unhinted.values(), *self._far.values()],
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
        more than `INLINE` characters in a thread, so that the event loop goes on.
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
            for i in searched & self._choosy:
                if not self._patterns[i].rule.covers(segment.where, segment.name):
                    searched -= {i}
            if not searched:
                continue
            wanted = {
                view for view, rules in self._searching.items() if not rules.isdisjoint(searched)
            }
            found: set[int] = set()
            for view, reading in views_of(segment.text, self.lexicon, self._margin, wanted):
                also = searched & self._searching[view] if view in self._searching else searched
                shown = "decoded" if view == ENTIRE else view
                candidates = self._candidates(segment.where, view, reading.text, also, found)
                for i, where in candidates:
                    pattern = self._patterns[i]
                    if finding := attempt.confirm(pattern, segment, shown, reading, where):
                        found.add(i)
                        findings.append(finding)
        return tuple(findings)

    def _named(self, where: Where, view: str, data: bytes) -> Iterable[int]:
        """The rules on `where` that `data` may break."""
        if view == ENTIRE:
            return self._prefilter.candidates(data, self._far[where])
        if view in TURNED and (hinted := self._hints.of(data)) is not None:
            named = self._prefilter.candidates(data, self._unhinted[where])
            return sorted([*named, *self._prefilter.among(data, hinted & self._covering[where])])
        return self._prefilter.candidates(data, self._covering[where])

    def _candidates(
        self, where: Where, view: str, text: str, searched: Set[int], found: Set[int]
    ) -> Iterator[tuple[int, Sequence[Window]]]:
        """The rules of `searched`, but for those `found`, that `text` may break, and where in it."""
        data = scannable(text)
        lowered: str | None = None
        ends: dict[int, set[int]] = {}
        for i in self._named(where, view, data):
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
        self,
        pattern: Pattern,
        segment: Segment,
        view: str,
        reading: Reading,
        where: Sequence[Window],
    ) -> Finding | None:
        while True:
            try:
                if self._timeouts >= PATIENCE:
                    raise TimeoutError
                found = search(pattern.compiled, reading.text, None, where)
            except TimeoutError:
                self._timeouts += 1
                return Finding(pattern.rule, segment.address, 0, len(segment.text), "", "timeout")
            if not found:
                return None
            span = reading.origin(*found.span())
            if span and not (
                view == "punctuation" and _stands_there(segment.text[slice(*span)], found[0])
            ):
                return Finding(pattern.rule, segment.address, *span, found[0][:SHOWN], view)
            where = [Window(found.start() + 1, sys.maxsize, sys.maxsize)]


def _stands_there(original: str, matched: str) -> bool:
    """Whether a match is in the text as it came: then what made it one is beside it. Punctuation
    that a rule asks not to find there has been taken away: `DROP TABLE tmp_import`.
    """
    return original.split() == matched.split()


def size_of(segments: Iterable[Segment]) -> int:
    """How many characters there are to be searched; more than `INLINE` hold up an event loop."""
    return sum(len(segment.text) for segment in segments)
