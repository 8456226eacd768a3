"""Verifying a token: the first time it is seen, when it is remembered, and with a DPoP proof."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from bench.figures import Effort, Figure, Section, medians
from mitmgate.core.tokens import Issuer, Presented, Verifier
from mitmgate.core.tokens.file import DPoP
from mitmgate.core.tokens.keys import keys_of
from mitmgate.core.tokens.possession import Possession
from mitmgate.core.tokens.verify import TrustedIssuer

ISSUER = "https://idp.example.com"
AUDIENCE = "models"
GATE = "https://models.example.com"
PATH = "/v1/chat/completions"
MOST = 500.0  # us a request, the first time that a token is seen too

type Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


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
            "a DPoP proof is new with each request: it is checked beside a remembered token",
        ),
    )


def _figures(algorithm: str, directory: Path, effort: Effort) -> list[Figure]:
    key = _key(algorithm)
    path = directory / f"{algorithm}.json"
    entry = {**_public(key), "kid": algorithm, "use": "sig", "alg": algorithm}
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
    possession = Possession(DPoP.model_validate({"url": [GATE]}))
    forgetful = Verifier([trusted], remember=0)
    remembering = Verifier([trusted], possession=possession)
    bare_key = jwt.PyJWK(entry).key

    def naive(presented: list[Presented]) -> None:
        for each in presented:
            jwt.decode(each.token, bare_key, [algorithm], audience=AUDIENCE, issuer=ISSUER)

    with asyncio.Runner() as runner:

        def through(verifier: Verifier) -> Callable[[list[Presented]], None]:
            async def run(presented: list[Presented]) -> None:
                for each in presented:
                    await verifier.verify(each)

            return lambda presented: runner.run(run(presented))

        def plain(presented: list[Presented]) -> None:
            through(remembering)(presented[: effort.tokens])

        def proved(presented: list[Presented]) -> None:
            through(remembering)(presented[effort.tokens :])

        rounds = []
        for _ in range(effort.rounds + 1):
            tokens = [Presented(token) for token in _tokens(key, algorithm, effort.tokens)]
            bound = _bound(key, algorithm, effort.tokens)
            runner.run(remembering.verify(_proved(key, algorithm, bound[0].token)))
            through(remembering)(tokens)
            rounds.append([*tokens, *bound])
        taken = medians(
            {
                "first": lambda presented: through(forgetful)(presented[: effort.tokens]),
                "remembered": plain,
                "proved": proved,
                "naive": lambda presented: naive(presented[: effort.tokens]),
            },
            rounds,
        )
    each = {who: seconds * 1e6 / effort.tokens for who, seconds in taken.items()}
    return [
        Figure(f"{algorithm}, the first time", "us", each["first"], each["naive"], MOST),
        Figure(f"{algorithm}, remembered", "us", each["remembered"], each["naive"], MOST),
        Figure(f"{algorithm}, remembered, with a DPoP proof", "us", each["proved"], None, MOST),
    ]


def _bound(key: Key, algorithm: str, count: int) -> list[Presented]:
    """One token that is bound to `key`, with a new proof each time."""
    (token,) = _tokens(key, algorithm, 1, cnf={"jkt": _thumbprint(key)})
    return [_proved(key, algorithm, token) for _ in range(count)]


def _proved(key: Key, algorithm: str, token: str) -> Presented:
    claims = {
        "jti": uuid.uuid4().hex,
        "htm": "POST",
        "htu": GATE + PATH,
        "iat": int(time.time()),
        "ath": _digest(token.encode()),
    }
    header = {"typ": "dpop+jwt", "jwk": _public(key)}
    return Presented(token, "DPoP", (jwt.encode(claims, key, algorithm, header),), "POST", PATH)


def _thumbprint(key: Key) -> str:
    """RFC 7638."""
    names = ("crv", "kty", "x", "y", "e", "n")
    members = {name: value for name, value in sorted(_public(key).items()) if name in names}
    return _digest(json.dumps(members, separators=(",", ":")).encode())


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _public(key: Key) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def _key(algorithm: str) -> Key:
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _tokens(key: Key, algorithm: str, count: int, **more: Any) -> list[str]:
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
            {**claims, **more, "sub": f"agent-{i}", "jti": f"{now}-{i}"},
            key,
            algorithm=algorithm,
            headers={"kid": algorithm},
        )
        for i in range(count)
    ]
