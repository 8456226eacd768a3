"""What keeps a DPoP proof from being used again: a memory of proofs used, and nonces.

Both live in this process alone. After a restart the memory is empty, and a proof that was seen on
the wire may be used once more within its window, unless nonces are wanted: those of the process
before are not known.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import secrets

from mitmgate.core.tokens.errors import ProofReplayed, ProofsUnavailable


class Replays:
    """Proofs that were used, by key and `jti`, each for as long as it would be accepted.

    At most `per_key` of one key and `in_all` together (some 250 bytes each). Where it is full, a
    new proof is refused, since one that is forgotten too early could be used again.
    """

    def __init__(self, *, per_key: int = 1 << 13, in_all: int = 1 << 17) -> None:
        self._per_key = per_key
        self._in_all = in_all
        self._seen: dict[str, set[bytes]] = {}
        self._due: list[tuple[float, str, bytes]] = []  # a heap, the next to be forgotten first
        self._forgotten = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def remember(self, key: str, jti: str, until: float, now: float) -> None:
        """Take note of a proof that is accepted up to and including `until` (Unix seconds).

        Raises `ProofReplayed`, or `ProofsUnavailable` where that can no longer be told.
        """
        self._forget(now)
        digest = hashlib.sha256(jti.encode("utf-8", "surrogatepass")).digest()
        seen = self._seen.get(key, set())
        if digest in seen:
            raise ProofReplayed(f"a proof of the key {key} with this jti has been used")
        if until <= self._forgotten:  # accepted again only because the clock was set back
            raise ProofsUnavailable("the clock went back behind proofs that are forgotten")
        if len(seen) >= self._per_key:
            raise ProofsUnavailable(f"{len(seen)} proofs of the key {key} are remembered")
        if len(self._due) >= self._in_all:
            raise ProofsUnavailable(f"{len(self._due)} proofs are remembered")
        self._seen.setdefault(key, seen).add(digest)
        heapq.heappush(self._due, (until, key, digest))

    def _forget(self, now: float) -> None:
        while self._due and self._due[0][0] < now:
            until, key, digest = heapq.heappop(self._due)
            self._forgotten = max(self._forgotten, until)
            self._seen[key].discard(digest)
            if not self._seen[key]:
                del self._seen[key]


class Nonces:
    """Nonces that need no memory: each is the MAC of the current stretch of `life` seconds.

    One is accepted in its stretch and in the next, so for `life` at least.
    """

    def __init__(self, life: float) -> None:
        self._life = life
        self._key = secrets.token_bytes(32)

    def fresh(self, now: float) -> str:
        """A nonce of `now` (Unix seconds)."""
        return self._of(now // self._life)

    def accepts(self, nonce: object, now: float) -> bool:
        """True if `nonce` was made here, and lately."""
        if not isinstance(nonce, str) or not nonce.isascii():
            return False
        stretch = now // self._life
        return any(hmac.compare_digest(nonce, self._of(each)) for each in (stretch, stretch - 1))

    def _of(self, stretch: float) -> str:
        mac = hmac.digest(self._key, b"%d" % stretch, "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
