"""The prompt of a held request, as it was judged, for the people who decide about it.

It is kept while the request waits, so it is bounded: what a rule found stays with as much around it
as there is room for, then the other texts from the first on. What is left out is said in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

Span = tuple[int, int]

CORE = 500  # characters of what a rule found that come before all else; a match may be a whole text
_ADDRESS = 200  # characters; the keys in it are the caller's
_NOTE = 64  # characters; no note of a cut is longer
_LEAST = 200  # characters of a text below which its beginning says nothing
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Mark:
    """`text[start:end]` of its passage, in characters, is what `rule` found.

    Without a rule they are the gate's own words, about what it left out.
    """

    start: int
    end: int
    rule: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of a prompt: `where` and `address` are those of its segment.

    One that has neither says how much was left out between its neighbours.
    """

    where: str
    address: str
    text: str
    marks: tuple[Mark, ...] = ()


def bounded(passages: Iterable[Passage], limit: int) -> tuple[Passage, ...]:
    """`passages` in at most `limit` characters, those of addresses and rule ids included.

    Lone surrogates, which JSON can carry and a file cannot, become U+FFFD.
    """
    given = [replace(p, address=p.address[:_ADDRESS]) for p in passages]
    if sum(len(p.text) + _overhead(p) for p in given) <= limit:
        return tuple(map(_clean, given))
    kept = _around_marks(given, limit)
    left = limit - _NOTE - sum(_cost(given[i], spans) for i, spans in kept.items())
    for i, passage in enumerate(given):
        if i in kept:
            continue
        size = len(passage.text) + _overhead(passage)
        if size > left:
            room = left - _overhead(passage) - _NOTE
            if room >= _LEAST:
                kept[i] = [(0, room)]
            break
        kept[i] = [(0, len(passage.text))]
        left -= size
    return tuple(map(_clean, _assembled(given, kept)))


def _around_marks(given: Sequence[Passage], limit: int) -> dict[int, list[Span]]:
    """What is kept of the passages that have marks: of as many as fit, with equal surroundings."""
    marked = [i for i, passage in enumerate(given) if passage.marks]

    def spans(reach: int) -> dict[int, list[Span]]:
        return {i: _widened(given[i], reach) for i in marked}

    def fits(kept: dict[int, list[Span]]) -> bool:
        return _NOTE + sum(_cost(given[i], each) for i, each in kept.items()) <= limit

    bare = spans(0)
    while marked and not fits({i: bare[i] for i in marked}):
        marked.pop()
    # Not quite monotonous, as notes vanish where gaps close: what is taken fits all the same.
    low, high = 0, max((len(given[i].text) for i in marked), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(spans(middle)):
            low = middle
        else:
            high = middle - 1
    return spans(low)


def _widened(passage: Passage, reach: int) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted((m.start, min(m.end, m.start + CORE)) for m in passage.marks):
        start, end = max(0, start - reach), min(len(passage.text), end + reach)
        # A gap that is no longer than the note about it is not worth one.
        if merged and start - merged[-1][1] <= _NOTE:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _overhead(passage: Passage) -> int:
    return len(passage.where) + len(passage.address) + sum(len(m.rule) for m in passage.marks)


def _cost(passage: Passage, spans: Sequence[Span]) -> int:
    """Characters that these spans of a passage take, with a note before each and at the ends."""
    return _overhead(passage) + sum(end - start + _NOTE for start, end in spans) + 2 * _NOTE


def _assembled(given: Sequence[Passage], kept: dict[int, list[Span]]) -> Iterable[Passage]:
    for is_kept, run in groupby(enumerate(given), lambda each: each[0] in kept):
        if is_kept:
            yield from (_cut(passage, kept[i]) for i, passage in run)
        else:
            lengths = [len(passage.text) for _, passage in run]
            what = "1 text" if len(lengths) == 1 else f"{len(lengths)} texts"
            note = f"[… {what} of {sum(lengths)} characters left out …]"
            yield Passage("", "", note, (Mark(0, len(note), ""),))


def _cut(passage: Passage, spans: Sequence[Span]) -> Passage:
    text, marks, last = "", [], 0
    for start, end in (*spans, (len(passage.text), len(passage.text))):
        if start > last:
            note = f"[… {start - last} characters left out …]"
            marks.append(Mark(len(text), len(text) + len(note), ""))
            text += note
        moved = len(text) - start
        for mark in passage.marks:
            first, stop = max(mark.start, start), min(mark.end, end)
            if first < stop:
                marks.append(Mark(first + moved, stop + moved, mark.rule))
        text += passage.text[start:end]
        last = end
    return replace(passage, text=text, marks=tuple(marks))


def _clean(passage: Passage) -> Passage:
    text, address = (_SURROGATE.sub("\ufffd", each) for each in (passage.text, passage.address))
    return replace(passage, text=text, address=address)
