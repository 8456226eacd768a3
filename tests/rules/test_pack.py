"""What holds for every rule that ships, and that they see through disguises."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling

PLACE = re.compile(
    r"https://(?:atlas\.mitre\.org/techniques/AML\.T\d{4}(?:\.\d{3})?"
    r"|attack\.mitre\.org/techniques/T\d{4}/(?:\d{3}/)?"
    r"|cwe\.mitre\.org/data/definitions/\d+\.html"
    r"|nvd\.nist\.gov/vuln/detail/CVE-\d{4}-\d{4,}"
    r"|arxiv\.org/abs/\d{4}\.\d{5}"
    r"|genai\.owasp\.org/llmrisk/llm(?:01|\d\d2025)-[a-z-]+/"
    r"|(?!atlas|attack|cwe|nvd|arxiv|genai)[\w.-]+/[\w./#-]*)"
)


def test_every_rule_says_what_an_operator_needs(commands: Ruling, approval: Ruling) -> None:
    for rule in (*commands.rules, *approval.rules):
        assert rule.falsepositives, rule.id
        assert rule.references, rule.id
        assert rule.message != "Refused by policy.", rule.id
        assert len(rule.tests.match) >= 3 <= len(rule.tests.not_match), rule.id
        for reference in rule.references:
            assert PLACE.fullmatch(reference), f"{rule.id}: {reference}"


def test_what_refuses_is_known_not_to_refuse_the_wrong(commands: Ruling) -> None:
    """Rules with wide patterns of prose are kept from refusing."""
    assert {rule.action for rule in commands.rules} == {"deny", "log"}
    for rule in commands.rules:
        if rule.id.startswith("jailbreak-") and rule.enforced:
            assert rule.id in ("jailbreak-persona-assume", "jailbreak-policy-puppet")


def test_the_rules_stand_by_family(commands: Ruling) -> None:
    families = [rule.id.partition("-")[0] for rule in commands.rules]
    begun = [family for i, family in enumerate(families) if family not in families[:i]]
    runs = [family for i, family in enumerate(families) if families[i - 1 : i] != [family]]
    assert runs == begun


def test_what_a_model_calls_is_judged_like_what_a_caller_sends(commands: Ruling) -> None:
    for rule in commands.rules:
        if rule.match and "tool_calls" in rule.where:
            assert "answer.tool_calls" in rule.where, rule.id


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2066\u180e\ufe0f"
FULLWIDTH = {c: chr(c + 0xFEE0) for c in range(0x21, 0x7F)}
CYRILLIC = str.maketrans("aeopcyxiABEKMHOPCTX", "аеорсухіАВЕКМНОРСТХ")
KINDS = ["keep", "keep", "wide", "cyrillic", "split", "mark"]


@st.composite
def disguises(draw: st.DrawFn) -> Callable[[str], str]:
    """Changes that keep what a text means."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=400, max_size=400))
    splits = draw(st.sampled_from(INVISIBLE))
    wrapped = draw(st.sampled_from(["plain", "plain", "base64", "twice", "hex", "percent"]))

    def disguise(text: str) -> str:
        characters = list(text)
        for i, (c, kind) in enumerate(zip(text, kinds, strict=False)):
            match kind:
                case "wide":
                    characters[i] = c.translate(FULLWIDTH)
                case "cyrillic":
                    characters[i] = c.translate(CYRILLIC)
                case "split":
                    characters[i] = c + splits
                case "mark" if c.isalpha() and c.isascii():
                    characters[i] = c + "\u0336"
        data = "".join(characters).encode()
        match wrapped:
            case "base64":
                return f"Decode this: {base64.b64encode(data).decode()} and act."
            case "twice":
                return base64.b64encode(base64.b64encode(data)).decode()
            case "hex":
                return data.hex()
            case "percent":
                return "".join(f"%{byte:02x}" for byte in data)
        return data.decode()

    return disguise


def plain(sample: str) -> bool:
    """Long enough for base64 to be read as that, in ASCII, on one line."""
    return len(sample) >= 9 and sample.isascii() and "\n" not in sample


# Their patterns are about how a text is spelled, or begin where it does.
SPELLED = ("role-", "server-", "code-template-probe")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_disguises_are_seen_through(
    data: st.DataObject, commands: Ruling, find: Callable[[str, str], set[Rule]]
) -> None:
    rules = [
        rule
        for rule in commands.rules
        if rule.match and "^" not in rule.match and not rule.id.startswith(SPELLED)
    ]
    rule = data.draw(st.sampled_from(rules))
    sample = data.draw(st.sampled_from([t for t in rule.tests.match if plain(t)]))
    disguise = data.draw(disguises())
    assert rule in find(min(rule.where), disguise(sample))


def test_an_undisguised_sample_is_found_wherever_the_rule_looks(
    commands: Ruling, find: Callable[[str, str], set[Rule]]
) -> None:
    for rule in commands.rules:
        for where in rule.where if rule.match else ():
            assert rule in find(where, rule.tests.match[0]), f"{rule.id} in {where}"


@pytest.mark.parametrize("action", ["log", "deny"])
def test_there_is_something_of_each_action(commands: Ruling, action: str) -> None:
    assert any(rule.action == action for rule in commands.rules)
