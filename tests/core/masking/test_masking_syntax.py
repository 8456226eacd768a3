from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.masking.closure import closure, full, prefix
from mitmgate.core.masking.extent import first, reach, width
from mitmgate.core.masking.hold import Hold
from mitmgate.core.masking.syntax import Chars, UnsupportedError, parse

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))
CASED = EVERY[:0x3000] + EVERY[0xA000:0x11000]
ATOMS = [
    *("a", "k", "(?i)k", "(?i)s", "(?i)i", "(?i)K", "(?i)[a-z]", "(?i)[^k]", "(?i)[^a-m]", "(?i)é"),
    *(
        "(?i)\u212a",
        "(?i)[\u0131x]",
        "(?ai)k",
        "(?a)\\w",
        "(?a)[^\\W_]",
        "\\d",
        "\\D",
        "\\s",
        "\\S",
    ),
    *(
        "\\w",
        "\\W",
        "[^\\s]",
        "[\\w.-]",
        ".",
        "(?s).",
        "[^a]",
        "[à-ü]",
        "[\\S]",
        "(?a)\\S",
        "[^\\x1c]",
    ),
    *(
        "(?i)[^\u212a]",
        "(?ai)[^k]",
        "(?i)[\\d_]",
        "(?i)\\w",
        "\\x41",
        "\\u00e9",
        "[\\]\\-^]",
        "[^\\D]",
    ),
]


@pytest.mark.parametrize("atom", ATOMS)
def test_a_class_is_never_smaller_than_what_regex_matches(atom: str) -> None:
    ours = parse(atom)
    assert isinstance(ours, Chars)
    engine = set(regex.findall(atom, CASED))
    assert {c for c in engine if c.isascii()} <= ours.ascii
    if ours.others is not None:
        assert {c for c in engine if not c.isascii()} <= ours.others


def test_the_letters_beyond_ascii_that_fold_to_ascii_are_all_known() -> None:
    for atom in ("(?i)[a-z]", "(?i)[A-Z]"):
        ours = parse(atom)
        assert isinstance(ours, Chars)
        assert {c for c in regex.findall(atom, EVERY) if not c.isascii()} <= (ours.others or set())


@pytest.mark.parametrize(
    ("pattern", "widths", "ahead", "behind"),
    [
        ("abc", (3, 3), 0, 0),
        ("a{2,5}b?", (2, 6), 0, 0),
        ("(?:a|bcd)+", (1, None), 0, 0),
        (r"\bab\b", (2, 2), 1, 1),
        ("(?<!xy)a(?=bcd(?!e))", (1, 1), 4, 2),
        ("(?<=x(?=abc))a", (1, 1), 3, 1),
        (r"(ab|c)-\1", (3, 5), 0, 0),
        ("(a)?(?(1)bc|d)", (1, 3), 0, 0),
        ("(?:(?!x))*a", (1, 1), 1, 0),
        ("(?>ab?)c*+", (1, None), 0, 0),
    ],
)
def test_widths(pattern: str, widths: tuple[int, int | None], ahead: int, behind: int) -> None:
    node = parse(pattern)
    assert width(node) == widths
    assert (reach(node, behind=False), reach(node, behind=True)) == (ahead, behind)


PATTERNS = [
    "abc", "a{2,4}b?", "(?:ab|c){1,3}d", r"(?<![\w-])a(?:[ -]?a){2,4}(?!\w)", r"([a-c])b\1",
    "(?i)[a-c]{2}k", "a(?=bc)[a-c]{2}", "(a)?(?(1)b|c)d", "(?>a|ab)c", r"\ba+?b\b", "a*?b{2}",
    "(?:a?b?){1,3}c", "[^a]{2}b", "(?:|a)b(?:c|)", r"é\w\d",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_beginning_of_a_match_is_viable(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(pattern)))
    match = regex.search(pattern, text)
    if match is None or not match[0]:
        return
    node = parse(pattern)
    found = match[0]
    hold = closure(node).undecided
    assert re.fullmatch(full(node), found)
    for end in range(match.start() + 1, match.end()):
        held = hold.search(text[:end])
        assert held is not None
        assert held.start() <= match.start()


def language(node_pattern: str, limit: int) -> set[str]:
    letters = "ab-"
    texts = [""]
    for text in texts:
        if len(text) < limit:
            texts += [text + letter for letter in letters]
    return {text for text in texts if re.fullmatch(node_pattern, text)}


@pytest.mark.parametrize(
    "pattern", ["ab", "a{2,3}", "(?:ab|-)b", "(?:a-){1,2}b?", "a(?:b|)-", "(a|b)\\1"]
)
def test_prefixes_are_exactly_the_proper_beginnings(pattern: str) -> None:
    node = parse(pattern)
    whole = language(full(node), 6)
    proper = {text[:end] for text in whole for end in range(len(text))}
    assert language(prefix(node) or "(?!)", 6) == proper


def place(patterns: Sequence[str], text: str) -> int:
    return Hold((closure(parse(pattern)), 9) for pattern in patterns).place(text, 0)


def test_what_has_no_beginning_holds_nothing() -> None:
    assert place(["a"], "aaa") == 3
    assert place([], "aaa") == 3
    assert place(["ab"], "") == 0


def test_a_look_behind_spares_the_middle_of_words() -> None:
    guarded = "(?<![A-Za-z0-9])ab"
    assert place([guarded], "x a") == 2
    assert place([guarded], "xa") == 2
    assert place(["ab", guarded], "xa") == 1
    assert place([guarded], "éa") == 1


def test_the_hold_knows_beginnings_beyond_ascii() -> None:
    assert place(["éa"], "x é") == 2
    assert place([r"\wa"], "x-é") == 2
    assert place(["(?i)ka"], "-\u212a") == 1
    assert place(["ab"], "é") == 1


@pytest.mark.parametrize(
    ("pattern", "ascii_", "others"),
    [
        ("ab", "a", ""),
        ("a?b|c", "abc", ""),
        ("(?<!x)(?:a|)(?=y)b", "ab", ""),
        ("é?(?:a){0}b", "b", "é"),
        ("(?:a*)+b", "ab", ""),
    ],
)
def test_first(pattern: str, ascii_: str, others: str) -> None:
    assert first(parse(pattern)) == Chars(frozenset(ascii_), frozenset(others))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"too deeply|not understood"):
        parse("(?:" * 5000 + "a" + ")" * 5000)
