from __future__ import annotations

import pytest

from mitmgate.core.tokens.claims import principal_of
from mitmgate.core.tokens.errors import TokenError

NOW = 1_800_000_000
GOOD = {"aud": "models", "sub": "agent-7", "iat": NOW, "exp": NOW + 600}


def claims(**changes):
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": ...}, "audience_missing"),
        ({"aud": None}, "audience_missing"),
        ({"aud": []}, "audience_missing"),
        ({"aud": ""}, "audience_wrong"),
        ({"aud": "other"}, "audience_wrong"),
        ({"aud": "models "}, "audience_wrong"),
        ({"aud": "Models"}, "audience_wrong"),
        ({"aud": ["other", "account"]}, "audience_wrong"),
        ({"aud": ["models", 7]}, "claim_malformed"),
        ({"aud": 7}, "claim_malformed"),
        ({"aud": {"models": True}}, "claim_malformed"),
        ({"exp": ...}, "expiry_missing"),
        ({"exp": None}, "expiry_missing"),
        ({"exp": True}, "claim_malformed"),
        ({"exp": str(NOW + 600)}, "claim_malformed"),
        ({"exp": [NOW + 600]}, "claim_malformed"),
        ({"exp": float("inf")}, "claim_malformed"),
        ({"exp": float("nan")}, "claim_malformed"),
        ({"exp": 10**400}, "claim_malformed"),
        ({"exp": -1}, "claim_malformed"),
        ({"exp": 253402300799}, "lifetime_too_long"),
        ({"exp": NOW - 30}, "token_expired"),
        ({"exp": NOW - 3600, "iat": NOW - 7000}, "token_expired"),
        ({"exp": NOW + 3601}, "lifetime_too_long"),
        ({"exp": NOW + 10, "iat": NOW - 3591}, "lifetime_too_long"),
        ({"exp": NOW + 10, "iat": NOW + 10}, "claim_malformed"),
        ({"iat": ...}, "issued_at_missing"),
        ({"iat": False}, "claim_malformed"),
        ({"iat": "now"}, "claim_malformed"),
        ({"iat": NOW + 31}, "issued_in_future"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"nbf": True}, "claim_malformed"),
        ({"nbf": None}, "claim_malformed"),
        ({"sub": ...}, "subject_missing"),
        ({"sub": ""}, "subject_missing"),
        ({"sub": 7}, "claim_malformed"),
        ({"sub": "a\nb"}, "claim_malformed"),
        ({"sub": " agent-7"}, "claim_malformed"),
        ({"sub": "\u202eagent"}, "claim_malformed"),
        ({"sub": "a" * 513}, "claim_malformed"),
        ({"jti": 7}, "claim_malformed"),
        ({"scope": ["inference"]}, "claim_malformed"),
        ({"scp": 7}, "claim_malformed"),
        ({"scp": ["a", 1]}, "claim_malformed"),
        ({"groups": {"a": 1}}, "claim_malformed"),
        ({"groups": [["a"]]}, "claim_malformed"),
        ({"cnf": {"jkt": "abc"}}, "proof_required"),
    ],
)
def test_refused(issuer_of, changes, code):
    with pytest.raises(TokenError) as caught:
        principal_of(claims(**changes), issuer_of(), NOW)
    assert caught.value.code == code
    assert caught.value.diagnostics().startswith(f"{code}: ")
    assert "\n" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["account", "models"]},
        {"exp": NOW - 29, "iat": NOW - 100},
        {"exp": NOW + 3600},
        {"exp": NOW + 0.5},
        {"iat": NOW + 30},
        {"nbf": NOW + 30},
        {"nbf": 0},
    ],
)
def test_accepted_at_the_edges(issuer_of, changes):
    assert principal_of(claims(**changes), issuer_of(), NOW).subject == "agent-7"


def test_without_leeway_a_token_is_dead_at_its_expiry(issuer_of):
    issuer = issuer_of(leeway="0s")
    assert principal_of(claims(exp=NOW + 1), issuer, NOW + 0.9)
    with pytest.raises(TokenError, match="ago"):
        principal_of(claims(exp=NOW + 1), issuer, NOW + 1)


def test_any_of_several_audiences(issuer_of):
    issuer = issuer_of(audience=["models", "inference"])
    assert principal_of(claims(aud="inference"), issuer, NOW)


@pytest.mark.parametrize(
    ("extra", "scopes"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "a  b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
    ],
)
def test_scopes(issuer_of, extra, scopes):
    assert principal_of(claims(**extra), issuer_of(), NOW).scopes == scopes


@pytest.mark.parametrize(
    ("path", "extra", "groups"),
    [
        ("groups", {}, set()),
        ("groups", {"groups": []}, set()),
        ("groups", {"groups": ["a", "b"]}, {"a", "b"}),
        ("groups", {"groups": "a b"}, {"a b"}),
        ("roles", {"groups": ["a"], "roles": ["b"]}, {"b"}),
        (["realm_access", "roles"], {"realm_access": {"roles": ["a"]}}, {"a"}),
        (["realm_access", "roles"], {"realm_access": {}}, set()),
        (["realm_access", "roles"], {}, set()),
    ],
)
def test_groups(issuer_of, path, extra, groups):
    issuer = issuer_of(groups_claim=path)
    assert principal_of(claims(**extra), issuer, NOW).groups == groups


def test_a_groups_path_through_a_string(issuer_of):
    issuer = issuer_of(groups_claim=["realm_access", "roles"])
    with pytest.raises(TokenError, match=r"realm_access\.roles"):
        principal_of(claims(realm_access="x"), issuer, NOW)


def test_another_subject_claim(issuer_of):
    issuer = issuer_of(subject_claim="client_id")
    assert principal_of(claims(client_id="job"), issuer, NOW).subject == "job"
    with pytest.raises(TokenError) as caught:
        principal_of(claims(), issuer, NOW)
    assert caught.value.code == "subject_missing"


def test_sub_is_a_string_even_if_another_claim_is_the_subject(issuer_of):
    with pytest.raises(TokenError, match="sub is"):
        principal_of(claims(sub=["a"], client_id="job"), issuer_of(subject_claim="client_id"), NOW)


def test_long_values_are_cut_in_what_operators_read(issuer_of):
    with pytest.raises(TokenError) as caught:
        principal_of(claims(aud="x" * 9000), issuer_of(), NOW)
    assert len(caught.value.diagnostics()) < 300
