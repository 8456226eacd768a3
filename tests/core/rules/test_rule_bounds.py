"""Rules that load and could mean nothing good, and what operators read about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mitmgate.core.rules import Listed, RuleError, RuleFile, load
from mitmgate.core.rules.rule import Rule


class File(RuleFile):
    """Rules."""

    rules: Listed[Rule]


def problems(path: Path, **more: Any) -> list[str]:
    rule = {"id": "one", "title": "One", "action": "deny", **more}
    rule["tests"] = {"match": ['{"n": 7}'], "pass": ["{}"]}
    path.write_text(yaml.safe_dump({"schema": 1, "rules": [rule]}))
    with pytest.raises(RuleError) as caught:
        load(path, File)
    return [f"{each.where}: {each.message}" for each in caught.value.problems]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"parameter": "n", "min": 9, "max": 5},
            "rules[0]: min is above max, so that every value would be out of bounds",
        ),
        (
            {"parameter": "n", "max_entries": -1},
            "rules[0].max_entries: Input should be greater than or equal to 0",
        ),
        ({"parameter": "n", "max": "5"}, "rules[0].max: should be a number, without quotes"),
        ({"parameter": "n", "max": True}, "rules[0].max: should be a number, without quotes"),
        (
            {"parameter": "n", "min": 1, "max": float("nan")},
            "rules[0].max: should be a number, without quotes",
        ),
        ({"match": "n", "where": "prompt"}, "rules[0].where: should be a list"),
    ],
)
def test_what_an_operator_reads(tmp_path: Path, more: Any, said: str) -> None:
    assert problems(tmp_path / "rules.yaml", **more) == [said]


def test_numbers_of_both_kinds_load(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    tests = {"match": ['{"n": 7}'], "pass": ["{}"]}
    rule = {"id": "one", "title": "One", "action": "deny", "parameter": "n", "tests": tests}
    path.write_text(yaml.safe_dump({"schema": 1, "rules": [{**rule, "min": 1, "max": 1.5}]}))
    assert load(path, File).file.rules[0].max == 1.5
