"""One issuer's public keys, parsed from a JWK set (RFC 7517) into keys that can only verify.

What is not a usable signature key (symmetric, weak, for encryption, of an unknown kind) is left
out and named in `ignored`; what makes the whole set doubtful is a `KeySetError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from mitmgate.core.tokens.errors import KeySetError, shown
from mitmgate.core.tokens.strictjson import read_object

MAX_BYTES = 512 << 10
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
_FAMILIES = {  # kty and crv of a key -> the algorithms it can verify
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
}


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by key id and algorithm; `digest` is the sha256 of the bytes they came from."""

    keys: Mapping[tuple[str | None, str], PyJWK]
    digest: str
    ignored: tuple[str, ...] = ()

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key named `kid`; without a name, the only key there is for `algorithm`."""
        if kid is not None:
            return self.keys.get((kid, algorithm))
        fitting = [key for (_, name), key in self.keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, kid: str | None) -> bool:
        """True if a key has this name, whatever algorithm it is for."""
        return kid is not None and any(name == kid for name, _ in self.keys)


def parse_key_set(
    content: bytes, source: object, algorithms: Collection[str], *, spiffe: bool = False
) -> KeySet:
    """The keys in `content` that serve one of `algorithms`. Raises `KeySetError`.

    With `spiffe` it may also be a SPIFFE bundle, whose keys for JWT-SVIDs are for use `jwt-svid`
    (SPIFFE Trust Domain and Bundle, section 4.2.2).
    """
    uses = ("sig", "jwt-svid") if spiffe else ("sig",)
    try:
        entries = read_object(content).get("keys")
    except ValueError as e:
        raise KeySetError(source, f"is not a JWK set: {e}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeySetError(source, "is not a JWK set: 'keys' should be a list of keys")
    keys: dict[tuple[str | None, str], PyJWK] = {}
    names: set[str | None] = set()
    ignored = []
    for position, entry in enumerate(entries):
        where = f"keys[{position}]"
        if _is_private(entry):
            raise KeySetError(source, f"{where} is a private key, and so is no secret any more")
        usable = _usable_algorithms(entry, algorithms, uses)
        if isinstance(usable, str):
            ignored.append(f"{source}: {where} {usable}")
            continue
        kid = entry.get("kid")
        if kid is not None and not (isinstance(kid, str) and kid):
            raise KeySetError(source, f"{where} has a kid that is not a string")
        if kid in names:
            raise KeySetError(source, f"{where} has the kid {shown(kid)} of another key")
        made = {name: _key(entry, name, source, where) for name in usable}
        if any(_is_weak(key) for key in made.values()):
            ignored.append(f"{source}: {where} is RSA with less than {MIN_RSA_BITS} bits")
            continue
        names.add(kid)
        keys.update({(kid, name): key for name, key in made.items()})
    if not keys:
        reasons = "; ".join(reason.removeprefix(f"{source}: ") for reason in ignored)
        raise KeySetError(source, f"has no usable key ({reasons or 'it is empty'})")
    return KeySet(keys, hashlib.sha256(content).hexdigest(), tuple(ignored))


def _is_private(entry: dict[str, Any]) -> bool:
    return entry.get("kty") != "oct" and "d" in entry


def _usable_algorithms(
    entry: dict[str, Any], algorithms: Collection[str], uses: tuple[str, ...]
) -> list[str] | str:
    """What the key may verify for this issuer, or why nothing."""
    if entry.get("kty") == "oct":
        return "is symmetric"
    if entry.get("use", "sig") not in uses:
        return f"is for use {shown(entry['use'])}"
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return f"is for key_ops {shown(operations)}"
    kind = (entry.get("kty"), entry.get("crv"))
    family = next((names for known, names in _FAMILIES.items() if known == kind), ())
    if not family:
        return f"is of the kind {shown(kind)}"
    usable = [name for name in family if name in algorithms and entry.get("alg", name) == name]
    return usable or f"serves none of {', '.join(algorithms)}"


def _key(entry: dict[str, Any], algorithm: str, source: object, where: str) -> PyJWK:
    try:
        return PyJWK(entry, algorithm)
    except (PyJWTError, ValueError, TypeError) as e:
        raise KeySetError(source, f"{where} cannot be used: {e}") from None


def _is_weak(key: PyJWK) -> bool:
    return isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS
