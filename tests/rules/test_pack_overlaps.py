"""The rules that ship, held against each other: none is idle, and few find the same."""

from __future__ import annotations

from mitmgate.core.ruling import Ruling
from mitmgate.core.ruling.overlap import overlaps
from mitmgate.core.ruling.reach import idle


def test_no_rule_is_idle(commands: Ruling, approval: Ruling) -> None:
    for rule in (*commands.rules, *approval.rules):
        assert not idle(rule), rule.id


def test_rules_overlap_only_where_they_say_that_they_do(commands: Ruling, approval: Ruling) -> None:
    found = overlaps([commands, approval])
    assert not [(each.rule.id, each.other.id) for each in found if each.shadowed]
    said = {
        (rule.id, other)
        for rule in (*commands.rules, *approval.rules)
        for other in rule.also_found_by
    }
    assert {(each.rule.id, each.other.id) for each in found} == said
