from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from mitmgate.core.tokens.dpop import MAX_BYTES, Proofs
from mitmgate.core.tokens.errors import ProofWrong, TokenError
from mitmgate.core.tokens.file import DPoP
from mitmgate.core.tokens.presented import Presented

NOW = 1_800_000_000
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
OTHER_TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiIn0.c2ln"
PATH = "/v1/chat/completions"
URL = f"https://models.example.com{PATH}"


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sha256(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


def written(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass(frozen=True)
class Client:
    """A client with its key; it can also make every wrong proof that a test wants."""

    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, str]:
        made = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        return {name: made[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in made}

    @property
    def thumbprint(self) -> str:
        return sha256(json.dumps(self.jwk, sort_keys=True, separators=(",", ":")))

    def proof(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A proof; a member given as None is left out."""
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk, **(header or {})}
        body = {"jti": "p-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": sha256(TOKEN), **claims}
        return self.sign(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in body.items() if value is not None},
        )

    def sign(self, header: object, payload: object) -> str:
        signed = f"{b64(written(header))}.{b64(written(payload))}"
        algorithm = get_default_algorithms()[self.algorithm]
        return f"{signed}.{b64(algorithm.sign(signed.encode(), self.private))}"


ES256 = Client("ES256", ec.generate_private_key(ec.SECP256R1()))
OTHER = Client("ES256", ec.generate_private_key(ec.SECP256R1()))
RSA = rsa.generate_private_key(65537, 2048)
P384 = Client("ES384", ec.generate_private_key(ec.SECP384R1()))
ED25519 = Client("EdDSA", ed25519.Ed25519PrivateKey.generate())
CLIENTS = [
    ES256,
    P384,
    Client("ES512", ec.generate_private_key(ec.SECP521R1())),
    ED25519,
    Client("EdDSA", ed448.Ed448PrivateKey.generate()),
    *(Client(name, RSA) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
]


def rules(**changes: Any) -> DPoP:
    return DPoP.model_validate({"url": ["https://models.example.com"], **changes})


def request(*proofs: str, **changes: Any) -> Presented:
    return replace(Presented(TOKEN, "DPoP", proofs, "POST", PATH), **changes)


def refusal(proofs: Proofs, presented: Presented, thumbprint: str = ES256.thumbprint) -> TokenError:
    with pytest.raises(TokenError) as caught:
        proofs.check(presented, thumbprint)
    for secret in (presented.token, *filter(None, presented.proofs)):
        assert secret not in caught.value.diagnostics()
        assert secret not in caught.value.public
    assert len(caught.value.detail) < 500
    return caught.value


@pytest.fixture
def proofs(wall) -> Proofs:
    return Proofs(rules(), clock=wall)


class TestAccepted:
    @pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.algorithm)
    def test_each_algorithm(self, proofs, client):
        proofs.check(request(client.proof()), client.thumbprint)

    def test_each_proof_once(self, proofs):
        for i in range(3):
            proofs.check(request(ES256.proof(jti=f"p-{i}")), ES256.thumbprint)

    def test_two_keys_may_use_the_same_jti(self, proofs):
        for client in (ES256, OTHER):
            proofs.check(request(client.proof()), client.thumbprint)

    def test_what_is_not_understood_is_ignored(self, proofs):
        jwk = {**ES256.jwk, "kid": "k1", "use": "sig", "alg": "ES256", "key_ops": ["verify"]}
        proof = ES256.proof({"jwk": jwk, "kid": "x"}, exp=1, nonce="never asked for", extra=[])
        proofs.check(request(proof), ES256.thumbprint)

    @pytest.mark.parametrize("iat", [NOW - 60, NOW - 0.5, float(NOW), NOW + 30])
    def test_time(self, proofs, iat):
        proofs.check(request(ES256.proof(iat=iat)), ES256.thumbprint)

    @pytest.mark.parametrize("jti", ["x", "x" * 256, "é\ud800 \n"])
    def test_jti(self, proofs, jti):
        proofs.check(request(ES256.proof(jti=jti)), ES256.thumbprint)
        assert refusal(proofs, request(ES256.proof(jti=jti))).code == "proof_replayed"


class TestVectors:
    def test_rfc_9449_section_7_1(self, wall):
        proof = (
            "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMz"
            "R0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFq"
            "SG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwia"
            "HRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSI"
            "sImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzb"
            "VFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoM"
            "xhAJpLjA"
        )
        token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
        presented = Presented(token, "DPoP", (proof,), "GET", "/protectedresource")
        wall.now = 1562262618
        proofs = Proofs(rules(url=["https://resource.example.org"]), clock=wall)
        proofs.check(presented, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")

    @pytest.mark.parametrize(
        ("jwk", "thumbprint"),
        [
            pytest.param(
                {
                    "kty": "RSA",
                    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPF"
                    "FxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w"
                    "6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n"
                    "91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44"
                    "-csFCur-kEgU8awapJzKnqDKgw",
                    "e": "AQAB",
                    "alg": "RS256",
                    "kid": "2011-04-29",
                },
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
                id="RFC 7638 section 3.1",
            ),
            pytest.param(
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                },
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                id="RFC 8037 A.3",
            ),
        ],
    )
    def test_thumbprints(self, proofs, jwk, thumbprint):
        error = refusal(proofs, request(ES256.proof({"jwk": jwk})))
        assert f"the proof is of the key {thumbprint};" in error.detail


def with_public_key_as_secret() -> str:
    header = {"typ": "dpop+jwt", "alg": "HS256", "jwk": ES256.jwk}
    signed, _, _ = ES256.proof(header).rpartition(".")
    algorithm = get_default_algorithms()["HS256"]
    return f"{signed}.{b64(algorithm.sign(signed.encode(), written(ES256.jwk)))}"


def private_jwk(client: Client) -> dict[str, Any]:
    return get_default_algorithms()[client.algorithm].to_jwk(client.private, as_dict=True)


def respelled(proof: str) -> str:
    """The same bytes in another base64url: bits of the last character that say nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return proof[:-1] + alphabet[alphabet.index(proof[-1]) + 1]


HEADER = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": ES256.jwk})
CLAIMS = json.dumps({"jti": "p-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": sha256(TOKEN)})

# technique -> the request, the code, what the operator reads
ATTACKS: dict[str, tuple[Presented, str, str]] = {
    "no proof": (request(), "proof_required", "no DPoP header"),
    "two proofs": (request(ES256.proof(), ES256.proof(jti="p-2")), "proof_wrong", "2 DPoP headers"),
    "the same proof twice": (request(*[ES256.proof()] * 2), "proof_wrong", "2 DPoP headers"),
    "two proofs in one header": (
        request(f"{ES256.proof()}, {ES256.proof(jti='p-2')}"),
        "proof_wrong",
        "5 segments|five segments",
    ),
    "an empty header": (request(""), "proof_wrong", "1 segments"),
    "the token as proof": (request(TOKEN), "proof_wrong", "typ is None"),
    "too large": (request("x" * (MAX_BYTES + 1)), "proof_wrong", f"{MAX_BYTES} are accepted"),
    "too large, signed": (
        request(ES256.proof(extra="x" * MAX_BYTES)),
        "proof_wrong",
        f"{MAX_BYTES} are accepted",
    ),
    "stolen token, the thief's proof": (
        request(OTHER.proof()),
        "proof_wrong",
        f"of the key {OTHER.thumbprint}; the token is bound to {ES256.thumbprint}",
    ),
    "stolen token, the owner's jwk, the thief's signature": (
        request(OTHER.proof({"jwk": ES256.jwk})),
        "proof_wrong",
        "not signed by its jwk",
    ),
    "for another method": (
        request(ES256.proof(), method="DELETE"),
        "proof_wrong",
        "htm is 'POST'; this request has 'DELETE'",
    ),
    "method in lower case": (request(ES256.proof(htm="post")), "proof_wrong", "htm is 'post'"),
    "for another path": (
        request(ES256.proof(), path="/v1/files"),
        "proof_wrong",
        f"htu is '{URL}'; the request went to 'https://models.example.com/v1/files'",
    ),
    "for another host": (
        request(ES256.proof(htu=f"https://evil.example{PATH}")),
        "proof_wrong",
        "htu is 'https://evil.example",
    ),
    "for another token": (
        request(ES256.proof(), token=OTHER_TOKEN),
        "proof_wrong",
        f"ath is '{sha256(TOKEN)}'; this request has '{sha256(OTHER_TOKEN)}'",
    ),
    "ath of another token": (
        request(ES256.proof(ath=sha256(OTHER_TOKEN))),
        "proof_wrong",
        "ath is",
    ),
    "ath missing": (request(ES256.proof(ath=None)), "proof_wrong", "ath is None"),
    "ath padded": (request(ES256.proof(ath=sha256(TOKEN) + "=")), "proof_wrong", "ath is"),
    "ath in hex": (
        request(ES256.proof(ath=hashlib.sha256(TOKEN.encode()).hexdigest())),
        "proof_wrong",
        "ath is",
    ),
    "htm missing": (request(ES256.proof(htm=None)), "proof_wrong", "htm is None"),
    "htm a list": (request(ES256.proof(htm=["POST"])), "proof_wrong", "htm is"),
    "htu missing": (request(ES256.proof(htu=None)), "proof_wrong", "htu is None"),
    "htu a list": (request(ES256.proof(htu=[URL])), "proof_wrong", "htu is"),
    "alg none": (
        request(f"{b64(HEADER.replace('ES256', 'none').encode())}.{b64(CLAIMS.encode())}."),
        "proof_wrong",
        "the signature is not base64url",
    ),
    "alg none, with a signature": (
        request(ES256.proof({"alg": "none"})),
        "proof_wrong",
        "alg is 'none'",
    ),
    "alg missing": (request(ES256.proof({"alg": None})), "proof_wrong", "alg is None"),
    "alg a list": (request(ES256.proof({"alg": ["ES256"]})), "proof_wrong", "alg is"),
    "alg in lower case": (request(ES256.proof({"alg": "es256"})), "proof_wrong", "alg is 'es256'"),
    "alg not offered": (request(ES256.proof({"alg": "ES256K"})), "proof_wrong", "alg is 'ES256K'"),
    "HS256, the public key as secret": (
        request(with_public_key_as_secret()),
        "proof_wrong",
        "alg is 'HS256'",
    ),
    "jwk missing": (request(ES256.proof({"jwk": None})), "proof_wrong", "jwk is None"),
    "jwk a string": (request(ES256.proof({"jwk": "x"})), "proof_wrong", "jwk is 'x'"),
    "jwk empty": (request(ES256.proof({"jwk": {}})), "proof_wrong", "kty None"),
    "jwk with a list as kty": (
        request(ES256.proof({"jwk": {"kty": []}})),
        "proof_wrong",
        "has the kty",
    ),
    "jwk private": (
        request(ES256.proof({"jwk": private_jwk(ES256)})),
        "proof_wrong",
        "no public key: it has d",
    ),
    "jwk with one private member": (
        request(ES256.proof({"jwk": {**ES256.jwk, "qi": "AA"}})),
        "proof_wrong",
        "no public key: it has qi",
    ),
    "jwk symmetric": (
        request(ES256.proof({"jwk": {"kty": "oct", "k": "AAAA"}})),
        "proof_wrong",
        "no public key: it has k",
    ),
    "jwk symmetric without its secret": (
        request(ES256.proof({"jwk": {"kty": "oct"}})),
        "proof_wrong",
        "kty 'oct'",
    ),
    "jwk with padding": (
        request(ES256.proof({"jwk": {**ES256.jwk, "x": ES256.jwk["x"] + "="}})),
        "proof_wrong",
        "the x is not base64url",
    ),
    "jwk without y": (
        request(ES256.proof({"jwk": {**ES256.jwk, "y": 1}})),
        "proof_wrong",
        "the y is not base64url",
    ),
    "jwk for encryption": (
        request(ES256.proof({"jwk": {**ES256.jwk, "use": "enc"}})),
        "proof_wrong",
        "is for use 'enc'",
    ),
    "jwk of another alg": (
        request(ES256.proof({"jwk": {**ES256.jwk, "alg": "ES384"}})),
        "proof_wrong",
        "serves none of ES256",
    ),
    "alg of another kind of key": (
        request(ES256.proof({"alg": "RS256"})),
        "proof_wrong",
        "does not fit alg RS256",
    ),
    "alg of another curve": (
        request(ES256.proof({"alg": "ES384"})),
        "proof_wrong",
        "does not fit alg ES384",
    ),
    "typ missing": (request(ES256.proof({"typ": None})), "proof_wrong", "typ is None"),
    "typ JWT": (request(ES256.proof({"typ": "JWT"})), "proof_wrong", "typ is 'JWT'"),
    "typ at+jwt": (request(ES256.proof({"typ": "at+jwt"})), "proof_wrong", "typ is 'at"),
    "typ in upper case": (request(ES256.proof({"typ": "DPoP+JWT"})), "proof_wrong", "typ is"),
    "typ a list": (request(ES256.proof({"typ": ["dpop+jwt"]})), "proof_wrong", "typ is"),
    "crit": (request(ES256.proof({"crit": ["exp"], "exp": 1})), "proof_wrong", "crit is"),
    "b64": (request(ES256.proof({"b64": False})), "proof_wrong", "crit is"),
    "iat too old": (request(ES256.proof(iat=NOW - 61)), "proof_wrong", "iat is 1799999939 at"),
    "iat too new": (request(ES256.proof(iat=NOW + 31)), "proof_wrong", "accepted are 60 s before"),
    "iat true": (request(ES256.proof(iat=True)), "proof_wrong", "iat is True, not a number"),
    "iat a string": (request(ES256.proof(iat=str(NOW))), "proof_wrong", "not a number"),
    "iat missing": (request(ES256.proof(iat=None)), "proof_wrong", "iat is None"),
    "iat huge": (request(ES256.proof(iat=10**400)), "proof_wrong", "iat is 1000"),
    "iat in milliseconds": (request(ES256.proof(iat=NOW * 1000)), "proof_wrong", "iat is"),
    "iat infinite": (
        request(ES256.sign(HEADER.encode(), CLAIMS.replace(str(NOW), "1e999").encode())),
        "proof_wrong",
        "iat is inf",
    ),
    "iat NaN": (
        request(ES256.sign(HEADER.encode(), CLAIMS.replace(str(NOW), "NaN").encode())),
        "proof_wrong",
        "NaN is not JSON",
    ),
    "jti missing": (request(ES256.proof(jti=None)), "proof_wrong", "jti is None"),
    "jti empty": (request(ES256.proof(jti="")), "proof_wrong", "jti is ''"),
    "jti a number": (request(ES256.proof(jti=1)), "proof_wrong", "jti is 1, not a string"),
    "jti too long": (request(ES256.proof(jti="x" * 257)), "proof_wrong", "1 to 256 characters"),
    "a name twice in the header": (
        request(ES256.sign(f'{{"typ":"JWT",{HEADER[1:]}'.encode(), CLAIMS.encode())),
        "proof_wrong",
        "a name stands twice",
    ),
    "a name twice in the jwk": (
        request(
            ES256.sign(HEADER.replace('"kty"', '"kty": "oct", "kty"').encode(), CLAIMS.encode())
        ),
        "proof_wrong",
        "a name stands twice",
    ),
    "a name twice in the claims": (
        request(ES256.sign(HEADER.encode(), f'{{"htm":"GET",{CLAIMS[1:]}'.encode())),
        "proof_wrong",
        "a name stands twice",
    ),
    "not an object": (request(ES256.sign(HEADER.encode(), b"[]")), "proof_wrong", "JSON object"),
    "not JSON": (request(ES256.sign(HEADER.encode(), b"{")), "proof_wrong", "not JSON"),
    "not UTF-8": (request(ES256.sign(HEADER.encode(), b'{"\xff":1}')), "proof_wrong", "not UTF-8"),
    "nested deeply": (
        request(ES256.sign(HEADER.encode(), b'{"htm":' + b"[" * 2500 + b"]" * 2500 + b"}")),
        "proof_wrong",
        "",
    ),
    "jwk nested deeply": (
        request(
            ES256.sign(
                HEADER.replace('"kty"', '"z":' + "[" * 2500 + "]" * 2500 + ',"kty"').encode(),
                CLAIMS.encode(),
            )
        ),
        "proof_wrong",
        "nested|not base64url",
    ),
    "base64url respelled": (
        request(respelled(ES256.proof())),
        "proof_wrong",
        "the signature is not canonical",
    ),
    "base64url padded": (request(ES256.proof() + "="), "proof_wrong", "not base64url"),
    "base64 instead of base64url": (
        request(ES256.proof().replace("-", "+").replace("_", "/") + "+"),
        "proof_wrong",
        "not base64url",
    ),
    "a line break": (request(ES256.proof() + "\n"), "proof_wrong", "not base64url"),
    "not ASCII": (request(ES256.proof() + "é"), "proof_wrong", "not base64url"),
    "signature cut short": (request(ES256.proof()[:-2]), "proof_wrong", "not signed by its jwk"),
}


class TestAttacks:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_refused(self, proofs, name):
        presented, code, detail = ATTACKS[name]
        error = refusal(proofs, presented)
        assert error.code == code
        assert any(part in error.detail for part in detail.split("|"))
        proofs.check(request(ES256.proof()), ES256.thumbprint)  # nothing was remembered

    def test_replayed(self, proofs):
        proof = ES256.proof()
        proofs.check(request(proof), ES256.thumbprint)
        error = refusal(proofs, request(proof))
        assert (error.code, error.public) == ("proof_replayed", "invalid_dpop_proof")

    def test_replayed_with_another_signature(self, proofs):
        proofs.check(request(ES256.proof()), ES256.thumbprint)
        assert refusal(proofs, request(ES256.proof(iat=NOW + 1))).code == "proof_replayed"

    def test_replayed_at_the_end_of_its_window(self, proofs, wall):
        proof = ES256.proof(iat=NOW + 30)
        proofs.check(request(proof), ES256.thumbprint)
        wall.now = NOW + 90
        assert refusal(proofs, request(proof)).code == "proof_replayed"
        wall.now += 0.001
        assert refusal(proofs, request(proof)).code == "proof_wrong"

    @pytest.mark.parametrize("client", [P384, ED25519], ids=lambda client: client.algorithm)
    def test_alg_of_another_curve(self, proofs, client):
        error = refusal(proofs, request(client.proof({"alg": "ES256"})), client.thumbprint)
        assert "does not fit alg ES256" in error.detail

    def test_weak_rsa(self, proofs):
        client = Client("RS256", rsa.generate_private_key(65537, 1024))  # noqa: S505 - the point
        error = refusal(proofs, request(client.proof()), client.thumbprint)
        assert "RSA with less than 2048 bits" in error.detail

    def test_a_point_on_no_curve(self, proofs):
        jwk = {**ES256.jwk, "x": b64(bytes(32)), "y": b64(bytes(32))}
        thumbprint = sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")))
        error = refusal(proofs, request(ES256.proof({"jwk": jwk})), thumbprint)
        assert "jwk does not fit alg ES256" in error.detail

    def test_a_clock_ahead_is_no_longer_than_the_window(self, wall):
        proofs = Proofs(rules(window="5s"), clock=wall)
        assert "5 s after" in refusal(proofs, request(ES256.proof(iat=NOW + 6))).detail

    @pytest.mark.parametrize("client", [ES256, ED25519], ids=lambda client: client.algorithm)
    def test_no_character_may_change(self, proofs, client):
        proof = client.proof()
        for i, character in enumerate(proof):
            for other in {"A", "B", "."} - {character}:
                changed = f"{proof[:i]}{other}{proof[i + 1 :]}"
                assert refusal(proofs, request(changed), client.thumbprint).code == "proof_wrong"
            cut = proof[:i] + proof[i + 1 :]
            assert refusal(proofs, request(cut), client.thumbprint).code == "proof_wrong"
        proofs.check(request(proof), client.thumbprint)

    @given(st.data())
    @settings(max_examples=150, deadline=None)
    def test_no_byte_may_change(self, data):
        proofs = Proofs(rules(), clock=lambda: NOW)
        proof = ES256.proof()
        at = data.draw(st.integers(0, len(proof) - 1))
        other = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != proof[at]))
        changed = f"{proof[:at]}{other}{proof[at + 1 :]}"
        assert refusal(proofs, request(changed)).code == "proof_wrong"

    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )
    names = st.sampled_from(["typ", "alg", "jwk", "jti", "htm", "htu", "iat", "ath", "crit", "x"])
    members = st.sampled_from(["kty", "crv", "x", "y", "kid", "use", "key_ops", "alg", "n", "e"])

    @given(names, st.one_of(json_values, st.dictionaries(members, json_values)))
    @settings(max_examples=150, deadline=None)
    def test_signed_nonsense_is_a_refusal_and_no_crash(self, name, value):
        proofs = Proofs(rules(), clock=lambda: NOW)
        header = {name: value} if name in ("typ", "alg", "jwk", "crit") else {}
        claims = {} if header else {name: value}
        if name == "jwk" and isinstance(value, dict):
            header = {"jwk": {**ES256.jwk, **value}}
        with contextlib.suppress(ProofWrong):
            proofs.check(request(ES256.proof(header, **claims)), ES256.thumbprint)


class TestAddress:
    @pytest.mark.parametrize(
        ("htu", "path"),
        [
            (f"HTTPS://Models.Example.COM{PATH}", PATH),
            (f"https://models.example.com:443{PATH}", PATH),
            ("https://models.example.com/v1/%63hat/completions", PATH),
            (URL, "/v1/%63hat/completions"),
            ("https://models.example.com/v1/a%2fb", "/v1/a%2Fb"),
            ("https://models.example.com/v1/a%2541", "/v1/a%2541"),
            ("https://models.example.com/v1/50%", "/v1/50%"),
            ("https://models.example.com", "/"),
            ("https://models.example.com/", "/"),
            ("https://models.example.com/", ""),
        ],
    )
    def test_other_spellings_of_the_same(self, proofs, htu, path):
        proofs.check(request(ES256.proof(htu=htu), path=path), ES256.thumbprint)

    @pytest.mark.parametrize(
        ("htu", "path"),
        [
            (f"{URL}?stream=true", PATH),
            (f"{URL}?", PATH),
            (f"{URL}#part", PATH),
            (f"{URL}/", PATH),
            (URL, f"{PATH}/"),
            (f"https://user@models.example.com{PATH}", PATH),
            (f"https://models.example.com@evil.example{PATH}", PATH),
            (f"https://models.example.com:444{PATH}", PATH),
            (f"https://models.example.com:80{PATH}", PATH),
            (f"http://models.example.com{PATH}", PATH),
            (f"http://models.example.com:443{PATH}", PATH),
            (f"https://models.example.com.{PATH}", PATH),
            (f"https://models.example.com.evil.example{PATH}", PATH),
            (f"https://models.example.com\\{PATH}", PATH),
            (f" {URL}", PATH),
            (f"{URL}\n", PATH),
            (f"{URL}\t", PATH),
            (f"https://{PATH}", PATH),
            (f"//models.example.com{PATH}", PATH),
            (PATH, PATH),
            ("", PATH),
            ("https://models.example.com/v1/Chat/completions", PATH),
            ("https://models.example.com/v1//chat/completions", PATH),
            ("https://models.example.com/v1/./chat/completions", PATH),
            ("https://models.example.com/v1/x/../chat/completions", PATH),
            ("https://models.example.com/v1%2Fchat/completions", PATH),
            ("https://models.example.com/v1/%2563hat/completions", PATH),
            ("https://models.example.com/v1/a%41", "/v1/a%2541"),
            (f"http\u017f://models.example.com{PATH}", PATH),  # lowers to an s nowhere
            (f"https://mode\u212as.example.com{PATH}", PATH),
            ("https://models.example.com/\u00e9", "/\u00e9"),
        ],
    )
    def test_other_addresses(self, proofs, htu, path):
        error = refusal(proofs, request(ES256.proof(htu=htu), path=path))
        assert "htu is" in error.detail

    def test_a_sign_that_lowers_to_a_letter_is_not_that_letter(self, wall):
        proofs = Proofs(rules(url=["https://key.example"]), clock=wall)
        refusal(proofs, request(ES256.proof(htu=f"https://\u212aey.example{PATH}")))

    def test_several_addresses(self, wall):
        urls = ["HTTP://127.0.0.1:80/", "https://[::1]:8443", "https://Models.example.com:443"]
        proofs = Proofs(rules(url=urls), clock=wall)
        for i, origin in enumerate(
            ["http://127.0.0.1", "https://[::1]:8443", "https://models.example.com"]
        ):
            htu = f"{origin}{PATH}"
            proofs.check(request(ES256.proof(jti=f"{i}", htu=htu)), ES256.thumbprint)
        error = refusal(proofs, request(ES256.proof(htu=f"https://127.0.0.1{PATH}")))
        assert f"'http://127.0.0.1{PATH}' or 'https://[::1]:8443{PATH}' or" in error.detail

    def test_an_address_that_no_proof_could_name(self):
        with pytest.raises(ValueError, match="in ASCII"):
            rules(url=["https://b\u00fccher.example"])


def fresh_nonce(proofs: Proofs, wall) -> str:
    """The nonce with which a proof that has none is refused."""
    return refusal(proofs, request(ES256.proof(iat=wall.now))).nonce


class TestNonces:
    @pytest.fixture
    def proofs(self, wall) -> Proofs:
        return Proofs(rules(nonce=True), clock=wall)

    def test_asked_for_and_then_taken(self, proofs):
        error = refusal(proofs, request(ES256.proof()))
        assert (error.code, error.public) == ("proof_nonce", "use_dpop_nonce")
        proofs.check(request(ES256.proof(nonce=error.nonce)), ES256.thumbprint)

    def test_the_one_before_is_still_taken(self, proofs, wall):
        nonce = fresh_nonce(proofs, wall)
        wall.now += 60
        assert fresh_nonce(proofs, wall) != nonce
        proofs.check(request(ES256.proof(nonce=nonce, iat=wall.now)), ES256.thumbprint)

    def test_an_old_one_is_not(self, proofs, wall):
        nonce = fresh_nonce(proofs, wall)
        wall.now += 120
        error = refusal(proofs, request(ES256.proof(nonce=nonce, iat=wall.now)))
        assert error.code == "proof_nonce"
        assert error.nonce == fresh_nonce(proofs, wall) != nonce

    @pytest.mark.parametrize("nonce", ["", "x", 1, ["x"], "\u00e9", "\ud800"])
    def test_nonsense(self, proofs, nonce):
        assert refusal(proofs, request(ES256.proof(nonce=nonce))).code == "proof_nonce"

    def test_of_another_process(self, proofs, wall):
        nonce = fresh_nonce(Proofs(rules(nonce=True), clock=wall), wall)
        assert refusal(proofs, request(ES256.proof(nonce=nonce))).code == "proof_nonce"

    def test_an_otherwise_wrong_proof_is_not_worth_one(self, proofs):
        assert refusal(proofs, request(OTHER.proof())).code == "proof_wrong"

    def test_a_proof_without_nonce_is_not_remembered(self, proofs):
        nonce = refusal(proofs, request(ES256.proof())).nonce
        proofs.check(request(ES256.proof(nonce=nonce)), ES256.thumbprint)
        assert refusal(proofs, request(ES256.proof(nonce=nonce))).code == "proof_replayed"
