"""The front door under attack: one row for each technique; 401 and nothing reaches the model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from harness import Gate, StandIn, Tokens

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
type Headers = list[tuple[str, str]]


def b64(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(tokens: Tokens, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": tokens.issuer,
        "aud": tokens.audience,
        "sub": "agent-7",
        "scope": "inference",
        "iat": now,
        "exp": now + 600,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def none(tokens: Tokens) -> str:
    return f"{b64({'alg': 'none', 'typ': 'JWT'})}.{b64(claims(tokens))}."


def none_with_a_signature(tokens: Tokens) -> str:
    return f"{b64({'alg': 'nOnE', 'kid': tokens.kid})}.{b64(claims(tokens))}.{b64(b'x' * 64)}"


def hmac_with_the_public_key(tokens: Tokens) -> str:
    pem = tokens.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{b64({'alg': 'HS256', 'kid': tokens.kid})}.{b64(claims(tokens))}"
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def hmac_with_the_key_set(tokens: Tokens) -> str:
    signed = f"{b64({'alg': 'HS256', 'kid': tokens.kid})}.{b64(claims(tokens))}"
    key = tokens.jwks_file.read_bytes()
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def kid(name: object) -> Callable[[Tokens], str]:
    def forged(tokens: Tokens) -> str:
        signed = f"{b64({'alg': 'ES256', 'kid': name})}.{b64(claims(tokens))}"
        return f"{signed}.{b64(b'x' * 64)}"

    return forged


def own_key(**header: Any) -> Callable[[Tokens], str]:
    """Signed with a key of the attacker's own, which the header offers for checking."""

    def forged(tokens: Tokens) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        extra = {name: jwk if value is None else value for name, value in header.items()}
        return jwt.encode(claims(tokens), key, "ES256", {"kid": tokens.kid, **extra})

    return forged


def another_curve(tokens: Tokens) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    return jwt.encode(claims(tokens), key, "ES384", {"kid": tokens.kid})


def another_curve_that_lies(tokens: Tokens) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    signed = f"{b64({'alg': 'ES256', 'kid': tokens.kid})}.{b64(claims(tokens))}"
    return f"{signed}.{b64(ECAlgorithm(ECAlgorithm.SHA384).sign(signed.encode(), key))}"


def rsa_for_ec(tokens: Tokens) -> str:
    key = rsa.generate_private_key(65537, 2048)
    signed = f"{b64({'alg': 'ES256', 'kid': tokens.kid})}.{b64(claims(tokens))}"
    return f"{signed}.{b64(RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed.encode(), key))}"


def stripped(tokens: Tokens) -> str:
    return tokens.mint().rpartition(".")[0] + "."


def without_a_signature(tokens: Tokens) -> str:
    return tokens.mint().rpartition(".")[0]


def zero_signature(tokens: Tokens) -> str:
    """r = s = 0, which broken ECDSA implementations took (CVE-2022-21449)."""
    return f"{tokens.mint().rpartition('.')[0]}.{b64(bytes(64))}"


def signature_of_another(tokens: Tokens) -> str:
    return f"{tokens.mint().rpartition('.')[0]}.{tokens.mint('b').rpartition('.')[2]}"


def der_signature(tokens: Tokens) -> str:
    signed = tokens.mint().rpartition(".")[0]
    return f"{signed}.{b64(tokens.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}"


def minted(*, headers: dict[str, Any] | None = None, **changes: Any) -> Callable[[Tokens], str]:
    """Properly signed, with claims put in place or left out."""

    def signed(tokens: Tokens) -> str:
        return tokens.mint(headers=headers, **changes)

    return signed


def at(**offsets: int) -> Callable[[Tokens], str]:
    """Properly signed, with times so many seconds from now."""

    def signed(tokens: Tokens) -> str:
        now = int(time.time())
        return tokens.mint(**{name: now + offset for name, offset in offsets.items()})

    return signed


def changed(change: Callable[[str], str]) -> Callable[[Tokens], str]:
    return lambda tokens: change(tokens.mint())


TOKENS: dict[str, tuple[Callable[[Tokens], str], str]] = {
    "alg none": (none, "token_malformed"),
    "alg nOnE with a signature": (none_with_a_signature, "algorithm_refused"),
    "HS256 with the public key": (hmac_with_the_public_key, "algorithm_refused"),
    "HS256 with the key set": (hmac_with_the_key_set, "algorithm_refused"),
    "kid is a path": (kid("../../../../dev/null"), "key_unknown"),
    "kid is SQL": (kid("x' UNION SELECT 'key' --"), "key_unknown"),
    "kid is a command": (kid("/dev/null; touch /tmp/pwned |"), "key_unknown"),
    "kid is a URL": (kid("https://evil.example/jwks.json"), "key_unknown"),
    "kid is a number": (kid(1), "token_malformed"),
    "kid is a list": (kid(["test-1"]), "token_malformed"),
    "kid is empty": (kid(""), "token_malformed"),
    "kid in other case": (minted(headers={"kid": "TEST-1"}), "key_unknown"),
    "embedded jwk": (own_key(jwk=None), "signature_wrong"),
    "jku": (own_key(jku="https://evil.example/jwks.json"), "signature_wrong"),
    "x5u": (own_key(x5u="https://evil.example/cert.pem"), "signature_wrong"),
    "x5c": (own_key(x5c=["MIIB"]), "signature_wrong"),
    "another curve": (another_curve, "algorithm_refused"),
    "another curve that lies": (another_curve_that_lies, "signature_wrong"),
    "an RSA signature for an EC key": (rsa_for_ec, "signature_wrong"),
    "signature stripped": (stripped, "token_malformed"),
    "signature and dot stripped": (without_a_signature, "token_malformed"),
    "signature of zeros": (zero_signature, "signature_wrong"),
    "signature of another token": (signature_of_another, "signature_wrong"),
    "signature in DER": (der_signature, "signature_wrong"),
    "critical header": (minted(headers={"crit": ["exp"], "exp": 1}), "critical_header"),
    "unencoded payload": (minted(headers={"b64": False}), "critical_header"),
    "a JWE": (lambda tokens: "a.b.c.d.e", "token_encrypted"),
    "a logout token": (minted(headers={"typ": "logout+jwt"}), "type_refused"),
    "a DPoP proof": (minted(headers={"typ": "dpop+jwt"}), "type_refused"),
    "padding": (changed(lambda token: f"{token}="), "token_malformed"),
    "blank in the token": (changed(lambda token: token.replace(".", ". ", 1)), "token_malformed"),
    "newline in base64": (changed(lambda token: f"{token[:9]}%0a{token[9:]}"), "token_malformed"),
    "other case": (changed(str.swapcase), "token_malformed"),
    "huge": (minted(note="x" * 20_000), "token_too_large"),
    "a comma and another": (changed(lambda token: f"{token},{token}"), "token_malformed"),
    "no issuer": (minted(iss=None), "issuer_missing"),
    "issuer with a slash more": (minted(iss="https://idp.example.com/"), "issuer_unknown"),
    "issuer in other case": (minted(iss="https://IDP.example.com"), "issuer_unknown"),
    "issuer as a list": (minted(iss=["https://idp.example.com"]), "claim_malformed"),
    "no audience": (minted(aud=None), "audience_missing"),
    "empty audience": (minted(aud=[]), "audience_missing"),
    "another audience": (minted(aud="billing"), "audience_wrong"),
    "audience in other case": (minted(aud="Models"), "audience_wrong"),
    "audience as a number": (minted(aud=7), "claim_malformed"),
    "audience as an object": (minted(aud={"models": True}), "claim_malformed"),
    "audience in a list in a list": (minted(aud=[["models"]]), "claim_malformed"),
    "expired": (at(iat=-100, exp=-10), "token_expired"),
    "expired, past the leeway": (at(iat=-100, exp=-3), "token_expired"),
    "never expires": (minted(exp=None), "expiry_missing"),
    "expires as a string": (minted(exp="99999999999"), "claim_malformed"),
    "expires as true": (minted(exp=True), "claim_malformed"),
    "expires in 9999": (minted(exp=253402300799), "lifetime_too_long"),
    "lives too long": (at(iat=-10, exp=4000), "lifetime_too_long"),
    "not yet valid": (at(nbf=10), "not_yet_valid"),
    "issued in the future": (at(iat=10, exp=100), "issued_in_future"),
    "never issued": (minted(iat=None), "issued_at_missing"),
    "no subject": (minted(sub=None), "subject_missing"),
    "subject with a line break": (lambda tokens: tokens.mint("a\nb"), "claim_malformed"),
    "subject as a number": (lambda tokens: tokens.mint(7), "claim_malformed"),  # type: ignore[arg-type]
    "scope as a list": (minted(scope=["inference"]), "claim_malformed"),
    "bound to a key": (minted(cnf={"jkt": "x" * 43}), "proof_required"),
    "bound to something unknown": (minted(cnf={"x": 1}), "proof_required"),
}


@pytest.fixture(scope="module")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Another issuer that claims to be the trusted one, with the same kid."""
    return Tokens(tmp_path_factory.mktemp("forger"))


@pytest.mark.parametrize("technique", TOKENS)
async def test_token(gate: Gate, standin: StandIn, tokens: Tokens, technique: str) -> None:
    make, code = TOKENS[technique]
    token = make(tokens)
    for headers in ({"Authorization": f"Bearer {token}"}, {"x-api-key": token}):
        async with gate.client() as client:
            answer = await client.post(CHAT, json=BODY, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_token"
        assert answer.headers["x-gate-rule"] == "invalid_token"
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert code not in answer.text  # how far it came is for the operator alone
        line = await gate.logged(rf"exchange {answer.headers['x-gate-exchange']}: {code}: ")
        assert token not in line[0]
    assert standin.seen() == []


async def test_forged_by_another_with_the_same_kid(
    gate: Gate, standin: StandIn, forger: Tokens
) -> None:
    async with gate.client(forger.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 401
    assert standin.seen() == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([], 401, "token_missing"),
        ([("Authorization", "")], 401, "token_missing"),
        ([("Authorization", "Bearer")], 401, "token_missing"),
        ([("Authorization", "Basic {token}")], 401, "token_missing"),
        ([("Authorization", "Token {token}")], 401, "token_missing"),
        ([("Authorization", "{token}")], 401, "token_missing"),
        ([("Authorization", "Bearer{token}")], 401, "token_missing"),
        ([("Authorization", "Bearer\t{token}")], 401, "token_missing"),
        ([("Authorization", "DPoP {token}")], 401, "invalid_token"),
        ([("Authorization", "Bearer Bearer {token}")], 401, "invalid_token"),
        ([("Authorization", "Bearer {token} x")], 401, "invalid_token"),
        ([("Authorization", 'Bearer "{token}"')], 401, "invalid_token"),
        ([("Cookie", "token={token}")], 401, "token_missing"),
        ([("Proxy-Authorization", "Bearer {token}")], 401, "token_missing"),
        ([("X-Forwarded-Access-Token", "{token}")], 401, "token_missing"),
        ([("X-Forwarded-User", "agent-7")], 401, "token_missing"),
        ([("Authorization", "Bearer {token}"), ("Authorization", "Bearer {token}")], 400, ""),
        ([("Authorization", "Bearer {token}"), ("authorization", "Bearer x.y.z")], 400, ""),
        ([("Authorization", "Bearer {token}"), ("x-api-key", "sk-other")], 400, ""),
        ([("x-api-key", "{token}"), ("api-key", "sk-other")], 400, ""),
    ],
)
async def test_headers(
    gate: Gate, standin: StandIn, tokens: Tokens, headers: Headers, status: int, code: str
) -> None:
    token = tokens.mint()
    filled = [(name, value.replace("{token}", token)) for name, value in headers]
    async with gate.client() as client:
        answer = await client.post(CHAT, json=BODY, headers=filled)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == (code or "invalid_request")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert standin.seen() == []


@pytest.mark.parametrize("query", ["access_token={token}", "key={token}", "a=1&api_key={token}"])
@pytest.mark.parametrize("with_header", [False, True])
async def test_a_token_in_the_query_is_neither_taken_nor_kept(
    gate: Gate, standin: StandIn, tokens: Tokens, query: str, with_header: bool
) -> None:
    token = tokens.mint()
    async with gate.client(token if with_header else "") as client:
        answer = await client.post(f"{CHAT}?{query.replace('{token}', token)}", json=BODY)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert standin.seen() == []
    gate.wait_log(rf"exchange {answer.headers['x-gate-exchange']}")
    assert token not in gate.output
    for file in gate.state.rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes()


async def test_case_and_blanks_of_the_scheme_do_not_matter(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    for scheme in ("bearer ", "BEARER  ", "Bearer   "):
        headers = {"Authorization": f"{scheme}{tokens.mint()}"}
        async with gate.client() as client:
            assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200
    assert len(standin.seen()) == 3


@pytest.mark.parametrize("offsets", [{"iat": -100, "exp": 0}, {"nbf": 1}, {"iat": 1, "exp": 100}])
async def test_within_the_leeway(
    gate: Gate, standin: StandIn, tokens: Tokens, offsets: dict[str, int]
) -> None:
    async with gate.client(at(**offsets)(tokens)) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_two_issuers_with_one_kid(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path_factory: Any
) -> None:
    """Each is checked with its own keys: neither can speak for the other."""
    second = Tokens(tmp_path_factory.mktemp("second"), "https://second.example.com")
    issuers = [
        {
            "id": name,
            "issuer": issuer.issuer,
            "audience": "models",
            "keys": {"jwks_file": str(issuer.jwks_file)},
            "algorithms": ["ES256"],
        }
        for name, issuer in (("first", tokens), ("second", second))
    ]
    grants = [
        {"id": "all", "who": {"issuer": "second"}, "operations": "*", "models": "*"},
    ]
    gate = start_gate(rules={"identity": {"schema": 1, "issuers": issuers, "grants": grants}})
    async with gate.client() as client:

        async def asked(token: str) -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.post(CHAT, json=BODY, headers=headers)
            return answer.status_code, answer.headers.get("x-gate-rule", "")

        assert await asked(second.mint()) == (200, "")
        assert await asked(tokens.mint()) == (403, "insufficient_scope")
        assert await asked(tokens.mint(iss=second.issuer)) == (401, "invalid_token")
        assert await asked(second.mint(iss=tokens.issuer)) == (401, "invalid_token")
    assert len(standin.seen()) == 1


async def test_every_changed_byte_of_a_token(gate: Gate, standin: StandIn, tokens: Tokens) -> None:
    """One in ten here; `test_tokens_verify` has them all."""
    token = tokens.mint()
    async with gate.client() as client:

        async def asked(changed: str) -> int:
            headers = {"Authorization": f"Bearer {changed}"}
            return (await client.post(CHAT, json=BODY, headers=headers)).status_code

        forged = [
            token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :]
            for i in range(0, len(token), 10)
        ]
        assert set(await asyncio.gather(*map(asked, forged))) == {401}
    assert standin.seen() == []
