"""Catastrophic patterns are found out at load, ordinary ones are not; a search always ends."""

import time

import pytest
import regex

from mitmgate.core.matching import search as searching
from mitmgate.core.matching.probe import shorten, witness
from mitmgate.core.matching.search import search
from mitmgate.core.matching.syntax import compile_pattern, parse

EVIL = [
    r"(a+)+b",
    r"(a+)+$",
    r"(a|a)*c",
    r"(a|aa)+$",
    r"(\w+\s?)*;",
    r"(a*)*\1b",
    r"(\w|\d)*!",
    r"(.*?,){14}P",
    r"\s+$",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(x+x+)+y",
]
GOOD = [
    r"\b(?:dump|export)\b.{0,80}\b(?:weights|checkpoint)\b",
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}",
    r"\bignore (?:all )?(?:previous|prior) (?:\w+ )?instructions\b",
    r"rm(?: -[a-z]+)* /",
    r"(?:a{1000}){1000}",
]


def search_ends(pattern: str) -> str | None:
    return witness(compile_pattern(pattern), parse(pattern))


@pytest.mark.parametrize("pattern", EVIL)
def test_evil_patterns_have_a_witness(pattern: str):
    assert search_ends(pattern)


@pytest.mark.parametrize("pattern", GOOD)
def test_good_patterns_have_none(pattern: str):
    assert search_ends(pattern) is None


def test_a_search_gives_up():
    begun = time.process_time()
    with pytest.raises(TimeoutError):
        search(regex.compile(r"(a|aa)+$"), "a" * 40 + "!")
    assert time.process_time() - begun < 2


def test_long_texts_are_given_more_time(monkeypatch: pytest.MonkeyPatch):
    limits = []

    class Pattern:
        def search(self, *at: object, timeout: float, concurrent: bool) -> None:
            limits.append((timeout, concurrent))

    search(Pattern(), "x" * 10)  # type: ignore[arg-type]
    search(Pattern(), "x" * (3 * searching.PIECE))  # type: ignore[arg-type]
    assert limits == [(searching.SECONDS, False), (4 * searching.SECONDS, True)]


def test_a_timeout_that_other_threads_caused_is_tried_again():
    answers: list[object] = [TimeoutError(), TimeoutError(), None]

    class Pattern:
        def search(self, *at: object, timeout: float, concurrent: bool) -> None:
            if isinstance(answer := answers.pop(0), Exception):
                raise answer  # at once: this thread has used no time

    assert search(Pattern(), "x") is None  # type: ignore[arg-type]
    answers[:] = [TimeoutError()] * 3
    with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
        search(Pattern(), "x")  # type: ignore[arg-type]


def test_a_witness_is_shown_in_short():
    assert shorten("abc") == "'abc'"
    assert shorten("a" * 3000) == f"'{'a' * 40}'... (3000 characters)"
