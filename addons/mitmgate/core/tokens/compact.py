"""The outside of a token: a compact JWS (RFC 7515 section 7.1), read strictly, believed in nothing.

Nothing here touches a key. What a token says about its own keys (`jwk`, `jku`, `x5c`, `x5u`) is
never looked at (RFC 8725 section 3.10).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from mitmgate.core.tokens.errors import (
    AlgorithmRefused,
    CriticalHeader,
    TokenEncrypted,
    TokenMalformed,
    TokenTooLarge,
    TypeRefused,
    shown,
)
from mitmgate.core.tokens.file import TYPES
from mitmgate.core.tokens.strictjson import read_object

MAX_BYTES = 16 << 10
MAX_KID = 512
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token claims to be. `claims` are not to be believed before the signature is."""

    algorithm: str
    kid: str | None
    typ: str
    claims: dict[str, Any]


def read(token: str) -> Unverified:
    """Take a token apart. Raises the `TokenError` that fits."""
    header, claims = take_apart(token)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise AlgorithmRefused(f"alg is {shown(algorithm)}")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise TokenMalformed(f"kid is {shown(kid)}")
    kind = header.get("typ", "")
    typ = kind.lower().removeprefix("application/") if isinstance(kind, str) else None
    if typ is None or ("typ" in header and typ not in TYPES):
        raise TypeRefused(f"typ is {shown(kind)}")
    return Unverified(algorithm, kid, typ, claims)


def take_apart(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWS that needs no extension. Raises the `TokenError` that fits."""
    if len(token) > MAX_BYTES:
        raise TokenTooLarge(f"{len(token)} characters; {MAX_BYTES} are accepted")
    segments = token.split(".")
    if len(segments) == 5:
        raise TokenEncrypted("five segments, so a JWE")
    if len(segments) != 3:
        raise TokenMalformed(f"{len(segments)} segments instead of three")
    header = _object("header", segments[0])
    if "enc" in header:
        raise TokenEncrypted("its header has enc")
    if "crit" in header or "b64" in header:
        raise CriticalHeader(f"crit is {shown(header.get('crit'))}")
    claims = _object("payload", segments[1])
    decode("signature", segments[2])
    return header, claims


def decode(name: str, segment: object) -> bytes:
    """Base64url without padding, in its one canonical form: a token has no second spelling.

    Raises `TokenMalformed`, which calls the segment `name`.
    """
    if not isinstance(segment, str) or not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise TokenMalformed(f"the {name} is not base64url")
    content = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(content).rstrip(b"=").decode() != segment:
        raise TokenMalformed(f"the {name} is not canonical base64url")
    return content


def _object(name: str, segment: str) -> dict[str, Any]:
    content = decode(name, segment)
    try:
        return read_object(content)
    except ValueError as e:
        raise TokenMalformed(f"the {name} is {e}") from None
