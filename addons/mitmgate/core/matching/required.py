"""Words of which a pattern's every match has at least one, as far as its syntax shows.

Looking for words costs a tenth of looking for patterns. A text that was turned round is hardly ever
one that has any of them, and then it need not be looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mitmgate.core.matching.syntax import REPEATS, codes, members

SHORTEST = 4  # characters; shorter words are in any text
MOST = 200  # alternatives


def required(tree: Any) -> frozenset[str]:
    """In lower case and ASCII; empty if there are none, or only short ones."""
    best = _best(tree)
    return best if best and _shortest(best) >= SHORTEST and len(best) <= MOST else frozenset()


def _best(nodes: Any) -> frozenset[str]:
    """The words of one part of a sequence: where the shortest is longest, and they are fewest."""
    return max(_each(nodes), key=lambda words: (_shortest(words), -len(words)), default=frozenset())


def _each(nodes: Any) -> Iterable[frozenset[str]]:
    run = ""
    for operator, argument in nodes:
        if operator is codes.LITERAL and argument < 128:
            run += chr(argument).lower()
            continue
        if operator in (codes.AT, codes.ASSERT, codes.ASSERT_NOT):
            continue  # takes no text, so what is around it stands together
        if run:
            yield frozenset([run])
            run = ""
        if operator is codes.SUBPATTERN:
            yield _best(argument[3])
        elif operator is codes.ATOMIC_GROUP:
            yield _best(argument)
        elif operator in REPEATS and argument[0] > 0:
            yield _best(argument[2])
        elif operator is codes.BRANCH:
            branches = [_best(branch) for branch in argument[1]]
            if all(branches):
                yield frozenset().union(*branches)
        elif operator is codes.IN:
            some, beyond = members(operator, argument)
            if not beyond and len(some) <= 4:
                yield frozenset(character.lower() for character in some)
    if run:
        yield frozenset([run])


def _shortest(words: frozenset[str]) -> int:
    return min(map(len, words), default=0)
