from __future__ import annotations

import json
import os
import stat

import jwt
import pytest
from cryptography.hazmat.primitives import serialization as s

from mitmgate.core.tokens import devissuer
from mitmgate.core.tokens.keys import keys_of
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier


@pytest.fixture
def directory(tmp_path):
    return tmp_path / ".mitmgate" / "dev-issuer"


def dev(issuer_of, directory):
    return issuer_of(
        id="dev", issuer=devissuer.ISSUER, keys={"jwks_file": str(directory / "jwks.json")}
    )


async def test_its_tokens_are_verified_like_any_others(directory, issuer_of):
    token = devissuer.issue(
        directory, subject="agent-7", scopes=["inference", "x"], groups=["cleared"]
    )
    rules = dev(issuer_of, directory)
    principal = await Verifier([TrustedIssuer(rules, keys_of(rules))]).verify(Presented(token))
    assert principal.name == "dev:agent-7"
    assert principal.scopes == {"inference", "x"}
    assert principal.groups == {"cleared"}
    assert principal.token_id


async def test_the_key_is_made_once(directory, issuer_of):
    first = devissuer.issue(directory, subject="a")
    devissuer.issue(directory, subject="b")
    rules = dev(issuer_of, directory)
    principal = await Verifier([TrustedIssuer(rules, keys_of(rules))]).verify(Presented(first))
    assert principal.subject == "a"


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_for_its_owner_alone(directory):
    devissuer.prepare(directory)
    assert stat.S_IMODE((directory / devissuer.KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (directory / devissuer.KEY_FILE).chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        devissuer.issue(directory, subject="a")


def test_nothing_else_is_left_behind(directory):
    assert devissuer.prepare(directory) == directory / "jwks.json"
    assert {path.name for path in directory.iterdir()} == {devissuer.KEY_FILE, "jwks.json"}


def test_the_key_set_is_public_and_says_what_it_is(directory):
    key_set = json.loads(devissuer.prepare(directory).read_text())
    assert "development" in key_set["comment"]
    assert "d" not in key_set["keys"][0]
    assert key_set["keys"][0]["kid"].startswith("dev-")


def test_a_lost_key_set_is_made_again(directory):
    path = devissuer.prepare(directory)
    content = path.read_bytes()
    path.unlink()
    devissuer.prepare(directory)
    assert path.read_bytes() == content


def test_another_process_was_first(directory):
    devissuer.prepare(directory)
    path = directory / devissuer.KEY_FILE
    content = path.read_bytes()
    devissuer._make_key(path)
    assert path.read_bytes() == content


def test_a_key_of_another_kind(directory, rs256):
    devissuer.prepare(directory)
    pem = rs256.private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (directory / devissuer.KEY_FILE).write_bytes(pem)
    with pytest.raises(OSError, match="not a P-256 key"):
        devissuer.issue(directory, subject="a")


@pytest.mark.parametrize("claims", [{"aud": None, "x": [1]}, {"iss": 5}, {"exp": "soon"}])
def test_any_claim_can_be_had(directory, claims):
    token = devissuer.issue(directory, subject="a", scopes=["s"], claims=claims)
    made = jwt.api_jws.decode_complete(token, options={"verify_signature": False})["payload"]
    made = json.loads(made)
    assert {name: made.get(name) for name in claims} == claims
    assert all(value is not None for value in made.values())
    assert (made["sub"], made["scope"]) == ("a", "s")
