"""Rules on parameters and addresses, beside patterns; and rules that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mitmgate.core import ruling
from mitmgate.core.holds import ApprovalFile
from mitmgate.core.principal import Principal
from mitmgate.core.rules import Listed, RuleError, RuleFile, load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Asked
from mitmgate.core.wire.segment import Segment


class File(RuleFile):
    rules: Listed[Rule]


def rule(**more: Any) -> dict[str, Any]:
    tests = {"match": ['{"n": 9}'], "pass": ['{"n": 1}']}
    return {"id": "a-rule", "title": "A rule", "action": "deny", "tests": tests, **more}


def compiled(directory: Path, *rules: dict[str, Any]) -> ruling.Ruling:
    path = directory / "rules.yaml"
    path.write_text(json.dumps({"schema": 1, "rules": list(rules)}, indent=1))
    loaded = load(path, File)
    return ruling.compile(loaded, loaded.file.rules, ("rules",))


def problems(directory: Path, *rules: dict[str, Any]) -> str:
    with pytest.raises(RuleError) as caught:
        compiled(directory, *rules)
    return str(caught.value)


def asked(data: Any, *texts: Segment, operation: str = "chat") -> Asked:
    return Asked("POST", operation, texts, data)


BOUNDED = {"parameter": ["n", "/options/n"], "min": 1, "max": 4}


@pytest.mark.parametrize(
    ("data", "addresses"),
    [
        ('{"n": 4}', []),
        ('{"n": 1}', []),
        ('{"n": 1.0}', []),
        ('{"n": 5}', ["n"]),
        ('{"n": 4.0001}', ["n"]),
        ('{"n": 0}', ["n"]),
        ('{"n": -1}', ["n"]),
        ('{"n": 1e9}', ["n"]),
        ('{"n": 1e999}', ["n"]),
        ('{"n": -1e999}', ["n"]),
        ('{"n": "2"}', ["n"]),
        ('{"n": ""}', ["n"]),
        ('{"n": true}', ["n"]),
        ('{"n": false}', ["n"]),
        ('{"n": [2]}', ["n"]),
        ('{"n": {}}', ["n"]),
        ('{"n": null}', []),
        ("{}", []),
        ('{"N": 9}', ["n"]),
        ('{"n": 2, "N": 9}', ["n"]),
        ('{"options": {"n": 9}}', ["options/n"]),
        ('{"Options": {"n": 9}}', ["options/n"]),
        ('{"options": {"n": 2}}', []),
        ('{"options": [{"n": 9}]}', []),
        ('{"options": "n"}', []),
        ('{"other": {"n": 9}}', []),
    ],
)
def test_a_number_in_bounds(tmp_path: Path, data: str, addresses: list[str]) -> None:
    found = compiled(tmp_path, rule(**BOUNDED)).asked(asked(json.loads(data)), None)
    assert [finding.address for finding in found] == addresses
    assert all(finding.view == "parameter" for finding in found)


def test_a_letter_that_folds_to_another_is_read_like_it(tmp_path: Path) -> None:
    tests = {"match": ['{"tasks": 9}'], "pass": ["{}"]}
    rules = compiled(tmp_path, rule(parameter="tasks", max=1, tests=tests))
    assert rules.asked(asked({"ta\u017f\u212as": 9}), None)


@pytest.mark.parametrize(
    ("limit", "hit", "passed"),
    [
        ({"present": True}, '{"logit_bias": {}}', "{}"),
        ({"present": True}, '{"logit_bias": 0}', '{"logit_bias": null}'),
        ({"present": False}, "{}", '{"logit_bias": {}}'),
        ({"max_entries": 1}, '{"logit_bias": {"1": 1, "2": 1}}', '{"logit_bias": {"1": 9}}'),
        ({"max_entries": 1}, '{"logit_bias": [1, 2]}', '{"logit_bias": [1]}'),
        ({"max_entries": 1}, '{"logit_bias": "{}"}', '{"logit_bias": {}}'),
        ({"max_entries": 9}, '{"logit_bias": 3}', "{}"),
    ],
)
def test_presence_and_number_of_entries(
    tmp_path: Path, limit: dict[str, Any], hit: str, passed: str
) -> None:
    tests = {"match": [hit], "pass": [passed]}
    rules = compiled(tmp_path, rule(parameter="logit_bias", tests=tests, **limit))
    assert rules.asked(asked(json.loads(hit)), None)
    assert not rules.asked(asked(json.loads(passed)), None)


def test_what_the_finding_shows(tmp_path: Path) -> None:
    (found,) = compiled(tmp_path, rule(**BOUNDED)).asked(asked({"n": "9" * 300}), None)
    assert (found.start, found.end) == (0, 302)
    assert found.text == '"' + "9" * 199


def test_addresses(tmp_path: Path) -> None:
    tests = {"match": ["http://127.1/"], "pass": ["https://example.com/"]}
    inside = compiled(tmp_path, rule(network=["loopback", "private"], tests=tests))
    at = "messages[0].content[0].image_url.url"
    (found,) = inside.asked(asked({}, Segment("fetches", at, "http://10.1.1.1/x.png")), None)
    assert (found.address, found.view) == (at, "network")
    assert not inside.asked(asked({}, Segment("fetches", at, "http://169.254.1.1/")), None)
    assert not inside.asked(asked({}, Segment("prompt", at, "http://10.1.1.1/x.png")), None)


def test_exceptions_and_scope_hold_for_every_kind(tmp_path: Path) -> None:
    scope = {"unless": [{"groups": "ops"}], "operations": ["chat"]}
    address = {"match": ["http://127.1/"], "pass": ["https://example.com/"]}
    words = {"match": ["bad"], "pass": ["good"]}
    rules = compiled(
        tmp_path,
        rule(id="number", **BOUNDED, **scope),
        rule(id="address", network=["loopback"], tests=address, **scope),
        rule(id="word", match="bad", tests=words, **scope),
    )
    texts = [Segment("fetches", "a", "http://127.1/"), Segment("prompt", "b", "bad")]
    ops = Principal("idp", "a", groups=frozenset(["ops"]))
    found = rules.asked(asked({"n": 9}, *texts), Principal("idp", "a"))
    assert {finding.rule.id for finding in found} == {"number", "address", "word"}
    assert not rules.asked(asked({"n": 9}, *texts), ops)
    assert not rules.asked(asked({"n": 9}, *texts, operation="embeddings"), None)


def test_answers(tmp_path: Path) -> None:
    words = {"match": ["bad"], "pass": ["good"]}
    called = rule(match="bad", where=["answer.tool_calls"], operations=["chat"], tests=words)
    rules = compiled(tmp_path, called)
    assert rules.reads_answers
    call, said = (Segment(where, "a", "bad") for where in ("answer.tool_calls", "answer"))
    assert rules.answered([call], None, "POST", "chat")
    assert not rules.answered([said], None, "POST", "chat")
    assert not rules.answered([call], None, "POST", "completions")


def test_a_shell_rule_reads_a_command_that_is_spread_over_arguments(tmp_path: Path) -> None:
    tests = {
        "match": ["rm -rf /", '{"cmd":"rm","args":["-rf","/"]}', '{"args":["-rf","/"],"cmd":"rm"}'],
        "pass": ['{"cmd":"ls","args":["-rf","/"]}'],
    }
    compiled(tmp_path, rule(match=r"\brm -rf /", where=["tool_calls"], tests=tests))


def test_a_rule_on_one_argument(tmp_path: Path) -> None:
    tests = {
        "match": ['{"command": "rm -rf /"}', '{"command": ["rm", "-rf", "/"]}', "rm -rf /"],
        "pass": ['{"note": "rm -rf /"}', '{"commands": "rm -rf /"}'],
    }
    named = {"where": ["tool_calls"], "arguments": ["command"]}
    compiled(tmp_path, rule(match=r"\brm -rf /", tests=tests, **named))


@pytest.mark.parametrize(
    ("more", "line", "reason"),
    [
        ({**BOUNDED, "tests": {"match": ["{}"], "pass": ["{}"]}}, 1, "should match and does not"),
        ({**BOUNDED, "tests": {"match": ['{"n":9}'], "pass": ['{"n":9}']}}, 1, "should pass"),
        ({**BOUNDED, "tests": {"match": ["n: 9"], "pass": ["{}"]}}, 1, "is no request body"),
        ({**BOUNDED, "tests": {"match": ["[9]"], "pass": ["{}"]}}, 1, "is no JSON object"),
        ({**BOUNDED, "operations": ["chats"]}, 1, "no endpoint is 'chats'"),
        (
            {
                "match": "x",
                "where": ["headers"],
                "headers": ["authorization"],
                "tests": {"match": ["x"], "pass": ["y"]},
            },
            1,
            "authorization carries credentials",
        ),
    ],
)
def test_a_rule_that_cannot_be(
    tmp_path: Path, more: dict[str, Any], line: int, reason: str
) -> None:
    assert reason in problems(tmp_path, rule(**more))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        rule(id="one", **BOUNDED, operations=["chats"]),
        rule(id="two", match="(", tests={"match": ["x"], "pass": ["y"]}),
        rule(id="two", **BOUNDED),
    )
    assert "no endpoint" in found
    assert "not a regular expression" in found
    assert "this id is taken" in found


def test_a_parameter_can_be_held(tmp_path: Path) -> None:
    path = tmp_path / "approval.yaml"
    held = rule(action="hold", **BOUNDED)
    path.write_text(json.dumps({"schema": 1, "mode": "audit", "rules": [held]}))
    loaded = load(path, ApprovalFile)
    rules = ruling.compile(loaded, loaded.file.rules, ("rules",))
    (found,) = rules.asked(asked({"n": 9}), None)
    assert not found.rule.enforced
    assert found.rule.only_in_audit
