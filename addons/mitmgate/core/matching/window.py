"""Where in a text a rule can match, given where its matches may end.

Searching a window instead of the whole text gives the same match, because a window shows all that
the pattern can look at: everything on the left, and on the right as far as its lookaheads reach.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mitmgate.core.matching.syntax import codes, parts

WIDEST = 4096  # characters; a pattern that takes more is searched for in the whole text
MANY, APART = 2, 256  # more windows than that, and one per so many bytes, are no gain
_EDGE = 2  # characters that `\b` and `$` look at: the next, and whether a newline is the last
_INSIDE = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that do not begin a character


@dataclass(frozen=True, slots=True)
class Reach:
    """How many characters a match has at most, and how many more after it are looked at."""

    width: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Window:
    """Matches may start at `first` to `last`; what they are depends on nothing from `end` on."""

    first: int
    last: int
    end: int


def reach(tree: Any) -> Reach | None:
    """The reach of a pattern by its syntax tree; None if there is no bound, or a large one, or
    for a backreference, for which the prefilter takes any text.
    """
    width = tree.getwidth()[1]
    ahead = _ahead(tree) + _EDGE
    return Reach(width, ahead) if width + ahead <= WIDEST else None


def _ahead(node: Any) -> int:
    """The widths of all lookaheads, one in another included: no chain of them reaches further."""
    total = 0
    for operator, argument in node:
        if operator is codes.GROUPREF:
            return WIDEST
        if operator in (codes.ASSERT, codes.ASSERT_NOT):
            total += argument[1].getwidth()[1]
        total += sum(_ahead(part) for part in parts(operator, argument))
    return total


def windows(data: bytes, ends: Iterable[int], reach: Reach) -> list[Window]:
    """Windows, ascending and apart, for matches that end at one of `ends`, which are offsets in
    `data`, the UTF-8 of a text; a single one if many would take longer. They are in characters.
    """
    found: list[Window] = []
    ascii_only = data.isascii()
    end = known = 0
    for offset in sorted(ends):
        if ascii_only:
            end = offset
        else:
            end += len(data[known:offset].translate(None, _INSIDE))
            known = offset
        first = max(0, end - reach.width)
        if found and first <= found[-1].last + 1:
            first = found.pop().first
        found.append(Window(first, end, end + reach.width + reach.ahead))
    if len(found) > MANY + len(data) // APART:
        return [Window(found[0].first, sys.maxsize, sys.maxsize)]
    return found
