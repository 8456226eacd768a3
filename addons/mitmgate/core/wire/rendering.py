"""Turns as text that reads well: headings at the margin, and all that was said indented.

So no text can pass for a heading. Nothing is written raw that a terminal obeys or that nobody
would see, and what is long is cut where the style says so, with a word about how much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Any

from mitmgate.core.wire.segment import plain
from mitmgate.core.wire.transcript import Turn

TEXT = 20_000  # characters of one text
TOTAL = 200_000  # characters of all
WIDTH = 74  # of a line: mitmweb neither wraps nor shows more on a laptop
_TAIL = 2_000  # of a long text, from its end
_INDENT = "  "
_ARROW = "\N{RIGHTWARDS ARROW}"
_RULE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_GLUE = "\N{NO-BREAK SPACE}"  # one that a text has is escaped
_MASK = re.compile(r"\[[A-Z][A-Z0-9_ -]*(?:-[0-9a-f]{6})?\]|(?:\*[ -]?){4,}\w{0,8}")

type Paint = Callable[[str], str]


def _unpainted(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class Style:
    """How a transcript looks: what stands out and how, as functions on text that is safe to show.

    What stands in the place of something else is told by its form (`[CARD]`, `[CARD-3f9a1c]`,
    `****1111`), so `mask` is for transcripts of which it is known that something was masked.
    `width` is that of a line, None for lines as long as they came. What is long is cut, unless
    `whole`.
    """

    head: Paint = _unpainted
    alert: Paint = _unpainted
    mask: Paint | None = None
    width: int | None = WIDTH
    whole: bool = False

    def lines(self, text: str, indent: str = _INDENT) -> Iterator[str]:
        """The lines of a text, wrapped and indented; `plain`, each of them."""
        text = text if self.whole else shorten(text)
        for line in text.replace("\r\n", "\n").expandtabs(4).split("\n"):
            shown = plain(line)
            if self.mask:
                shown = _MASK.sub(lambda mask: mask[0].replace(" ", _GLUE), shown)
            for each in self._wrapped(shown, indent):
                yield self._with_masks(each)

    def _wrapped(self, line: str, indent: str) -> Sequence[str]:
        width = self.width
        # Longer than a text that is cut, a line is no prose, and slow to wrap.
        if width is None or len(line) <= width - len(indent) or len(line) > TEXT + _TAIL:
            return [f"{indent}{line}".rstrip()]
        own = f"{indent}{' ' * (len(line) - len(line.lstrip()))}"[: width // 2]
        return wrap(
            line, width, initial_indent=indent, subsequent_indent=own, break_on_hyphens=False
        )

    def _with_masks(self, line: str) -> str:
        paint = self.mask
        if paint is None:
            return line
        return _MASK.sub(lambda mask: paint(mask[0]), line.replace(_GLUE, " "))


def render(
    turns: Sequence[Turn],
    found: Mapping[str, Sequence[str]] | None = None,
    style: Style = Style(),
) -> str:
    """All turns under headings; `found` has the ids of rules by the address where they hit."""
    marks = found or {}
    blocks: list[str] = []
    left, told = TOTAL, 0
    for (role, message), group in groupby(turns, _heading):
        # Models think before they speak, whatever stands first in the JSON.
        thought = message.startswith("choices[")
        of_one = sorted(group, key=lambda turn: thought and turn.part != "reasoning")
        if left <= 0:
            break
        lines = [_title(role, message, of_one, marks, style)]
        for piece in _pieces(of_one):
            if left <= 0:
                break
            text = "\n".join(_piece(piece, style))
            left -= 0 if style.whole else len(text)
            told += len(piece)
            lines += [text] if piece[0].part == "field" else [text, ""]
        blocks.append("\n".join(lines).rstrip())
    if told < len(turns):
        blocks.append(f"[{len(turns) - told} more texts are left out here: see the view Raw]")
    return "\n\n".join(blocks)


def shorten(text: str, most: int = TEXT) -> str:
    """`text`, or its beginning and its end."""
    if len(text) <= most + _TAIL:
        return text
    gone = len(text) - most
    head, tail = text[: most - _TAIL], text[-_TAIL:]
    return f"{head}\n[{gone:,} characters are left out here]\n{tail}"


def _heading(turn: Turn) -> tuple[str, str]:
    return ("settings", "") if turn.part == "field" and not turn.role else (turn.role, turn.message)


def _title(
    role: str,
    message: str,
    turns: Sequence[Turn],
    found: Mapping[str, Sequence[str]],
    style: Style,
) -> str:
    ends = turns[0].where.startswith("answer") and role == "settings"
    words = [_RULE * 2, plain(("end" if ends else role or "text").upper()[:40])]
    title = f"{' '.join(words)}{f'  {plain(message)}' if message else ''} "
    here = [rules for at, rules in found.items() if any(_is_at(at, turn) for turn in turns)]
    hits = dict.fromkeys(rule for rules in here for rule in rules)
    mark = f" << {plain(', '.join(hits))} >> " if hits else ""
    rest = _RULE * ((style.width or WIDTH) - len(title) - len(mark))
    if not mark:
        return style.head(title + rest)
    return style.head(title) + style.alert(mark) + style.head(rest)


def _is_at(address: str, turn: Turn) -> bool:
    """Whether what was found at `address` is in a turn, in its JSON, or in what it is a part of."""
    short, long = sorted((address, turn.address), key=len)
    return bool(short) and long.startswith(short) and long[len(short) :][:1] in ("", ".", "[")


def _pieces(turns: Sequence[Turn]) -> list[list[Turn]]:
    """What is shown together: a call with its name and arguments, or else one text."""
    pieces: dict[str, list[Turn]] = {}
    for at, turn in enumerate(turns):
        pieces.setdefault(f"call {turn.call}" if turn.call else str(at), []).append(turn)
    return list(pieces.values())


def _piece(turns: Sequence[Turn], style: Style) -> Iterator[str]:
    first = turns[0]
    if first.call and first.role != "tool":
        yield from _call(turns, style)
    elif first.call:
        yield from style.lines(f"{_ARROW} {' '.join(turn.text for turn in turns)}")
    elif first.part == "tool":
        yield from _tool(first.text, style)
    elif first.part == "reasoning":
        yield from style.lines(first.text, f"{_INDENT}\N{BOX DRAWINGS LIGHT VERTICAL} ")
    elif first.part == "result":
        yield from style.lines(_pretty(first.text))
    elif first.part == "field":
        name = first.address if not first.role else first.address.rpartition(".")[2]
        yield from style.lines(f"{name}: {first.text}")
    elif first.role == "error":
        yield from style.lines(f"{first.address.rpartition('.')[2]}: {first.text}")
    else:
        yield from style.lines(first.text)


def _call(turns: Sequence[Turn], style: Style) -> Iterator[str]:
    of: dict[str, list[str]] = {}
    for turn in turns:
        of.setdefault(turn.part, []).append(turn.text)
    name = " ".join([*of.get("call", ["a tool"]), *(f"({each})" for each in of.get("id", ()))])
    yield from style.lines(f"{_ARROW} calls {name}")
    for text in of.get("arguments", ()):
        yield from style.lines(_pretty(text), _INDENT * 2)


def _tool(text: str, style: Style) -> Iterator[str]:
    """A tool that is offered: its name, what it says of itself, and its parameters."""
    tool = _parsed(text)
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        yield from style.lines(_pretty(text))
        return
    rest = {key: value for key, value in inner.items() if key not in ("name", "description")}
    yield from style.lines(
        f"{inner['name']}: {inner.get('description') or '(says nothing of itself)'}"
    )
    if rest:
        shown = json.dumps(rest, ensure_ascii=False)
        yield from style.lines(shown, _INDENT * 2)


def _pretty(text: str) -> str:
    value = _parsed(text)
    return (
        json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else text
    )


def _parsed(text: str) -> Any:
    """JSON, if it is short enough to be laid out; else None."""
    if len(text) > TEXT:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
