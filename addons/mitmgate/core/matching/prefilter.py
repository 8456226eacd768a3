"""Which rules may match a text at all: one Hyperscan scan for all of them, in linear time.

A candidate is a maybe; a rule that is not a candidate cannot match (`superset`). Where Hyperscan
cannot be imported every rule is a candidate, which is the same answer, slower.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mitmgate.core.matching.superset import scannable

hyperscan: Any
try:
    import hyperscan
except ImportError:  # no wheel for this platform
    hyperscan = None


class Prefilter:
    """Compiled once, scanned by many threads at a time, each with a scratch of its own."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """`patterns` are supersets; one's position is its id. Raises `ValueError` if one does not
        compile (`refusals` says which). Takes about 1 s for 500, without holding the GIL.
        """
        self.available = hyperscan is not None  # if not, every rule is always a candidate
        self._everything = range(len(patterns))
        self._local = threading.local()
        self._database: Any = None
        if hyperscan and patterns:
            self._database = _compile(patterns)

    def candidates(self, text: str) -> Iterable[int]:
        """The positions, ascending, of all patterns that may match in `text`."""
        if self._database is None:
            return self._everything
        found: list[int] = []

        def note(position: int, start: int, end: int, flags: int, context: object) -> None:
            found.append(position)

        self._database.scan(scannable(text), match_event_handler=note, scratch=self._scratch())
        return sorted(found)

    def _scratch(self) -> Any:
        try:
            return self._local.scratch
        except AttributeError:
            self._local.scratch = hyperscan.Scratch(self._database)
            return self._local.scratch


def refusals(patterns: Mapping[int, str]) -> dict[int, str]:
    """Of `patterns`, those that Hyperscan does not take even as a prefilter, and why.

    A list that does not compile does not say which of its patterns is at fault.
    """
    found = {}
    if hyperscan:
        for key, pattern in patterns.items():
            try:
                _compile([pattern])
            except ValueError as e:
                found[key] = str(e)
    return found


def _compile(patterns: Sequence[str]) -> Any:
    flags = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[pattern.encode() for pattern in patterns],
            ids=list(range(len(patterns))),
            elements=len(patterns),
            flags=[flags] * len(patterns),
        )
    except hyperscan.error as e:
        raise ValueError(str(e)) from None
    return database
