"""Tokens and subjects that are refused before they expire, one a line in a file.

A line is a token id (`jti`), a subject, or `issuer-id:subject`; `#` starts a comment line, and a
note may follow a name and ` #`. A file that cannot be read refuses everybody, since nobody knows
whom it would have named.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import RevocationsUnavailable, TokenRevoked, shown
from mitmgate.core.tokens.watched import WatchedFile

MAX_BYTES = 16 << 20
_NOTE = re.compile(r"\s+#")


class Revocations:
    """The revoked, as the file at `path` has them; it is looked at once a second at most."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = WatchedFile(path, max_bytes=MAX_BYTES, every=1.0, clock=clock)
        self._names: frozenset[str] = frozenset()
        self._problem: str | None = None

    def check(self, principal: Principal) -> None:
        """Raises `TokenRevoked`, or `RevocationsUnavailable` while the file cannot be read."""
        self.look()
        # With another `subject_claim`, the issuer's own word for the caller still counts.
        ways = (principal.token_id, principal.subject, principal.name, principal.claims.get("sub"))
        for name in ways:
            if name and name in self._names:
                raise TokenRevoked(f"{shown(name)} stands in {self._file.path}")

    def look(self) -> None:
        """Read the file if it changed. Raises `RevocationsUnavailable` while it cannot be read."""
        try:
            content = self._file.changed()
            if content is not None:
                lines = (line.strip() for line in content.decode("utf-8-sig").splitlines())
                named = (line for line in lines if line and line[0] != "#")
                # A name could hold the mark of a note: then both are meant rather than none.
                self._names = frozenset(
                    name for line in named for name in (line, _NOTE.split(line, 1)[0])
                )
                self._problem = None
        except UnicodeDecodeError:
            self._problem = "is not UTF-8"
        except ValueError as e:
            self._problem = str(e)
        if self._problem:
            raise RevocationsUnavailable(f"{self._file.path} {self._problem}")
