"""One search with `regex` that ends: the last line behind the linear engine and the probe."""

from __future__ import annotations

import time

import regex

SECONDS = 0.02  # for a text of up to PIECE characters, as much again for each further piece
PIECE = 16 << 10
TRIES = 3


def search(
    pattern: regex.Pattern[str], text: str, seconds: float | None = None
) -> regex.Match[str] | None:
    """The first match of `pattern` in `text`. Raises `TimeoutError` after `seconds` of CPU time.

    `regex` counts the CPU time of the whole process, so a busy thread elsewhere could end a search
    that has hardly begun; such a search is tried again with more.
    """
    limit = seconds or SECONDS * (1 + len(text) // PIECE)
    for attempt in range(TRIES):
        begun = time.thread_time()
        try:
            # Long texts are searched off the event loop, which must go on meanwhile.
            return pattern.search(text, timeout=limit * 4**attempt, concurrent=len(text) > PIECE)
        except TimeoutError:
            if time.thread_time() - begun >= limit:
                break
    raise TimeoutError(f"no answer within {limit:g} s")
