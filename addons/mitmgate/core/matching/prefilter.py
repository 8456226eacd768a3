"""Which rules may match a text, and where: Hyperscan scans for all of them in linear time.

A candidate is a maybe; a rule that is not a candidate cannot match (`superset`). Where Hyperscan
cannot be imported every rule is a candidate, which is the same answer, slower.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from functools import lru_cache
from itertools import batched
from typing import Any

from mitmgate.core.matching import kept

hyperscan: Any
try:
    import hyperscan
except ImportError:  # no wheel for this platform
    hyperscan = None

DEAR = 0.2  # seconds; what took less to make is not kept
GROUP = 8  # patterns in one scan for ends: a small database is quick, and most are not needed
MOST_ENDS = 1000  # noted in one scan, 0.2 ms, or one for 256 bytes; where there are more, whole
# texts are searched
# Scanned behind every text: with SINGLEMATCH, Vectorscan 5.4.12 does not see two bytes (`rm`) that
# are the last ones once a pattern of one character beside them has matched. One more hit at most.
END = b"\n"


@lru_cache(maxsize=256)
def _compiled(
    patterns: tuple[tuple[int, str], ...], flags: int, once: frozenset[int] = frozenset()
) -> Any:
    """A database, made once: an edit that leaves the patterns alone costs nothing.

    Databases are read only, so that all who ask for the same patterns may share one.
    """
    key = hashlib.sha256(
        repr((hyperscan.__version__, patterns, flags, sorted(once))).encode()
    ).hexdigest()
    if (database := _kept(key)) is not None:
        return database
    begun = time.monotonic()
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[pattern.encode() for _, pattern in patterns],
            ids=[i for i, _ in patterns],
            elements=len(patterns),
            flags=[
                flags | hyperscan.HS_FLAG_SINGLEMATCH if i in once else flags for i, _ in patterns
            ],
        )
    except hyperscan.error as e:
        raise ValueError(str(e)) from None
    if time.monotonic() - begun > DEAR:
        kept.keep(key, hyperscan.dumpb(database))
    return database


def _kept(key: str) -> Any:
    """A database that was made before, for this Hyperscan on this processor; None without one."""
    content = kept.read(key)
    if content is None:
        return None
    try:
        database = hyperscan.loadb(content, hyperscan.HS_MODE_BLOCK)
        hyperscan.Scratch(database)  # refuses one for another processor
    except hyperscan.error:
        return None
    return database


class Scanner:
    """Patterns compiled once, scanned by many threads at a time, each with a scratch of its own."""

    def __init__(
        self, patterns: Mapping[int, str], flags: int, once: frozenset[int] = frozenset()
    ) -> None:
        """Patterns by id; of those in `once` a single match is reported in a scan. Raises
        `ValueError` if one of them does not compile.
        """
        self._local = threading.local()
        self._database = _compiled(tuple(patterns.items()), flags, once)

    def scan(self, data: bytes, note: Callable[[int, int], object]) -> None:
        """Calls `note` with the id and the end of every match, until it returns something true."""

        def handle(i: int, start: int, end: int, flags: int, context: object) -> object:
            return note(i, end)

        try:
            self._database.scan(data, match_event_handler=handle, scratch=self._scratch())
        except hyperscan.ScanTerminated:
            pass

    def _scratch(self) -> Any:
        try:
            return self._local.scratch
        except AttributeError:
            self._local.scratch = hyperscan.Scratch(self._database)
            return self._local.scratch


class Prefilter:
    """The supersets of a set of rules, each known by its position."""

    def __init__(self, patterns: Mapping[int, str], apart: Iterable[frozenset[int]] = ()) -> None:
        """`apart` are the sets of positions that `candidates` will be asked for. Raises
        `ValueError` if a pattern does not compile (`refusals` says which). Takes 1-3 s for 500,
        without holding the GIL.
        """
        self.available = hyperscan is not None  # if not, every rule is always a candidate
        self._all = Scanner(patterns, _flags(once=True)) if hyperscan and patterns else None
        self._apart: dict[frozenset[int], Scanner] = {}
        self._patterns = patterns
        self._sets = [some for some in dict.fromkeys(apart) if 0 < len(some) < len(patterns)]

    def prepare(self) -> None:
        """Compile each of the sets, until when all patterns are looked for at once."""
        for some in self._sets if self.available else ():
            chosen = {i: self._patterns[i] for i in sorted(some)}
            self._apart[some] = Scanner(chosen, _flags(once=True))

    def candidates(self, data: bytes, some: frozenset[int]) -> Iterable[int]:
        """The positions, ascending, of those of `some` that may match in `data` (`scannable`)."""
        if not some:
            return ()
        if self._all is None:
            return sorted(some)
        found: list[int] = []
        self._apart.get(some, self._all).scan(data + END, lambda i, end: found.append(i))
        return sorted(some.intersection(found))


class Locator:
    """Where in a text the supersets of rules match, which are known by their positions."""

    def __init__(self, patterns: Mapping[int, str], once: Set[int]) -> None:
        """Of the patterns in `once`, `ends` is to find one match only."""
        self._patterns = patterns
        self._once = once
        self._groups: dict[int, tuple[Scanner, Sequence[int]]] = {}

    def prepare(self) -> None:
        """Compile them; nothing can be told before."""
        for group in batched(self._patterns if hyperscan else (), GROUP):
            some = {i: self._patterns[i] for i in group}
            try:
                scanner = Scanner(some, _flags(once=False), frozenset(self._once & some.keys()))
            except ValueError:
                continue  # too large if every match counts: then whole texts are searched
            self._groups.update(dict.fromkeys(group, (scanner, group)))

    def ends(self, data: bytes, position: int) -> Mapping[int, Set[int] | None]:
        """All offsets in `data` at which a match of this pattern may end; others come with it.

        None if they are too many to be listed, or cannot be told.
        """
        if position not in self._groups:
            return {position: None}
        scanner, members = self._groups[position]
        found: dict[int, set[int]] = {i: set() for i in members}
        left = max(MOST_ENDS, len(data) >> 8)

        def note(i: int, end: int) -> bool:
            nonlocal left
            found[i].add(min(end, len(data)))
            left -= 1
            return left < 0

        scanner.scan(data + END, note)
        return found if left >= 0 else dict.fromkeys(members)


class Skeletons:
    """Which rules some view of a text may break, by what is left of both in any view."""

    def __init__(self, patterns: Mapping[int, str], apart: Iterable[frozenset[int]]) -> None:
        """`apart` are the sets of positions that `among` will be asked for."""
        self._patterns = patterns
        self._sets = apart
        self._prefilter: Prefilter | None = None

    def prepare(self) -> None:
        """Compile them; nothing can be told before."""
        with suppress(ValueError):  # too large: then every view is looked at
            prefilter = Prefilter(self._patterns, self._sets)
            prefilter.prepare()
            self._prefilter = prefilter if prefilter.available else None

    def among(self, data: bytes, some: frozenset[int]) -> frozenset[int] | None:
        """Those of `some` that may match in a view of `data` (`bare`); None if it is not known."""
        if self._prefilter is None:
            return None
        return frozenset(self._prefilter.candidates(data, some))


class Hints:
    """The words without which rules cannot match, each set known by the position of its rule."""

    def __init__(self, words: Sequence[frozenset[str]]) -> None:
        self._rules: dict[str, set[int]] = {}
        for i, some in enumerate(words):
            for word in some:
                self._rules.setdefault(word, set()).add(i)
        self._words = sorted(self._rules)
        self._scanner: Scanner | None = None
        if hyperscan and self._words:
            spelled = {i: _literal(word) for i, word in enumerate(self._words)}
            self._scanner = Scanner(spelled, _flags(once=True))

    def of(self, data: bytes) -> Set[int] | None:
        """The positions of those in `data` (`scannable`); None where that cannot be told."""
        if self._scanner is None:
            return None
        found: set[int] = set()
        self._scanner.scan(data + END, lambda i, end: found.update(self._rules[self._words[i]]))
        return found


def _literal(word: str) -> str:
    return "".join(f"\\x{ord(character):02x}" for character in word)


def refusals(patterns: Mapping[int, str]) -> dict[int, str]:
    """Of `patterns`, those that Hyperscan does not take even as a prefilter, and why.

    A list that does not compile does not say which of its patterns is at fault.
    """
    found = {}
    if hyperscan:
        for key, pattern in patterns.items():
            try:
                Scanner({0: pattern}, _flags(once=True))
            except ValueError as e:
                found[key] = str(e)
    return found


def _flags(once: bool) -> int:
    flags: int = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_CASELESS
    return flags | hyperscan.HS_FLAG_SINGLEMATCH if once else flags
