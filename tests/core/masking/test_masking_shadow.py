from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.masking import Hit, Masking
from mitmgate.core.masking.shadow import GAP, INVISIBLE, read

PIECES = ["a", "4", " ", "é", "\u200b", "\u00ad", "\ufe0f" * 9, "\u200d" * 16, "\u2060" * 35]
PIECES += [
    "%",
    "%4",
    "%41",
    "%25",
    "%2541",
    "%252541",
    "%e9",
    "\\",
    "\\u0041",
    "\\\\x40",
    "\\n",
    "0",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def test_invisible_is_what_unicode_calls_so() -> None:
    every = "".join(map(chr, range(0x80, sys.maxunicode + 1)))
    assert set(regex.findall(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]", every)) == INVISIBLE


@pytest.mark.parametrize(
    ("text", "shadow"),
    [
        ("plain", None),
        ("naïve, 100% of\\d \\xe9 %e9 %s %00 %1f", None),
        ("a\u200bb\u00adc", "abc"),
        ("bob%40x%2Eorg", "bob@x.org"),
        ("%2540 %252540 %25252540", "@ @ %40"),
        ("\\u0040 \\\\u0040 \\x40 %0a", "@ @ @ \n"),
        ("%4\u200b0", "@"),
        ("%5Cn", "\\ "),
        ("％４０", "@"),
        ("a" + "\u200b" * GAP + "b", "ab"),
        ("a" + "\u2060" * (GAP + 1) + "b", "a\u200bb"),
    ],
)
def test_readings(text: str, shadow: str | None) -> None:
    readings = read(text, final=True)
    assert len(readings[0].text) == len(text)
    assert [reading.text for reading in readings[1:]] == ([] if shadow is None else [shadow])


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_every_character_has_its_place(
    spelled: Callable[[str], tuple[str, list[int], list[int]]], text: str
) -> None:
    chars, begins, ends = spelled(text)
    reading = read(text, final=True)[-1]
    assert reading.text == chars
    assert [reading.place(i) for i in range(len(chars))] == begins
    assert [reading.limit(i + 1) for i in range(len(chars))] == ends
    assert reading.place(len(chars)) == len(text)
    assert reading.limit(0) == 0
    for place in range(len(text) + 1):
        assert reading.index(place) == sum(begin < place for begin in begins)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, more=TEXTS)
def test_what_is_read_stays_whatever_comes(text: str, more: str) -> None:
    for now, then in zip(
        (read(text, final=False) * 2)[:2], (read(text + more, final=True) * 2)[:2], strict=True
    ):
        assert then.text.startswith(now.text)
        assert [now.place(i) for i in range(len(now.text))] == [
            then.place(i) for i in range(len(now.text))
        ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to b\u200bob@exam\u00adple.com\u200b!", "to [EMAIL]\u200b!"),
        ("?to=bob%40example.com&x", "?to=[EMAIL]&x"),
        ("bob%2Bx%40example.com", "[EMAIL]"),
        ("tel=%2B14155552671.", "tel=[PHONE]."),
        ("4111%201111%201111%201111", "[CARD]"),
        ("4111\u200b1111\u200b1111\ufeff1111", "[CARD]"),
        ("%47B82%20WEST 1234 5698 7654 32", "[IBAN]"),
        ("postgres%3A%2F%2Fapp%3As3cret%40db", "postgres%3A%2F%2F[CREDENTIALS]%40db"),
        ("postgres://u:p%40ss%2Fw0rd@db", "postgres://[CREDENTIALS]@db"),
        ("password=foo%20bar1", "password=[SECRET]"),
        ("AKIA\u200dIOSFODNN7EXAMPLE", "[AWS KEY]"),
        ("\\u0062ob\\u0040example.com", "[EMAIL]"),
        ('{"note": "bill\\n4111111111111111\\nend"}', '{"note": "bill\\n[CARD]\\nend"}'),
        ('{"note": "hi\\nbob@example.com"}', '{"note": "hi\\n[EMAIL]"}'),
        ("fine ✔\ufe0f text, 100%25 of it, می‌خواهم", "fine ✔\ufe0f text, 100%25 of it, می‌خواهم"),
    ],
)
def test_what_is_masked_is_what_was_written(shipped: Masking, text: str, masked: str) -> None:
    masker = shipped.profile("default").answer
    assert masker.mask(text).text == masked
    stream = masker.stream()
    assert "".join(map(stream.feed, text)) + stream.finish() == masked


def test_hits_are_places_in_the_text_as_written(shipped: Masking) -> None:
    text = "x b\u200bob%40a.org y"
    assert shipped.profile("default").answer.mask(text).hits == (Hit("email", 2, len(text) - 2),)


def test_a_pseudonym_is_of_the_value_not_of_its_spelling(
    masking_of: Callable[[str], Masking],
) -> None:
    masker = (
        masking_of(
            "{schema: 1, recognizers: [{id: n, match: '[a-z%0-9]{2,9}@x', replace: {pseudonym: N},"
            " tests: {match: [aa@x], pass: [x]}}], profiles: {p: {answer: [n]}}}"
        )
        .profile("p")
        .answer
    )
    spellings = ["bob@x", "bob%40x", "b%6Fb@x", "b\u200bob@x"]
    assert len({masker.mask(spelling).text for spelling in spellings}) == 1


@pytest.mark.parametrize("tail", ["\u200b", "a\u200b", "4\u200d" * 3, "%25", "%", "\\"])
def test_floods_are_held_within_bounds(shipped: Masking, tail: str) -> None:
    stream = shipped.profile("default").answer.stream()
    stream.feed("write to bob@exa")
    for _ in range(60):
        stream.feed(tail * 100)
        assert len(stream._text) <= (GAP + 1) * 700


def test_a_tail_goes_on_in_the_shadow(shipped: Masking) -> None:
    text = "x %67hp_0123456789abcdefghijklmnopqrstuvwxyz%41%42\u200bC. y"
    stream = shipped.profile("default").answer.stream()
    assert "".join(map(stream.feed, text)) + stream.finish() == "x [GITHUB TOKEN]. y"
    assert shipped.profile("default").answer.mask(text).text == "x [GITHUB TOKEN]. y"


def test_the_left_context_is_kept_past_invisible_characters(shipped: Masking) -> None:
    """Only the shadow sees the number, and it sees what stands in front of it."""
    masker = shipped.profile("default").answer
    for text, expected in (
        ("a" + "\u200b" * GAP + "4111 1111 \u200b1111 1111", None),
        ("-" + "\u200b" * GAP + "4111 1111 \u200b1111 1111", None),
        (";" + "\u200b" * GAP + "4111 1111 \u200b1111 1111", ";" + "\u200b" * GAP + "[CARD]"),
    ):
        stream = masker.stream()
        streamed = "".join(map(stream.feed, text)) + stream.finish()
        assert streamed == masker.mask(text).text == (expected or text)
