"""Texts as approvers read them: marks, excerpts, masking, what cannot be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.holds import Mark
from mitmgate.web.text import Piece, excerpt, moved, pieces, visible

TEXTS = st.text(st.sampled_from("ab cdé\n\u05d0"), max_size=60)
SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5)


def marks_of(spans: list[tuple[int, int]], text: str) -> list[Mark]:
    return [
        Mark(min(a, b), max(a, b), f"rule-{i}")
        for i, (a, b) in enumerate(spans)
        if max(a, b) <= len(text)
    ]


@given(TEXTS, SPANS)
def test_every_character_is_shown_once_with_the_rules_over_it(
    text: str, spans: list[tuple[int, int]]
) -> None:
    marks = marks_of(spans, text)
    shown = pieces(text, marks)
    assert "".join(piece.text for piece in shown) == text
    rules = [piece.rules for piece in shown for _ in piece.text]
    for i, over in enumerate(rules):
        assert set(over) == {mark.rule for mark in marks if mark.start <= i < mark.end}


@given(TEXTS, TEXTS, SPANS)
def test_marks_that_masking_leaves_are_on_the_same_characters(
    text: str, masked: str, spans: list[tuple[int, int]]
) -> None:
    marks = marks_of(spans, text)
    for mark in moved(text, masked, marks):
        (before,) = [each for each in marks if each.rule == mark.rule]
        assert masked[mark.start : mark.end] == text[before.start : before.end]


def test_marks_beside_what_is_masked_stay() -> None:
    text = "wire it to bob@example.com and wire again"
    marks = [Mark(0, 4, "a"), Mark(5, 26, "b"), Mark(31, 35, "c"), Mark(11, 26, "d")]
    masked = text.replace("bob@example.com", "[EMAIL]")
    assert moved(text, masked, marks) == [Mark(0, 4, "a"), Mark(23, 27, "c")]
    assert masked[23:27] == "wire"


def test_the_gates_own_words_are_told_from_the_callers() -> None:
    note = "[… 5 characters left out …]"
    shown = pieces(f"wire {note}", [Mark(0, 4, "r"), Mark(5, 5 + len(note), "")])
    assert shown == [Piece("wire", ("r",)), Piece(" "), Piece(note, ours=True)]


def test_an_excerpt_has_what_was_matched_and_says_where_it_is_cut() -> None:
    text = "x" * 1000 + "one" + "y" * 1000 + "two" + "z" * 1000
    marks = [Mark(1000, 1003, "r"), Mark(2003, 2006, "r")]
    shown = excerpt(text, marks)
    assert [piece.text for piece in shown if piece.rules] == ["one", "two"]
    assert sum(piece.ours for piece in shown) == 3
    assert len("".join(piece.text for piece in shown)) < 1200
    assert excerpt(text, []) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nwith é, \u05d0 and \U0001f600\ufe0f", None),
        ("a\u202eb\u2066c", "a[U+202E]b[U+2066]c"),
        ("\u200b\u200b\u200b\u2060", "[U+200B × 3][U+2060]"),
        ("\u3164\u115f\u2800\u034f\u00ad", "[U+3164][U+115F][U+2800][U+034F][U+00AD]"),
        ("\U000e0041\ufe01\ufeff", "[U+E0041][U+FE01][U+FEFF]"),
        ("\x00\x1b[31m\r\u2028", "[U+0000][U+001B][31m[U+000D][U+2028]"),
        ("\ud800\ue000", "[U+D800][U+E000]"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, shown: str | None) -> None:
    assert "".join(piece.text for piece in pieces(text)) == (shown or text)


def test_names_stand_in_one_line() -> None:
    assert visible("a\n\n b\u202e") == "a b[U+202E]"
