"""A token issuer for tests: throwaway keys, and any claim that a test wants."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class Tokens:
    """An issuer with throwaway keys. A second one with the same `issuer` forges its signatures."""

    def __init__(
        self, directory: Path, issuer: str = "https://idp.example.com", audience: str = "models"
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = "test-1"
        self._minted = 0
        self.jwks_file = directory / "jwks.json"
        public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        entry = {**public, "kid": self.kid, "use": "sig", "alg": "ES256"}
        self.jwks_file.write_text(json.dumps({"keys": [entry]}))

    def mint(
        self,
        subject: str = "agent-7",
        scopes: Iterable[str] = ("inference",),
        groups: Iterable[str] = (),
        *,
        lifetime: float = 600,
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A signed token. `claims` are added or put in place; one given as None is left out."""
        now = int(time.time())
        self._minted += 1
        payload = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "scope": " ".join(scopes),
            "groups": list(groups),
            "iat": now,
            "exp": now + int(lifetime),
            "jti": f"{subject}-{self._minted}",
            **claims,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        # Not jwt.encode, which has opinions about claims.
        return jwt.PyJWS().encode(
            json.dumps(payload).encode(), self.key, "ES256", {"kid": self.kid, **(headers or {})}
        )
