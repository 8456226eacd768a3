"""Where an issuer's key set comes from and how it is kept fresh. Each issuer has its own.

A key that is known never waits for the network. An unknown key id causes one fetch per cool-down
at most, shared by all who wait for it, and none waits long. What cannot be fetched or used leaves
the last good set in place, which serves for `max_stale` and no longer.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.fetch import discover, fetch
from mitmgate.core.tokens.file import Issuer
from mitmgate.core.tokens.keyset import MAX_BYTES, KeySet, parse_key_set
from mitmgate.core.tokens.watched import WatchedFile

COOL_DOWN = 5.0  # seconds between two fetches that unknown key ids ask for; a forged one may
# have used up the turn of the first caller after a rotation, who is refused for no longer than this
RENEWAL = 600.0  # seconds after which a set is fetched again unasked: withdrawn keys must go
DEADLINE = 15.0  # seconds that a fetch may take, discovery included
PATIENCE = 5.0  # seconds of a fetch that callers with an unknown key id wait through
RETRY, SLOWEST = 1.0, 30.0  # seconds from a failure to the next fetch, the first and the most
TICK = 1.0  # seconds between two looks at whether a fetch is due

Clock = Callable[[], float]
logger = logging.getLogger(__name__)


class Keys(Protocol):
    """One issuer's keys. `problem` is why the newest look for them failed, or None."""

    problem: KeySetError | None

    def current(self) -> KeySet:
        """The newest good set, without waiting. Raises `KeySetError` if there is none to use."""

    def age(self) -> float | None:
        """Seconds since the set was last confirmed where it comes from; None if it never was."""

    async def start(self) -> None:
        """Look for the first set, unless that was done; a failure shows in `problem`."""

    async def refresh(self) -> None:
        """Look for a newer set because a key id is unknown; a failure shows in `problem`."""

    async def keep_fresh(self) -> None:
        """Look for newer sets unasked, until cancelled."""


class FileKeys:
    """Keys in a file, read again when it changes."""

    def __init__(self, issuer: Issuer, file: WatchedFile, *, clock: Clock = time.monotonic) -> None:
        self.problem: KeySetError | None = None
        self._issuer = issuer
        self._file = file
        self._clock = clock
        self._set: KeySet | None = None
        self._confirmed = -math.inf

    def current(self) -> KeySet:
        try:
            content = self._file.changed()
            if content is not None:
                self._set = _parse(content, self._file.path, self._issuer)
                self._settle(None)
        except ValueError as e:
            self._settle(KeySetError(self._file.path, e))
        except KeySetError as e:
            self._settle(e)
        if self._set is None:
            raise self.problem or KeySetError(self._file.path, "has not been read")
        if self.problem is None:
            self._confirmed = self._clock()
        return self._set

    def age(self) -> float | None:
        with suppress(KeySetError):
            self.current()
        return self._clock() - self._confirmed if self._set else None

    async def start(self) -> None:
        with suppress(KeySetError):
            self.current()

    async def refresh(self) -> None:
        """Nothing to do: `current` looks at the file each time."""

    async def keep_fresh(self) -> None:
        """Nothing to do, as with `refresh`."""

    def _settle(self, problem: KeySetError | None) -> None:
        if self._set is not None:  # a first failure is for whoever has called `start` to tell
            _tell(self._issuer.id, self.problem, problem, "the last good keys serve on")
        self.problem = problem


class RemoteKeys:
    """Keys that `get` fetches for the issuer with the id `name`, one flight at a time.

    It may be started in one event loop and be used in another afterwards.
    """

    def __init__(
        self,
        name: str,
        source: str,
        get: Callable[[], Awaitable[KeySet]],
        *,
        max_stale: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.problem: KeySetError | None = None
        self._name = name
        self._source = source
        self._get = get
        self._max_stale = max_stale
        self._clock = clock
        self._set: KeySet | None = None
        self._confirmed = -math.inf  # when the set was last fetched
        self._flight: asyncio.Task[None] | None = None
        self._took_off = -math.inf
        self._asked = -math.inf  # when an unknown key id last caused a fetch
        self._due = -math.inf  # when to fetch unasked
        self._failures = 0  # in a row

    def current(self) -> KeySet:
        if self._set is None:
            raise self.problem or KeySetError(self._source, "has not been fetched yet")
        age = self._clock() - self._confirmed
        if age > self._max_stale:
            why = f"; {self.problem.reason}" if self.problem else ""
            reason = f"was last had {age:.0f} s ago, max_stale is {self._max_stale:.0f} s{why}"
            raise KeySetError(self._source, reason)
        return self._set

    def age(self) -> float | None:
        return self._clock() - self._confirmed if self._set else None

    async def start(self) -> None:
        # With a problem it has been tried, and whoever keeps it fresh is trying on: perhaps in
        # another loop, so that no flight of theirs may be waited for here.
        if self._set is None and self.problem is None:
            await asyncio.wait({self._take_off()})

    async def refresh(self) -> None:
        now = self._clock()
        if self._up() is None:
            if now < self._asked + COOL_DOWN:
                return
            self._asked = now
        flight = self._take_off()
        # A flight that hangs has had its time: who comes later does not wait for it again.
        # `wait` leaves it up when the time is over, and when a caller goes away.
        await asyncio.wait({flight}, timeout=max(0.0, self._took_off + PATIENCE - now))

    async def keep_fresh(self) -> None:
        while True:
            if self._clock() >= self._due:
                await asyncio.wait({self._take_off()})
            await asyncio.sleep(TICK)

    def _up(self) -> asyncio.Task[None] | None:
        flight = self._flight
        if flight is None or flight.done() or flight.get_loop() is not asyncio.get_running_loop():
            return None
        return flight

    def _take_off(self) -> asyncio.Task[None]:
        if flight := self._up():
            return flight
        self._took_off = self._clock()
        self._flight = asyncio.create_task(self._fetch(), name=f"keys of {self._name}")
        return self._flight

    async def _fetch(self) -> None:
        problem = None
        try:
            async with asyncio.timeout(DEADLINE):
                fetched = await self._get()
            if self._set is None or fetched.digest != self._set.digest:
                self._set = fetched
        except KeySetError as e:
            problem = e
        except TimeoutError:
            problem = KeySetError(self._source, f"took longer than {DEADLINE:g} s")
        except Exception as e:
            # Nobody may be waiting to see it; with no newer set, unknown keys stay refused.
            problem = KeySetError(self._source, f"{type(e).__name__}: {e}")
        self._settle(problem)

    def _settle(self, problem: KeySetError | None) -> None:
        now = self._clock()
        if problem is None:
            self._confirmed = now
            self._failures = 0
            self._due = now + min(RENEWAL, self._max_stale / 2)
        else:
            self._due = now + min(RETRY * 2 ** min(self._failures, 10), SLOWEST)
            self._failures += 1
        if self._set is not None:  # a first failure is for whoever has called `start` to tell
            _tell(self._name, self.problem, problem, self._outlook(now))
        self.problem = problem

    def _outlook(self, now: float) -> str:
        left = self._confirmed + self._max_stale - now
        if left <= 0:
            return "the last good keys are too old, and its tokens are refused"
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=left)
        return f"the last good keys serve until {until:%Y-%m-%d %H:%M:%S} UTC"


def _tell(name: str, old: KeySetError | None, new: KeySetError | None, outlook: str) -> None:
    """To the log, once for each trouble, however often it is met, and once for its end."""
    if new and not old:
        logger.warning("issuer %s: no new keys: %s; %s", name, new, outlook)
    elif old and not new:
        logger.warning("issuer %s: its keys can be had again", name)


def _parse(content: bytes, source: object, issuer: Issuer) -> KeySet:
    spiffe = issuer.trust_domain is not None
    return parse_key_set(content, source, issuer.algorithms, spiffe=spiffe)


def keys_of(issuer: Issuer, *, clock: Clock = time.monotonic) -> Keys:
    """The keys of one issuer, from where its rules say. Reads and fetches nothing yet."""
    source = issuer.keys
    if source.jwks_file is not None:
        file = WatchedFile(source.jwks_file, max_bytes=MAX_BYTES)
        return FileKeys(issuer, file, clock=clock)

    async def get() -> KeySet:
        authorities, bearer = issuer.ca_file, source.bearer_file
        url = source.jwks_url or await discover(
            issuer.issuer or "", authorities=authorities, bearer_file=bearer
        )
        content = await fetch(url, authorities=authorities, bearer_file=bearer)
        return _parse(content, url, issuer)

    where = source.jwks_url or issuer.issuer or issuer.id
    return RemoteKeys(issuer.id, where, get, max_stale=source.max_stale, clock=clock)
