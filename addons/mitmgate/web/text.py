"""Text as an approver may safely read it: what was matched is marked, what is invisible is named.

A prompt is written by whoever asks, and may be made to look like another one: characters that turn
the direction of writing or cannot be seen are shown as [U+202E].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import regex

from mitmgate.core.holds import Mark

# Default ignorable covers joiners, fillers, tags and variation selectors; U+2800 is a blank that is
# a symbol; U+FE0F alone only asks for an emoji in colour.
_INVISIBLE = regex.compile(
    r"([[\p{DI}\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u2800]--[\n\t\uFE0F]])\1*", regex.V1
)
LONG = 1200  # characters; a longer passage is folded, and only what was matched stays open
AROUND = 240  # characters shown on either side of what was matched
GAP = " \N{HORIZONTAL ELLIPSIS} "


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text. `rules` are those that matched it.

    Ours are the gate's words, not the caller's: names of what is invisible, notes of what is cut.
    """

    text: str
    rules: tuple[str, ...] = ()
    ours: bool = False


def pieces(text: str, marks: Iterable[Mark] = (), start: int = 0) -> list[Piece]:
    """`text` cut where marks begin and end; `start` is where it stands in what `marks` count."""
    end = start + len(text)
    inside = [mark for mark in marks if mark.start < end and mark.end > start]
    cuts = {start, end} | {at for m in inside for at in (m.start, m.end) if start < at < end}
    found: list[Piece] = []
    for left, right in pairwise(sorted(cuts)):
        part = text[left - start : right - start]
        over = [mark for mark in inside if mark.start <= left and right <= mark.end]
        if any(not mark.rule for mark in over):
            found.append(Piece(part, ours=True))
        else:
            found += _named(part, tuple(sorted({mark.rule for mark in over})))
    return found


def excerpt(text: str, marks: Sequence[Mark]) -> list[Piece]:
    """What was matched with what stands around it, for a text too long to be shown at once."""
    windows: list[list[int]] = []
    for start, end in sorted((mark.start, mark.end) for mark in marks):
        start, end = max(0, start - AROUND), min(len(text), end + AROUND)
        if windows and start <= windows[-1][1]:
            windows[-1][1] = max(windows[-1][1], end)
        else:
            windows.append([start, end])
    found: list[Piece] = []
    for start, end in windows:
        if start:
            found.append(Piece(GAP, ours=True))
        found += pieces(text[start:end], marks, start)
    if windows and windows[-1][1] < len(text):
        found.append(Piece(GAP, ours=True))
    return found


def moved(text: str, masked: str, marks: Iterable[Mark]) -> list[Mark]:
    """The marks of `text` that still say the truth about `masked`.

    Those within what both begin with, or both end with, stay on the same characters. A mark on or
    between values that were masked is dropped rather than put where it may be wrong.
    """
    if masked == text:
        return list(marks)
    shorter = min(len(text), len(masked))
    head = next((i for i in range(shorter) if text[i] != masked[i]), shorter)
    tail = next(
        (i for i in range(shorter - head) if text[-1 - i] != masked[-1 - i]), shorter - head
    )
    shift = len(masked) - len(text)
    kept: list[Mark] = []
    for mark in marks:
        if mark.end <= head:
            kept.append(mark)
        elif mark.start >= len(text) - tail:
            kept.append(replace(mark, start=mark.start + shift, end=mark.end + shift))
    return kept


def visible(text: str) -> str:
    """`text` in one line, with what is invisible named: for names and models."""
    return "".join(piece.text for piece in _named(" ".join(text.split()), ()))


def _named(text: str, rules: tuple[str, ...]) -> list[Piece]:
    found: list[Piece] = []
    done = 0
    for match in _INVISIBLE.finditer(text):
        if match.start() > done:
            found.append(Piece(text[done : match.start()], rules))
        times = match.end() - match.start()
        count = f" \N{MULTIPLICATION SIGN} {times}" if times > 1 else ""
        found.append(Piece(f"[U+{ord(match[1]):04X}{count}]", rules, ours=True))
        done = match.end()
    if done < len(text):
        found.append(Piece(text[done:], rules))
    return found
