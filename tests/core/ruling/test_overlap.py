"""Rules held against each other, and against every endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mitmgate.core import ruling
from mitmgate.core.rules import Listed, RuleFile, load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling
from mitmgate.core.ruling.overlap import overlaps
from mitmgate.core.ruling.reach import idle


class File(RuleFile):
    rules: Listed[Rule]


def rule(id: str, match: str = "", *samples: str, passes: str = "nothing", **more: Any) -> Any:
    tests = {"match": list(samples) or [match], "pass": [passes]}
    searched = {"match": match} if match else {}
    return {"id": id, "title": id, "action": "deny", "tests": tests, **searched, **more}


def compiled(directory: Path, *rules: Any, name: str = "rules") -> Ruling:
    path = directory / f"{name}.yaml"
    path.write_text(json.dumps({"schema": 1, "rules": rules}, indent=1))
    loaded = load(path, File)
    return ruling.compile(loaded, loaded.file.rules, ("rules",))


def met(directory: Path, *rules: Any) -> dict[tuple[str, str], tuple[int, bool]]:
    found = overlaps([compiled(directory, *rules)])
    return {(each.rule.id, each.other.id): (each.found, each.shadowed) for each in found}


def test_a_rule_that_finds_the_samples_of_another(tmp_path: Path) -> None:
    found = met(
        tmp_path,
        rule("narrow", "rm -rf /(?:home|etc)", "rm -rf /home", "rm -rf /etc"),
        rule("wide", "rm -rf /", "rm -rf /usr", "rm -rf /home"),
        rule("partly", "rm -rf /etc|mkfs", "mkfs", "rm -rf /etc"),
        rule("apart", "casual"),
    )
    assert found == {
        ("narrow", "wide"): (2, True),
        ("narrow", "partly"): (1, False),
        ("wide", "narrow"): (1, False),
        ("partly", "narrow"): (1, False),
        ("partly", "wide"): (1, False),
    }


def test_of_two_alike_the_later_one_is_idle(tmp_path: Path) -> None:
    found = met(tmp_path, rule("first", "rm -rf"), rule("second", "rm +-rf", "rm -rf"))
    assert found == {("first", "second"): (1, False), ("second", "first"): (1, True)}


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ({}, {"operations": ["chat"]}),
        ({"operations": ["chat", "messages"]}, {"operations": ["chat"]}),
        ({}, {"methods": ["POST"]}),
        ({}, {"where": ["prompt"]}),
        ({"where": ["tool_calls"]}, {"where": ["tool_calls"], "arguments": ["cmd"]}),
        (
            {"where": ["tool_calls"], "arguments": ["cmd", "path"]},
            {"where": ["tool_calls"], "arguments": ["cmd"]},
        ),
        ({}, {"views": []}),
        ({}, {"action": "hold"}),
        ({"unless": [{"groups": ["a"]}]}, {"unless": [{"groups": ["b"]}]}),
        ({}, {"unless": [{"groups": ["b"]}]}),
    ],
)
def test_what_is_about_less_or_does_less_shadows_nothing(
    tmp_path: Path, narrow: Any, wide: Any
) -> None:
    found = met(tmp_path, rule("narrow", "rm -rf /h"), rule("wide", "rm -rf", **wide))
    assert not found["narrow", "wide"][1]
    same = met(tmp_path, rule("narrow", "rm -rf /h", **narrow), rule("wide", "rm -rf", **narrow))
    assert same["narrow", "wide"][1]
    assert not met(
        tmp_path, rule("narrow", "rm -rf /h", **narrow), rule("wide", "rm -rf", **wide)
    ).get(("narrow", "wide"), (0, False))[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"operations": ["chat"]}, {"operations": ["embeddings"]}),
        ({"methods": ["POST"]}, {"methods": ["DELETE"]}),
        ({"where": ["prompt"]}, {"where": ["path"]}),
        ({}, {"action": "log"}),
        ({}, {"mode": "audit"}),
        ({}, {"status": "experimental"}),
        (
            {"where": ["headers"], "headers": ["x-title"]},
            {"where": ["headers"], "headers": ["user-agent"]},
        ),
    ],
)
def test_rules_that_never_meet(tmp_path: Path, one: Any, other: Any) -> None:
    found = met(tmp_path, rule("one", "rm -rf /h", **one), rule("other", "rm -rf", **other))
    assert ("one", "other") not in found


def test_a_weaker_rule_is_idle_beside_a_stronger_one(tmp_path: Path) -> None:
    weak = rule("weak", "rm -rf /h", action="log", unless=[{"groups": "ops"}])
    assert met(tmp_path, weak, rule("strong", "rm -rf"))["weak", "strong"] == (1, True)


def test_across_files(tmp_path: Path) -> None:
    holds = compiled(tmp_path, rule("held", "rm -rf /h", action="hold"), name="approval")
    denies = compiled(tmp_path, rule("denied", "rm -rf"), name="commands")
    (found,) = overlaps([denies, holds])
    assert (found.rule.id, found.other.id, found.shadowed) == ("held", "denied", True)


def test_a_header_and_an_argument_are_samples_by_name(tmp_path: Path) -> None:
    header = {"where": ["headers"], "headers": ["x-title", "user-agent"]}
    found = met(tmp_path, rule("one", "evilbot/2", **header), rule("two", "evilbot", **header))
    assert found["one", "two"] == (1, True)
    named = {"where": ["tool_calls"], "arguments": ["cmd"]}
    found = met(tmp_path, rule("one", "rm -rf /h", **named), rule("two", "rm -rf", **named))
    assert found["one", "two"] == (1, True)


NUMBER = {"passes": "{}", "parameter": ["n", "m"], "max": 8}


@pytest.mark.parametrize(
    ("other", "shadowed"),
    [
        ({"parameter": ["n", "/m", "k"], "max": 8}, True),
        ({"parameter": ["n", "m"], "max": 4, "min": 1}, True),
        ({"parameter": ["n", "M"], "present": True}, True),
        ({"parameter": ["n", "m"], "max": 9}, False),
        ({"parameter": ["n"], "max": 8}, False),
        ({"parameter": ["n", "m"], "max_entries": 3}, False),
    ],
)
def test_parameters(tmp_path: Path, other: Any, shadowed: bool) -> None:
    sample = '{"n": 100, "m": 100}'
    found = met(
        tmp_path, rule("one", "", sample, **NUMBER), rule("two", "", sample, passes="{}", **other)
    )
    assert found["one", "two"] == (1, shadowed)


def test_lower_bounds_and_presence(tmp_path: Path) -> None:
    low = {"passes": "{}", "parameter": "n"}
    for least, shadowed in ((2, True), (0, False)):
        one = rule("one", "", '{"n": -1}', min=1, **low)
        two = rule("two", "", '{"n": -1}', min=least, **low)
        assert met(tmp_path, one, two)["one", "two"][1] is shadowed
    missing = rule("missing", "", "{}", passes='{"n": 1}', parameter="n", present=False)
    words = rule("words", "rm -rf")
    assert met(tmp_path, words, missing) == {}
    again = {**missing, "id": "again"}
    assert met(tmp_path, missing, again)["again", "missing"] == (1, True)
    there = rule("there", "", '{"n": 1}', passes="{}", parameter="n", present=True)
    limit = rule("limit", "", '{"n": 1}', passes="{}", parameter="n", max=0)
    assert met(tmp_path, there, limit)["there", "limit"] == (1, False)


def test_addresses(tmp_path: Path) -> None:
    samples = {"passes": "https://example.com/"}
    one = rule("one", "", "http://127.1/", network=["loopback", "private"], **samples)
    two = rule("two", "", "http://127.1/", network=["loopback"], **samples)
    found = met(tmp_path, one, two)
    assert found == {("one", "two"): (1, False), ("two", "one"): (1, True)}
    words = rule("words", "127", "127 times", where=["fetches"])
    assert met(tmp_path, two, words)["two", "words"] == (1, True)


# What can never match


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, ""),
        ({"operations": ["chat"]}, ""),
        ({"operations": ["chat"], "methods": ["GET"]}, "no endpoint has chat by GET"),
        ({"operations": ["models"], "where": ["path"]}, ""),
        ({"operations": ["models"], "where": ["answer"]}, ""),
        ({"operations": ["models"], "where": ["prompt"]}, "no endpoint with models has prompt"),
        ({"operations": ["models", "chat"], "where": ["prompt"]}, ""),
        (
            {"operations": ["embeddings"], "where": ["tool_results"]},
            "no endpoint with embeddings has tool_results",
        ),
        (
            {"operations": ["embeddings"], "where": ["answer.tool_calls"]},
            "no endpoint with embeddings has answer.tool_calls",
        ),
        ({"operations": ["chat"], "where": ["answer.tool_calls"]}, ""),
        ({"methods": ["PUT"], "where": ["path"]}, ""),
        (
            {"methods": ["PUT"], "where": ["prompt"]},
            "no endpoint with any operation by PUT has prompt",
        ),
        ({"unless": [{"subject": "*"}]}, "`unless` excepts everybody"),
        ({"unless": [{"issuer": ["*"], "subject": ["a", "*"]}]}, "`unless` excepts everybody"),
        ({"unless": [{"issuer": ["one", "two"]}]}, "`unless` excepts everybody"),
        ({"unless": [{"issuer": ["one"]}]}, ""),
        ({"unless": [{"subject": "*", "groups": "ops"}]}, ""),
        ({"unless": [{"subject": "agent-*"}]}, ""),
    ],
)
def test_what_can_never_match(more: Any, why: str) -> None:
    made = File.model_validate({"schema": 1, "rules": [rule("it", "rm -rf", **more)]}).rules[0]
    assert idle(made, ["one", "two"]) == why


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"parameter": "n", "max": 1, "operations": ["chat"]}, ""),
        (
            {"parameter": "n", "max": 1, "operations": ["models"]},
            "no endpoint with models takes a body",
        ),
        ({"parameter": "n", "present": False, "operations": ["models"]}, ""),
        ({"network": ["private"], "operations": ["chat"]}, ""),
        (
            {"network": ["private"], "operations": ["models"]},
            "no endpoint with models has fetches",
        ),
    ],
)
def test_what_can_never_match_without_a_pattern(more: Any, why: str) -> None:
    made = File.model_validate({"schema": 1, "rules": [rule("it", "", "{}", **more)]}).rules[0]
    assert idle(made) == why
