"""One recognizer, compiled: where its next accepted match is, and where its tail ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

import regex

from mitmgate.core.masking.closure import Closure
from mitmgate.core.masking.replacement import Replacer
from mitmgate.core.masking.validators import Validator

TIMEOUT = 2.0  # seconds of CPU for one search; a last line, bounded widths are the guard


@dataclass(frozen=True, slots=True)
class Match:
    """An accepted match: [start, end) is consumed, [value, value_end) of it is replaced."""

    start: int
    value: int
    value_end: int
    end: int


@dataclass(frozen=True, slots=True)
class CompiledTail:
    """The open end of a secret: a run of one character class, then perhaps a marker."""

    run: regex.Pattern[str]
    marker: regex.Pattern[str] | None
    viable: re.Pattern[str] | None
    max_marker: int

    def consume(self, text: str, start: int, *, final: bool) -> tuple[int, bool]:
        """Swallow from `start`. Returns where it stopped, and whether the tail ends there.

        When it does not end, what is left from there on is too short to tell.
        """
        match = self.run.match(text, start, timeout=TIMEOUT)
        at = match.end() if match else start
        if at == len(text):
            return at, final
        if self.marker is None or self.viable is None:
            return at, True
        undecided = len(text) - at < self.max_marker and self.viable.match(text, at)
        if undecided and not final:
            return at, False
        found = self.marker.match(text, at, timeout=TIMEOUT)
        return (found.end() if found else at), True


@dataclass(frozen=True, slots=True)
class CompiledRecognizer:
    """A recognizer ready to search."""

    id: str
    pattern: regex.Pattern[str]
    grouped: bool  # the pattern has a group `value`
    validator: Validator | None
    replace: Replacer
    tail: CompiledTail | None
    window: int | None  # a match sees no more than this many characters from its start
    span: int  # a match reads at most this many characters from its start on
    behind: int  # and this many before it
    closure: Closure

    def find(self, text: str, start: int, limit: int) -> Match | None:
        """The first accepted match that begins in [start, limit). Raises `TimeoutError`."""
        while start < limit:
            match = self._search(text, start, limit)
            if match is None or match.start() >= limit:
                return None
            if accepted := self._accept(match):
                return accepted
            start = match.start() + 1
        return None

    def _search(self, text: str, start: int, limit: int) -> regex.Match[str] | None:
        if self.window is None:
            return self.pattern.search(text, start, timeout=TIMEOUT)
        for at in range(start, limit):  # each place sees its own window, whatever comes after it
            if match := self.pattern.match(text, at, at + self.window, timeout=TIMEOUT):
                return match
        return None

    def _accept(self, match: regex.Match[str]) -> Match | None:
        start, end = match.span()
        value, value_end = match.span("value") if self.grouped else (start, end)
        if value_end <= value:  # the group took no part in the match
            return None
        if self.tail:
            value_end = end
        if self.validator is None:
            return Match(start, value, value_end, end)
        length = self.validator(match.string[value:value_end])
        if length == 0:
            return None
        if length < value_end - value:
            return Match(start, value, value + length, value + length)
        return Match(start, value, value_end, end)
