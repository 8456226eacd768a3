"""DPoP proofs (RFC 9449): a JWT that the client signs for one request with one token.

Checked in full as section 4.3 has it, with the key that the token is bound to and no other. The
address is held against the addresses in identity.yaml: the Host header is the caller's own word.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from mitmgate.core.tokens import compact
from mitmgate.core.tokens.errors import (
    KeySetError,
    NonceWanted,
    ProofRequired,
    ProofWrong,
    TokenError,
    TokenMalformed,
    shown,
)
from mitmgate.core.tokens.file import ALGORITHMS, DPoP
from mitmgate.core.tokens.keyset import parse_key_set
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.replay import Nonces, Replays

MAX_BYTES = 8 << 10
MAX_JTI = 256
MAX_AHEAD = 30.0  # seconds that a client's clock may be ahead
# What makes the key, in the order of RFC 7638 section 3.2 and RFC 8037 section 2.
_MEMBERS = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_URL = re.compile(r"(https?)://([^/?#@]+)(/[^?#]*)?", re.IGNORECASE)
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


class Proofs:
    """Checks proofs by `rules`, and remembers those it took. `clock` gives Unix seconds.

    Raises `ValueError` if an address in `rules` is none that a proof could name.
    """

    def __init__(self, rules: DPoP, *, clock: Callable[[], float] = time.time) -> None:
        self._origins = tuple(_origin(url) for url in rules.url)
        self._window = rules.window
        self._clock = clock
        self._nonces = Nonces(rules.window) if rules.nonce else None
        self._replays = Replays()
        self._jws = PyJWS()

    def check(self, presented: Presented, thumbprint: str) -> None:
        """Accept the one proof of a request whose token is bound to the key `thumbprint`.

        `thumbprint` is the token's `cnf.jkt`. Raises `ProofRequired` where there is no proof,
        `ProofWrong` or one of its kinds, or `ProofsUnavailable`.
        """
        proof = _only(presented.proofs)
        header, claims = _read(proof)
        key = _key(header, thumbprint)
        try:
            self._jws.decode_complete(proof, key, algorithms=[header["alg"]])
        except PyJWTError as e:
            raise ProofWrong(f"the proof is not signed by its jwk: {e}") from None
        now = self._clock()
        _expect(claims, "htm", presented.method)
        self._check_address(claims.get("htu"), presented.path)
        _expect(claims, "ath", _base64url(hashlib.sha256(presented.token.encode()).digest()))
        issued = self._issued(claims.get("iat"), now)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 1 <= len(jti) <= MAX_JTI:
            raise ProofWrong(f"jti is {shown(jti)}, not a string of 1 to {MAX_JTI} characters")
        if self._nonces and not self._nonces.accepts(claims.get("nonce"), now):
            detail = f"nonce is {shown(claims.get('nonce'))}, not a fresh one of the gate's"
            raise NonceWanted(detail, self._nonces.fresh(now))
        # Last, so that only a proof that is valid in every other respect is remembered.
        self._replays.remember(thumbprint, jti, issued + self._window, now)

    def _check_address(self, htu: object, path: str) -> None:
        found = _normal(htu) if isinstance(htu, str) else None
        wanted = _normal_path(path)
        if found is None or found[0] not in self._origins or found[1] != wanted:
            accepted = " or ".join(shown(f"{origin}{wanted}") for origin in self._origins)
            raise ProofWrong(f"htu is {shown(htu)}; the request went to {accepted}")

    def _issued(self, iat: object, now: float) -> float:
        if isinstance(iat, bool) or not isinstance(iat, int | float):
            raise ProofWrong(f"iat is {shown(iat)}, not a number")
        ahead = min(self._window, MAX_AHEAD)
        if not now - self._window <= iat <= now + ahead:
            accepted = f"{self._window:g} s before and {ahead:g} s after"
            raise ProofWrong(f"iat is {shown(iat)} at {now:.0f}; accepted are {accepted}")
        return float(iat)


def _only(proofs: tuple[str, ...]) -> str:
    if not proofs:
        raise ProofRequired("the token is bound to a key, and there is no DPoP header")
    if len(proofs) > 1:
        raise ProofWrong(f"{len(proofs)} DPoP headers instead of one")
    if len(proofs[0]) > MAX_BYTES:
        raise ProofWrong(f"the proof has {len(proofs[0])} characters; {MAX_BYTES} are accepted")
    return proofs[0]


def _read(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims. A token is not taken for a proof, nor a proof for a token."""
    try:
        header, claims = compact.take_apart(proof)
    except TokenError as e:
        raise ProofWrong(f"in the proof, {e.detail}") from None
    if header.get("typ") != "dpop+jwt":
        raise ProofWrong(f"typ is {shown(header.get('typ'))}, not 'dpop+jwt'")
    if header.get("alg") not in ALGORITHMS:
        raise ProofWrong(f"alg is {shown(header.get('alg'))}; accepted are {', '.join(ALGORITHMS)}")
    return header, claims


def _key(header: dict[str, Any], thumbprint: str) -> PyJWK:
    """The public key in a proof's header, which must be the one with `thumbprint`."""
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        raise ProofWrong(f"jwk is {shown(jwk)}, not an object")
    if private := [name for name in _PRIVATE if name in jwk]:
        raise ProofWrong(f"jwk is no public key: it has {', '.join(private)}")
    if (found := _thumbprint(jwk)) != thumbprint:
        raise ProofWrong(f"the proof is of the key {found}; the token is bound to {thumbprint}")
    content = json.dumps({"keys": [jwk]}).encode()
    try:
        (key,) = parse_key_set(content, "jwk", (header["alg"],)).keys.values()
    except KeySetError as e:
        raise ProofWrong(f"jwk does not fit alg {header['alg']}: {e.reason}") from None
    return key


def _thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638, with SHA-256: over the members that make the key, and nothing else."""
    kind = jwk.get("kty")
    names = _MEMBERS.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise ProofWrong(f"jwk has the kty {shown(kind)}; accepted are {', '.join(_MEMBERS)}")
    for name in names:
        if name not in ("crv", "kty"):
            try:
                compact.decode(name, jwk.get(name))
            except TokenMalformed as e:
                raise ProofWrong(f"in jwk, {e.detail}") from None
    made = json.dumps({name: jwk.get(name) for name in names}, separators=(",", ":"))
    return _base64url(hashlib.sha256(made.encode()).digest())


def _expect(claims: dict[str, Any], name: str, wanted: str) -> None:
    if claims.get(name) != wanted:
        raise ProofWrong(f"{name} is {shown(claims.get(name))}; this request has {shown(wanted)}")


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _origin(url: str) -> str:
    normal = _normal(url.rstrip("/"))
    if normal is None:
        raise ValueError(f"{url} is no address that a proof could name")
    return normal[0]


def _normal(url: str) -> tuple[str, str] | None:
    """Origin and path of a URL, each in one spelling (RFC 3986 sections 6.2.2 and 6.2.3).

    None if it has a user, a query or a fragment: `htu` has none (RFC 9449 section 4.2). Dots in a
    path stay, so that nothing here takes two paths for one that a server may tell apart.
    """
    match = _URL.fullmatch(url) if url.isascii() else None
    if match is None:
        return None
    scheme, authority = match[1].lower(), match[2].lower()
    authority = authority.removesuffix(_DEFAULT_PORT[scheme])
    return f"{scheme}://{authority}", _normal_path(match[3] or "")


def _normal_path(path: str) -> str:
    return _ESCAPE.sub(_normal_escape, path) or "/"


def _normal_escape(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()
