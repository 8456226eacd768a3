"""Prefix closures: which texts may still grow into a match.

`full` writes a tree as a pattern for all that it may match, assertions dropped; `prefix` as a
pattern for every proper beginning of such a text; `closure` makes of both what the prefilter and
the hold need. All are supersets, so they may hold too much and never too little. They are written
in the common part of stdlib `re` and Hyperscan, with every character class spelled out, since the
engines disagree about what `\\w` or (?i) mean beyond ASCII.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mitmgate.core.masking.extent import first, reach, width
from mitmgate.core.masking.syntax import (
    ASCII,
    Chars,
    Choice,
    Concat,
    Look,
    Node,
    Repeat,
)

_ANYTHING = r"[\x00-\U0010ffff]"
_ALNUM = frozenset(filter(str.isalnum, ASCII))


def full(node: Node) -> str:
    """All texts that `node` may match."""
    match node:
        case Chars():
            return _chars(node)
        case Look():
            return ""
        case Concat(items):
            return "".join(full(item) for item in items)
        case Choice(branches):
            return _either([full(branch) for branch in branches])
        case Repeat(inner, low, high):
            return _repeated(inner, low, high)


def prefix(node: Node) -> str | None:
    """Every proper prefix of those texts, the empty one included; None when there is none."""
    match node:
        case Chars():
            return ""
        case Look():
            return None
        case Concat(items):
            rest: str | None = None
            for item in reversed(items):
                first = prefix(item)
                longer = None if rest is None else full(item) + rest
                found = [p for p in (first, longer) if p is not None]
                rest = _either(found) if found else None
            return rest
        case Choice(branches):
            found = [p for p in map(prefix, branches) if p is not None]
            return _either(found) if found else None
        case Repeat(inner, _, high):
            first = prefix(inner)
            if first is None or high == 0:
                return None
            return _repeated(inner, 0, None if high is None else high - 1) + first


@dataclass(frozen=True, slots=True)
class Closure:
    """What the prefilter and the hold know about one recognizer."""

    relaxed: str  # all that it may match
    undecided: re.Pattern[str]  # matches from where what follows may become, or change, a match
    first: Chars  # with what a match can begin
    starts_words: bool  # a match never begins after an ASCII letter or digit


def closure(node: Node) -> Closure:
    """The closure of a whole recognizer.

    Undecided, at the end of a buffer, is every proper prefix, and every full match while an
    assertion may still read on. What stands to the left is known, so a leading `(?<![...])` stays.
    """
    ahead = reach(node, behind=False)
    excluded, body = _guard(node)
    guard = f"(?<!{_chars(Chars(excluded))})" if excluded else ""
    ends = [] if (proper := prefix(body)) is None else [proper]
    if ahead:
        ends.append(f"{full(body)}{_ANYTHING}{{0,{ahead - 1}}}")
    viable = guard + _either(ends) if ends else "(?!)"
    undecided = re.compile(f"{viable}\\Z")
    return Closure(full(node), undecided, first(node), excluded >= _ALNUM)


def _guard(node: Node) -> tuple[frozenset[str], Node]:
    """What a leading negative look at one character behind excludes for sure, and the rest."""
    if isinstance(node, Concat) and node.items and isinstance(first := node.items[0], Look):
        if first.behind and first.negative and isinstance(first.node, Chars):
            return first.node.ascii, Concat(node.items[1:])
    return frozenset(), node


def _repeated(inner: Node, low: int, high: int | None) -> str:
    if width(inner)[1] == 0 or high == 0:
        return ""
    text = full(inner)
    if not isinstance(inner, Chars):
        text = f"(?:{text})"
    if (low, high) == (1, 1):
        return text
    if (low, high) == (0, 1):
        return text + "?"
    return text + (f"{{{low},}}" if high is None else f"{{{low},{high}}}")


def _either(patterns: list[str]) -> str:
    """A group of alternatives; the longer ones are tried first."""
    kept = sorted(dict.fromkeys(patterns), key=len, reverse=True)
    if len(kept) == 1:
        return f"(?:{kept[0]})" if kept[0] else ""
    return f"(?:{'|'.join(kept)})"


def _chars(chars: Chars) -> str:
    runs: list[list[int]] = []
    for code in sorted(map(ord, chars.ascii)):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    text = "".join(_escape(a) if a == b else f"{_escape(a)}-{_escape(b)}" for a, b in runs)
    if chars.others is None:
        text += r"\x80-\U0010ffff"
    else:
        text += "".join(sorted(chars.others))
    return f"[{text}]"


def _escape(code: int) -> str:
    return chr(code) if chr(code).isalnum() and code < len(ASCII) else f"\\x{code:02x}"
