from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.holds.prompt import CORE, Mark, Passage, bounded

LEFT_OUT = "left out …]"


def size(passages) -> int:
    return sum(
        len(p.text) + len(p.where) + len(p.address) + sum(len(m.rule) for m in p.marks)
        for p in passages
    )


def shown(passages, rule="r") -> list[str]:
    return [p.text[m.start : m.end] for p in passages for m in p.marks if m.rule == rule]


def without_notes(passage: Passage) -> list[str]:
    """The pieces of a text between the notes."""
    pieces, last = [], 0
    for mark in sorted((m for m in passage.marks if not m.rule), key=lambda m: m.start):
        pieces.append(passage.text[last : mark.start])
        last = mark.end
    return [*pieces, passage.text[last:]]


def test_what_fits_stays_as_it_is():
    given = (Passage("system", "system", ""), Passage("prompt", "p", "abc", (Mark(0, 2, "r"),)))
    assert bounded(given, 1024) == given
    assert bounded([], 1024) == ()


def test_lone_surrogates_keep_their_place():
    (found,) = bounded([Passage("prompt", "p\udfff", "a\ud800b", (Mark(2, 3, "r"),))], 1024)
    assert (found.address, found.text, shown([found])) == ("p�", "a�b", ["b"])


def test_a_long_key_of_the_caller_does_not_crowd_out_the_prompt():
    (found,) = bounded([Passage("tool_calls", "k" * 9000, "abc")], 1024)
    assert (len(found.address), found.text) == (200, "abc")


def test_what_a_rule_found_stays_with_what_is_around_it():
    text = "x" * 50_000 + "DROP" + "y" * 50_000
    passages = [
        Passage("system", "system", "s" * 5000),
        Passage("prompt", "m[0]", text, (Mark(50_000, 50_004, "r"),)),
        Passage("prompt", "m[1]", "z" * 5000),
    ]
    found = bounded(passages, 4096)
    assert [p.address for p in found] == ["", "m[0]", ""]
    assert found[0].text == "[… 1 text of 5000 characters left out …]"
    assert shown(found) == ["DROP"]
    before, around, after = without_notes(found[1])
    assert before == after == ""
    left, _, right = around.partition("DROP")
    assert set(left) == {"x"}
    assert set(right) == {"y"}
    assert len(left) == len(right) > 1500
    assert 3500 < size(found) <= 4096


def test_then_the_other_texts_come_from_the_first_on():
    passages = [
        Passage("system", "system", "s" * 100),
        *(Passage("prompt", f"m[{i}]", "t" * 600) for i in range(20)),
        Passage("prompt", "last", "DROP it", (Mark(0, 4, "r"),)),
    ]
    found = bounded(passages, 2048)
    addresses = [p.address for p in found]
    assert addresses == ["system", "m[0]", "m[1]", "m[2]", "", "last"]
    assert found[3].text.startswith("ttt")
    assert found[3].text.endswith(LEFT_OUT)
    assert found[4].text == "[… 17 texts of 10200 characters left out …]"
    assert shown(found) == ["DROP"]


def test_two_places_in_a_long_text_are_both_kept():
    text = "DROP" + "x" * 20_000 + "DROP"
    (found,) = bounded(
        [Passage("prompt", "p", text, (Mark(0, 4, "r"), Mark(20_004, 20_008, "r")))], 2048
    )
    assert shown([found]) == ["DROP", "DROP"]
    assert sum(LEFT_OUT in found.text[m.start : m.end] for m in found.marks if not m.rule) == 1


def test_a_match_that_is_the_whole_text_is_cut_too():
    (found,) = bounded([Passage("prompt", "p", "y" * 99_999, (Mark(0, 99_999, "r"),))], 2048)
    assert len(shown([found])[0]) >= CORE
    assert size([found]) <= 2048


def test_of_more_places_than_there_is_room_for_the_first_are_kept():
    passages = [
        Passage("prompt", f"m[{i}]", "a" * 300 + "DROP", (Mark(300, 304, "r"),)) for i in range(99)
    ]
    found = bounded(passages, 1024)
    assert found[0].address == "m[0]"
    assert found[-1].text.endswith(LEFT_OUT)
    assert size(found) <= 1024


@st.composite
def prompts(draw):
    passages = []
    for i in range(draw(st.integers(0, 8))):
        text = draw(st.sampled_from("ab")) * draw(st.integers(0, 1500))
        marks = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(text)))
            end = draw(st.integers(start, len(text)))
            marks.append(Mark(start, end, draw(st.sampled_from(["r", "rule-two"]))))
        passages.append(Passage("prompt", f"m[{i}]", text, tuple(marks)))
    return passages


@given(prompts(), st.integers(1024, 4096))
def test_it_is_bounded_in_order_and_invents_nothing(passages, limit):
    found = bounded(passages, limit)
    assert size(found) <= limit
    given = {p.address: p for p in passages}
    kept = [p for p in found if p.address]
    assert [p.address for p in kept] == [a for a in given if a in {p.address for p in kept}]
    for passage in found:
        if not passage.address:
            assert passage.text.endswith(LEFT_OUT)
            continue
        original = given[passage.address].text
        assert "".join(without_notes(passage)) in original
        for mark in passage.marks:
            assert (
                0 <= mark.start < mark.end <= len(passage.text) or passage == given[passage.address]
            )
    if found == tuple(passages):
        return
    assert any(LEFT_OUT in p.text for p in found)


@pytest.mark.parametrize("limit", [1024, 5000, 1 << 16])
def test_cutting_twice_changes_nothing(limit):
    long = Passage("prompt", "p", "ab" * 40_000, (Mark(3000, 3010, "r"),))
    once = bounded([long, replace(long, marks=())], limit)
    assert bounded(once, limit) == once
