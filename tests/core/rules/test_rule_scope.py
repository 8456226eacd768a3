"""What a rule looks for, and in which requests and texts."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from mitmgate.core.rules.rule import ANY, Rule, in_mode

TESTS = {"match": ["x"], "pass": ["y"]}
HEAD = {"id": "a-rule", "title": "A rule", "action": "deny", "tests": TESTS}


def rule(**more: Any) -> Rule:
    return Rule.model_validate({**HEAD, **more})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "exactly one of match, parameter and network"),
        ({"match": "x", "parameter": "n", "max": 1}, "exactly one of"),
        ({"match": "x", "network": ["private"]}, "exactly one of"),
        ({"match": "x", "max": 1}, "max belongs to parameter"),
        ({"network": ["private"], "present": True}, "present belongs to parameter"),
        ({"parameter": "n"}, "a parameter needs one of max, min, max_entries, present"),
        ({"parameter": "n", "max": 1, "where": ["prompt"]}, "where and keywords belong to match"),
        ({"network": ["private"], "keywords": ["x"]}, "where and keywords belong to match"),
        ({"parameter": "n", "max": "1"}, "max"),
        ({"parameter": "n", "max": True}, "max"),
        ({"parameter": "n", "present": 1}, "present"),
        ({"parameter": "", "max": 1}, "parameter"),
        ({"parameter": "/a~b", "max": 1}, "RFC 6901"),
        ({"network": ["public"]}, "network"),
        ({"match": "x", "where": ["headers"]}, "headers are named"),
        ({"match": "x", "headers": ["user-agent"]}, "headers are named"),
        ({"match": "x", "where": ["headers"], "headers": ["User-Agent"]}, "lower case"),
        ({"match": "x", "where": ["headers"], "headers": ["a b"]}, "lower case"),
        ({"match": "x", "arguments": ["command"], "where": ["prompt"]}, "arguments are those of"),
        ({"match": "x", "arguments": ["/"], "where": ["tool_calls"]}, "a path of keys"),
        ({"match": "x", "methods": ["post"]}, "in capitals"),
        ({"match": "x", "mode": "off"}, "mode"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=reason):
        rule(**more)


def test_the_calls_of_an_answer_are_in_it() -> None:
    assert rule(match="x", where=["answer"]).where == {"answer", "answer.tool_calls"}
    assert rule(match="x", where=["answer.tool_calls"]).where == {"answer.tool_calls"}
    assert rule(match="x", where=["answer.tool_calls"]).reads_answers
    assert not rule(match="x").reads_answers
    assert not rule(parameter="n", max=1).reads_answers


def test_one_parameter_or_several() -> None:
    assert rule(parameter="n", max=1).parameter == ("n",)
    assert rule(parameter=["n", "/options/n"], max=1).parameter == ("n", "/options/n")


def test_which_requests_it_is_about() -> None:
    everything = rule(match="x")
    assert everything.applies("POST", "chat")
    assert everything.applies("DELETE", "")
    one = rule(match="x", operations=["chat"], methods=["POST"])
    assert one.applies("POST", "chat")
    assert not one.applies("POST", "embeddings")
    assert not one.applies("GET", "chat")
    assert not one.applies("POST", "")


def test_a_header_is_looked_at_by_its_name() -> None:
    named = rule(match="x", where=["headers", "prompt"], headers=["x-title"])
    assert named.covers("headers", "x-title")
    assert not named.covers("headers", "user-agent")
    assert named.covers("prompt", "")


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("/command", True),
        ("/command/0", True),
        ("/commander", False),
        ("/options/path", True),
        ("/options/path/deep", True),
        ("/options", False),
        ("", False),
        (ANY, True),
    ],
)
def test_an_argument_is_looked_at_with_what_is_in_it(name: str, covered: bool) -> None:
    named = rule(match="x", where=["tool_calls", "prompt"], arguments=["command", "/options/path"])
    assert named.covers("tool_calls", name) is covered
    assert named.covers("prompt", name)


def test_the_mode_of_a_file_holds_for_rules_that_have_none() -> None:
    silent, strict, mild = in_mode(
        [rule(match="x"), rule(match="x", mode="enforce"), rule(match="x", mode="audit")], "audit"
    )
    assert [each.enforced for each in (silent, strict, mild)] == [False, True, False]
    assert [each.only_in_audit for each in (silent, strict, mild)] == [True, False, True]
    assert in_mode([rule(match="x", mode="audit")], "enforce")[0].mode == "audit"
    assert not rule(match="x", mode="audit", action="log").only_in_audit
    assert not rule(match="x", mode="audit", status="experimental").only_in_audit
