"""A rule's pattern as a syntax tree, and what a pattern may not say.

The tree is the standard library's own. It is the base of the prefilter (`superset`) and of the
probe for catastrophic backtracking, so a pattern that `regex` would read differently from `re` is
refused: a guess there would be a rule that never fires.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import regex

__all__ = ["REPEATS", "codes", "compile_pattern", "members", "parse", "parts"]

ASCII = tuple(map(chr, range(128)))
# Letters beyond ASCII that are an ASCII letter in another case.
TWINS = {"\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"}
FLAGS = regex.IGNORECASE | regex.VERSION0

_TOKENS = re.compile(
    r"\\[NpP]\{[^}]*\}|\\."  # an escape
    r"|\(\?\#[^)]*\)"  # a comment
    r"|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|\{\d+(?:,\d*)?\}|\{,\d+\}"  # a repeat
    r"|(?P<brace>\{)",
    re.DOTALL,
)
_CLASSES = {
    codes.CATEGORY_DIGIT: r"\d",
    codes.CATEGORY_NOT_DIGIT: r"\D",
    codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w",
    codes.CATEGORY_NOT_WORD: r"\W",
}
REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """`pattern` as every rule is searched: Unicode, ignoring case. Raises `regex.error`."""
    return regex.compile(pattern, FLAGS)


def parse(pattern: str) -> Any:
    """The syntax tree of `pattern`. Raises `ValueError` that says what it may not contain."""
    for token in _TOKENS.finditer(pattern):
        if token["brace"]:
            raise ValueError(f"a literal {{ is written \\{{ (at position {token.start()})")
        if token["set"]:
            inside = re.sub(r"\\.", "", token["set"][1:-1], flags=re.DOTALL)
            if "[" in inside or re.search(r"--|&&|~~|\|\|", inside):
                place = f"(at position {token.start()})"
                raise ValueError(f"sets within sets are not supported; a literal [ is \\[ {place}")
    try:
        tree = parser.parse(pattern, re.IGNORECASE)
    except re.error as e:
        raise ValueError(f"goes beyond the syntax of Python's re: {e}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if tree.state.flags & re.VERBOSE or any(flags & re.VERBOSE for flags in _scoped_flags(tree)):
        raise ValueError("verbose mode, (?x), is not supported")
    if tree.getwidth()[0] == 0:
        raise ValueError("can match the empty text, so it would hit everything")
    return tree


def _scoped_flags(node: Any) -> Iterator[int]:
    for operator, argument in node:
        if operator is codes.SUBPATTERN:
            yield argument[1]
        for part in parts(operator, argument):
            yield from _scoped_flags(part)


def parts(operator: Any, argument: Any) -> tuple[Any, ...]:
    """The subtrees of one node, lookarounds included."""
    if operator in REPEATS:
        return (argument[2],)
    if operator is codes.SUBPATTERN:
        return (argument[3],)
    if operator is codes.BRANCH:
        return tuple(argument[1])
    if operator is codes.ATOMIC_GROUP:
        return (argument,)
    if operator in (codes.ASSERT, codes.ASSERT_NOT):
        return (argument[1],)
    if operator is codes.GROUPREF_EXISTS:
        return tuple(part for part in argument[1:] if part is not None)
    return ()


def members(operator: Any, argument: Any) -> tuple[frozenset[str], bool]:
    """What a one-character node takes: which ASCII characters, and whether any other at all.

    The second is True when in doubt: a node that might take one character beyond ASCII counts.
    """
    if operator is codes.ANY:
        return frozenset(ASCII), True
    if operator is codes.CATEGORY:
        return _class_members(argument), True
    if operator is codes.NOT_LITERAL:
        return frozenset(ASCII) - {chr(argument)}, True
    if operator is codes.LITERAL:
        return _cases(chr(argument)) | _twins(argument, argument), argument > 127
    if operator is codes.RANGE:
        low, high = argument
        inside = [_cases(chr(c)) for c in range(low, min(high, 127) + 1)]
        return frozenset().union(*inside, _twins(low, high)), high > 127
    negated = argument[0][0] is codes.NEGATE
    if negated:
        return frozenset(ASCII) - _exactly(argument[1:]), True
    taken = [members(*item) for item in argument]
    ascii_members = frozenset[str]().union(*(some for some, _ in taken))
    return ascii_members, any(beyond for _, beyond in taken)


def _exactly(items: Any) -> frozenset[str]:
    """The ASCII members of a set without their other case: (?-i:[^a]) lets `A` through."""
    taken: set[str] = set()
    for operator, argument in items:
        if operator is codes.LITERAL:
            taken.add(chr(argument))
        elif operator is codes.RANGE:
            taken.update(chr(c) for c in range(argument[0], min(argument[1], 127) + 1))
        else:
            taken |= _class_members(argument)
    return frozenset(taken)


def _twins(low: int, high: int) -> frozenset[str]:
    """The ASCII letters that are, in another case, a character beyond ASCII in this range."""
    return frozenset().union(*(_cases(new) for c, new in TWINS.items() if low <= ord(c) <= high))


def _cases(character: str) -> frozenset[str]:
    return frozenset(c for c in (character, character.lower(), character.upper()) if c.isascii())


@cache
def _class_members(category: Any) -> frozenset[str]:
    # Asked of `regex`, which differs from `re` in places.
    return frozenset(regex.findall(_CLASSES[category], "".join(ASCII)))
