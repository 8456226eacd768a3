"""The rules that ship, held against each other: none is idle, and few find the same."""

from __future__ import annotations

from mitmgate.core.ruling import Ruling
from mitmgate.core.ruling.overlap import overlaps
from mitmgate.core.ruling.reach import idle

# What one rule finds of another's samples, where both are wanted.
ACCEPTED = {
    ("cluster-resources-destroy", "infrastructure-destroy"),  # held where it is not denied
    ("cloud-account-destroy", "infrastructure-destroy"),
    ("infrastructure-destroy", "cloud-account-destroy"),
    ("code-decoded-run", "code-eval-input"),
    ("exfil-dns-tunnel", "exfil-file-post"),
    ("fetch-metadata-read", "fetch-inside-read"),  # other networks; an address may be in several
    ("fetch-scheme-other", "fetch-inside-read"),
    ("sql-injection-try", "sql-data-destroy"),
    ("weights-file-send", "package-publish"),
}


def test_no_rule_is_idle(commands: Ruling, approval: Ruling) -> None:
    for rule in (*commands.rules, *approval.rules):
        assert not idle(rule), rule.id


def test_rules_overlap_only_where_that_is_accepted(commands: Ruling, approval: Ruling) -> None:
    found = overlaps([commands, approval])
    assert not [(each.rule.id, each.other.id) for each in found if each.shadowed]
    assert {(each.rule.id, each.other.id) for each in found} <= ACCEPTED
