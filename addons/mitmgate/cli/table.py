"""Lines of cells: under each other and cut to fit a terminal, or whole with tabs between them.

Nothing in a cell reaches the terminal as a control character.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence

from mitmgate.core.wire.segment import plain

type Column = tuple[str, float]  # its head; its places, or below 1 its share; 0 is the rest


def terminal() -> int | None:
    """How many places a line of standard output has; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Table:
    """Columns on standard output, in lines of `width` places, if there is such a width."""

    def __init__(self, columns: Sequence[Column], width: int | None) -> None:
        self._columns = columns
        self._width = width
        self._headed = False

    def add(self, cells: Sequence[str]) -> None:
        """Print a line; before the first one, the heads of the columns."""
        if not self._headed:
            self._headed = True
            self.add([head for head, _ in self._columns])
        shown = [cell if cell.isprintable() else plain(cell) for cell in cells]
        print("\t".join(shown) if self._width is None else self._fitted(shown, self._width))

    def _fitted(self, cells: Sequence[str], width: int) -> str:
        line, left = "", width
        for cell, (_, share) in zip(cells, self._columns, strict=True):
            room = min(int(share if share >= 1 else share * width) or left, left)
            line += f"{fitted(cell, room)} "
            left = max(0, left - room - 1)
        return line.rstrip()


def fitted(text: str, room: int) -> str:
    """`text` in exactly `room` places, of which letters of East Asia take two."""
    if places(text) <= room:
        return text + " " * (room - places(text))
    kept = ""
    for char in text:
        if places(kept + char) >= room:
            break
        kept += char
    mark = "…" if room else ""
    return kept + mark + " " * (room - places(kept + mark))


def places(text: str) -> int:
    """How many places of a terminal `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
