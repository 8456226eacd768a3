"""A load-time probe for patterns whose search explodes (catastrophic backtracking).

Widths are bounded, but ambiguous repeats inside a bound can still cost years. Each repeat is pumped
up step by step; growth is watched, so the probe itself never runs far into an explosion. What it
does not think of is left to the search timeout of `regex`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from mitmgate.core.masking.syntax import Chars, Choice, Concat, Look, Node, Repeat

LIMIT = 0.02  # seconds of this thread's CPU for one search; ordinary patterns take microseconds
_STOPPERS = ("\0", "\0 ", "")  # "" last: it can go from nothing to years in one step


def witness(node: Node, search: Callable[[str], object], longest: int) -> str | None:
    """A text, not longer than `longest`, that `search` takes too long for; None if none is found.

    `search` may raise `TimeoutError`, which counts as too long.
    """
    for prefix, pump in dict.fromkeys(_pumps(node, "")):
        for stopper in _STOPPERS:
            count = 2
            while len(text := prefix + pump * count + stopper) <= longest:
                if _slow(search, text) and _slow(search, text):  # once may be the machine
                    return text
                count += max(2, count // 8)
    return None


def _slow(search: Callable[[str], object], text: str) -> bool:
    start = time.thread_time()
    try:
        search(text)
    except TimeoutError:
        return True
    return time.thread_time() - start > LIMIT


def _pumps(node: Node, before: str) -> Iterator[tuple[str, str]]:
    """For each repeat: a text that leads to it, and one that goes round it once."""
    match node:
        case Concat(items):
            for item in items:
                yield from _pumps(item, before)
                before += _sample(item)
        case Choice(branches):
            for branch in branches:
                yield from _pumps(branch, before)
        case Look(inner, _, _):
            yield from _pumps(inner, before)
        case Repeat(inner, _, high):
            branches = inner.branches if isinstance(inner, Choice) else (inner,)
            if high is None or high > 2:
                yield from ((before, pump) for branch in branches if (pump := _sample(branch)))
            yield from _pumps(inner, before)


def _sample(node: Node) -> str:
    """A short text that `node` matches, assertions aside."""
    match node:
        case Chars(ascii_, others):
            return min(
                ascii_, key=lambda c: (not c.isalpha(), c), default=next(iter(others or "é"))
            )
        case Concat(items):
            return "".join(map(_sample, items))
        case Choice(branches):
            return _sample(branches[0])
        case Look():
            return ""
        case Repeat(inner, low, high):
            return _sample(inner) * max(low, 0 if high == 0 else 1)
