"""Ways around the rules that are known: those that they see through, and those that they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling

GROUPS = yaml.safe_load((Path(__file__).parent / "bypass.yaml").read_text("utf-8"))
CASES = [
    pytest.param(
        group["where"],
        each["text"].replace("⏎", "\n"),
        group["rule"],
        each.get("missed", False),
        id=f"{group['rule']}-{each['technique']}",
    )
    for group in GROUPS
    for each in group["tries"]
]


@pytest.mark.parametrize(("where", "text", "rule", "missed"), CASES)
def test_a_way_around(
    find: Callable[[str, str], set[Rule]], where: str, text: str, rule: str, missed: bool
) -> None:
    """What is marked as missed is missed by every rule: else the mark would be wrong."""
    found = {each.id for each in find(where, text) if each.enforced}
    if missed:
        assert not found, "found after all: take the mark away"
    else:
        assert rule in found


def test_the_list_is_worth_its_name(commands: Ruling, approval: Ruling) -> None:
    assert len(CASES) >= 120
    ids = {rule.id for rule in (*commands.rules, *approval.rules)}
    assert {group["rule"] for group in GROUPS} <= ids
    for group in GROUPS:
        assert set(group) == {"rule", "where", "tries"}
        for each in group["tries"]:
            assert set(each) <= {"technique", "text", "missed"}
            assert each.get("missed") in (None, True)
