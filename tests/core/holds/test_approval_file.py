import re

import pytest

from mitmgate.core import holds
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
    assert (file.keep, file.same_person) == (90 * 86400.0, ("sub",))
    limits = file.limits
    assert (limits.per_caller, limits.in_all, limits.prompt) == (20, 500, 65536)
    assert (file.notify, file.console.url, file.console.assertion_header) == ((), None, None)
    assert file.approvers
    assert file.approvers.profile is None
    assert file.approvers.include(ANN)
    assert not file.approvers.include(Principal("company-idp", "bob"))


def test_all_given(tmp_path):
    file = read(tmp_path, GOOD + ALL)
    assert (file.quorum, file.ttl, file.hold, file.keep) == (2, 3600.0, 0.0, 86400.0)
    assert file.same_person == ("sub", "email", "/act/sub")
    assert (file.limits.per_caller, file.limits.in_all, file.limits.prompt) == (1, 2, 2048)
    assert file.console.url == "https://approvals.example.com:8443"
    assert file.console.assertion_header == "x-goog-iap-jwt-assertion"
    assert [notice.format for notice in file.notify] == ["json"]


def test_approvers_are_one_description_or_several(tmp_path):
    several = "[{issuer: os, subject: alice}, {issuer: company-idp, groups: [model-approvers]}]"
    one = "{issuer: company-idp, groups: [model-approvers]}"
    approvers = read(tmp_path, GOOD.replace(one, f"{several}, profile: strict")).approvers
    assert approvers.include(ANN)
    assert approvers.include(Principal("os", "alice"))
    assert not approvers.include(Principal("os", "bob"))
    assert approvers.profile == "strict"


def test_a_rule_has_its_own_terms_or_the_files(tmp_path):
    own = "{approvers: {who: {issuer: os}}, quorum: 3, ttl: 1m, hold: 10s}"
    file = read(tmp_path, two_rules(own[1:-1]))
    of_file = holds.Terms((file.approvers,), 2, 900.0, 50.0)
    assert file.terms(["plain"]) == file.terms(["gone"]) == file.terms([]) == of_file
    own_approvers = file.rules[1].approvers
    assert file.terms(["special"]) == holds.Terms((own_approvers,), 3, 60.0, 10.0)


def test_of_several_rules_the_strictest_terms_hold(tmp_path):
    file = read(tmp_path, two_rules("approvers: {who: {issuer: os}}, quorum: 1, ttl: 1h, hold: 5s"))
    assert file.terms(["special"]) == holds.Terms((file.rules[1].approvers,), 1, 3600.0, 5.0)
    together = holds.Terms((file.approvers, file.rules[1].approvers), 2, 900.0, 5.0)
    assert file.terms(["plain", "special"]) == file.terms(["special", "plain"]) == together
    approvers = set(map(id, file.terms(["special", "gone"]).approvers))
    assert approvers == set(map(id, together.approvers))
    assert file.terms(["special", "gone"]).quorum == 2


def test_the_same_approvers_count_once_and_none_are_nobody(tmp_path):
    same = "approvers: {who: {issuer: company-idp, groups: [model-approvers]}}"
    file = read(tmp_path, two_rules(same))
    assert file.terms(["plain", "special"]).approvers == (file.approvers,)
    nobody = read(tmp_path, two_rules("quorum: 1").replace(f"{same}\n", ""))
    assert nobody.terms(["plain", "special"]).approvers == ()


ANN = Principal("company-idp", "ann", groups=frozenset(["model-approvers"]))
ALL = """\
quorum: 2
ttl: 1h
hold: 0s
keep: 1d
same_person: [sub, email, /act/sub]
limits: {per_caller: 1, in_all: 2, prompt: 2k}
console: {url: 'https://approvals.example.com:8443', assertion_header: x-goog-iap-jwt-assertion}
notify: [{webhook: 'https://chat.example.com/hook'}]
"""


def two_rules(own: str) -> str:
    """A file with a rule `plain`, and a rule `special` that has terms of its own."""
    head, body = GOOD.split("rules:\n")
    plain, special = (body.replace("prod-database-drop", id) for id in ("plain", "special"))
    lines = "".join(f"    {line}\n" for line in re.split(r", (?=\w+: )(?![^{]*\})", own))
    return f"{head}quorum: 2\nrules:\n{plain}{special}{lines}"


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
        (("schema: 1", "schema: 1\nkeep: 0s"), 2, "keep"),
        (("schema: 1", "schema: 1\nsame_person: ['']"), 2, "same_person[0]: should be a claim"),
        (("schema: 1", "schema: 1\nlimits: {per_caller: 0}"), 2, "limits.per_caller"),
        (("schema: 1", "schema: 1\nlimits: {in_all: 1.5}"), 2, "limits.in_all"),
        (("schema: 1", "schema: 1\nlimits: {prompt: 1000}"), 2, "limits.prompt: a size is"),
        (("schema: 1", "schema: 1\nlimits: {prompt: '1000'}"), 2, "limits.prompt"),
        (("schema: 1", "schema: 1\nlimits: {prompt: 2m}"), 2, "limits.prompt"),
        (("schema: 1", "schema: 1\nnotify: [{}]"), 2, "notify[0].webhook: is missing"),
        (("schema: 1", "schema: 1\nconsole: {adress: x}"), 2, "console.adress: unknown key"),
        (
            ("schema: 1", "schema: 1\nconsole: {assertion_header: X-Jwt}"),
            2,
            "console.assertion_header: a header's name",
        ),
        (("schema: 1", "schema: 2"), 1, "schema"),
        (("groups: [model-approvers]", "grups: [x]"), 2, "approvers.who.grups: unknown key"),
        (("issuer: company-idp, groups: [model-approvers]", ""), 2, "names nobody"),
        (("who: {issuer: company-idp, groups: [model-approvers]}", "who: []"), 2, "approvers.who"),
        (("who: {issuer: company-idp, groups: [model-approvers]}", "who: x"), 2, "a mapping of"),
        (("who: {issuer: company-idp, groups: [model-approvers]}", "who: [{x: 1}]"), 2, "who[0].x"),
        (("model-approvers]}}", "model-approvers]}, profile: A b}"), 2, "approvers.profile"),
        (("approvers:", "approver:"), 2, "approver: unknown key"),
        (("tests:", "quorum: 0\n    tests:"), 8, "rules[0].quorum"),
        (("tests:", "ttl: 0s\n    tests:"), 8, "rules[0].ttl"),
        (("tests:", "approvers: {who: {}}\n    tests:"), 8, "rules[0].approvers.who: names nobody"),
        (("tests:", "ttl: 40s\n    tests:"), 3, "rules: prod-database-drop: its hold is longer"),
        (("tests:", "hold: 16m\n    tests:"), 3, "rules: prod-database-drop: its hold is longer"),
    ],
)
def test_refused(tmp_path, change, line, message):
    with pytest.raises(RuleError) as caught:
        read(tmp_path, GOOD.replace(*change))
    assert any(
        p.line == line and message in f"{p.where}: {p.message}" for p in caught.value.problems
    )


@pytest.mark.parametrize(
    "url",
    [
        "approvals.example.com",
        "ftp://approvals.example.com",
        "https://",
        "https://approvals.example.com/",
        "https://approvals.example.com/path",
        "https://approvals.example.com?q",
        "https://ann@approvals.example.com",
        "https://approvals.example.com:0",
        "https://approvals.example.com:port",
        "https://[::1",
        "HTTPS://approvals.example.com",
    ],
)
def test_the_consoles_address_is_an_origin(tmp_path, url):
    with pytest.raises(RuleError, match=r"should be like https://approvals\.example\.com"):
        read(tmp_path, f"{GOOD}console: {{url: '{url}'}}\n")


def test_an_id_stands_once(tmp_path):
    with pytest.raises(RuleError, match="the id stands twice: prod-database-drop"):
        read(tmp_path, GOOD + GOOD.split("rules:\n")[1])


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("where: [answer]", "only requests are held"),
        ("where: [answer.tool_calls]", "only requests are held"),
        ("where: [headers]\n    headers: [x-title]", "bound to path and body"),
    ],
)
def test_a_hold_is_about_what_an_approval_is_bound_to(tmp_path, where, reason):
    with pytest.raises(RuleError, match=reason):
        read(tmp_path, GOOD.replace("action: hold", f"action: hold\n    {where}"))


def test_the_mode_of_the_file_is_that_of_its_rules(tmp_path):
    assert read(tmp_path, GOOD).rules[0].enforced
    assert not read(tmp_path, f"mode: audit\n{GOOD}").rules[0].enforced
    strict = GOOD.replace("action: hold", "action: hold\n    mode: enforce")
    assert read(tmp_path, f"mode: audit\n{strict}").rules[0].enforced
