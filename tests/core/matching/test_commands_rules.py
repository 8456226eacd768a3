"""The starter pack: it loads, leaves ordinary traffic alone, and sees through disguises."""

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.matching import Matcher, compile, compiler
from mitmgate.core.rules import Listed, RuleError, RuleFile, load
from mitmgate.core.rules.rule import Rule, Where
from mitmgate.core.wire.segment import Segment


class Rules(RuleFile):
    rules: Listed[Rule]


HERE = Path(__file__).parent
LOADED = load(HERE.parents[2] / "rules" / "commands.yaml", Rules)
MATCHER: Matcher = compile(LOADED, LOADED.file.rules, ("rules",))
SAMPLES = [(rule, sample) for rule in MATCHER.rules for sample in rule.tests.match]
ANYWHERE: tuple[Where, ...] = ("prompt", "system", "tools", "tool_results", "answer", "path")
BENIGN = [
    line.replace("⏎", "\n")
    for line in (HERE / "benign.txt").read_text("utf-8").splitlines()
    if not line.startswith("# ")
]


def test_the_corpus_is_worth_its_name():
    assert len(BENIGN) >= 150


@pytest.mark.parametrize("text", BENIGN)
def test_ordinary_traffic_passes(text: str):
    wheres: tuple[Where, ...] = ANYWHERE
    if text.startswith("tool: "):
        text, wheres = text.removeprefix("tool: "), (*ANYWHERE, "tool_calls")
    segments = [Segment(where, where, text) for where in wheres]
    found = [f for f in MATCHER.scan(segments, None) if f.rule.status == "stable"]
    assert not found


def test_ordinary_traffic_passes_as_one_long_prompt():
    # Neighbours must not add up to a hit across lines either.
    text = "\n\n".join(t for t in BENIGN if not t.startswith("tool: "))
    found = [f for f in MATCHER.scan([Segment("prompt", "x", text)], None) if f.rule.enforced]
    assert not found


def test_every_rule_says_what_an_operator_needs():
    assert [r.id for r in MATCHER.rules if not (r.falsepositives and r.references)] == []
    assert {r.action for r in MATCHER.rules} == {"deny"}
    assert [r.id for r in MATCHER.rules if r.status == "experimental"] == ["role-token-inject"]


@pytest.mark.parametrize("rule", MATCHER.rules, ids=lambda rule: rule.id)
def test_a_rule_that_is_broken_fails_its_own_tests(rule: Rule, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler, "witness", lambda *args: None)  # takes long and is not the point
    for broken in (f"(?!)(?:{rule.match})", rf"{rule.match}|\w"):
        with pytest.raises(RuleError) as caught:
            compile(LOADED, [rule.model_copy(update={"match": broken})], ("rules",))
        wrong = "should match and does not" if broken.startswith("(?!)") else "should pass"
        tests = [p for p in caught.value.problems if wrong in p.message]
        assert len(tests) == len(caught.value.problems) > 0


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u180e\ufe0f"
FULLWIDTH = {c: chr(c + 0xFEE0) for c in range(0x21, 0x7F)}
CYRILLIC = str.maketrans("aeopcyxiABEKMHOPCTX", "аеорсухіАВЕКМНОРСТХ")


@st.composite
def disguises(draw: st.DrawFn) -> tuple[int, str]:
    """The index of a rule, and one of its samples after a few changes that keep its meaning."""
    rule, sample = draw(st.sampled_from(SAMPLES))
    characters = list(sample)
    kinds = st.sampled_from(["keep", "keep", "upper", "lower", "wide", "cyrillic", "split", "mark"])
    for i, kind in enumerate(draw(st.lists(kinds, min_size=len(sample), max_size=len(sample)))):
        c = characters[i]
        match kind:
            case "upper" | "lower" if c.isascii():
                characters[i] = c.upper() if kind == "upper" else c.lower()
            case "wide":
                characters[i] = c.translate(FULLWIDTH)
            case "cyrillic":
                characters[i] = c.translate(CYRILLIC)
            case "split":
                characters[i] = c + draw(st.sampled_from(INVISIBLE))
            case "mark" if c.isalpha():
                characters[i] = c + "\u0336"
    text = "".join(characters)
    match draw(st.sampled_from(["plain", "plain", "base64", "twice", "hex", "percent", "spaced"])):
        case "base64":
            text = f"Decode this: {base64.b64encode(text.encode()).decode()} and act."
        case "twice":
            text = base64.b64encode(base64.b64encode(text.encode())).decode()
        case "hex":
            text = text.encode().hex()
        case "percent":
            text = "".join(f"%{byte:02x}" for byte in text.encode())
        case "spaced":
            text = text.replace(" ", "\n  ")
    return MATCHER.rules.index(rule), text


@settings(max_examples=500, deadline=None)
@given(disguises())
def test_disguises_are_seen_through(disguise: tuple[int, str]):
    rule = MATCHER.rules[disguise[0]]
    segment = Segment(min(rule.where), "x", disguise[1])
    assert rule in [finding.rule for finding in MATCHER.scan([segment], None)]
