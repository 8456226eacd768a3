"""Verifying a token: the first time it is seen, and when it is remembered."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from bench.figures import Effort, Figure, Section, medians
from mitmgate.core.tokens import Issuer, Verifier
from mitmgate.core.tokens.keys import keys_of
from mitmgate.core.tokens.verify import TrustedIssuer

ISSUER = "https://idp.example.com"
AUDIENCE = "models"


def measure(effort: Effort) -> Section:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        for algorithm in ("RS256", "ES256"):
            figures += _figures(algorithm, Path(directory), effort)
    return Section(
        "Tokens (core.tokens)",
        tuple(figures),
        (
            "RSA keys have 2048 bits; keys from a file; ten claims and no list of the revoked",
            "naive: `jwt.decode` of PyJWT at every request; a first look makes the same "
            "signature check and reads the token strictly besides",
        ),
    )


def _figures(algorithm: str, directory: Path, effort: Effort) -> list[Figure]:
    key, public = _key(algorithm)
    path = directory / f"{algorithm}.json"
    entry = {**public, "kid": algorithm, "use": "sig", "alg": algorithm}
    path.write_text(json.dumps({"keys": [entry]}), "utf-8")
    rules = Issuer.model_validate(
        {
            "id": "company-idp",
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "keys": {"jwks_file": str(path)},
            "algorithms": [algorithm],
        }
    )
    trusted = TrustedIssuer(rules, keys_of(rules))
    forgetful, remembering = Verifier([trusted], remember=0), Verifier([trusted])
    bare_key = jwt.PyJWK(entry).key

    def naive(tokens: list[str]) -> None:
        for token in tokens:
            jwt.decode(token, bare_key, [algorithm], audience=AUDIENCE, issuer=ISSUER)

    with asyncio.Runner() as runner:

        def through(verifier: Verifier) -> Callable[[list[str]], None]:
            async def run(tokens: list[str]) -> None:
                for token in tokens:
                    await verifier.verify(token)

            return lambda tokens: runner.run(run(tokens))

        rounds = [_tokens(key, algorithm, effort.tokens) for _ in range(effort.rounds + 1)]
        for tokens in rounds:
            through(remembering)(tokens)
        taken = medians(
            {
                "first": through(forgetful),
                "remembered": through(remembering),
                "naive": naive,
            },
            rounds,
        )
    each = {who: seconds * 1e6 / effort.tokens for who, seconds in taken.items()}
    return [
        Figure(f"{algorithm}, the first time", "us", each["first"], each["naive"]),
        Figure(f"{algorithm}, remembered", "us", each["remembered"], each["naive"]),
    ]


def _key(algorithm: str) -> tuple[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, dict[str, Any]]:
    if algorithm == "RS256":
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return rsa_key, RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    return ec_key, ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True)


def _tokens(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str, count: int
) -> list[str]:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "azp": "agents",
        "iat": now,
        "exp": now + 3000,
        "scope": "openid inference",
        "groups": ["research", "model-users"],
        "email": "agent-7@example.com",
    }
    return [
        jwt.encode(
            {**claims, "sub": f"agent-{i}", "jti": f"{now}-{i}"},
            key,
            algorithm=algorithm,
            headers={"kid": algorithm},
        )
        for i in range(count)
    ]
