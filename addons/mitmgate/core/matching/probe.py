"""Does a pattern backtrack catastrophically? It is tried, on texts made to provoke that.

For every open or long repeat: what leads up to it, the repeated part many times over, then
something that makes it fail. A search that does not end in time is proof, and the text is the
witness. That no witness was found is not proof, so searches have a timeout all the same
(`search`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import regex

from mitmgate.core.matching.search import search
from mitmgate.core.matching.syntax import REPEATS, codes, members, parts

LONG = 10  # a repeat of at most so many times cannot blow up on its own
REPEATED = 20  # times, at most, that a sample repeats a part
LENGTHS = (30, 12_000)  # exponential growth shows at the first, polynomial at the second
SECONDS = 0.1  # far more than a pattern needs that is merely slow, on a slow machine too
SHOWN = 40  # characters of a witness in an error message


def witness(pattern: regex.Pattern[str], tree: Any) -> str | None:
    """A text on which `pattern`, whose tree is `tree`, takes too long; None if none was found."""
    for text in dict.fromkeys(_texts(tree)):
        try:
            search(pattern, text, SECONDS)
        except TimeoutError:
            return text
    return None


def shorten(text: str) -> str:
    """A witness as an error message shows it."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}... ({len(text)} characters)"


def _texts(tree: Any) -> Iterator[str]:
    whole = [_sample(tree, choice, {}) for choice in range(3)]
    pumps = dict.fromkeys(_pumps(tree, ""))
    pumps.update(dict.fromkeys(("", sample[:-1]) for sample in whole))
    for prefix, pump in pumps:
        if not pump:
            continue
        for length in LENGTHS:
            pumped = prefix + pump * (length // len(pump) + 1)
            for suffix in ("", "\x01", f"\x01 {whole[0]}"):
                yield pumped + suffix


def _pumps(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for operator, argument in tree:
        if operator in REPEATS and argument[1] > LONG:
            for choice in range(3):
                yield prefix, _sample(argument[2], choice, {})
        for part in parts(operator, argument):
            yield from _pumps(part, prefix)
        prefix += _sample([(operator, argument)], 0, {})


def _sample(tree: Any, choice: int, groups: dict[int, str]) -> str:
    """A short text that `tree` matches, lookarounds aside. `choice` picks among alternatives."""
    text = ""
    for operator, argument in tree:
        if operator is codes.LITERAL:
            text += chr(argument)
        elif operator in REPEATS:
            low, _, body = argument
            text += _sample(body, choice, groups) * min(max(low, 1), REPEATED)
        elif operator is codes.SUBPATTERN:
            inner = _sample(argument[3], choice, groups)
            groups[argument[0]] = inner
            text += inner
        elif operator is codes.BRANCH:
            text += _sample(argument[1][choice % len(argument[1])], choice, groups)
        elif operator is codes.GROUPREF:
            text += groups.get(argument, "")
        elif operator is codes.GROUPREF_EXISTS:
            text += _sample(argument[1], choice, groups)
        elif operator is codes.ATOMIC_GROUP:
            text += _sample(argument, choice, groups)
        elif operator in (codes.IN, codes.NOT_LITERAL, codes.ANY):
            text += _member(operator, argument, choice)
        text = text[: LENGTHS[-1]]  # repeats of repeats of repeats
    return text


def _member(operator: Any, argument: Any, choice: int) -> str:
    inside, _ = members(operator, argument)
    liked = [c for c in "a1 -" if c in inside] or sorted(inside) or ["\u00e9"]
    return liked[choice % len(liked)]
