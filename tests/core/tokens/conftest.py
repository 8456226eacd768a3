"""An issuer that signs whatever a test wants, and the gate's side of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.file import Issuer
from mitmgate.core.tokens.keyset import KeySet, parse_key_set

NOW = 1_800_000_000


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class FixedKeys:
    """A `Keys` with one set and no source."""

    key_set: KeySet | None
    problem: KeySetError | None = None
    refreshed: int = 0

    def current(self) -> KeySet:
        if self.key_set is None:
            raise self.problem or KeySetError("nowhere", "nothing")
        return self.key_set

    async def refresh(self) -> None:
        self.refreshed += 1

    async def start(self) -> None:
        self.current()


@dataclass
class Signer:
    """An issuer's private key and how its tokens look unless a test says otherwise."""

    algorithm: str
    private: Any
    kid: str = "k1"
    claims: dict[str, Any] = field(default_factory=dict)

    def token(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token; a claim given as None is left out."""
        merged = {
            "iss": "https://idp.example.com",
            "aud": "models",
            "sub": "agent-7",
            "iat": NOW,
            "exp": NOW + 600,
            "jti": "t-1",
            **claims,
        }
        payload = {name: value for name, value in merged.items() if value is not None}
        return self.sign(json.dumps(payload).encode(), headers)

    def sign(self, payload: bytes, headers: dict[str, Any] | None = None) -> str:
        merged = {"kid": self.kid, **(headers or {})}
        merged = {name: value for name, value in merged.items() if value is not None}
        return jwt.PyJWS().encode(payload, self.private, self.algorithm, merged)

    def jwk(self, **extra: Any) -> dict[str, Any]:
        public = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        entry = {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm, **extra}
        return {name: value for name, value in entry.items() if value is not None}


def key_set_of(*entries: dict[str, Any], algorithms: tuple[str, ...] = ("ES256",)) -> KeySet:
    return parse_key_set(json.dumps({"keys": entries}).encode(), "test", algorithms)


def make_issuer(**changes: Any) -> Issuer:
    return Issuer.model_validate(
        {
            "id": "idp",
            "issuer": "https://idp.example.com",
            "audience": "models",
            "keys": {"jwks_file": "keys.json"},
            "algorithms": ["ES256"],
            **changes,
        }
    )


@pytest.fixture(scope="session")
def es256() -> Signer:
    return Signer("ES256", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def other_es256() -> Signer:
    return Signer("ES256", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def rs256() -> Signer:
    return Signer("RS256", rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def eddsa() -> Signer:
    return Signer("EdDSA", ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall() -> Clock:
    return Clock(NOW)


@pytest.fixture
def issuer_of() -> Callable[..., Issuer]:
    return make_issuer


@pytest.fixture
def keys_with() -> Callable[..., FixedKeys]:
    def make(*entries: dict[str, Any], algorithms: tuple[str, ...] = ("ES256",)) -> FixedKeys:
        return FixedKeys(key_set_of(*entries, algorithms=algorithms) if entries else None)

    return make


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write
