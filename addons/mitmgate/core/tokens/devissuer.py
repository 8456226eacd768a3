"""DEVELOPMENT ONLY: an issuer in a directory, so that the gate can be tried without a real one.

Whoever can read the directory can be anybody. `mitmgate token` and the demo use it; nothing that
verifies tokens imports it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER = "https://dev.mitmgate.invalid"  # RFC 2606: nobody can ever own this name
AUDIENCE = "models"
ALGORITHM = "ES256"
KEY_FILE = "development-only-private-key.pem"
KEY_SET_FILE = "jwks.json"


def issue(
    directory: Path,
    *,
    subject: str,
    scopes: Iterable[str] = (),
    groups: Iterable[str] = (),
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
    lifetime: float = 3600.0,
    claims: Mapping[str, object] | None = None,
) -> str:
    """A token of the development issuer, valid from now for `lifetime` seconds.

    `claims` are put in last, whatever they are; one that is None is left out. Makes the key and
    `jwks.json` in `directory` the first time. Raises `OSError` when it cannot, and
    `PermissionError` when others can read the key.
    """
    key = _key(directory)
    now = int(time.time())
    made: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "iat": now,
        "exp": now + int(lifetime),
        "jti": uuid.uuid4().hex,
    }
    if words := list(scopes):
        made["scope"] = " ".join(words)
    if names := list(groups):
        made["groups"] = names
    made |= claims or {}
    content = json.dumps({name: value for name, value in made.items() if value is not None})
    # Not jwt.encode, which has an opinion on claims: what a gate should refuse is wanted too.
    return jwt.PyJWS().encode(content.encode(), key, ALGORITHM, {"kid": _kid(key)})


def prepare(directory: Path) -> Path:
    """Make the key and the key set in `directory` unless they are there; the key set's path."""
    _key(directory)
    return directory / KEY_SET_FILE


def _key(directory: Path) -> ec.EllipticCurvePrivateKey:
    path = directory / KEY_FILE
    if not path.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_key(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise PermissionError(f"{path} can be read by others: chmod 600 it, or delete it")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise OSError(f"{path} is not a P-256 key; delete it to have a new one made")
    _publish(key, directory / KEY_SET_FILE)
    return key


def _make_key(path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = _draft(path, pem)
    try:
        os.link(draft, path)  # unlike rename it fails where another process was first
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _publish(key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    entry = {**public, "kid": _kid(key), "use": "sig", "alg": ALGORITHM}
    key_set = {"comment": "mitmgate development issuer: never trust it elsewhere", "keys": [entry]}
    content = (json.dumps(key_set, indent=2) + "\n").encode()
    if not path.exists() or path.read_bytes() != content:
        _draft(path, content).replace(path)


def _draft(path: Path, content: bytes) -> Path:
    """`content` in a new file beside `path`, for its owner alone."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return draft


def _kid(key: ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"dev-{hashlib.sha256(der).hexdigest()[:16]}"
