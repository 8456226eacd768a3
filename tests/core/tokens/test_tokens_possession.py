from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from jwt import PyJWS

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import TokenError
from mitmgate.core.tokens.file import DPoP
from mitmgate.core.tokens.possession import Possession
from mitmgate.core.tokens.presented import Presented

NOW = 1_800_000_000
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
CERTIFICATE = b"0\x82\x01\x0aDER"
OMIT = object()


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def caller(cnf: object = OMIT) -> Principal:
    return Principal("idp", "agent-7", claims={} if cnf is OMIT else {"cnf": cnf})


def refusal(possession: Possession, cnf: object, presented: Presented) -> TokenError:
    with pytest.raises(TokenError) as caught:
        possession.prove(caller(cnf), presented)
    for secret in (presented.token, *presented.proofs):
        assert secret not in caught.value.diagnostics()
    return caught.value


@pytest.fixture
def rules() -> DPoP:
    return DPoP.model_validate({"url": ["https://models.example.com"]})


@pytest.fixture
def possession(rules, wall) -> Possession:
    return Possession(rules, clock=wall)


@pytest.fixture
def jwk(es256) -> dict[str, Any]:
    return {name: es256.jwk()[name] for name in ("crv", "kty", "x", "y")}


@pytest.fixture
def jkt(jwk) -> str:
    return digest(json.dumps(jwk, separators=(",", ":")).encode())


@pytest.fixture
def proof(es256, jwk) -> str:
    claims = {
        "jti": "p-1",
        "htm": "POST",
        "htu": "https://models.example.com/v1/messages",
        "iat": NOW,
        "ath": digest(TOKEN.encode()),
    }
    header = {"typ": "dpop+jwt", "jwk": jwk}
    return PyJWS().encode(json.dumps(claims).encode(), es256.private, "ES256", header)


def with_proof(proof: str, scheme: str = "DPoP", certificate: bytes = b"") -> Presented:
    return Presented(TOKEN, scheme, (proof,), "POST", "/v1/messages", certificate)


class TestUnbound:
    @pytest.mark.parametrize("cnf", [OMIT, None])
    def test_bearer(self, possession, cnf):
        presented = Presented(TOKEN, certificate=CERTIFICATE)
        assert possession.prove(caller(cnf), presented) == "none"

    @pytest.mark.parametrize("cnf", [OMIT, None])
    def test_the_scheme_dpop_promises_too_much(self, possession, cnf, proof):
        error = refusal(possession, cnf, with_proof(proof))
        assert (error.code, error.status) == ("proof_required", 401)
        assert error.detail == "the scheme is DPoP, but the token is bound to no key"


class TestConfirmationsThatCannotBeChecked:
    @pytest.mark.parametrize(
        ("cnf", "detail"),
        [
            ("x", "cnf is 'x', not an object"),
            ([], "cnf is [], not an object"),
            (False, "cnf is False, not an object"),
            (0, "cnf is 0, not an object"),
            ({}, "cnf has []; x5t#S256 and jkt can be checked"),
            ({"jwk": {}, "jwe": "", "kid": "k", "jku": "https://x"}, "cnf has ['jku', 'jwe', "),
            ({"JKT": digest(b"x"), "x5t": digest(b"x")}, "cnf has ['JKT', 'x5t']"),
            ({"x5t#S256": None}, "in cnf, the x5t#S256 is not base64url: None"),
            ({"x5t#S256": [digest(CERTIFICATE)]}, "is not base64url"),
            ({"x5t#S256": ""}, "is not base64url: ''"),
            ({"x5t#S256": digest(CERTIFICATE) + "="}, "is not base64url"),
            ({"x5t#S256": hashlib.sha256(CERTIFICATE).hexdigest()}, "which is no SHA-256"),
            ({"x5t#S256": "AAAA"}, "x5t#S256 is 'AAAA', which is no SHA-256"),
            ({"x5t#S256": "A" * 42 + "B"}, "is not canonical base64url"),
            ({"jkt": None}, "in cnf, the jkt is not base64url: None"),
            ({"jkt": "AAAA"}, "jkt is 'AAAA', which is no SHA-256"),
        ],
    )
    @pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
    def test_refused(self, possession, proof, cnf, detail, scheme):
        error = refusal(possession, cnf, with_proof(proof, scheme, CERTIFICATE))
        assert error.code == "proof_required"
        if scheme == "Bearer" or "in cnf" in error.detail:
            assert detail in error.detail


class TestCertificate:
    def test_the_one_it_is_bound_to(self, possession):
        presented = Presented(TOKEN, certificate=CERTIFICATE)
        cnf = {"x5t#S256": digest(CERTIFICATE), "kid": "k"}
        assert possession.prove(caller(cnf), presented) == "mtls"
        assert Possession(None).prove(caller(cnf), presented) == "mtls"

    def test_none(self, possession):
        error = refusal(possession, {"x5t#S256": digest(CERTIFICATE)}, Presented(TOKEN))
        assert error.code == "proof_required"
        assert "the connection has none" in error.detail

    def test_another(self, possession):
        presented = Presented(TOKEN, certificate=b"another")
        error = refusal(possession, {"x5t#S256": digest(CERTIFICATE)}, presented)
        assert error.code == "certificate_wrong"
        assert hashlib.sha256(b"another").hexdigest() in error.detail
        assert hashlib.sha256(CERTIFICATE).hexdigest() in error.detail

    def test_the_scheme_dpop_promises_too_much(self, possession, proof):
        presented = with_proof(proof, certificate=CERTIFICATE)
        error = refusal(possession, {"x5t#S256": digest(CERTIFICATE)}, presented)
        assert error.code == "proof_required"
        assert "cnf has no jkt" in error.detail


class TestKey:
    def test_with_a_proof(self, possession, jkt, proof):
        assert possession.prove(caller({"jkt": jkt}), with_proof(proof)) == "dpop"

    def test_each_request_needs_its_own(self, possession, jkt, proof):
        possession.prove(caller({"jkt": jkt}), with_proof(proof))
        assert refusal(possession, {"jkt": jkt}, with_proof(proof)).code == "proof_replayed"

    def test_sent_as_a_bearer_token(self, possession, jkt, proof):
        error = refusal(possession, {"jkt": jkt}, with_proof(proof, "Bearer"))
        assert error.code == "proof_required"
        assert "the scheme is Bearer, not DPoP" in error.detail

    def test_a_certificate_does_not_make_up_for_it(self, possession, jkt):
        presented = Presented(TOKEN, certificate=CERTIFICATE)
        assert refusal(possession, {"jkt": jkt}, presented).code == "proof_required"

    @pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
    def test_without_rules(self, jkt, proof, scheme):
        error = refusal(Possession(None), {"jkt": jkt}, with_proof(proof, scheme))
        assert error.code == "proof_required"
        assert "identity.yaml has no dpop" in error.detail


class TestBoth:
    def test_both_hold(self, possession, jkt, proof):
        cnf = {"x5t#S256": digest(CERTIFICATE), "jkt": jkt}
        assert possession.prove(caller(cnf), with_proof(proof, certificate=CERTIFICATE)) == "dpop"

    def test_the_wrong_certificate_costs_no_proof(self, possession, jkt, proof):
        cnf = {"x5t#S256": digest(CERTIFICATE), "jkt": jkt}
        error = refusal(possession, cnf, with_proof(proof, certificate=b"another"))
        assert error.code == "certificate_wrong"
        assert possession.prove(caller(cnf), with_proof(proof, certificate=CERTIFICATE)) == "dpop"

    def test_no_proof(self, possession, jkt):
        cnf = {"x5t#S256": digest(CERTIFICATE), "jkt": jkt}
        presented = Presented(TOKEN, "DPoP", certificate=CERTIFICATE)
        assert refusal(possession, cnf, presented).code == "proof_required"
