from typing import Any

import pydantic
import pytest

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
        ({"scopes": ""}, False),
        ({"groups": "model-ops"}, True),
        ({"groups": ["nobody", "staff"]}, True),
        ({"groups": ["nobody"]}, False),
        ({"groups": "*"}, False),
        ({"groups": ""}, False),
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
        ({"issuer": 5}, "valid tuple"),
        ({"issuer": [5]}, "valid string"),
        ({"issuer": None}, "valid tuple"),
        ({"subject": {"a": 1}}, "valid tuple"),
        ({"user": "x"}, "Extra inputs"),
        ("agent-7", "valid dictionary"),
    ],
)
def test_what_describes_nobody_is_refused(who: Any, reason: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=reason):
        Who.model_validate(who)


def test_names_are_a_scalar_or_a_list() -> None:
    assert Who(issuer="a") == Who(issuer=["a"])
    assert Who.model_validate({"groups": ["a", "b"]}).groups == ("a", "b")
