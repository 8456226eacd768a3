"""From where on a text must be held back: the first place at which something may still match.

Most places are ruled out by one look at a table: by the character there, and by whether it stands
inside a word. Only the few recognizers that can begin so are asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mitmgate.core.masking.closure import Closure
from mitmgate.core.masking.syntax import ASCII

NARROW = 50  # characters; most recognizers never need to hold more
_WORDS = frozenset(filter(str.isalnum, ASCII))
_BEYOND = ""  # stands in a table for all characters beyond ASCII
_Table = dict[str, tuple[re.Pattern[str], ...]]


class Hold:
    """The search for undecided places, for one set of recognizers."""

    def __init__(self, closures: Iterable[tuple[Closure, int]]) -> None:
        """`closures` come with how many characters a match reads at most from its start on."""
        known = list(closures)
        self._span = max((span for _, span in known), default=0)
        wide = [one for one, span in known if span > NARROW]
        self._near = _tables([one for one, _ in known])
        self._far = _tables(wide)

    def place(self, text: str, start: int) -> int:
        """The first undecided place in `text` from `start` on; its length when there is none."""
        near = max(start, len(text) - NARROW + 1)
        at = self._search(self._far, text, max(start, len(text) - self._span + 1), near)
        return at if at < near else self._search(self._near, text, near, len(text))

    def _search(self, tables: tuple[_Table, _Table], text: str, start: int, end: int) -> int:
        if start >= end:
            return end
        outside, inside = tables
        before = text[start - 1] if start else ""
        for at in range(start, end):
            char = text[at]
            table = inside if before in _WORDS else outside
            before = char
            for pattern in table.get(char if char < "\x80" else _BEYOND, ()):
                if pattern.match(text, at):
                    return at
        return end


def _tables(closures: Sequence[Closure]) -> tuple[_Table, _Table]:
    """Whom to ask where no word goes on, and where one does; without those that nobody is asked."""
    outside: _Table = {}
    inside: _Table = {}
    for char in (*ASCII, _BEYOND):
        able = [one for one in closures if _begins(one, char)]
        if able:
            outside[char] = tuple(one.undecided for one in able)
        if within := [one for one in able if not one.starts_words]:
            inside[char] = tuple(one.undecided for one in within)
    return outside, inside


def _begins(one: Closure, char: str) -> bool:
    return char in one.first.ascii if char else one.first.others != frozenset()
