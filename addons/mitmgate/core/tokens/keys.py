"""Where an issuer's key set comes from and how it is kept fresh. Each issuer has its own.

A key that is known never waits for the network. An unknown key id causes one fetch per cool-down
at most, shared by all who wait for it, and a fetch that fails leaves the last good set in place.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.fetch import discover, fetch
from mitmgate.core.tokens.file import Issuer
from mitmgate.core.tokens.keyset import MAX_BYTES, KeySet, parse_key_set
from mitmgate.core.tokens.watched import WatchedFile

COOL_DOWN = 30.0  # seconds between two fetches that unknown key ids ask for
RENEWAL = 600.0  # seconds after which a set is fetched again unasked: withdrawn keys must go
DEADLINE = 15.0  # seconds that anybody waits for a fetch

Clock = Callable[[], float]


class Keys(Protocol):
    """One issuer's keys. `problem` is why the newest look for them failed, or None."""

    problem: KeySetError | None

    def current(self) -> KeySet:
        """The newest good set, without waiting. Raises `KeySetError` if there is none."""

    async def refresh(self) -> None:
        """Look for a newer set because a key id is unknown; a failure shows in `problem`."""

    async def start(self) -> None:
        """Make sure that there is a set. Raises `KeySetError`."""


class FileKeys:
    """Keys in a file, read again when it changes."""

    def __init__(self, issuer: Issuer, file: WatchedFile) -> None:
        self.problem: KeySetError | None = None
        self._issuer = issuer
        self._file = file
        self._set: KeySet | None = None

    def current(self) -> KeySet:
        try:
            content = self._file.changed()
            if content is not None:
                self._set = parse_key_set(content, self._file.path, self._issuer.algorithms)
                self.problem = None
        except ValueError as e:
            self.problem = KeySetError(self._file.path, e)
        except KeySetError as e:
            self.problem = e
        if self._set is None:
            raise self.problem or KeySetError(self._file.path, "has not been read")
        return self._set

    async def refresh(self) -> None:
        """Nothing to do: `current` looks at the file each time."""

    async def start(self) -> None:
        self.current()


class RemoteKeys:
    """Keys that `get` fetches, called in a thread: off the event loop, one flight at a time."""

    def __init__(
        self, source: str, get: Callable[[], KeySet], *, clock: Clock = time.monotonic
    ) -> None:
        self.problem: KeySetError | None = None
        self._source = source
        self._get = get
        self._clock = clock
        self._set: KeySet | None = None
        self._flight: asyncio.Task[None] | None = None
        self._asked = -math.inf  # when an unknown key id last caused a fetch
        self._renew_at = math.inf

    def current(self) -> KeySet:
        if self._set is None:
            raise self.problem or KeySetError(self._source, "has not been fetched yet")
        if self._clock() >= self._renew_at:
            self._take_off()
        return self._set

    async def refresh(self) -> None:
        if self._flight is None:
            if self._clock() < self._asked + COOL_DOWN:
                return
            self._asked = self._clock()
        await self._land()

    async def start(self) -> None:
        await self._land()
        if self._set is None:
            raise self.problem or KeySetError(self._source, "has not been fetched")

    async def _land(self) -> None:
        # Shielded: a caller that goes away must not take the others' fetch with it.
        await asyncio.shield(self._take_off())

    def _take_off(self) -> asyncio.Task[None]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch())
        return self._flight

    async def _fetch(self) -> None:
        try:
            fetched = await asyncio.wait_for(asyncio.to_thread(self._get), DEADLINE)
        except KeySetError as e:
            self.problem = e
        except TimeoutError:
            self.problem = KeySetError(self._source, f"took longer than {DEADLINE:.0f} s")
        except Exception as e:
            # Nobody may be waiting to see it; with no newer set, unknown keys stay refused.
            self.problem = KeySetError(self._source, f"{type(e).__name__}: {e}")
        else:
            self.problem = None
            if self._set is None or fetched.digest != self._set.digest:
                self._set = fetched
        finally:
            self._renew_at = self._clock() + (COOL_DOWN if self.problem else RENEWAL)
            self._flight = None


def keys_of(issuer: Issuer, *, clock: Clock = time.monotonic) -> Keys:
    """The keys of one issuer, from where its rules say. Reads and fetches nothing yet."""
    source = issuer.keys
    if source.jwks_file is not None:
        return FileKeys(issuer, WatchedFile(source.jwks_file, max_bytes=MAX_BYTES))

    def get() -> KeySet:
        url = source.jwks_url or discover(issuer.issuer)
        return parse_key_set(fetch(url), url, issuer.algorithms)

    return RemoteKeys(source.jwks_url or issuer.issuer, get, clock=clock)
