"""The way back from a reading to the text: spans that cover what was disguised, and little else."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.matching.letters import run_together, spread, unmarked
from mitmgate.core.matching.normalising import clean, fold, squeeze, unaccent
from mitmgate.core.matching.reading import BLOCK, Reading, blocks, in_blocks, spans_after

TEXTS = st.text("ab1 .-_*\n\t\u200b\u0301\u0336\uff21\ufb03\u0430\u4e00\u1100\u1161\u3042\u3099é~")
CHANGES = [clean, fold, unaccent, squeeze, unmarked, run_together, spread]


@pytest.mark.parametrize("change", CHANGES)
@given(before=TEXTS, word=st.sampled_from(["ignore", "x9"]), after=TEXTS)
@settings(max_examples=150, deadline=None)
def test_a_word_is_traced_through_a_change(change, before: str, word: str, after: str):
    text = f"{before}{word}{after}"
    read = Reading(text).changed(change)
    start = len(change(before))
    if read.text[start : start + len(word)] != word:
        return  # it merged with what stands before it
    first, last = read.origin(start, start + len(word)) or (0, 0)
    assert text[first:].startswith(word)
    rest = text[first + len(word) : last]
    assert not rest or not rest.isascii()  # marks that were on its last letter


def test_marks_that_go_in_twos_are_traced():
    assert Reading("____ignore1111").changed(unmarked).origin(0, 6) == (4, 10)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=8), new=st.text("xy", max_size=3))
@settings(max_examples=200, deadline=None)
def test_edits_are_traced_exactly(text: str, cuts: list[int], new: str):
    places = sorted({min(cut, len(text)) for cut in cuts})
    edits = [(a, b, new) for a, b in zip(places[::2], places[1::2], strict=False)]
    read = Reading(text).edited(edits)
    kept = [(a, b) for a, b in spans_after((), edits)]
    assert [read.text[a:b] for a, b in kept] == [new] * len(edits)
    for (a, b), (start, end, _) in zip(kept, edits, strict=True):
        if a < b:
            assert read.origin(a, b) == (start, end)
    edited = set().union(*(range(a, b) for a, b in kept))
    for i in set(range(len(read.text))) - edited:
        first, last = read.origin(i, i + 1) or (0, 0)
        assert text[first:last] == read.text[i]


def test_spans_move_with_edits():
    assert spans_after([(0, 2), (5, 9)], [(3, 4, "xyz"), (6, 7, "")]) == [
        (0, 2),
        (3, 6),
        (7, 10),
        (8, 8),
    ]


def test_what_is_taken_around_a_span_is_counted_in_letters():
    text = f"{'far ' * 500}one{' ' * 500}two#three{'.' * 99}four{' far' * 500}"
    at = text.index("#")
    cut = Reading(text).around([(at, at + 1)], 8)
    assert "one" in cut.text
    assert "four" not in cut.text or "three" in cut.text
    assert len(cut.text) < len(text)
    start = cut.text.index("two#three")
    assert cut.origin(start, start + 9) == (at - 3, at + 6)


def test_a_match_across_fragments_comes_from_nowhere():
    text = f"{'a' * 50}1{'b' * 200}2{'c' * 50}"
    cut = Reading(text).around([(50, 51), (251, 252)], 4)
    assert cut.text.split() == ["aaaaaaaa1bbbbbbbb", "bbbbbbbb2cccccccc"]
    one, two = cut.text.index("1"), cut.text.index("2")
    assert cut.origin(one, one + 1) == (50, 51)
    assert cut.origin(two, two + 1) == (251, 252)
    assert cut.origin(one, two + 1) is None
    assert cut.origin(0, 1) is None


def test_most_of_a_text_is_all_of_it():
    whole = Reading("short text")
    assert whole.around([(3, 4)], 600) is whole


def test_reversed_and_translated():
    read = Reading("one two").reversed()
    assert read.text == "owt eno"
    assert read.origin(0, 3) == (4, 7)
    rotated = read.translated(codecs.encode(read.text, "rot13"))
    assert rotated.origin(0, 3) == (4, 7)
    assert read.translated(read.text) is read


@pytest.mark.parametrize("unit", ["ab ", "\u4e00", "é\u0301", ". a", "\u200b", "\uffa1", "x\u0336"])
def test_blocks_are_the_text_and_change_alike(unit: str):
    text = unit * (3 * BLOCK // len(unit))
    assert "".join(blocks(text)) == text
    assert max(map(len, blocks(text))) <= 2 * BLOCK
    for change in CHANGES:
        assert in_blocks(change, text).rstrip(" ") == change(text).rstrip(" ")


def test_a_word_far_into_a_long_text_is_found_again():
    text = "wor\u0301d  \u200b" * BLOCK + "target" + " end" * 9
    read = Reading(text).changed(clean).changed(squeeze)
    start = read.text.index("target")
    first, last = read.origin(start, start + 6) or (0, 0)
    assert text[first:last] == "target"
