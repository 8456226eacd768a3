from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.masking import Masker, MaskerFile, Masking, compile
from mitmgate.core.masking import prefilter as prefilter_module
from mitmgate.core.masking.hold import Hold
from mitmgate.core.masking.recognizer import CompiledRecognizer
from mitmgate.core.masking.validators import VALIDATORS
from mitmgate.core.rules import load

Naive = Callable[[Sequence[CompiledRecognizer], str], tuple[str, list[tuple[str, int, int]]]]

ODD = Path(__file__).with_name("odd.yaml")
LETTERS = "aabbcc11--- .iIıİkK\u0301é\uff11\ud800"
UNSEEN = ["\u00ad", "\u200b", "\u200d", "\u202e", "\ufe0f", "\U000e0041"]
ODD_ESCAPES = ["%", "%2", "%25", "%61", "%2d", "\\", "\\\\u0063", "\\x31", "\\n", *UNSEEN[:2]]
ODD_ESCAPES += ["\u200b" * 15, "\u200b" * 17]
SEPARATORS = [
    "",
    "",
    " ",
    ".",
    "-",
    "\n",
    "@",
    ":",
    "1",
    "a",
    "x=",
    ", ",
    '"',
    "\u00a0",
    "—",
    "+",
    "%",
    "\\",
    "\\n",
]


@pytest.fixture(scope="module")
def odd() -> Masker:
    with pytest.MonkeyPatch.context() as patch:  # refuses some lengths, shortens others
        patch.setitem(
            VALIDATORS, "odd", lambda value: len(value) - len(value) % 3 if value[3:] else 0
        )
        return compile(load(ODD, MaskerFile), key=b"key").profile("all").answer


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """`text` in pieces of these sizes, over and over."""
    pieces, at = [], 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    return pieces


def hostile(random_: random.Random, samples: Sequence[str], parts: int) -> str:
    """Pieces of values, whole or cut anywhere, run together with what may stand between them."""
    out = []
    for _ in range(parts):
        sample = random_.choice(samples)
        start, end = sorted(random_.choices(range(len(sample) + 1), k=2))
        whole = random_.random() < 0.4
        out += [sample if whole else sample[start:end], random_.choice(SEPARATORS)]
    return "".join(out)


def disguised(random_: random.Random, text: str, much: float) -> str:
    """`text` with characters escaped and invisible ones put in; sometimes more than are allowed."""
    out = []
    for char in text:
        if random_.random() < much and " " <= char <= "~":
            form = random_.choice(["%{:02X}", "%{:02x}", "%25{:02x}", "\\u00{:02x}", "\\x{:02x}"])
            char = form.format(ord(char))
        out.append(char)
        if random_.random() < much / 2:
            out.append(random_.choice(UNSEEN) * random_.choice([1, 1, 1, 2, 16, 17, 40]))
    return "".join(out)


def differs(masker: Masker, text: str, expected: str, sizes: Sequence[int]) -> bool:
    """Whether the stream is not the masked text, or some released part not a beginning of it."""
    stream, released = masker.stream(), ""
    for piece in cut(text, sizes):
        released += stream.feed(piece)
        if not expected.startswith(released):
            return True
    return released + stream.finish() != expected


def check(masker: Masker, naive: Naive, text: str, sizes: Sequence[int]) -> None:
    expected, hits = naive(masker._engine.recognizers, text)
    masked = masker.mask(text)
    assert masked.text == expected
    assert [(hit.recognizer, hit.start, hit.end) for hit in masked.hits] == hits
    assert not differs(masker, text, expected, sizes)
    assert not differs(masker, text, expected, [1])
    stream = masker.stream()
    for piece in cut(text, sizes):
        stream.feed(piece)
    stream.finish()
    assert stream.hits == Counter(id_ for id_, *_ in hits)
    assert stream.held == 0


@settings(max_examples=250, deadline=None)
@given(
    random_=st.randoms(use_true_random=False),
    parts=st.integers(1, 8),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_stream_equals_whole_equals_naive(
    shipped: Masking,
    samples: dict[str, tuple[str, ...]],
    naive: Naive,
    random_: random.Random,
    parts: int,
    sizes: list[int],
) -> None:
    """All shipped recognizers, values cut and glued anywhere, any chunking and one by one."""
    every = [sample for group in samples.values() for sample in group]
    check(shipped.profile("default").answer, naive, hostile(random_, every, parts), sizes)


@settings(max_examples=150, deadline=None)
@given(
    random_=st.randoms(use_true_random=False),
    parts=st.integers(1, 5),
    much=st.sampled_from([0.02, 0.1, 0.4]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_the_same_in_disguise(
    shipped: Masking,
    samples: dict[str, tuple[str, ...]],
    naive: Naive,
    random_: random.Random,
    parts: int,
    much: float,
    sizes: list[int],
) -> None:
    every = [sample for group in samples.values() for sample in group]
    text = disguised(random_, hostile(random_, every, parts), much)
    check(shipped.profile("default").answer, naive, text, sizes)


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(st.sampled_from([*LETTERS, *ODD_ESCAPES]), max_size=24).map("".join),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_odd_constructs_in_disguise(odd: Masker, naive: Naive, text: str, sizes: list[int]) -> None:
    check(odd, naive, text, sizes)


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(st.sampled_from(LETTERS), max_size=40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_odd_constructs_over_a_small_alphabet(
    odd: Masker, naive: Naive, text: str, sizes: list[int]
) -> None:
    check(odd, naive, text, sizes)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_text(shipped: Masking, naive: Naive, text: str, sizes: list[int]) -> None:
    check(shipped.profile("default").answer, naive, text, sizes)


@settings(max_examples=100, deadline=None)
@given(random_=st.randoms(use_true_random=False), parts=st.integers(1, 8))
def test_the_same_without_hyperscan(
    shipped: Masking,
    bare: Masker,
    samples: dict[str, tuple[str, ...]],
    random_: random.Random,
    parts: int,
) -> None:
    every = [sample for group in samples.values() for sample in group]
    text = hostile(random_, every, parts)
    masked = bare.mask(text)
    assert masked == shipped.profile("default").answer.mask(text)
    assert not differs(bare, text, masked.text, [3, 1])


@pytest.fixture(scope="module")
def bare() -> Masker:
    rules = Path(__file__).parents[3] / "rules" / "masker.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefilter_module, "hyperscan", None)
        return compile(load(rules, MaskerFile), key=b"key").profile("default").answer


def streams_that_differ(masker: Masker, samples: Sequence[str], count: int) -> int:
    random_ = random.Random(1)
    wrong = 0
    for _ in range(count):
        text = hostile(random_, samples, 5)
        expected = masker.mask(text).text
        wrong += differs(masker, text, expected, [random_.randint(1, 6) for _ in range(5)])
    return wrong


@pytest.mark.parametrize("late", [0, 1])
def test_holding_one_character_less_is_noticed(
    shipped: Masking,
    samples: dict[str, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    late: int,
) -> None:
    hold = Hold.place
    masker = shipped.profile("default").answer
    every = [sample for group in samples.values() for sample in group]
    texts = 100

    def mutant(self: Hold, text: str, start: int) -> int:
        return min(hold(self, text, start) + late, len(text))

    whole = Masker.mask

    def unchanged(self: Masker, text: str):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            patch.setattr(Hold, "place", hold)
            return whole(self, text)

    monkeypatch.setattr(Hold, "place", mutant)
    monkeypatch.setattr(Masker, "mask", unchanged)
    wrong = streams_that_differ(masker, every, texts)
    assert wrong > texts // 4 if late else wrong == 0


@pytest.mark.parametrize("size", [1, 4, 4096, 16_384, 50_000])
def test_long_texts_are_handled_in_pieces(
    shipped: Masking, samples: dict[str, tuple[str, ...]], size: int
) -> None:
    every = [sample for group in samples.values() for sample in group]
    text = hostile(random.Random(size), every, 1200)
    masker = shipped.profile("default").answer
    masked = masker.mask(text)
    assert len(text) > 16_384
    assert len(masked.hits) > 100
    stream = masker.stream()
    assert "".join(map(stream.feed, cut(text, [size]))) + stream.finish() == masked.text


def test_values_in_disguise(shipped: Masking) -> None:
    masker = shipped.profile("default").answer
    assert masker.mask("４１１１‑1111 1111‑1111 und mehr").text == "[CARD] und mehr"
    assert masker.mask("٤١١١111111111111").text == "[CARD]"
    assert masker.mask("naïve ｂｏｂ＠example．com, 价格").text == "naïve [EMAIL], 价格"
    assert masker.mask("a＝b，c\u00a0d – e").text == "a＝b，c\u00a0d – e"  # what is no value stays


def test_only_the_group_value_is_replaced(shipped: Masking) -> None:
    masked = shipped.profile("default").answer.mask("see postgres://app:s3cret@db/x")
    assert masked.text == "see postgres://[CREDENTIALS]@db/x"
    assert [(hit.start, hit.end) for hit in masked.hits] == [(15, 25)]


def test_a_secret_is_masked_before_it_ends(shipped: Masking) -> None:
    stream = shipped.profile("default").answer.stream()
    released = stream.feed("Authorization: Bearer " + "aB3.xQ7_zK" * 10)
    assert released == "Authorization: Bearer [TOKEN]"
    assert stream.feed("aB3.xQ7_zK" * 10) == ""
    assert stream.feed(" done") == " "
    assert stream.finish() == "done"


def test_a_finished_stream_stays_finished(shipped: Masking) -> None:
    stream = shipped.profile("default").answer.stream()
    assert stream.feed("a@b") + stream.finish() == "a@b"
    assert stream.finish() == ""
    assert stream.feed("") == ""
    with pytest.raises(ValueError, match="finished"):
        stream.feed("x")


def test_a_failure_ends_the_stream_for_good(
    masking_of: Callable[[str], Masking], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(value: str) -> int:
        if value == "12":
            raise OverflowError
        return len(value)

    monkeypatch.setitem(VALIDATORS, "failing", failing)
    masking = masking_of(
        "{schema: 1, recognizers: [{id: n, match: '[0-9]{2}', validate: failing, replace: '#',"
        " tests: {match: ['11'], pass: [x]}}], profiles: {p: {answer: [n]}}}"
    )
    stream = masking.profile("p").answer.stream()
    assert stream.feed("ab") == "ab"
    with pytest.raises(OverflowError):
        stream.feed("cd 12 secret")
    for again in (lambda: stream.feed("more"), stream.finish):
        with pytest.raises(RuntimeError, match="earlier"):
            again()


def test_no_recognizers_change_nothing(shipped: Masking) -> None:
    masker = shipped.profile("cleared").answer
    assert not masker
    assert masker.mask("bob@example.com").text == "bob@example.com"
    stream = masker.stream()
    assert stream.feed("bob@example.com") == "bob@example.com"
    assert (stream.finish(), stream.held, not stream.hits) == ("", 0, True)
