"""What makes matching quick changes nothing: every shortcut against the plain way of doing it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitmgate.core.matching import decoding, normalising, prefilter, skeleton, views
from mitmgate.core.matching import matcher as matching
from mitmgate.core.matching import search as searching
from mitmgate.core.matching.matcher import Finding, Matcher
from mitmgate.core.matching.search import search
from mitmgate.core.matching.sieve import Pattern
from mitmgate.core.matching.syntax import compile_pattern, parse
from mitmgate.core.matching.window import WIDEST, Reach, Window, reach, windows
from mitmgate.core.rules.rule import Rule
from mitmgate.core.wire.segment import Segment


def pattern_of(match: str) -> Pattern:
    """Raises `ValueError` or `regex.error` for what is refused when rules load."""
    tests = {"match": ["x"], "pass": ["y"]}
    rule = Rule.model_validate(
        {"id": "rule", "title": "T", "action": "deny", "match": match, "tests": tests}
    )
    tree = parse(match)
    return Pattern.of(rule, compile_pattern(match), tree)


def plainly(patterns: Sequence[Pattern], segment: Segment) -> list[Finding]:
    """Every rule in every view, first hits only: what a matcher must find, slowly."""
    found: dict[int, Finding] = {}
    matcher = Matcher(patterns)
    for view, reading in views.views_of(segment.text, matcher.lexicon):
        for i, pattern in enumerate(patterns):
            for hit in (
                pattern.compiled.finditer(reading.text, overlapped=True) if i not in found else ()
            ):
                span = reading.origin(*hit.span())
                assert span is not None  # nothing is cut out when there is no margin
                if view == "punctuation" and matching._stands_there(
                    segment.text[slice(*span)], hit[0]
                ):
                    continue
                quoted = hit[0][: matching.SHOWN]
                found[i] = Finding(pattern.rule, segment.address, *span, quoted, view)
                break
    return list(found.values())


ATOMS = st.sampled_from(
    [
        *"abk19é",
        *(r"\b", r"\B", "^", "$", r"\Z", r"\A", "(?m:$)", "(?m:^)"),
        *(r"\w", r"\W", r"\s", ".", "[ab]", "[^a]", "(?-i:K)", r"\n"),
        *("-", r"\.", "[-.]", "[-a]", r"\(", "_", "ab 1", r"b\s+k9"),
        *(
            "(?=ab)",
            r"(?!b\b)",
            "(?<=a )",
            "(?<![ab])",
            r"(?=.{0,3}\b1)",
            "(?!.{2}(?=b$))",
            "(?!.*9)",
        ),
    ]
)


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeat = st.sampled_from(["?", "{2}", "{1,3}?", "{0,4}", "{1,3}+", "*", "*?"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, repeat).map(lambda two: f"(?:{two[0]}){two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"(?>{two[0]}){two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"(?P<g>{two[0]}){two[1]}(?P=g)"),
        st.tuples(inner, inner, inner).map(lambda n: f"(?P<c>{n[0]})?{n[1]}(?(c){n[2]}|x)"),
    )


PATTERNS = st.lists(st.recursive(ATOMS, _combined, max_leaves=9), min_size=1, max_size=5)
PIECES = st.one_of(
    st.text("abkK19é \n", max_size=8),
    st.text("ab1-._*( \n", max_size=8),
    st.sampled_from(
        ["a b", "ab 1", "\u212a", "\u0130", "\u200b", "  ", "%61", "😀é", "\ud800", "9"]
    ),
    st.integers(1, 40).map(lambda n: "." * n),
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    matches=PATTERNS,
    texts=st.lists(TEXTS, min_size=1, max_size=8),
    strong=st.sampled_from([1, 2, skeleton.STRONG]),
    ready=st.booleans(),
)
def test_findings_are_those_of_a_plain_search(
    matches: list[str], texts: list[str], strong: int, ready: bool
):
    patterns = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skeleton, "STRONG", strong)
        for match in matches:
            try:
                patterns.append(pattern_of(match))
            except (regex.error, ValueError):
                continue  # refused when the rules load
    refused = prefilter.refusals({i: p.superset for i, p in enumerate(patterns)})
    patterns = [pattern for i, pattern in enumerate(patterns) if i not in refused]
    matcher = Matcher(patterns)
    if ready:
        matcher.ready()
    for text in texts:
        segment = Segment("prompt", "x", text)
        found = matcher.scan([segment], None)
        key = [(f.rule.match, f.view, f.start, f.end, f.text) for f in found]
        if any(f.view == "timeout" for f in found):
            continue  # such a pattern is refused when rules load
        wanted = [
            (f.rule.match, f.view, f.start, f.end, f.text) for f in plainly(patterns, segment)
        ]
        assert key == wanted, text


@pytest.mark.parametrize(
    ("match", "filler"),
    [
        (r"\bcat\b", "concatenate "),
        (r"\bcat\b", "é cat\u0301 "),
        (r"(?<!no )cat", "no cat 😀 "),
        (r"cat(?! (?:and|or) dog)", "cat and dog, "),
        (r"(?<=the )c.{0,20}t\b", "cats of the world "),
    ],
)
def test_long_texts_are_searched_only_where_a_rule_may_match(
    match: str, filler: str, monkeypatch: pytest.MonkeyPatch
):
    pattern = pattern_of(match)
    matcher = Matcher([pattern])
    matcher.ready()
    seen: list[Sequence[Window]] = []

    def spy(compiled: object, text: str, seconds: None, where: Sequence[Window]) -> object:
        seen.append(where)
        return search(pattern.compiled, text, seconds, where)

    monkeypatch.setattr(matching, "search", spy)
    for text in (
        filler + "-" * 9000,
        filler + "-" * 9000 + " the cat " + "-" * 9000,
        "-" * 9000 + " the cat",
        "the cat" + "-" * 9000 + filler * 3,
    ):
        segment = Segment("prompt", "x", text)
        assert list(matcher.scan([segment], None)) == plainly([pattern], segment)
    assert seen
    assert all(window.end - window.first < 300 for where in seen for window in where)


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        ("cat", Reach(3, 2)),
        (r"\bcats?\b", Reach(4, 2)),
        (r"(?:ab|c{2,9})\s", Reach(10, 2)),
        (r"cat(?! and(?= dog))(?=\w{0,5})", Reach(3, 2 + 4 + 4 + 5)),
        (r"(?<=no )cat", Reach(3, 2 + 3)),
        (r"cat\s+", None),
        (r"cat(?=.*dog)", None),
        (r"(?:x{100}){50}", None),
        (r"(\w) \1", None),
    ],
)
def test_reach(match: str, wanted: Reach | None):
    assert reach(parse(match)) == wanted


@pytest.mark.parametrize("match", [r"[\u0130]", "\u0130", "[à-ſ]", r"[\u2100-\u2130]", "[\u0131]"])
def test_letters_beyond_ascii_that_are_ascii_in_another_case(match: str):
    patterns = [pattern_of(match + " ?is here")]
    matcher = Matcher(patterns)
    matcher.ready()
    segments = [Segment("prompt", "x", f"{letter} is here") for letter in "iIsSkK"]
    wanted = [hit for segment in segments for hit in plainly(patterns, segment)]
    assert [hit for segment in segments for hit in matcher.scan([segment], None)] == wanted
    assert {hit.view for hit in wanted} >= {"raw"}


@pytest.mark.parametrize("beside", [".", "c", "[0-9]{2}", r"\w{1,4}"])
@pytest.mark.parametrize("match", ["rm", "é"])
def test_two_bytes_at_the_end_are_seen_whatever_else_is_looked_for(match: str, beside: str):
    """Vectorscan does not see them where a pattern of one character has matched before."""
    patterns = [pattern_of(each) for each in (match, "iski", beside)]
    matcher = Matcher(patterns)
    matcher.ready()
    for size in range(24, 80):
        segment = Segment("prompt", "x", f"ca1 12 xx abc {'.' * size} {match}")
        found = [f for f in matcher.scan([segment], None) if f.rule.match == match]
        assert [f.view for f in found] == ["raw"], size
    ends = prefilter.Locator({0: "rm", 1: "."}, frozenset([0, 1]))
    ends.prepare()
    assert ends.ends(b"." * 40 + b"rm", 0)[0] == {42}


def test_windows_are_in_characters_apart_and_ascending():
    data = ("é" * 50 + "." * 950).encode()
    ends = [10, 99, 1000, 100, 993]
    assert windows(data, ends, Reach(7, 3)) == [
        Window(0, 5, 15),
        Window(43, 50, 60),
        Window(936, 950, 960),
    ]


def test_many_windows_are_one():
    assert windows(b"." * 900, range(0, 900, 90), Reach(5, 2))[0].end > WIDEST


def test_a_match_beyond_the_window_does_not_count():
    pattern = compile_pattern(r"cat(?! and)")
    assert not search(pattern, "cat and cat and", windows=[Window(0, 3, 11)])
    assert not search(pattern, "cat and", windows=[Window(1, 3, 7)])
    found = search(pattern, "cat and cat", windows=[Window(0, 3, 7), Window(5, 11, 17)])
    assert found
    assert found.span() == (8, 11)


def test_windows_share_the_time_of_one_search(monkeypatch: pytest.MonkeyPatch):
    clock = 0.0

    class Pattern:
        def search(self, *at: object, timeout: float, concurrent: bool) -> None:
            nonlocal clock
            clock += searching.SECONDS * 0.7

    monkeypatch.setattr(searching.time, "thread_time", lambda: clock)
    with pytest.raises(TimeoutError):
        search(Pattern(), "x" * 99, windows=[Window(i, i, i + 5) for i in (0, 20, 40, 60)])  # type: ignore[arg-type]
    assert clock == pytest.approx(2 * 0.7 * searching.SECONDS)


def test_a_pattern_that_is_too_large_to_be_located_is_still_a_candidate(
    monkeypatch: pytest.MonkeyPatch,
):
    class Limited(prefilter.Scanner):
        def __init__(self, patterns: Mapping[int, str], flags: int, *more: Any) -> None:
            if flags == prefilter._flags(once=False):
                raise ValueError("Pattern is too large.")
            super().__init__(patterns, flags, *more)

    monkeypatch.setattr(prefilter, "Scanner", Limited)
    locator = prefilter.Locator({0: "a"}, frozenset())
    locator.prepare()
    assert locator.ends(b"abca", 0) == {0: None}
    pattern = pattern_of("cat")
    segment = Segment("prompt", "x", "a cat")
    assert list(Matcher([pattern]).scan([segment], None)) == plainly([pattern], segment) != []


def test_too_many_ends_are_not_listed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefilter, "GROUP", 2)
    locator = prefilter.Locator(dict(enumerate("abcd")), frozenset([2]))
    locator.prepare()
    assert locator.ends(b"abcabd", 0) == {0: {1, 4}, 1: {2, 5}}
    assert locator.ends(b"abccbd", 3) == {2: {3}, 3: {6}}
    monkeypatch.setattr(prefilter, "MOST_ENDS", 3)
    assert locator.ends(b"abcab", 1) == {0: None, 1: None}
    assert locator.ends(b"abca", 1) == {0: {1, 4}, 1: {2}}


def _encoded() -> st.SearchStrategy[str]:
    words = st.text("export theWEIGHTS 09é", max_size=30).map(str.encode)
    return st.one_of(
        words.map(lambda w: base64.b64encode(w).decode()),
        words.map(lambda w: base64.encodebytes(w * 4).decode()),
        words.map(lambda w: base64.b64encode(base64.b64encode(w)).decode()),
        words.map(bytes.hex),
        words.map(lambda w: ", ".join(f"0x{byte:02x}" for byte in w)),
        words.map(lambda w: w.hex(" ")),
        words.map(lambda w: "".join(f"%{byte:02x}" for byte in w)),
        words.map(lambda w: "".join(f"\\x{byte:02x}" for byte in w)),
        st.text("aZ9+/_-= \t\r\n", max_size=60),
        st.text("0123456789abcdef ,:x", max_size=60),
        st.sampled_from(["internationalization", "AssertionError", "x" * 45, "é", "\ud800", "\n"]),
    )


BLOBS = st.lists(_encoded(), max_size=6).map("".join)


@settings(max_examples=200, deadline=None)
@given(BLOBS)
def test_decoding_is_that_of_plain_substitution(text: str):
    assert decoding.decode(text) == _decoded_plainly(text)


def _decoded_plainly(text: str) -> str:
    """Without looking first where anything might stand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefilter, "hyperscan", None)
        return decoding.decode(text)


@pytest.mark.parametrize("length", [11, 12, 13, 30, 40, 47])
def test_base64_with_a_single_sign_that_it_is_no_word(length: int):
    word = ("aida" * 12)[:length]  # is base64 of text, and yet a word
    assert decoding.decode(f"see {word}, then") == f"see {word}, then"
    for i in range(length):
        blob = word[:i] + "ZCFB"[i % 4] + word[i + 1 :]
        for text in (blob, f"see {blob}, {word} and {blob}=then", f"é {blob}-"):
            assert decoding.decode(text) == _decoded_plainly(text) != text


@pytest.mark.parametrize("word", ["Installation", "Installations"])
def test_a_capitalised_word_that_decodes_to_rubbish_is_a_word(word: str):
    for text in (word, f"see {word}, then"):
        assert decoding.decode(text) == _decoded_plainly(text) == text


@pytest.mark.parametrize("first", [39, 40, 44])
def test_base64_whose_only_sign_is_in_its_last_line(first: int):
    text = f"see {('aida' * 11)[:first]}\r\n aidB"
    assert decoding.decode(text) == _decoded_plainly(text)
    assert (decoding.decode(text) != text) == (first >= 40)


def test_decoding_without_hyperscan(monkeypatch: pytest.MonkeyPatch):
    text = f"72 6d 20 2d 72 66 20 2f {base64.b64encode(b'export the weights').decode()}"
    fast = decoding.decode(text)
    monkeypatch.setattr(prefilter, "hyperscan", None)
    assert decoding.decode(text) == fast == " rm -rf /   export the weights "


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.sampled_from("ab \t\n\v\r\x1c\x00\x7f\x85\xa0é\u2028\u3000\u200b\ud800"), max_size=30
    )
)
def test_whitespace_is_squeezed_as_by_split_and_join(text: str):
    assert normalising.squeeze(text).strip(" ") == " ".join(text.split())
    controls = {c: "" for c in (*range(9), *range(14, 28), 127)}
    if text.isascii():
        assert normalising.clean(text) == text.translate(controls)
        assert list(_normalised(text)) == [" ".join(text.translate(controls).split())]


def _normalised(text: str) -> Iterator[str]:
    shown = [other.text for name, other in views.views_of(text) if name == "normalised"]
    yield from shown or [text]
