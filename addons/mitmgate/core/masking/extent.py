"""How long a pattern's matches are, how far around them it reads, and with what they begin."""

from __future__ import annotations

from collections.abc import Sequence

from mitmgate.core.masking.syntax import (
    Chars,
    Choice,
    Concat,
    Look,
    Node,
    Repeat,
    UnsupportedError,
    union,
)


def width(node: Node) -> tuple[int, int | None]:
    """The fewest and the most characters `node` consumes; None when there is no most."""
    match node:
        case Chars():
            return 1, 1
        case Look():
            return 0, 0
        case Concat(items):
            return _sum([width(item) for item in items])
        case Choice(branches):
            widths = [width(branch) for branch in branches]
            longest = [high for _, high in widths]
            return min(low for low, _ in widths), None if None in longest else max(
                high for high in longest if high is not None
            )
        case Repeat(inner, low, high):
            least, most = width(inner)
            if most == 0:
                return 0, 0
            return least * low, None if most is None or high is None else most * high


def _sum(widths: Sequence[tuple[int, int | None]]) -> tuple[int, int | None]:
    longest = [high for _, high in widths]
    return sum(low for low, _ in widths), None if None in longest else sum(
        high for high in longest if high is not None
    )


def reach(node: Node, *, behind: bool) -> int:
    """How many characters before (after) what `node` consumes its assertions read.

    Raises `UnsupportedError` for an assertion without a limit.
    """
    match node:
        case Chars():
            return 0
        case Look(inner, back, _):
            most = width(inner)[1]
            if most is None:
                raise UnsupportedError("a lookaround without a limit cannot be decided on a stream")
            return (most if back == behind else 0) + reach(inner, behind=behind)
        case Concat(items) | Choice(items):
            return max((reach(item, behind=behind) for item in items), default=0)
        case Repeat(inner, _, _):
            return reach(inner, behind=behind)


def first(node: Node) -> Chars:
    """All characters with which what `node` consumes can begin."""
    match node:
        case Chars():
            return node
        case Look():
            return Chars(frozenset())
        case Choice(branches):
            return union(map(first, branches))
        case Repeat(inner, _, high):
            return first(inner) if high != 0 else Chars(frozenset())
        case Concat(items):
            leading = []
            for item in items:
                leading.append(first(item))
                if width(item)[0] > 0:
                    break
            return union(leading)
