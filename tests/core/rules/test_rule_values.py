"""The words that rule files are written in: durations, sizes, ids, paths, references, rules."""

import math
import os
from pathlib import Path
from typing import Any

import pydantic
import pytest

from mitmgate.core.rules import (
    Duration,
    FilePath,
    Id,
    Listed,
    Model,
    Reference,
    RuleError,
    RuleFile,
    Size,
    load,
)
from mitmgate.core.rules.model import relative_to
from mitmgate.core.rules.rule import REQUEST_TEXT, Rule


class Values(Model):
    ttl: Duration = 0
    size: Size = 0
    id: Id = "x"
    path: FilePath = Path()
    names: Listed[str] = ()
    value: Reference | None = None


class Secrets(RuleFile):
    value: Reference


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        ("15m", 900),
        ("1h", 3600),
        ("90d", 7776000),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert math.isclose(Values(ttl=text).ttl, seconds)


@pytest.mark.parametrize(
    "value", [5, 5.0, "5", "s", "-5s", "5 s", "5S", "1h30m", "", None, True, "5s\n", "1e3s", ["5s"]]
)
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="a duration is a number and a unit"):
        Values(ttl=value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("5", 5),
        ("64k", 65536),
        ("1M", 1 << 20),
        ("256m", 256 << 20),
        ("50g", 50 << 30),
        ("1t", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert Values(size=text).size == size


@pytest.mark.parametrize(
    "value", [5, 5.0, "k", "-5k", "5 k", "5kb", "1.5m", "", None, True, "5k\n"]
)
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="a size is a number and a unit"):
        Values(size=value)


@pytest.mark.parametrize("value", ["a", "a1", "a-b", "weights-export", "1-2-3"])
def test_ids(value: str) -> None:
    assert Values(id=value).id == value


@pytest.mark.parametrize(
    "value", ["", "A", "a_b", "-a", "a-", "a--b", "a b", "ä", "a\n", 5, None, ["a"]]
)
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="an id is kebab case"):
        Values(id=value)


def test_paths_are_relative_to_the_rule_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    with relative_to(Path("/etc/gate")):
        assert Values(path="keys.json").path == Path("/etc/gate/keys.json")
        assert Values(path="/run/key").path == Path("/run/key")
        assert Values(path="~/key").path == Path("/home/ann/key")
    assert Values(path="x").path == Path("x")


@pytest.mark.parametrize("value", ["", 5, None, ["x"], Path("x")])
def test_what_is_no_path(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="a path is a string"):
        Values(path=value)


@pytest.mark.parametrize("field", ["path", "value"])
def test_the_home_of_nobody_is_a_problem_and_no_crash(field: str) -> None:
    text = "~no-such-user-here/key"
    with pytest.raises(pydantic.ValidationError, match="is in no home directory"):
        Values(**{field: text if field == "path" else f"${{file:{text}}}"})


def test_models_are_frozen_and_strict() -> None:
    values = Values()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        values.id = "y"
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Values(other=1)
    with pytest.raises(pydantic.ValidationError, match="valid tuple"):
        Values(names="x")
    assert Values(names=["a", "b"]).names == ("a", "b")


# References.


def test_a_plain_string_is_its_own_value() -> None:
    assert Reference("plain $x {y} ${", Path()).resolve() == "plain $x {y} ${"


def test_a_reference_is_read_again_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE_TEST", "one")
    (tmp_path / "key").write_text("first\n")
    with relative_to(tmp_path):
        value = Values(value="Bearer ${file:key}-${env:GATE_TEST}!").value
    assert value
    assert value.resolve() == "Bearer first-one!"
    monkeypatch.setenv("GATE_TEST", "two")
    (tmp_path / "key").write_text("  second \n\n")
    assert value.resolve() == "Bearer second-two!"
    (tmp_path / "key").unlink()
    with pytest.raises(ValueError, match=r"cannot read the file .*/key: No such file"):
        value.resolve()
    monkeypatch.delenv("GATE_TEST")
    (tmp_path / "key").write_text("back")
    with pytest.raises(ValueError, match="the environment variable GATE_TEST is not set"):
        value.resolve()


def test_a_value_is_not_taken_for_a_reference_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_TEST", r"\1 ${env:HOME} \g<0>")
    assert Reference("${env:GATE_TEST}", Path()).resolve() == os.environ["GATE_TEST"]


def test_an_absolute_path_and_a_home_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("secret")
    assert Reference(f"${{file:{tmp_path}/key}}", Path("/nowhere")).resolve() == "secret"
    assert Reference("${file:~/key}", Path("/nowhere")).resolve() == "secret"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${env:GATE_TEST_MISSING}", "GATE_TEST_MISSING is not set"),
        ("${file:none}", "cannot read the file .*none: No such file"),
        ("${file:.}", "cannot read the file .*: Is a directory"),
        ("${file:latin}", "cannot read the file .*latin: UnicodeDecodeError"),
        ("${file:a\0b}", "null byte"),
        ("${vault:x}", r"a reference is \$\{env:NAME\} or \$\{file:PATH\}"),
        ("${env:}", "a reference is"),
        ("${HOME}", "a reference is"),
        ("${env:HOME", "a reference is"),
        ("${${env:HOME}}", "a reference is"),
        ("a ${ENV:HOME}", "a reference is"),
        (5, "should be a string"),
        (None, "should be a string"),
        (["x"], "should be a string"),
    ],
)
def test_what_is_referred_to_must_exist_when_rules_load(
    tmp_path: Path, value: Any, reason: str
) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")

    class Needs(Model):
        value: Reference

    with relative_to(tmp_path), pytest.raises(pydantic.ValidationError, match=reason):
        Needs(value=value)


def test_a_problem_names_the_line_and_not_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE_TEST", "hush-hush")
    path = tmp_path / "secrets.yaml"
    path.write_text("schema: 1\nvalue: 'hush-hush ${env:GATE_TEST} ${env:GATE_MISSING}'\n")
    with pytest.raises(RuleError) as caught:
        load(path, Secrets)
    assert str(caught.value) == (
        f"{path}:2: value: the environment variable GATE_MISSING is not set"
    )
    assert "hush" not in repr(caught.value)


def test_a_value_never_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_TEST", "hush-hush")
    (tmp_path / "key").write_text("hush-hush")
    with relative_to(tmp_path):
        for template in ("hush-${env:GATE_TEST}", "${file:key}hush", "hush-hush"):
            model = Values(value=template)
            for shown in (
                repr(model),
                str(model),
                repr(model.value),
                f"{model.value}",
                str(model.model_dump()),
            ):
                assert "hush" not in shown
    assert repr(Reference("Bearer ${env:A}${file:b}", Path())) == "Reference('${env:A} ${file:b}')"


# Rules.

RULE = {
    "id": "a-rule",
    "title": "A rule",
    "action": "deny",
    "match": "x",
    "tests": {"match": ["x"], "pass": ["y"]},
}


@pytest.mark.parametrize(
    ("more", "enforced"),
    [
        ({}, True),
        ({"action": "hold"}, True),
        ({"action": "log"}, False),
        ({"status": "experimental"}, False),
        ({"status": "deprecated"}, True),
        ({"status": "experimental", "action": "log"}, False),
        ({"mode": "enforce"}, True),
        ({"mode": "audit"}, False),
        ({"mode": "audit", "action": "hold"}, False),
    ],
)
def test_whether_a_rule_is_enforced(more: dict[str, str], enforced: bool) -> None:
    assert Rule.model_validate({**RULE, **more}).enforced is enforced


def test_a_rule_reads_all_text_of_a_request_unless_it_says_otherwise() -> None:
    rule = Rule.model_validate(RULE)
    assert rule.where == REQUEST_TEXT
    assert "answer" not in rule.where
    assert rule.tests.not_match == ("y",)
    assert Rule.model_validate({**RULE, "where": ["tools", "path"]}).where == {"tools", "path"}
    assert Rule.model_validate({**RULE, "unless": [{"groups": "ops"}]}).unless[0].groups == ("ops",)


@pytest.mark.parametrize(
    "more",
    [
        {"where": []},
        {"where": ["body"]},
        {"where": "prompt"},
        {"action": "block"},
        {"action": "mask"},
        {"severity": "huge"},
        {"status": "beta"},
        {"match": ""},
        {"match": "x" * 2001},
        {"title": ""},
        {"message": ""},
        {"id": "A rule"},
        {"unless": [{}]},
        {"unless": {"groups": ["x"]}},
        {"tests": {"match": [], "pass": ["y"]}},
        {"tests": {"match": ["x"], "pass": []}},
        {"tests": {"match": ["x"]}},
        {"tests": {"match": ["x"], "not_match": ["y"]}},
        {"keywords": "x"},
        {"regex": "x"},
    ],
)
def test_a_rule_that_says_something_else_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Rule.model_validate({**RULE, **more})


@pytest.mark.parametrize("name", ["id", "title", "action", "tests"])
def test_a_rule_says_at_least_this(name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="Field required"):
        Rule.model_validate({key: value for key, value in RULE.items() if key != name})
