from datetime import date
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.principal import Principal, Who

ANN = Principal(
    issuer="company-idp",
    subject="agent-7",
    scopes=frozenset({"inference", "embed"}),
    groups=frozenset({"model-ops", "staff"}),
)


def test_a_principal_has_a_name_and_shows_no_claims() -> None:
    principal = Principal("idp", "ann", claims={"email": "ann@example.com"})
    assert principal.name == "idp:ann"
    assert "example.com" not in repr(principal)
    assert principal == Principal("idp", "ann", claims={})
    with pytest.raises(AttributeError):
        principal.subject = "bob"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("who", "matches"),
    [
        ({"issuer": "company-idp"}, True),
        ({"issuer": "other"}, False),
        ({"issuer": "company"}, False),
        ({"issuer": "Company-IdP"}, False),
        ({"issuer": ["other", "company-*"]}, True),
        ({"subject": "agent-*"}, True),
        ({"subject": "*"}, True),
        ({"subject": "agent-?"}, True),
        ({"subject": "agent-[0-9]"}, True),
        ({"subject": "agent-[!0-9]"}, False),
        ({"subject": "AGENT-7"}, False),
        ({"subject": "agent"}, False),
        ({"subject": "*agent"}, False),
        ({"subject": ["a", "b", "agent-7"]}, True),
        ({"subject": ["a", "b"]}, False),
        ({"scopes": "inference"}, True),
        ({"scopes": ["inference", "embed"]}, True),
        ({"scopes": ["inference", "admin"]}, False),
        ({"scopes": "infer*"}, False),
        ({"groups": "model-ops"}, True),
        ({"groups": ["nobody", "staff"]}, True),
        ({"groups": ["nobody"]}, False),
        ({"groups": "*"}, False),
        (
            {"issuer": "company-idp", "subject": "agent-*", "scopes": ["embed"], "groups": "staff"},
            True,
        ),
        ({"issuer": "other", "subject": "agent-*"}, False),
        ({"issuer": "company-idp", "subject": "bob"}, False),
        ({"issuer": "company-idp", "scopes": ["admin"]}, False),
        ({"issuer": "company-idp", "groups": ["admin"]}, False),
    ],
)
def test_every_key_that_is_there_must_hold(who: dict[str, Any], matches: bool) -> None:
    assert Who.model_validate(who).matches(ANN) is matches


@pytest.mark.parametrize(
    "who", [{"subject": "*"}, {"issuer": "*"}, {"groups": "x"}, {"scopes": "x"}]
)
def test_an_unknown_caller_is_nobody(who: dict[str, Any]) -> None:
    assert not Who.model_validate(who).matches(None)


@pytest.mark.parametrize("subject", ["agent-7\nroot", "agent-7 ", "\u0430gent-7"])
def test_a_glob_matches_the_whole_name(subject: str) -> None:
    assert not Who(subject="agent-7").matches(Principal("company-idp", subject))


def test_a_caller_without_scopes_or_groups_holds_none() -> None:
    bare = Principal("company-idp", "agent-7")
    assert Who(issuer="company-idp").matches(bare)
    assert not Who(scopes="inference").matches(bare)
    assert not Who(groups="staff").matches(bare)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ({}, "names nobody"),
        ({"groups": []}, "an empty list would be everyone"),
        ({"issuer": "x", "subject": []}, "an empty list would be everyone"),
        ({"scopes": ""}, "at least 1 character"),
        ({"groups": [""]}, "at least 1 character"),
        ({"issuer": 5}, "valid tuple"),
        ({"issuer": [5]}, "valid string"),
        ({"issuer": None}, "valid tuple"),
        ({"subject": {"a": 1}}, "valid tuple"),
        ({"user": "x"}, "Extra inputs"),
        ("agent-7", "valid dictionary"),
        ({"claims": {}}, "an empty mapping would be everyone"),
        ({"issuer": "x", "claims": {}}, "an empty mapping would be everyone"),
        ({"claims": {"ref": []}}, "an empty list would be everyone"),
        ({"claims": {"ref": None}}, "a word, a number, true or false"),
        ({"claims": {"ref": [None]}}, "a word, a number, true or false"),
        ({"claims": {"ref": {"a": "b"}}}, "a word, a number, true or false"),
        ({"claims": {"ref": [["a"]]}}, "a word, a number, true or false"),
        ({"claims": {"day": date(2026, 11, 24)}}, "a word, a number, true or false"),
        ({"claims": {"": "x"}}, "or a path such as"),
        ({"claims": {"/a~b": "x"}}, "~ is written ~0"),
        ({"claims": ["ref"]}, "valid dictionary"),
    ],
)
def test_what_describes_nobody_is_refused(who: Any, reason: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=reason):
        Who.model_validate(who)


def test_names_are_a_scalar_or_a_list() -> None:
    assert Who(issuer="a") == Who(issuer=["a"])
    assert Who.model_validate({"groups": ["a", "b"]}).groups == ("a", "b")


# SPIFFE IDs


def workload(spiffe_id: str) -> Principal:
    return Principal("mesh", spiffe_id, spiffe_id=spiffe_id)


@pytest.mark.parametrize(
    ("glob", "spiffe_id", "matches"),
    [
        (
            "spiffe://prod.example/ns/search/sa/*",
            "spiffe://prod.example/ns/search/sa/indexer",
            True,
        ),
        ("spiffe://prod.example/ns/*/sa/api", "spiffe://prod.example/ns/search/sa/api", True),
        ("spiffe://prod.example/ns/search-?", "spiffe://prod.example/ns/search-1", True),
        ("spiffe://prod.example/ns/[st]*", "spiffe://prod.example/ns/search", True),
        ("spiffe://prod.example/agents/**", "spiffe://prod.example/agents/a", True),
        ("spiffe://prod.example/agents/**", "spiffe://prod.example/agents/a/b/c", True),
        ("spiffe://prod.example/**", "spiffe://prod.example/a", True),
        ("spiffe://prod.example/*/**", "spiffe://prod.example/a/b", True),
        ("spiffe://*/api", "spiffe://prod.example/api", True),
        # `*` reaches over no slash, in either direction
        ("spiffe://prod.example/ns/search/sa/*", "spiffe://prod.example/ns/search/sa/a/b", False),
        ("spiffe://prod.example/ns/search/sa/*", "spiffe://prod.example/ns/search/sa", False),
        ("spiffe://prod.example/ns/*/sa/api", "spiffe://prod.example/ns/x/y/sa/api", False),
        ("spiffe://prod.example/*", "spiffe://prod.example/ns/search", False),
        ("spiffe://*/api", "spiffe://evil.example/x/api", False),
        ("spiffe://prod.example/a?b", "spiffe://prod.example/a/b", False),
        ("spiffe://prod.example/a[!x]b", "spiffe://prod.example/a/b", False),
        ("spiffe://prod.example/agents/**", "spiffe://prod.example/agents", False),
        ("spiffe://prod.example/agents/**", "spiffe://prod.example/agents-2/a", False),
        ("spiffe://prod.example/*/**", "spiffe://prod.example/a", False),
        ("spiffe://prod.example/**", "spiffe://prod.example.evil/a", False),
        ("spiffe://prod.example/api", "spiffe://prod.example/API", False),
        ("spiffe://prod.example/api", "spiffe://PROD.example/api", False),
        ("spiffe://prod.example/api", "spiffe://prod.example/api\n", False),
    ],
)
def test_spiffe_globs_go_step_by_step(glob: str, spiffe_id: str, matches: bool) -> None:
    who = Who(spiffe=glob)
    assert who.matches(workload(spiffe_id)) is matches
    assert who.unmet(workload(spiffe_id)) == ("" if matches else "spiffe")
    assert Who(spiffe=["spiffe://other.example/x", glob]).matches(workload(spiffe_id)) is matches


def test_only_an_issuer_with_a_trust_domain_makes_spiffe_ids() -> None:
    name = "spiffe://prod.example/ns/search/sa/indexer"
    pretender = Principal("idp", name, claims={"sub": name})
    assert Who(subject=name).matches(pretender)
    assert not Who(spiffe=name).matches(pretender)
    assert not Who(spiffe="spiffe://*/**").matches(pretender)


@pytest.mark.parametrize(
    "glob",
    [
        "*",
        "**",
        "prod.example/ns/search",
        "https://prod.example/ns/search",
        "spiffe:/prod.example/ns",
        "SPIFFE://prod.example/ns",
        "spiffe://",
        "spiffe:///ns",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://**",
        "spiffe://**/ns",
        "spiffe://prod.example/**/sa",
        "spiffe://prod.example/a**",
        "spiffe://prod.example/***",
        "spiffe://prod.example/**/**",
        "spiffe://prod.example/ns//sa",
        "spiffe://prod.example/ns/",
        "spiffe://prod.example/ns/../sa",
        "spiffe://prod.example/./sa",
    ],
)
def test_a_spiffe_glob_that_could_match_nobody_is_refused(glob: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"should be like spiffe://prod\.example"):
        Who(spiffe=glob)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "*", "?", "a*", "[ab]"]), min_size=1, max_size=4),
    st.lists(st.text("ab.-_", min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_a_spiffe_glob_has_as_many_steps_as_what_it_matches(
    globs: list[str], steps: list[str]
) -> None:
    who = Who(spiffe="/".join(("spiffe://prod.example", *globs)))
    if who.matches(workload("/".join(("spiffe://prod.example", *steps)))):
        assert len(globs) == len(steps)


# Claims

JOB = Principal(
    "github",
    "repo:acme/evals",
    claims={
        "ref": "refs/heads/main",
        "repository_id": "7001",
        "run": 12,
        "verified": True,
        "roles": ["Models.Invoke", "Reader"],
        "ratio": 1.5,
        "empty": "",
        "none": None,
        "kubernetes.io": {"namespace": "search", "pod": {"name": "indexer-0"}},
    },
)


@pytest.mark.parametrize(
    ("claims", "unmet"),
    [
        ({"ref": "refs/heads/main"}, ""),
        ({"ref": ["refs/heads/next", "refs/heads/main"]}, ""),
        ({"ref": "refs/heads/*"}, ""),
        ({"ref": "refs/heads/main", "repository_id": "7001"}, ""),
        ({"repository_id": 7001}, ""),
        ({"run": 12}, ""),
        ({"run": "12"}, ""),
        ({"verified": True}, ""),
        ({"verified": "true"}, ""),
        ({"ratio": 1.5}, ""),
        ({"roles": "Models.Invoke"}, ""),
        ({"roles": ["Nobody", "Reader"]}, ""),
        ({"empty": ""}, ""),
        ({"empty": "*"}, ""),
        ({"/kubernetes.io/namespace": "search", "/kubernetes.io/pod/name": "indexer-*"}, ""),
        ({"ref": "refs/heads/mai"}, "claims.ref"),
        ({"ref": "main"}, "claims.ref"),
        ({"ref": "REFS/heads/main"}, "claims.ref"),
        ({"ref": "refs/heads/main", "repository_id": "7002"}, "claims.repository_id"),
        ({"verified": False}, "claims.verified"),
        ({"verified": 1}, "claims.verified"),
        ({"verified": "True"}, "claims.verified"),
        ({"roles": "Models.*.x"}, "claims.roles"),
        ({"missing": "*"}, "claims.missing"),
        ({"none": "*"}, "claims.none"),
        ({"none": ""}, "claims.none"),
        ({"kubernetes.io": "*"}, "claims.kubernetes.io"),
        ({"/kubernetes.io/pod": "*"}, "claims./kubernetes.io/pod"),
        ({"/kubernetes.io/pod/uid": "*"}, "claims./kubernetes.io/pod/uid"),
        ({"kubernetes.io/namespace": "search"}, "claims.kubernetes.io/namespace"),
    ],
)
def test_each_claim_must_have_one_of_its_values(claims: dict[str, Any], unmet: str) -> None:
    who = Who.model_validate({"issuer": "github", "claims": claims})
    assert who.unmet(JOB) == unmet
    assert who.matches(JOB) is (unmet == "")


def test_the_first_key_that_does_not_hold_is_named() -> None:
    everything: dict[str, Any] = {
        "issuer": "github",
        "subject": "repo:*",
        "spiffe": "spiffe://prod.example/x",
        "scopes": "inference",
        "groups": "staff",
        "claims": {"ref": "main"},
    }
    for unmet in ("spiffe", "scopes", "groups", "claims.ref", ""):
        assert Who.model_validate(everything).unmet(JOB) == unmet
        everything.pop(unmet.partition(".")[0], None)
