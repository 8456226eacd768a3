from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.keyset import parse_key_set

ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


def parse(*entries, algorithms=ALL, **options):
    return parse_key_set(json.dumps({"keys": entries}).encode(), "set", algorithms, **options)


def test_keys_by_kid_and_algorithm(es256, rs256, eddsa):
    keys = parse(es256.jwk(kid="e"), rs256.jwk(kid="r", alg=None, use=None), eddsa.jwk(kid="o"))
    assert set(keys.keys) == {("e", "ES256"), ("r", "RS256"), ("r", "PS256"), ("o", "EdDSA")}
    assert keys.find("e", "ES256")
    assert keys.find("e", "RS256") is None
    assert keys.find("x", "ES256") is None
    assert keys.knows("e")
    assert not keys.knows("x")
    assert not keys.knows(None)
    assert keys.find(None, "ES256") is keys.find("e", "ES256")


def test_a_key_without_a_name_answers_to_no_name(es256):
    keys = parse(es256.jwk(kid=None))
    assert keys.find(None, "ES256")
    assert keys.find("k1", "ES256") is None


def test_curve_and_algorithm_go_together():
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    entry = {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": "p384"}
    assert set(parse(entry).keys) == {("p384", "ES384")}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        ({"kty": "oct", "k": "c2VjcmV0", "d": "x"}, "symmetric"),
        ({"use": "enc"}, "for use 'enc'"),
        ({"key_ops": ["sign"]}, "for key_ops"),
        ({"key_ops": "verify"}, "for key_ops"),
        ({"crv": "secp256k1"}, "of the kind"),
        ({"kty": ["EC"]}, "of the kind"),
        ({"kty": "AKP"}, "of the kind"),
        ({"alg": "ES384"}, "serves none"),
        ({"alg": 7}, "serves none"),
    ],
)
def test_left_out_by_name(es256, rs256, extra, reason):
    keys = parse(rs256.jwk(kid="r"), es256.jwk(kid="e", **extra))
    assert {kid for kid, _ in keys.keys} == {"r"}
    assert len(keys.ignored) == 1
    assert "keys[1]" in keys.ignored[0]
    assert reason in keys.ignored[0]


def test_weak_rsa_is_never_used(es256):
    weak = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - the point
    entry = {**RSAAlgorithm.to_jwk(weak, as_dict=True), "kid": "weak"}
    keys = parse(entry, es256.jwk())
    assert {kid for kid, _ in keys.keys} == {"k1"}
    assert "2048" in keys.ignored[0]
    with pytest.raises(KeySetError, match="2048"):
        parse(entry)


def test_key_ops_with_verify(es256):
    assert parse(es256.jwk(key_ops=["verify"]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"{}", "should be a list"),
        (b'{"keys": {}}', "should be a list"),
        (b'{"keys": ["x"]}', "should be a list"),
        (b'{"keys": []}', "no usable key"),
        (b'{"keys": [], "keys": []}', "stands twice"),
        (b"[" * 100_000, "nested"),
        (b'{"keys": [{"kty": "oct", "k": "eA"}]}', "symmetric"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "!", "y": "AA"}]}', "cannot be used"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256", "x": 1, "y": 2}]}', "cannot be used"),
        (b'{"keys": [{"kty": "RSA"}]}', "cannot be used"),
        (b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "cannot be used"),
    ],
)
def test_no_key_set(content, reason):
    with pytest.raises(KeySetError, match=reason) as caught:
        parse_key_set(content, "https://idp.example.com/jwks", ALL)
    assert str(caught.value).startswith("https://idp.example.com/jwks: ")
    assert "\n" not in str(caught.value)


def test_a_kid_twice(es256, other_es256):
    with pytest.raises(KeySetError, match="kid 'k1' of another key"):
        parse(es256.jwk(), other_es256.jwk())


def test_a_kid_that_is_no_string(es256):
    for kid in (7, "", ["k"]):
        with pytest.raises(KeySetError, match="not a string"):
            parse(es256.jwk(kid=kid))


def test_a_point_that_is_not_on_the_curve(es256):
    entry = es256.jwk()
    with pytest.raises(KeySetError, match="cannot be used"):
        parse({**entry, "y": entry["x"]})


def test_a_published_private_key(es256):
    private = ECAlgorithm.to_jwk(es256.private, as_dict=True)
    with pytest.raises(KeySetError, match="private key") as caught:
        parse({**private, "kid": "k1"})
    assert private["d"] not in str(caught.value)


class TestSpiffeBundle:
    """SPIFFE Trust Domain and Bundle, section 4."""

    @pytest.fixture
    def x509(self, other_es256):
        entry = other_es256.jwk(use="x509-svid", kid=None, alg=None, x5c=["MIIB"])
        return {name: value for name, value in entry.items() if value is not None}

    def test_keys_for_jwt_svids(self, es256, x509):
        content = {
            "spiffe_sequence": 7,
            "spiffe_refresh_hint": 300,
            "keys": [x509, es256.jwk(use="jwt-svid", alg=None)],
        }
        keys = parse_key_set(json.dumps(content).encode(), "bundle", ALL, spiffe=True)
        assert set(keys.keys) == {("k1", "ES256")}
        assert keys.ignored == ("bundle: keys[0] is for use 'x509-svid'",)

    def test_only_of_a_trust_domain(self, es256):
        with pytest.raises(KeySetError, match="for use 'jwt-svid'"):
            parse(es256.jwk(use="jwt-svid"))

    def test_other_keys_of_it(self, es256, rs256, x509):
        """What publishes them for OpenID Connect says sig, or nothing."""
        keys = parse(es256.jwk(kid="e"), rs256.jwk(kid="r", use=None), spiffe=True)
        assert {kid for kid, _ in keys.keys} == {"e", "r"}
        with pytest.raises(KeySetError, match="x509-svid"):
            parse(x509, spiffe=True)

    @pytest.mark.parametrize("use", ["enc", "JWT-SVID", "", None, 7, ["jwt-svid"], {"a": 1}])
    def test_no_other_use(self, es256, rs256, use):
        entry = {**es256.jwk(kid="e"), "use": use}
        keys = parse(rs256.jwk(kid="r"), entry, spiffe=True)
        assert {kid for kid, _ in keys.keys} == {"r"}

    def test_as_strict_as_any(self, es256, other_es256):
        with pytest.raises(KeySetError, match="kid 'k1' of another key"):
            parse(es256.jwk(use="jwt-svid"), other_es256.jwk(use="jwt-svid"), spiffe=True)
        with pytest.raises(KeySetError, match="private key"):
            parse(es256.jwk(use="jwt-svid", d="x"), spiffe=True)
        with pytest.raises(KeySetError, match="key_ops"):
            parse(es256.jwk(use="jwt-svid", key_ops=["sign"]), spiffe=True)
