"""The matcher: a set of rules, searched for in all views of every segment.

Hyperscan names the candidates, `regex` confirms them. What a rule's hit leads to is the caller's
business: hits of experimental rules are reported like any other, see `Rule.enforced`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from mitmgate.core.matching.letters import Lexicon
from mitmgate.core.matching.reading import Reading
from mitmgate.core.matching.search import search
from mitmgate.core.matching.sieve import Look, Pattern, Sieve
from mitmgate.core.matching.views import ENTIRE, views_of
from mitmgate.core.matching.window import Window
from mitmgate.core.principal import Principal
from mitmgate.core.rules.rule import Rule, View, Where
from mitmgate.core.wire.segment import Segment

INLINE = 4 << 10  # characters: 0.3 ms of prose, 25 ms of letters set apart; more in a thread
SHOWN = 200  # characters of the matched text in a finding
FAR = 1024  # letters around what was decoded in which a rule is looked for that has no bound
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


class Matcher:
    """A compiled set of rules. `compile` makes it, checks included; any thread may scan with it."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        """Raises `ValueError` if Hyperscan does not take one of the supersets."""
        self.patterns = tuple(patterns)
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
        # How far from what was decoded a match may reach.
        self._margins = {
            where: max((_reach(patterns[i]) for i in some), default=0)
            for where, some in self._covering.items()
        }
        self._sieve = Sieve(patterns, self._covering)

    def ready(self) -> None:
        """Wait until it is as quick as it gets; its findings are the same before."""
        self._sieve.ready()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order of their file."""
        return tuple(pattern.rule for pattern in self.patterns)

    @property
    def prefiltered(self) -> bool:
        """False where Hyperscan is missing: the same findings, at hundreds of times the cost."""
        return self._sieve.available

    def scan(self, segments: Iterable[Segment], principal: Principal | None) -> tuple[Finding, ...]:
        """All hits, in the order of segments, then of views: one per rule and segment.

        Rules that do not cover a segment's `where`, or that except `principal`, are left out. Scan
        more than `INLINE` characters in a thread, so that the event loop goes on.
        """
        excepted = {
            i
            for i in self._excepting
            if any(who.matches(principal) for who in self.patterns[i].rule.unless)
        }
        covering = self._covering
        if excepted:
            covering = {where: rules - excepted for where, rules in covering.items()}
        attempt = _Attempt()
        findings: list[Finding] = []
        for segment in segments:
            searched = covering[segment.where]
            for i in searched & self._choosy:
                if not self.patterns[i].rule.covers(segment.where, segment.name):
                    searched -= {i}
            if not searched:
                continue
            wanted = {
                view for view, rules in self._searching.items() if not rules.isdisjoint(searched)
            }
            look = Look(self._sieve, segment.where, set(searched))
            for view, reading in views_of(
                segment.text, self.lexicon, self._margins[segment.where], wanted, look.worth
            ):
                shown = "decoded" if view == ENTIRE else view
                for i, where in look.candidates(view, reading):
                    if i not in self._searching.get(shown, searched):
                        continue
                    pattern = self.patterns[i]
                    if finding := attempt.confirm(pattern, segment, shown, reading, where):
                        look.open.remove(i)
                        findings.append(finding)
        return tuple(findings)


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


def _reach(pattern: Pattern) -> int:
    return pattern.reach.width + pattern.reach.ahead if pattern.reach else FAR


def _stands_there(original: str, matched: str) -> bool:
    """Whether a match is in the text as it came: then what made it one is beside it. Punctuation
    that a rule asks not to find there has been taken away: `DROP TABLE tmp_import`.
    """
    return original.split() == matched.split()


def size_of(segments: Iterable[Segment]) -> int:
    """How many characters there are to be searched; more than `INLINE` hold up an event loop."""
    return sum(len(segment.text) for segment in segments)
