from __future__ import annotations

import posixpath
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.tokens.claims import principal_of, trust_domain
from mitmgate.core.tokens.errors import TokenError
from mitmgate.core.tokens.file import Issuer

NOW = 1_800_000_000
GOOD = {"aud": "models", "sub": "agent-7", "iat": NOW, "exp": NOW + 600}
ISSUER = Issuer.model_validate(
    {
        "id": "idp",
        "issuer": "https://idp.example.com",
        "audience": "models",
        "keys": {"jwks_file": "keys.json"},
        "algorithms": ["ES256"],
        "display": "{sub} {/act/sub}",
    }
)


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
        ({"groups": {}}, "claim_malformed"),
        ({"groups": 0}, "claim_malformed"),
        ({"groups": False}, "claim_malformed"),
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
        ("/groups", {"groups": ["a"]}, {"a"}),
        ("/realm_access/roles", {"realm_access": {"roles": ["a"]}}, {"a"}),
        ("/realm_access/roles", {"realm_access": {}}, set()),
        ("/realm_access/roles", {"realm_access": "x"}, set()),
        ("/realm_access/roles", {}, set()),
        ("realm_access/roles", {"realm_access": {"roles": ["a"]}}, set()),
        ("https://example.com/roles", {"https://example.com/roles": ["a"]}, {"a"}),
    ],
)
def test_groups(issuer_of, path, extra, groups):
    issuer = issuer_of(groups_claim=path)
    assert principal_of(claims(**extra), issuer, NOW).groups == groups


def test_a_groups_path_to_something_else(issuer_of):
    issuer = issuer_of(groups_claim="/realm_access/roles")
    with pytest.raises(TokenError, match="/realm_access/roles is"):
        principal_of(claims(realm_access={"roles": {"a": 1}}), issuer, NOW)


def test_another_subject_claim(issuer_of):
    issuer = issuer_of(subject_claim="client_id")
    assert principal_of(claims(client_id="job"), issuer, NOW).subject == "job"
    with pytest.raises(TokenError) as caught:
        principal_of(claims(), issuer, NOW)
    assert caught.value.code == "subject_missing"


def test_a_subject_by_path(issuer_of):
    issuer = issuer_of(subject_claim="/act/client~1id")
    assert principal_of(claims(act={"client/id": "job"}), issuer, NOW).name == "idp:job"
    for act in ({}, {"client/id": ""}, {"client": {"id": "job"}}, "job"):
        with pytest.raises(TokenError) as caught:
            principal_of(claims(act=act), issuer, NOW)
        assert caught.value.code == "subject_missing"
    with pytest.raises(TokenError) as caught:
        principal_of(claims(act={"client/id": ["job"]}), issuer, NOW)
    assert caught.value.code == "claim_malformed"


def test_sub_is_a_string_even_if_another_claim_is_the_subject(issuer_of):
    with pytest.raises(TokenError, match="sub is"):
        principal_of(claims(sub=["a"], client_id="job"), issuer_of(subject_claim="client_id"), NOW)


def test_long_values_are_cut_in_what_operators_read(issuer_of):
    with pytest.raises(TokenError) as caught:
        principal_of(claims(aud="x" * 9000), issuer_of(), NOW)
    assert len(caught.value.diagnostics()) < 300


def test_a_bound_token_is_looked_at_elsewhere(issuer_of):
    """Whether the bearer has the key is not for the claims to say: see possession."""
    principal = principal_of(claims(cnf={"jkt": "abc"}), issuer_of(), NOW)
    assert principal.bound == "none"
    assert principal.claims["cnf"] == {"jkt": "abc"}


def test_the_type_is_no_claim(issuer_of):
    """`typ` in identity.yaml is about the header, which `verify` looks at."""
    issuer = issuer_of(typ="at+jwt")
    assert principal_of(claims(typ="ID"), issuer, NOW).subject == "agent-7"


def test_display(issuer_of):
    issuer = issuer_of(display="{azp} for {/act/sub}")
    assert principal_of(claims(azp="web", act={"sub": "ann"}), issuer, NOW).display == "web for ann"
    assert principal_of(claims(azp="web"), issuer, NOW).display == ""
    assert principal_of(claims(azp="w\nb", act={"sub": "ann"}), issuer, NOW).display == ""
    assert principal_of(claims(azp="web"), issuer_of(), NOW).display == ""


def test_a_principal_keeps_its_own_claims(issuer_of):
    given = claims(azp="web")
    principal = principal_of(given, issuer_of(), NOW)
    given["azp"] = "other"
    assert principal.claims["azp"] == "web"


class TestSpiffe:
    """Issuers with a trust domain (SPIFFE-ID section 2)."""

    ODD = (
        "agent-7",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://prod.example/ns/",
        "spiffe://prod.example//ns",
        "spiffe://prod.example/ns//sa",
        "spiffe://prod.example/.",
        "spiffe://prod.example/..",
        "spiffe://prod.example/ns/../admin",
        "spiffe://prod.example/ns/./admin",
        "spiffe://prod.example/ns/..",
        "spiffe://prod.example/ns%2Fadmin",
        "spiffe://prod.example/%6es",
        "spiffe://prod.example/n\u0455",
        "spiffe://prod.example/ns admin",
        "spiffe://prod.example/ns?x=1",
        "spiffe://prod.example/ns#x",
        "spiffe://prod.example/ns:admin",
        "spiffe://prod.example/a*",
        "spiffe://prod.example:8443/ns",
        "spiffe://user@prod.example/ns",
        "spiffe://PROD.example/ns",
        "spiffe://prod%2eexample/ns",
        "spiffe:///ns",
        "spiffe:/prod.example/ns",
        "SPIFFE://prod.example/ns",
        "https://prod.example/ns",
        "spiffe://prod.example\\/ns",
    )
    FOREIGN = (
        "spiffe://other.example/ns",
        "spiffe://prod.example.evil/ns",
        "spiffe://xprod.example/ns",
        "spiffe://prod-example/ns",
        "spiffe://example/prod.example/ns",
    )

    @pytest.fixture
    def mesh(self, issuer_of):
        return issuer_of(id="mesh", issuer=None, trust_domain="prod.example")

    @pytest.mark.parametrize(
        "name", ["ns/search/sa/indexer", "a", "...", ".hidden", "a..b", "A/b_c-d.e"]
    )
    def test_an_id(self, mesh, name):
        subject = f"spiffe://prod.example/{name}"
        principal = principal_of(claims(sub=subject), mesh, NOW)
        assert principal.name == f"mesh:{subject}"
        assert principal.spiffe_id == subject

    @pytest.mark.parametrize("subject", [*ODD, *FOREIGN])
    def test_refused(self, mesh, subject):
        with pytest.raises(TokenError) as caught:
            principal_of(claims(sub=subject), mesh, NOW)
        assert caught.value.code == "spiffe_id_wrong"
        assert "mesh wants spiffe://prod.example/..." in caught.value.diagnostics()

    @pytest.mark.parametrize("subject", ODD)
    def test_what_is_no_id_has_no_trust_domain(self, subject):
        assert trust_domain(subject) is None

    @pytest.mark.parametrize("subject", FOREIGN)
    def test_any_id_has_one(self, subject):
        assert trust_domain(subject) not in (None, "prod.example")

    @pytest.mark.parametrize(
        ("subject", "code"),
        [
            (..., "subject_missing"),
            ("", "subject_missing"),
            (["spiffe://prod.example/a"], "claim_malformed"),
            ("spiffe://prod.example/a\n", "claim_malformed"),
            (" spiffe://prod.example/a", "claim_malformed"),
            ("spiffe://prod.example/" + "a" * 2048, "claim_malformed"),
        ],
    )
    def test_refused_like_any_subject(self, mesh, subject, code):
        with pytest.raises(TokenError) as caught:
            principal_of(claims(sub=subject), mesh, NOW)
        assert caught.value.code == code

    def test_the_longest(self, mesh):
        subject = "spiffe://prod.example/".ljust(2048, "a")  # SPIFFE-ID section 2.3
        assert principal_of(claims(sub=subject), mesh, NOW).subject == subject

    def test_without_a_trust_domain_it_is_a_subject_like_any_other(self, issuer_of):
        principal = principal_of(claims(sub="spiffe://prod.example/a"), issuer_of(), NOW)
        assert principal.subject == "spiffe://prod.example/a"
        assert principal.spiffe_id == ""

    def test_with_an_issuer_too(self, issuer_of):
        mesh = issuer_of(trust_domain="prod.example")
        assert principal_of(claims(sub="spiffe://prod.example/a"), mesh, NOW).spiffe_id
        with pytest.raises(TokenError, match="wants spiffe"):
            principal_of(claims(), mesh, NOW)

    @settings(max_examples=200, deadline=None)
    @given(st.text("spife:/.%prodxamlA*?#@ \\", max_size=40) | st.text(max_size=40))
    def test_one_spelling(self, text):
        for subject in (text, f"spiffe://prod.example{text}"):
            domain = trust_domain(subject)
            if domain is not None:
                path = subject.removeprefix(f"spiffe://{domain}/")
                assert domain == domain.lower()
                assert urlsplit(subject).path == f"/{path}"
                assert posixpath.normpath(f"/{path}") == f"/{path}"
                assert subject.isascii()
                assert not set(subject) & set("%?#@*\\ ")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["aud", "exp", "iat", "nbf", "sub", "jti", "scope", "scp", "groups", "cnf", "act"]
        ),
        anything,
    )
)
def test_whatever_a_token_holds_it_is_a_principal_or_a_token_error(changes):
    for more in ({}, {"trust_domain": "prod.example"}, {"subject_claim": "/act/sub"}):
        issuer = ISSUER.model_copy(update=more)
        for token in (changes, {**GOOD, **changes}):
            texts = []
            try:
                principal = principal_of(token, issuer, NOW)
            except TokenError as e:
                texts.append(e.diagnostics())
            else:
                texts += [principal.name, principal.display]
            assert all(text.isprintable() for text in texts)
