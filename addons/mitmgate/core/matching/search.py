"""One search with `regex` that ends: the last line behind the linear engine and the probe."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import regex

from mitmgate.core.matching.window import Window

SECONDS = 0.02  # for a text of up to PIECE characters, as much again for each further piece
PIECE = 16 << 10
TRIES = 3
WHOLE = (Window(0, sys.maxsize, sys.maxsize),)


def search(
    pattern: regex.Pattern[str],
    text: str,
    seconds: float | None = None,
    windows: Sequence[Window] = WHOLE,
) -> regex.Match[str] | None:
    """The first match of `pattern` in `text` that starts in one of `windows`, which ascend.

    Raises `TimeoutError` after `seconds` of CPU time, spent on all windows together.
    """
    limit = seconds or SECONDS * (1 + len(text) // PIECE)
    begun = time.thread_time() if len(windows) > 1 else 0.0  # asking is not free everywhere
    for window in windows:
        if window is not windows[0] and time.thread_time() - begun >= limit:
            raise TimeoutError(f"no answer within {limit:g} s")
        found = _search(pattern, text, limit, window)
        if found and found.start() <= window.last:
            return found
    return None


def _search(
    pattern: regex.Pattern[str], text: str, limit: float, window: Window
) -> regex.Match[str] | None:
    """`regex` counts the CPU time of the whole process, so a busy thread elsewhere could end a
    search that has hardly begun; such a search is tried again with more.
    """
    end = min(window.end, len(text))
    for attempt in range(TRIES):
        begun = time.thread_time()
        try:
            return pattern.search(
                text,
                window.first,
                end,
                timeout=limit * 4**attempt,
                # Long texts are searched off the event loop, which must go on meanwhile.
                concurrent=end - window.first > PIECE,
            )
        except TimeoutError:
            if time.thread_time() - begun >= limit:
                break
    raise TimeoutError(f"no answer within {limit:g} s")
