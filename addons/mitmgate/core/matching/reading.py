"""A text as it is read in one view, with the way back to where it stood in what it came from.

Going forward costs next to nothing beyond the text itself. The way back is worked out only when it
is asked for, which is when something was found.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex

type Span = tuple[int, int]
type Edit = tuple[int, int, str]  # start, end, and what stands there instead; in ascending order
type Back = Callable[[int, int], Span | None]

BLOCK = 1 << 16  # characters changed in one go: other threads get their turn in between
FINE = 1 << 10  # characters changed anew, time and again, to find where something came from
JOINT = " \n\x1e\n "  # between fragments: a line break of which a blank is left
# A text may be cut before these: nothing that changes texts looks across from here to the left.
_CUT = regex.compile(r"[A-Za-z0-9]")
_CUT_BEYOND = regex.compile(
    r"[\p{Lo}\p{Lu}\p{Ll}--[\u1100-\u11ff\u3131-\u318e\uffa0-\uffdc]]", regex.VERSION1
)
_INSIGNIFICANT = bytes(c for c in range(256) if not chr(c).isalnum() or c > 127)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """`text`, made from `source`. Without a source it is the original.

    It is `alike` if it differs from its source in blanks and dividing punctuation alone.
    """

    text: str
    source: Reading | None = None
    back: Back | None = None
    alike: bool = False

    @property
    def root(self) -> Reading:
        """The earliest reading from which it differs in blanks and dividing punctuation alone."""
        reading = self
        while reading.alike and reading.source is not None:
            reading = reading.source
        return reading

    def origin(self, start: int, end: int) -> Span | None:
        """Where `text[start:end]` comes from in the original: the least that covers it.

        None if it comes from two fragments that do not stand side by side there.
        """
        reading, span = self, (start, end)
        while reading.source is not None:
            if reading.back is not None:
                traced = reading.back(*span)
                if traced is None:
                    return None
                span = traced
            reading = reading.source
        return span

    def edited(self, edits: Sequence[Edit]) -> Reading:
        """This text with `edits` made, which are apart from each other."""
        if not edits:
            return self
        pieces: list[str] = []
        done = 0
        for start, end, new in edits:
            pieces += self.text[done:start], new
            done = end
        text = "".join([*pieces, self.text[done:]])
        return Reading(text, self, lambda start, end: _before_edits(edits, start, end))

    def changed(self, change: Callable[[str], str], *, alike: bool = False) -> Reading:
        """This text as `change` makes it, which looks at few characters at a time, and never
        across a word's beginning. It is `alike` only if this text is ASCII."""
        text = in_blocks(change, self.text)
        if len(text) == len(self.text) and text == self.text:
            return self

        def back(start: int, end: int) -> Span:
            return _before_change(self.text, change, start, end)

        return Reading(text, self, back, alike and self.text.isascii())

    def translated(self, text: str) -> Reading:
        """`text`, which has as many characters, each instead of one here."""
        return self if text == self.text else Reading(text, self)

    def trimmed(self) -> Reading:
        """Without blanks at either end."""
        text = self.text.strip(" ")
        if len(text) == len(self.text):
            return self
        shift = len(self.text) - len(self.text.lstrip(" "))
        return Reading(text, self, lambda start, end: (start + shift, end + shift), alike=True)

    def reversed(self) -> Reading:
        size = len(self.text)
        return Reading(self.text[::-1], self, lambda start, end: (size - end, size - start))

    def around(self, spans: Sequence[Span], margin: int) -> Reading:
        """What stands within `margin` letters and digits of `spans`; itself if that is most."""
        together: list[Span] = []
        for start, end in spans:  # those whose surroundings overlap anyway
            if together and start <= together[-1][1] + margin:
                first, last = together.pop()
                start, end = first, max(last, end)
            together.append((start, end))
        parts: list[Span] = []
        for start, end in together:
            start, end = _left(self.text, start, margin), _right(self.text, end, margin)
            if parts and start <= parts[-1][1] + len(JOINT):
                start = parts.pop()[0]
            parts.append((start, end))
        if 2 * sum(end - start for start, end in parts) > len(self.text):
            return self
        pieces = [self.text[start:end] for start, end in parts]
        if parts[0][0] > 0:  # so that ^ does not match where the text goes on to the left
            parts, pieces = [(parts[0][0], parts[0][0]), *parts], ["", *pieces]
        if parts[-1][1] < len(self.text):
            parts, pieces = [*parts, (parts[-1][1], parts[-1][1])], [*pieces, ""]
        starts = list(accumulate((len(piece) + len(JOINT) for piece in pieces), initial=0))
        return Reading(
            JOINT.join(pieces), self, lambda start, end: _before_cut(parts, starts, start, end)
        )


def in_blocks(change: Callable[[str], str], text: str) -> str:
    """`change(text)`, a block at a time."""
    if len(text) <= BLOCK:
        return change(text)
    return "".join(map(change, blocks(text)))


def ascii_bytes(text: str) -> bytes:
    """`text` with one byte for each character, a question mark for each beyond ASCII."""
    if len(text) <= BLOCK:
        return text.encode("ascii", "replace")
    pieces = (text[i : i + BLOCK] for i in range(0, len(text), BLOCK))
    return b"".join([piece.encode("ascii", "replace") for piece in pieces])


def blocks(text: str, size: int = BLOCK) -> Iterator[str]:
    """`text` in pieces of about `size` characters, cut before a letter or digit."""
    start = 0
    while len(text) - start > size:
        at = start + size
        cut = _CUT.search(text, at, at + 1024) or _CUT_BEYOND.search(text, at, at + BLOCK)
        end = cut.start() if cut else at + 1024
        yield text[start:end]
        start = end
    yield text[start:]


def spans_after(spans: Sequence[Span], edits: Sequence[Edit]) -> list[Span]:
    """Where `spans` are once `edits` are made, and what these put there; ascending."""
    starts = [start for start, _, _ in edits]
    shifts = list(accumulate((len(new) - (end - start) for start, end, new in edits), initial=0))
    moved = [
        (a + shifts[bisect_right(starts, a)], b + shifts[bisect_left(starts, b)]) for a, b in spans
    ]
    made = [
        (start + shift, start + shift + len(new))
        for (start, _, new), shift in zip(edits, shifts, strict=False)
    ]
    return sorted((max(0, min(a, b)), max(a, b)) for a, b in moved + made)


def _before_edits(edits: Sequence[Edit], start: int, end: int) -> Span:
    shifts = list(accumulate((len(new) - (b - a) for a, b, new in edits), initial=0))
    starts = [a + shift for (a, _, _), shift in zip(edits, shifts, strict=False)]
    i = bisect_right(starts, start)  # edits before i begin at `start` or to the left of it
    first = start - shifts[i]
    if i and start < starts[i - 1] + len(edits[i - 1][2]):
        first = edits[i - 1][0]
    j = bisect_left(starts, end)
    last = end - shifts[j]
    if j and end <= starts[j - 1] + len(edits[j - 1][2]):
        last = edits[j - 1][1]
    return first, max(first, last)


def _before_change(text: str, change: Callable[[str], str], start: int, end: int) -> Span:
    made = at = 0
    first: int | None = None
    for block in blocks(text, FINE):
        size = len(change(block))
        if first is None and start < made + size:
            inside = start - made
            first = at + bisect_right(
                range(len(block)), inside, key=lambda i: len(change(block[:i]))
            )
            first -= 1
            # Two characters may go together, so that one of them alone made it longer.
            while (on := first - at + 2) <= len(block) and len(change(block[:on])) <= inside:
                first += 2
        if end <= made + size:
            inside = end - made
            last = at + bisect_left(range(len(block)), inside, key=lambda i: len(change(block[:i])))
            while last < len(text) and unicodedata.category(text[last]).startswith("M"):
                last += 1
            break
        made, at = made + size, at + len(block)
    else:
        last = len(text)
    first = len(text) if first is None else max(first, 0)
    return first, max(first, last)


def _before_cut(parts: Sequence[Span], starts: Sequence[int], start: int, end: int) -> Span | None:
    i = bisect_right(starts, start) - 1
    shift = parts[i][0] - starts[i]
    if end + shift > parts[i][1]:  # what is between the fragments is not in the text
        return None
    return start + shift, end + shift


def _left(text: str, end: int, margin: int) -> int:
    start, missing = end, margin
    while start and missing > 0:
        before, start = start, max(0, start - 2 * missing)
        missing -= _significant(text[start:before])
    return start


def _right(text: str, start: int, margin: int) -> int:
    end, missing = start, margin
    while end < len(text) and missing > 0:
        before, end = end, min(len(text), end + 2 * missing)
        missing -= _significant(text[before:end])
    return end


def _significant(text: str) -> int:
    """How many of its characters are left however a text is squeezed."""
    return len(text.encode("utf-8", "surrogatepass").translate(None, _INSIGNIFICANT))
