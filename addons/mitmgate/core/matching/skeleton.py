"""What is left of a text when all is gone that a view may take out of it or put into it.

A sentence reads the same here however its words are divided, so one scan tells which rules some
view of it may break, and views that none can break need not be made. Blanks go, and punctuation
that is used to divide words; what shells and markup are made of stays. All this is about ASCII
texts, which nearly all are once look-alikes are out of the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitmgate.core.matching.superset import Alphabet, Impossible, superset
from mitmgate.core.matching.syntax import ASCII, REPEATS, codes, members

DIVIDING = "*~`^_'\"\\.,;:-|+"  # what some view takes away, or reads as a blank
STRONG = 6  # letters that a match has at least, or half as many signs; fewer stand in any text

_KEPT = frozenset(c for c in ASCII if c > " " and c != "\x7f" and c not in DIVIDING)
_GONE = bytes(ord(c) for c in ASCII if c not in _KEPT)
_BLANKS = frozenset(c for c in ASCII if c.isspace() and c != " ")
ALL = Alphabet(_KEPT, beyond=False)
SPREAD = Alphabet(_KEPT, frozenset(DIVIDING) | _BLANKS, beyond=False)  # punctuation is blanks


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What a pattern looks like there. `pattern` matches wherever it can match in the text of any
    view, or if `weak` in that of one whose punctuation is blanks. None if it cannot at all; empty
    if nothing can be told.
    """

    pattern: str | None
    weak: bool


def bare(text: str) -> bytes:
    """The skeleton of a text, which is ASCII."""
    return text.encode("ascii").translate(None, _GONE)


def skeleton(tree: Any) -> Skeleton:
    """Of a pattern by its syntax tree."""
    weak = _weight(tree, ALL) < STRONG
    alphabet = SPREAD if weak else ALL
    try:
        pattern = superset(tree, alphabet)
    except Impossible:
        return Skeleton(None, weak)
    return Skeleton(pattern if _weight(tree, alphabet) else "", weak)


def _weight(nodes: Any, alphabet: Alphabet) -> float:
    """How much at least is left of what `nodes` match."""
    return sum(_weighed(operator, argument, alphabet) for operator, argument in nodes)


def _weighed(operator: Any, argument: Any, alphabet: Alphabet) -> float:
    if operator is codes.LITERAL and argument > 127:
        return float("inf")
    if operator in (codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY):
        some = members(operator, argument)[0] - alphabet.absent
        if not some:
            return float("inf")
        if some - alphabet.kept or len(some) > 20:
            return 0
        return 1 if any(map(str.isalnum, some)) else 2
    if operator in REPEATS:
        low, _, body = argument
        return low * _weight(body, alphabet) if low else 0
    if operator is codes.SUBPATTERN:
        return _weight(argument[3], alphabet)
    if operator is codes.ATOMIC_GROUP:
        return _weight(argument, alphabet)
    if operator is codes.BRANCH:
        return min(_weight(branch, alphabet) for branch in argument[1])
    if operator is codes.GROUPREF_EXISTS:
        return min(_weight(argument[1], alphabet), _weight(argument[2] or (), alphabet))
    return 0
