"""Which rules a view of a text may break, as cheaply as that can be told, and where in it.

Nearly all texts break none. One scan of what is left of a text in any view (`skeleton`) says so
for most rules, a scan for words for texts that were turned round, and only what these let through
is looked for in the views themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import regex

from mitmgate.core.matching.prefilter import Hints, Locator, Prefilter, Skeletons
from mitmgate.core.matching.reading import Reading
from mitmgate.core.matching.required import required
from mitmgate.core.matching.search import WHOLE
from mitmgate.core.matching.skeleton import Skeleton, bare, skeleton
from mitmgate.core.matching.superset import scannable, superset
from mitmgate.core.matching.views import ENTIRE, Kind
from mitmgate.core.matching.window import Reach, Window, reach, windows
from mitmgate.core.rules.rule import Rule, Where

TURNED = ("rot13", "reversed")  # views in which a text that was not turned round has no words


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule ready to be searched: its compiled pattern and the superset that stands for it.

    With a `reach` it is searched only around where the superset matches, else in the whole text.
    With `words`, every match has one of them. A text without its `skeleton` cannot match.
    """

    rule: Rule
    compiled: regex.Pattern[str]
    superset: str
    reach: Reach | None
    words: frozenset[str]
    skeleton: Skeleton

    @classmethod
    def of(cls, rule: Rule, compiled: regex.Pattern[str], tree: Any) -> Pattern:
        """A rule whose pattern is `compiled` and has this syntax tree. Raises `ValueError`."""
        return cls(rule, compiled, superset(tree), reach(tree), required(tree), skeleton(tree))


class Sieve:
    """For rules known by their positions; `covering` says which of them look at what."""

    def __init__(
        self, patterns: Sequence[Pattern], covering: Mapping[Where, frozenset[int]]
    ) -> None:
        """Raises `ValueError` if Hyperscan does not take one of the supersets."""
        self.patterns = patterns
        self.keywords = [tuple(map(str.lower, pattern.rule.keywords)) for pattern in patterns]
        far = frozenset(i for i, pattern in enumerate(patterns) if not pattern.reach)
        unhinted = {i for i, pattern in enumerate(patterns) if not pattern.words}
        weak = {i for i, pattern in enumerate(patterns) if pattern.skeleton.weak}
        spelled = {i: pattern.skeleton.pattern for i, pattern in enumerate(patterns)}
        told = {i: skeleton for i, skeleton in spelled.items() if skeleton}
        self.untold = {i for i, skeleton in spelled.items() if skeleton == ""}
        self.covering = covering
        self.far = {where: some & far for where, some in covering.items()}
        self.unhinted = {where: some & unhinted for where, some in covering.items()}
        self.weak = {where: some & weak for where, some in covering.items()}
        self.told = {where: some.intersection(told) for where, some in covering.items()}
        supersets = {i: pattern.superset for i, pattern in enumerate(patterns)}
        sets = (covering, self.weak, self.unhinted, self.far)
        self.hints = Hints([pattern.words for pattern in patterns])
        self.prefilter = Prefilter(supersets, [some for each in sets for some in each.values()])
        self.locator = Locator(supersets, far)
        self.skeletons = Skeletons(told, self.told.values())
        # Most of the time that rules take to load: meanwhile they are in use. No daemon: Hyperscan
        # must not be at work when the process ends.
        self._preparing = threading.Thread(target=self._prepare, name="sieve")
        self._preparing.start()

    def _prepare(self) -> None:
        for each in (self.prefilter, self.locator, self.skeletons):
            each.prepare()

    @property
    def available(self) -> bool:
        """False where Hyperscan is missing: then every rule is always a candidate."""
        return self.prefilter.available

    def ready(self) -> None:
        """Wait until it is as quick as it gets."""
        self._preparing.join()


class Look:
    """A look at one text for the rules that are still `open`."""

    def __init__(self, sieve: Sieve, where: Where, open: set[int]) -> None:
        self.open = open
        self._sieve = sieve
        self._where: Where = where
        self._known: list[tuple[str, frozenset[int] | None]] = []  # few: most views share one

    def worth(self, kind: Kind, reading: Reading) -> bool:
        """Whether `reading` without its punctuation, of either kind, may break a rule."""
        some = self._among(reading)
        if some is None or not some.isdisjoint(self.open):
            return True
        blind = self._sieve.weak[self._where] if kind == "joined" else self._sieve.untold
        return not blind.isdisjoint(self.open)

    def candidates(self, view: str, reading: Reading) -> Iterator[tuple[int, Sequence[Window]]]:
        """The open rules that `reading`, which is of this view, may break, and where in it."""
        text = reading.text
        data = scannable(text)
        lowered: str | None = None
        ends: dict[int, Set[int] | None] = {}
        for i in self._named(view, reading, data):
            if i not in self.open:
                continue
            if words := self._sieve.keywords[i]:
                lowered = text.lower() if lowered is None else lowered
                if not any(word in lowered for word in words):
                    continue
            if i not in ends:
                ends |= self._sieve.locator.ends(data, i)
            at = ends[i]
            if at is None:
                yield i, WHOLE
            elif at:
                within = self._sieve.patterns[i].reach
                yield i, windows(data, at, within) if within else WHOLE

    def _named(self, view: str, reading: Reading, data: bytes) -> Iterable[int]:
        sieve, where = self._sieve, self._where
        if view == ENTIRE:
            return sieve.prefilter.candidates(data, sieve.far[where])
        if view in TURNED:
            if (hinted := sieve.hints.of(data)) is not None:
                others = sieve.prefilter.candidates(data, sieve.unhinted[where])
                return sorted([*others, *(hinted & sieve.covering[where])])
        elif (some := self._among(reading)) is not None:
            return sorted({*sieve.prefilter.candidates(data, sieve.weak[where]), *some})
        return sieve.prefilter.candidates(data, sieve.covering[where])

    def _among(self, reading: Reading) -> frozenset[int] | None:
        """The rules that some view of a text may break, of those of which this can be told.

        None where nothing can be told.
        """
        text = reading.root.text
        if not text.isascii():
            return None
        for known, some in self._known:
            if known == text:
                return some
        told = self._sieve.told[self._where]
        some = self._sieve.skeletons.among(bare(text), told)
        self._known.append((text, some))
        return some
