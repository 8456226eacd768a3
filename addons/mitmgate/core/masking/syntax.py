"""A recognizer's pattern as a syntax tree that the prefix closure and the prefilter are built from.

The pattern is written for the `regex` module and matched by it; the tree comes from the standard
library's parser, so only what both read alike is let in. Each node stands for a superset of what
`regex` matches there: the two differ outside ASCII (`\\w` and marks, letters that fold to ASCII).
What cannot be bounded or decided on a stream is refused with a reason; nothing is matched here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from re import _parser as sre  # type: ignore[attr-defined]
from typing import Any

import regex

ASCII = "".join(map(chr, range(128)))
_ALL = frozenset(ASCII)
# Letters outside ASCII that `regex` takes for an ASCII letter under (?i); a test asks it for all.
_FOLDS = {"i": "\u0130\u0131", "k": "\u212a", "s": "\u017f"}
_CLASSES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
_LITERAL_BRACE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(\{)(?!\d+(?:,\d*)?\}|,\d+\})", re.DOTALL
)


class UnsupportedError(ValueError):
    """A pattern the stream masker cannot be exact about. The text is the reason, for a person."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character: of `ascii`, or of `others`; `others` None means any character beyond ASCII."""

    ascii: frozenset[str]
    others: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Concat:
    """Its items, one after the other; no items match the empty text."""

    items: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of its branches."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Its node, `low` to `high` times; `high` None means without end."""

    node: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """A zero-width assertion that reads `node` behind or ahead of its position."""

    node: Node
    behind: bool
    negative: bool


Node = Chars | Concat | Choice | Repeat | Look
_ANY = Chars(_ALL, None)
_EDGE = Concat((Look(_ANY, behind=True, negative=False), Look(_ANY, behind=False, negative=False)))


def parse(pattern: str) -> Node:
    """The tree of `pattern`. Raises `UnsupportedError` with the reason."""
    if any(brace[1] for brace in _LITERAL_BRACE.finditer(pattern)):
        raise UnsupportedError(
            "a literal brace is written \\{ (unescaped it can mean a fuzzy match)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = sre.parse(pattern)
    except Warning:
        raise UnsupportedError("an ambiguous set: escape [, &&, --, ~~ or || inside it") from None
    except re.error as e:
        raise UnsupportedError(f"not understood: {e}") from None
    except RecursionError:
        raise UnsupportedError("nested too deeply") from None
    return _Reader().sequence(tree, tree.state.flags)


class _Reader:
    """Turns the standard library's tree into ours, keeping groups for back references."""

    def __init__(self) -> None:
        self._groups: dict[int, tuple[Node, int]] = {}

    def sequence(self, tree: Any, flags: int) -> Node:
        if flags & (re.MULTILINE | re.LOCALE | re.VERBOSE):
            raise UnsupportedError("the flags (?m), (?L) and (?x) are not supported")
        items = tuple(self._node(str(op), value, flags) for op, value in tree)
        return items[0] if len(items) == 1 else Concat(items)

    def _node(self, op: str, value: Any, flags: int) -> Node:
        match op:
            case "LITERAL":
                return _folded(_char(value), flags)
            case "NOT_LITERAL":
                return _complement(_char(value).ascii, flags)
            case "ANY":
                return _ANY if flags & re.DOTALL else Chars(_ALL - {"\n"}, None)
            case "IN":
                return _set(value, flags)
            case "BRANCH":
                return Choice(tuple(self.sequence(branch, flags) for branch in value[1]))
            case "SUBPATTERN":
                group, added, removed, tree = value
                node = self.sequence(tree, (flags | added) & ~removed)
                if group is not None:
                    self._groups[group] = node, (flags | added) & ~removed
                return node
            case "ATOMIC_GROUP":
                return self.sequence(value, flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, tree = value
                bound = None if high is sre.MAXREPEAT else int(high)
                return Repeat(self.sequence(tree, flags), int(low), bound)
            case "ASSERT" | "ASSERT_NOT":
                direction, tree = value
                node = self.sequence(tree, flags)
                return Look(node, behind=direction < 0, negative=op == "ASSERT_NOT")
            case "AT":
                if str(value) in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
                    return _EDGE
                raise UnsupportedError(
                    "^, $, \\A and \\Z have no meaning on a stream; use (?<!...) and (?!...)"
                )
            case "GROUPREF":
                if value not in self._groups:
                    raise UnsupportedError("a back reference stands after its group")
                node, then = self._groups[value]
                if flags & ~then & re.IGNORECASE:
                    raise UnsupportedError("a back reference under (?i) to a group without it")
                return node
            case "GROUPREF_EXISTS":
                _, yes, no = value
                other = self.sequence(no, flags) if no else Concat()
                return Choice((self.sequence(yes, flags), other))
        raise UnsupportedError(f"the construct {op.lower()} is not supported")


def _char(code: int) -> Chars:
    char = chr(code)
    return Chars(frozenset(char)) if code < 128 else Chars(frozenset(), frozenset(char))


def _folded(chars: Chars, flags: int) -> Chars:
    """`chars` with the other cases of its characters, where `flags` ignore case."""
    if not flags & re.IGNORECASE:
        return chars
    ascii_ = chars.ascii | {c.swapcase() for c in chars.ascii}
    if flags & re.ASCII:
        return replace(chars, ascii=ascii_)
    if chars.others is None or chars.others:
        ascii_ |= {c for c in _ALL if c.lower() in _FOLDS}
        return Chars(ascii_, None)
    others = "".join(folds for letter, folds in _FOLDS.items() if letter in ascii_)
    return Chars(ascii_, frozenset(others))


def _complement(excluded: frozenset[str], flags: int) -> Chars:
    """All but `excluded`, of which no more may be taken away than is certain."""
    if flags & re.IGNORECASE:
        excluded |= {c.swapcase() for c in excluded}
    return Chars(_ALL - excluded, None)


def _set(items: Any, flags: int) -> Chars:
    negated = str(items[0][0]) == "NEGATE"
    inside = flags & ~re.IGNORECASE if negated else flags
    members = items[1:] if negated else items
    chars = union(_member(str(op), value, inside) for op, value in members)
    return _complement(chars.ascii, flags) if negated else chars


def _member(op: str, value: Any, flags: int) -> Chars:
    match op:
        case "LITERAL":
            return _folded(_char(value), flags)
        case "RANGE":
            low, high = value
            inside = frozenset(map(chr, range(low, min(high, 127) + 1)))
            return _folded(Chars(inside, frozenset() if high < 128 else None), flags)
        case "CATEGORY":
            name = str(value).removeprefix("CATEGORY_")
            plain = name.removeprefix("NOT_")
            source = _CLASSES[plain] if name == plain else _CLASSES[plain].upper()
            only = flags & re.ASCII and name == plain
            return Chars(frozenset(regex.findall(source, ASCII)), frozenset() if only else None)
    raise UnsupportedError(f"the set member {op.lower()} is not supported")


def union(sets: Iterable[Chars]) -> Chars:
    """All characters of all of them."""
    ascii_: frozenset[str] = frozenset()
    others: frozenset[str] | None = frozenset()
    for chars in sets:
        ascii_ |= chars.ascii
        others = None if others is None or chars.others is None else others | chars.others
    return Chars(ascii_, others)
