"""Who is signed in: sessions in memory, gone with the process.

A session keeps the token it began with, so that every request verifies it again: revocation and
new rules count at once. Nothing here is written to disk or shown.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE = 30 * 60.0  # seconds without anything that the person did themselves
MOST = 200
MOST_EACH = 10  # of one person, so that nobody signs the others out


@dataclass(slots=True)
class Session:
    """One browser in which `name` is signed in. `expires` is the token's, in Unix seconds."""

    token: str = field(repr=False)
    csrf: str = field(repr=False)
    expires: float
    seen: float
    name: str


class Sessions:
    """At most `MOST` sessions, `MOST_EACH` of one person; the longest idle one makes room."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, token: str, expires: float, name: str) -> tuple[str, Session]:
        """A new session of `name` under an id that nobody has seen before."""
        own = [key for key, session in self._sessions.items() if session.name == name]
        for key in own[: max(0, len(own) + 1 - MOST_EACH)]:
            del self._sessions[key]
        id, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        session = self._sessions[_key(id)] = Session(token, csrf, expires, self._clock(), name)
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return id, session

    def find(self, id: str, *, touch: bool = True) -> Session | None:
        """The session, unless it is over. A page that only waits for news does not `touch` it."""
        session, now = self._sessions.get(_key(id)), self._clock()
        if session is None:
            return None
        if now >= session.expires or now - session.seen >= IDLE:
            self.end(id)
            return None
        if touch:
            session.seen = now
            self._sessions.move_to_end(_key(id))
        return session

    def end(self, id: str) -> None:
        """Sign out; no error if nobody was signed in."""
        self._sessions.pop(_key(id), None)

    def clear(self) -> None:
        """Sign everybody out."""
        self._sessions.clear()


def _key(id: str) -> bytes:
    # Looked up by its digest, so that no timing tells how much of a guess was right.
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
