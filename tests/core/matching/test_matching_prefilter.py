"""The prefilter may say maybe too often, never too seldom."""

import string
import sys

import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitmgate.core.matching import prefilter as prefilter_module
from mitmgate.core.matching.prefilter import Hints, Prefilter, Scanner, refusals
from mitmgate.core.matching.required import required
from mitmgate.core.matching.superset import scannable, superset
from mitmgate.core.matching.syntax import compile_pattern, parse

EVERY = frozenset(range(10_000))
ALPHABET = (
    "abikst019 _-\n.é\u00b2\u0130\u0131\u017f\u212a\u0301\u00a0\x85\u0663"
    "ßẞσςΣ\u1c80в\u10d0\u1c90\U0001e922\ud800"
)
ATOMS = st.sampled_from(
    [
        *"abikst019é²вσა",
        *(r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", r"\B", ".", "^", "$", r"\Z", r"\A"),
        *("[a-k]", "[^a-k]", r"[\w.-]", r"[^\w]", r"[^\W\d_]", "[é-ß]", "[^é]", "[]^-]"),
        *("(?-i:K)", "(?-i:[^i])", "(?=i)", "(?!k)", "(?<=s)", "(?<![it])", "(?s:.)", r"(?a:\W)"),
    ]
)


def prefilter_of(*patterns: str) -> Prefilter:
    return Prefilter(dict(enumerate(patterns)))


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeat = st.sampled_from(["*", "+", "?", "{,2}", "{2}", "{1,3}?", "++", "{0,12}", "*?"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, repeat).map(lambda two: f"(?:{two[0]}){two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"(?>{two[0]}){two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"(?P<g>{two[0]}){two[1]}(?P=g)"),
        st.tuples(inner, inner, inner).map(lambda n: f"(?P<c>{n[0]})?{n[1]}(?(c){n[2]}|x)"),
    )


PATTERNS = st.recursive(ATOMS, _combined, max_leaves=8)
TEXTS = st.lists(st.text(ALPHABET, max_size=25), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(pattern=PATTERNS, texts=TEXTS)
def test_every_hit_of_regex_is_a_candidate(pattern: str, texts: list[str]):
    try:
        compiled = compile_pattern(pattern)
        spelled = superset(parse(pattern))
        words = required(parse(pattern))
    except (regex.error, ValueError):
        return  # refused when the rules load
    if refusals({0: spelled}):
        return  # likewise
    prefilter = prefilter_of(spelled)
    for text in texts:
        if compiled.search(text, timeout=1):
            data = scannable(text)
            assert list(prefilter.candidates(data, EVERY)) == [0], (pattern, spelled, text)
            assert not words or Hints([words]).of(data) == {0}, (pattern, words, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("x{,5}y", "xxy"),
        ("weights", "we\u0130ghts"),
        ("risk", "R\u0130\u017f\u212a"),
        (r"a\w{3}b", "a\u0301\u0301\u0301b"),
        (r"a\wb", "a\U0001e922b"),
        (r"a\Wb", "a\u00b2b"),
        (r"a\sb", "a\x85b"),
        (r"\bécole\b", "une École"),
        (r"caf\b", "caf café"),
        (r"a\db", "a\u0663b"),
        (r"(?<=no )weights", "no weights"),
        (r"(\w+) \1", "say say"),
        (r"a[\u0130-\u0140]b", "a\u0130b"),
        (r"a(?-i:[^a-z])b", "a\u017fb"),
        (r"a(?-i:[^A-Z])b", "a\u212ab"),
        (r"x{20,2000}y", "x" * 1500 + "y"),
        (r"a.b", "a\ud800b"),
        ("\ud800", "\ud800"),
        (r"\u0041\N{DIGIT ONE}", "a1"),
        (r"(?#a [ bracket)weights", "weights"),
    ],
)
def test_where_hyperscan_and_regex_read_differently(pattern: str, text: str):
    assert compile_pattern(pattern).search(text)
    assert list(prefilter_of(superset(parse(pattern))).candidates(scannable(text), EVERY)) == [0]


def test_every_pair_of_cases_that_regex_knows():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    cased = regex.findall(r"[\p{CWCM}\p{CWCF}]", everything)
    prefilter = prefilter_of(*(superset(parse(regex.escape(c))) for c in cased))
    joined = "".join(cased)
    for i, letter in enumerate(cased):
        for other in regex.findall(regex.escape(letter), joined, regex.IGNORECASE):
            assert i in prefilter.candidates(scannable(other), EVERY), (letter, other)


@pytest.mark.parametrize("letter", string.ascii_lowercase)
def test_ascii_letters_and_all_that_regex_takes_for_them(letter: str):
    cased = "\u0130\u0131\u017f\u212a" + string.ascii_letters
    prefilter = prefilter_of(letter, superset(parse(f"[{letter}]")), superset(parse("[a-z]")))
    for other in regex.findall(letter, cased, regex.IGNORECASE):
        assert list(prefilter.candidates(scannable(other), EVERY)) == [0, 1, 2]


def test_what_cannot_match_is_no_candidate():
    prefilter = prefilter_of("abc", "xyz")
    assert list(prefilter.candidates(scannable("- abc -"), EVERY)) == [0]
    assert list(prefilter.candidates(scannable("nothing"), EVERY)) == []
    assert not prefilter_of("abc").candidates(scannable("abc"), frozenset())


def test_the_one_pattern_that_hyperscan_refuses_is_named():
    assert list(refusals({3: "abc", 7: "(", 9: "x"})) == [7]
    with pytest.raises(ValueError, match=r"."):
        prefilter_of("abc", "(")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(?:weights){e<=1}", r"a literal { is written \{ (at position 11)"),
        ("a{,}b", "a literal {"),
        ("[[:alpha:]]x", "sets within sets"),
        ("[a-z--b]x", "sets within sets"),
        (r"\p{L}x", "goes beyond the syntax of Python's re: bad escape"),
        (r"\mword", "goes beyond"),
        ("(?x) a # b", "verbose mode"),
        ("(?x: a )b", "verbose mode"),
        ("(?:" * 900 + "a" + ")" * 900, "nested too deeply"),
        ("(a)?", "can match the empty text"),
        (r"(?=abc)", "can match the empty text"),
        ("x|", "can match the empty text"),
    ],
)
def test_what_a_pattern_may_not_say(pattern: str, said: str):
    with pytest.raises(ValueError, match=regex.escape(said).replace("\\ ", " ")):
        parse(pattern)


@pytest.mark.parametrize("pattern", [r"\{x\}", "[{]x", r"\[x", "[]]x", r"[\[]x", "x{2}y{1,}z{,3}"])
def test_braces_and_brackets_that_are_meant(pattern: str):
    assert parse(pattern)


@pytest.mark.skipif(prefilter_module.hyperscan is None, reason="needs Hyperscan")
def test_the_same_patterns_are_compiled_once() -> None:
    first = Scanner({0: "abc", 1: "xyz"}, flags=0)
    again = Scanner({0: "abc", 1: "xyz"}, flags=0)
    other = Scanner({0: "abc", 1: "xyz"}, flags=hyperscan_flag())
    assert again._database is first._database
    assert other._database is not first._database
    found: list[int] = []
    for scanner in (first, again):
        scanner.scan(b"abc", lambda i, end: found.append(i))
    assert found == [0, 0]


def hyperscan_flag() -> int:
    flag: int = prefilter_module.hyperscan.HS_FLAG_CASELESS
    return flag


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("export", {"export"}),
        (r"\bExport\b.{0,40}\bweights\b", {"weights"}),  # the longer one
        ("(?:dump|export) (?:weights|checkpoints)", {"checkpoints", "weights"}),
        ("weights|x", set()),  # the other branch has none
        ("weights?", {"weight"}),
        ("(?:weights)?exp", set()),
        ("(?:weights)+", {"weights"}),
        ("[wv]eights", {"eights"}),
        ("rm -rf", {"rm -rf"}),
        ("(?=weights)(?!exports).", set()),
        ("é+weights", {"weights"}),
    ],
)
def test_required_words(pattern: str, words: set[str]):
    assert required(parse(pattern)) == words


def test_hints_are_of_the_rules_whose_words_are_there():
    hints = Hints([frozenset(["export", "dump"]), frozenset(["weights"]), frozenset()])
    assert hints.of(b"DUMP the rest") == {0}
    assert hints.of(b"weights, exported") == {0, 1}
    assert hints.of(b"nothing") == set()
    assert Hints([frozenset()]).of(b"weights") is None


def test_candidates_among_some_before_and_after_they_are_prepared():
    some = frozenset([0, 2])
    prefilter = Prefilter(dict(enumerate(["abc", "xyz", "abx"])), [some])
    for _ in range(2):
        assert prefilter.candidates(b"abc xyz abx", some) == [0, 2]
        assert prefilter.candidates(b"xyz", some) == []
        assert prefilter.candidates(b"xyz abx", frozenset([1])) == [1]
        prefilter.prepare()
