from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mitmgate.core.masking import MaskerFile, Masking, compile
from mitmgate.core.rules import RuleError, load

Build = Callable[[str], Masking]
FRAME = """schema: 1
recognizers:
  - id: one
    {}
    replace: '[ONE]'
    tests: {{match: [{}], pass: [zzz]}}
profiles: {{p: {{answer: [one]}}}}
"""


def refusal(build: Build, keys: str, sample: str = "a1") -> str:
    with pytest.raises(RuleError) as caught:
        build(FRAME.format(keys, sample))
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (r"match: 'a1('", "not a regular expression: "),
        (r"match: 'a*'", "it matches the empty text"),
        (r"match: '(?=a1)'", "it matches the empty text"),
        (r"match: 'a1+'", "its length has no limit: give the repeats an upper limit"),
        (r"match: '(?:a1){2001}'", "it can be longer than 2000 characters"),
        (r"match: '^a1'", "^, $, \\A and \\Z have no meaning on a stream"),
        (r"match: 'a1$'", "^, $, \\A and \\Z have no meaning on a stream"),
        (r"match: 'a1\Z'", "^, $, \\A and \\Z have no meaning on a stream"),
        (r"match: 'a1(?=x*)'", "a lookaround without a limit"),
        (r"match: '(?<!x*)a1'", "a lookaround without a limit"),
        (r"match: '(?<!x{2001})a1'", "it can be longer than 2000 characters"),
        (r"match: '(?:a1){e<=1}'", "a literal brace is written \\{"),
        (r"match: 'a{x'", "a literal brace is written \\{"),
        (r"match: '\p{L}1'", "a literal brace is written \\{"),
        (r"match: '\X1'", "not understood: bad escape"),
        (r"match: '(?|a|b)1'", "not understood: "),
        (r"match: '[[a-z]--b]1'", "an ambiguous set"),
        (r"match: '(?m)a1'", "the flags (?m), (?L) and (?x)"),
        (r"match: '(?x)a 1'", "the flags (?m), (?L) and (?x)"),
        (r"match: '(a)(?i:\1)1'", "a back reference under (?i)"),
        (r"match: '(?:a|aa){1,60}1'", "its search explodes, for one on 'aaaa"),
        (r"match: '\w{1,70}\w{1,70}\w{1,70}\w{1,70}1'", "its search explodes"),
        ("match: 'a1'\n    validate: nothing", "unknown validator 'nothing'; there are: "),
        ("match: 'a1'\n    tail: {run: 'ab'}", "`run` is one character class"),
        ("match: 'a1'\n    tail: {run: '('}", "not a regular expression"),
        ("match: 'a1'\n    tail: {run: '.', until: 'x*'}", "`until` is 1 to 2000 characters long"),
        ("match: 'a1'\n    tail: {run: '.', until: 'x+'}", "`until` is 1 to 2000 characters long"),
        ("match: 'a1'\n    tail: {run: '.', until: 'x(?!y)'}", "`until` has no lookaround"),
    ],
)
def test_refused_with_a_reason(masking_of: Build, keys: str, reason: str) -> None:
    message = refusal(masking_of, keys)
    assert reason in message
    assert "masker.yaml:" in message
    assert "recognizers[0]" in message


def test_the_line_is_the_line_of_the_key(masking_of: Build) -> None:
    assert "masker.yaml:4: recognizers[0].match: one: " in refusal(masking_of, "match: 'a+'")
    assert "masker.yaml:5: recognizers[0].tail: one: " in refusal(
        masking_of, "match: 'a1'\n    tail: {run: 'ab'}"
    )


def test_all_problems_at_once(masking_of: Build) -> None:
    with pytest.raises(RuleError) as caught:
        masking_of("""schema: 1
recognizers:
  - {id: a, match: 'a+', replace: x, tests: {match: [a], pass: [b]}}
  - {id: b, match: 'b', validate: none, replace: x, tests: {match: [b], pass: [a]}}
  - {id: c, match: 'c', replace: x, tests: {match: [d, c], pass: [e, ccc]}}
  - {id: c, match: 'd', replace: x, tests: {match: [d], pass: [e]}}
profiles:
  p: {answer: [a, b, c], prompt: [e]}
""")
    assert [(p.line, p.where) for p in caught.value.problems] == [
        (3, "recognizers[0].match"),
        (4, "recognizers[1].validate"),
        (5, "recognizers[2].tests.match[0]"),
        (5, "recognizers[2].tests.pass[1]"),
        (6, "recognizers[3].id"),
        (8, "profiles.p.prompt[0]"),
    ]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("match: 'a1'\n    colour: red", "unknown key"),
        ("match: ''", "at least 1 character"),
        ("match: 'a1'\n    max_len: 0", "greater than or equal to 1"),
        ("title: no match", "is missing"),
    ],
)
def test_the_shape_is_checked(masking_of: Build, keys: str, reason: str) -> None:
    assert reason in refusal(masking_of, keys)


@pytest.mark.parametrize(
    "replace", ["''", "{keep_last: 0}", "{pseudonym: lower}", "{keep_last: 4, pseudonym: X}", "5"]
)
def test_replacements_are_checked(masking_of: Build, replace: str) -> None:
    with pytest.raises(RuleError):
        masking_of(FRAME.format("match: 'a1'", "a1").replace("'[ONE]'", replace))


def test_samples_are_compulsory(masking_of: Build) -> None:
    with pytest.raises(RuleError, match="tests"):
        masking_of(FRAME.format("match: 'a1'", ""))


def test_a_tail_needs_a_fixed_replacement(masking_of: Build) -> None:
    text = FRAME.format("match: 'a1'\n    tail: {run: a}", "a1")
    with pytest.raises(RuleError, match="a fixed replacement"):
        masking_of(text.replace("'[ONE]'", "{keep_last: 4}"))


def test_max_len_lets_an_open_pattern_in(masking_of: Build) -> None:
    masker = (
        masking_of(FRAME.format(r"match: 'a1+\b'" + "\n    max_len: 5", "a1")).profile("p").answer
    )
    assert masker.mask("a1 a1111 a11111111 a1x").text == "[ONE] [ONE] [ONE]1111 a1x"


def test_pseudonyms_need_a_key(tmp_path: Path) -> None:
    path = tmp_path / "masker.yaml"
    path.write_text(FRAME.format("match: 'a1'", "a1"), "utf-8")
    with pytest.raises(ValueError, match="need a key"):
        compile(load(path, MaskerFile), key=b"")


def test_the_first_in_the_file_wins_a_tie_and_the_longer_wins_first(masking_of: Build) -> None:
    masker = (
        masking_of("""schema: 1
recognizers:
  - {id: x, match: 'ab', replace: '<x>', tests: {match: [ab], pass: [b]}}
  - {id: y, match: '[a-c]b', replace: '<y>', tests: {match: [cb], pass: [b]}}
  - {id: z, match: 'ab-', replace: '<z>', tests: {match: [ab-], pass: [ab]}}
profiles: {p: {answer: [z, y, x]}}
""")
        .profile("p")
        .answer
    )
    assert masker.ids == ("x", "y", "z")
    assert masker.mask("ab cb ab-").text == "<x> <y> <z>"
