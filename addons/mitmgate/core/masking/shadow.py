"""A text as its recognizers read it, with the way back to what was written.

The plain reading is the text itself, folded. Where it holds characters without width, or ASCII
written as %40, \\u0040 or \\x40, there is a second one, the shadow: without the former, the latter
decoded. Neither replaces the other, since decoding can also pull a value apart (a password with
%20 in it). Bytes beyond ASCII, HTML entities and base64 are not decoded.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mitmgate.core.masking.closure import prefix
from mitmgate.core.masking.folding import beyond_ascii, fold
from mitmgate.core.masking.syntax import parse

GAP = 16  # so many invisible characters in a row are overlooked; one more breaks a value
# Default_Ignorable_Code_Point and the category Cf; a test compares.
_RANGES = (
    "\u00ad-\u00ad \u034f-\u034f \u0600-\u0605 \u061c-\u061c \u06dd-\u06dd \u070f-\u070f "
    "\u0890-\u0891 \u08e2-\u08e2 \u115f-\u1160 \u17b4-\u17b5 \u180b-\u180f \u200b-\u200f "
    "\u202a-\u202e \u2060-\u206f \u3164-\u3164 \ufe00-\ufe0f \ufeff-\ufeff \uffa0-\uffa0 "
    "\ufff0-\ufffb \U000110bd-\U000110bd \U000110cd-\U000110cd \U00013430-\U0001343f "
    "\U0001bca0-\U0001bca3 \U0001d173-\U0001d17a \U000e0000-\U000e0fff"
).split()
INVISIBLE = frozenset(chr(code) for run in _RANGES for code in range(ord(run[0]), ord(run[-1]) + 1))
_BREAK = "\u200b"
_RUN = re.compile(f"[{''.join(_RANGES)}]{{1,{GAP + 1}}}")
_CODE = "(?:[2-7][0-9A-Fa-f]|0[9ADad])"  # ASCII without control characters, save white space
_ESCAPE = rf"(?:%(?:25){{0,2}}|\\{{1,4}}(?:u00|x)){_CODE}"
_ESCAPED = re.compile(_ESCAPE)
# An escape ends like one of these, which `re` finds faster: each begins with one certain character.
_PERCENT = re.compile(f"%{_CODE}")
_BACKSLASH = re.compile(rf"\\(?:u00|x){_CODE}")
_BEGUN = re.compile(f"(?:{prefix(parse(_ESCAPE))})\\Z")  # at worst it finds the end itself
_LONGEST = len(r"\\\\u0040")


@dataclass(slots=True)
class _Map:
    """Where the characters of a rewritten text stand in the one it was made from.

    It consists of stretches: `starts` of them in the new text, `places` and `limits` in the old.
    """

    starts: list[int]
    places: list[int]
    limits: list[int]
    size: int
    end: int  # the place of what comes after the last character

    def place(self, index: int) -> int:
        if index >= self.size:
            return self.end
        k = bisect_right(self.starts, index) - 1
        return self.places[k] + index - self.starts[k]

    def limit(self, index: int) -> int:
        if index == 0:
            return 0
        k = bisect_right(self.starts, index - 1) - 1
        last = self.starts[k + 1] if k + 1 < len(self.starts) else self.size
        return self.limits[k] if index == last else self.places[k] + index - self.starts[k]

    def index(self, place: int) -> int:
        k = bisect_left(self.places, place)
        if k == 0:
            return 0
        following = self.starts[k] if k < len(self.starts) else self.size
        return min(self.starts[k - 1] + place - self.places[k - 1], following)


@dataclass(slots=True)
class Reading:
    """One way to read a text, and where its characters stand in the text as it was written."""

    text: str
    maps: tuple[_Map, ...] = ()

    def place(self, index: int) -> int:
        """Where character `index` begins; at the end, where what is not yet known begins."""
        for one in self.maps:
            index = one.place(index)
        return index

    def limit(self, index: int) -> int:
        """Where the character before `index` ends."""
        for one in self.maps:
            index = one.limit(index)
        return index

    def index(self, place: int) -> int:
        """The first character that begins at `place` or after it."""
        for one in reversed(self.maps):
            place = one.index(place)
        return place


def read(text: str, *, final: bool) -> tuple[Reading, ...]:
    """The plain reading of `text` and, where it says something else, the shadow.

    Unless `final`, the shadow ends before an escape that more text may complete.
    """
    beyond = beyond_ascii(text)
    plain = visible = fold(text, beyond)
    maps: list[_Map] = []
    if beyond and not INVISIBLE.isdisjoint(beyond):
        visible, one = _rewritten(text, len(text), _unseen(text))
        visible = fold(visible)
        maps.append(one)
    end = len(visible) if final else _known(visible)
    if end < len(visible) or _escapes(visible):
        visible, one = _rewritten(visible, end, _decoded(visible, end))
        visible = fold(visible)
        maps.insert(0, one)
    return (Reading(plain), Reading(visible, tuple(maps))) if maps else (Reading(plain),)


def _known(text: str) -> int:
    """Where an escape begins that more text may complete; the length of `text` without one."""
    last = text[-_LONGEST:]
    if "%" in last or "\\" in last:
        begun = _BEGUN.search(text, max(0, len(text) - _LONGEST))
        return begun.start() if begun else len(text)
    return len(text)


def _escapes(text: str) -> bool:
    """Whether there are escapes. For ordinary text to ask this must cost next to nothing."""
    return bool(
        ("%" in text and _PERCENT.search(text)) or ("\\" in text and _BACKSLASH.search(text))
    )


_Edit = tuple[int, int, str]  # [start, end) of a text, and the one character or none it becomes


def _unseen(text: str) -> Iterator[_Edit]:
    for run in _RUN.finditer(text):
        start, end = run.span()
        if end - start > GAP:
            yield start, end - 1, ""
            yield end - 1, end, _BREAK
        else:
            yield start, end, ""


def _decoded(text: str, end: int) -> Iterator[_Edit]:
    for escape in _ESCAPED.finditer(text, 0, end):
        yield *escape.span(), chr(int(escape[0][-2:], 16))


def _rewritten(text: str, end: int, edits: Iterable[_Edit]) -> tuple[str, _Map]:
    made: list[str] = []
    one = _Map([], [], [], 0, end)

    def add(piece: str, place: int, limit: int) -> None:
        if piece:
            made.append(piece)
            one.starts.append(one.size)
            one.places.append(place)
            one.limits.append(limit)
            one.size += len(piece)

    at = 0
    for start, stop, char in edits:
        add(text[at:start], at, start)
        add(char, start, stop)
        at = stop
    add(text[at:end], at, end)
    return "".join(made), one
