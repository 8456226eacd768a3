import pytest

from mitmgate.core.holds import ApprovalFile
from mitmgate.core.principal import Principal
from mitmgate.core.rules import RuleError, load

GOOD = """\
schema: 1
approvers: {who: {issuer: company-idp, groups: [model-approvers]}}
rules:
  - id: prod-database-drop
    title: Dropping a production database
    action: hold
    match: 'drop\\s+database'
    tests: {match: [drop database x], pass: [drop a line]}
"""


def read(tmp_path, text):
    path = tmp_path / "approval.yaml"
    path.write_text(text)
    return load(path, ApprovalFile).file


def test_defaults(tmp_path):
    file = read(tmp_path, GOOD)
    assert (file.quorum, file.ttl, file.hold) == (1, 900.0, 50.0)
    assert file.rules[0].action == "hold"
    assert file.approvers
    assert file.approvers.who.matches(
        Principal("company-idp", "ann", groups=frozenset(["model-approvers"]))
    )


def test_all_given(tmp_path):
    file = read(tmp_path, GOOD + "quorum: 2\nttl: 1h\nhold: 0s\n")
    assert (file.quorum, file.ttl, file.hold) == (2, 3600.0, 0.0)


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("action: hold", "action: deny"), 6, "rules[0].action: is 'deny'; the rules of this file"),
        (("schema: 1", "schema: 1\nquorum: 0"), 2, "quorum"),
        (("schema: 1", "schema: 1\nquorum: true"), 2, "quorum"),
        (("schema: 1", "schema: 1\nttl: 0s"), 2, "ttl"),
        (("schema: 1", "schema: 1\nttl: 15"), 2, "a duration is a number and a unit"),
        (("schema: 1", "schema: 1\nttl: 10s\nhold: 20s"), 3, "hold: is longer than ttl"),
        (("schema: 1", "schema: 1\nhold: -1s"), 2, "hold"),
        (("schema: 1", "schema: 1\nnotify: []"), 2, "notify: unknown key"),
        (("schema: 1", "schema: 2"), 1, "schema"),
        (("groups: [model-approvers]", "grups: [x]"), 2, "approvers.who.grups: unknown key"),
        (("issuer: company-idp, groups: [model-approvers]", ""), 2, "names nobody"),
        (("approvers:", "approver:"), 2, "approver: unknown key"),
    ],
)
def test_refused(tmp_path, change, line, message):
    with pytest.raises(RuleError) as caught:
        read(tmp_path, GOOD.replace(*change))
    assert any(
        p.line == line and message in f"{p.where}: {p.message}" for p in caught.value.problems
    )


def test_an_id_stands_once(tmp_path):
    with pytest.raises(RuleError, match="the id stands twice: prod-database-drop"):
        read(tmp_path, GOOD + GOOD.split("rules:\n")[1])
