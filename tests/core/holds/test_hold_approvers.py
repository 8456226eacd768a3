from dataclasses import replace

import pytest

from mitmgate.core.holds import ApprovalFile, Hold, NotApprover, SelfApproval, may_decide
from mitmgate.core.holds.person import are_one, of_the_system, recognised
from mitmgate.core.principal import Principal


def rule(id, **more):
    return {
        "id": id,
        "title": id,
        "action": "hold",
        "match": "x",
        "tests": {"match": ["x"], "pass": ["y"]},
    } | more


def file(*rules, **more):
    return ApprovalFile.model_validate({"schema": 1, "rules": list(rules)} | more)


HOLD = Hold(
    id="h-222222", digest="d", principal="idp:agent-7", issuer="idp", subject="agent-7",
    operation="chat", model="m", rules=("r-one",), message="", excerpt="", exchange="x",
    created=0.0, expires=9.0, quorum=1, person=("agent-7", "dan@x.io"),
)  # fmt: skip
TOKEN = {"iss": "https://idp.example"}


def person(subject, issuer="idp", groups=(), **claims):
    claims = TOKEN | {"sub": subject} | claims
    return Principal(issuer, subject, groups=frozenset(groups), claims=claims)


ROOT = Principal("os", "root")
SECURITY = {"who": {"issuer": "idp", "groups": ["security"]}}
FINANCE = {"who": [{"issuer": "idp", "groups": ["finance"]}, {"issuer": "os", "subject": "alice"}]}
EVERYONE = {"who": {"subject": "*"}}


@pytest.mark.parametrize(
    ("rules", "of_file", "who", "allowed"),
    [
        ([rule("r-one")], None, ROOT, True),
        ([rule("r-one")], None, person("ann"), False),
        ([rule("r-one")], None, person("ann", issuer="os"), False),
        ([rule("r-one")], SECURITY, ROOT, False),
        ([rule("r-one")], SECURITY, person("ann", groups=["security"]), True),
        ([rule("r-one")], SECURITY, person("ann", groups=["finance"]), False),
        ([rule("r-one")], SECURITY, person("ann", issuer="x", groups=["security"]), False),
        ([rule("r-one")], EVERYONE, person("ann"), True),
        ([rule("r-one")], EVERYONE, ROOT, False),
        ([rule("r-one")], {"who": {"issuer": "*"}}, ROOT, True),
        ([rule("r-one", approvers=FINANCE)], SECURITY, person("a", groups=["finance"]), True),
        ([rule("r-one", approvers=FINANCE)], SECURITY, person("a", groups=["security"]), False),
        ([rule("r-one", approvers=FINANCE)], SECURITY, Principal("os", "alice"), True),
        ([rule("r-one", approvers=FINANCE)], SECURITY, ROOT, False),
        ([rule("r-one", approvers=FINANCE)], None, ROOT, False),
        ([rule("r-other", approvers=FINANCE)], None, ROOT, True),
        ([rule("r-other", approvers=FINANCE)], SECURITY, person("a", groups=["security"]), True),
        ([rule("r-other", approvers=FINANCE)], SECURITY, person("a", groups=["finance"]), False),
    ],
)
def test_who_may_decide(rules, of_file, who, allowed):
    rules_of = file(*rules, approvers=of_file)
    if allowed:
        may_decide(rules_of, HOLD, who)
    else:
        with pytest.raises(NotApprover) as caught:
            may_decide(rules_of, HOLD, who)
        assert caught.value.code == "hold_not_approver"
        assert HOLD.id in str(caught.value)


def test_of_several_rules_each_has_to_include_the_approver():
    rules = file(rule("r-one", approvers=FINANCE), rule("r-two"), approvers=SECURITY)
    both = replace(HOLD, rules=("r-one", "r-two"))
    may_decide(rules, both, person("ann", groups=["finance", "security"]))
    for groups in (["finance"], ["security"]):
        with pytest.raises(NotApprover):
            may_decide(rules, both, person("ann", groups=groups))


@pytest.mark.parametrize(
    ("who", "names"),
    [
        (person("agent-7"), ()),
        (person("agent-7", issuer="other"), ("sub",)),
        (Principal("os", "agent-7"), ("sub",)),
        (person("Agent-7", issuer="other"), ("sub",)),
        (person("dan", email="Dan@x.io"), ("sub", "email")),
        (person("dan", act={"sub": "agent-7"}), ("sub", "/act/sub")),
        (person("dan", emails=["d@y.io", "dan@x.io"]), ("emails",)),
        (replace(person("1234", preferred="agent-7"), subject="dan"), ("preferred",)),
        (replace(person("agent-7"), subject="dan"), ("sub",)),
    ],
)
def test_nobody_decides_about_their_own_request(who, names):
    rules = file(rule("r-one"), approvers={"who": {"issuer": "*"}}, same_person=list(names))
    with pytest.raises(SelfApproval):
        may_decide(rules, HOLD, who)


@pytest.mark.parametrize(
    ("who", "names"),
    [
        (person("agent-7", issuer="other"), ()),
        (person("dan", email="dan@x.io"), ("sub",)),
        (person("dan", email="", act={}), ("email", "/act/sub")),
        (person("dan", email=" "), ("sub", "email")),
    ],
)
def test_others_do(who, names):
    rules = file(rule("r-one"), approvers={"who": {"issuer": "*"}}, same_person=list(names))
    may_decide(rules, replace(HOLD, person=("agent-7", "dan@x.io", "")), who)


def test_a_person_is_recognised_by_every_word_once():
    who = person("ann", email="a@x.io", emails=["a@x.io", "", "b@x.io"], n=7)
    assert recognised(who, ["sub", "email", "emails", "n", "none"]) == (
        "ann", "a@x.io", "b@x.io", "7",
    )  # fmt: skip
    assert recognised(Principal("os", "ann")) == ("ann",)
    assert file(rule("r")).person(who) == ("ann",)
    assert not are_one((), ())
    assert are_one(["x", "STRASSE "], ["straße"])


def test_a_token_is_never_the_operating_systems():
    assert of_the_system(ROOT)
    assert not of_the_system(person("root", issuer="os"))
