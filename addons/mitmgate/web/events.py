"""News for an open queue: an event stream that says that something has changed, and no more.

The page then fetches its list again. One task watches the store for all streams, however many.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from tornado.iostream import StreamClosedError

from mitmgate.approvals import POLL
from mitmgate.core.holds import HoldStore, StoreError
from mitmgate.desk import Desk
from mitmgate.web import caller, showing
from mitmgate.web.handler import Handler
from mitmgate.web.problem import Problem

MOST = 64  # open streams
MOST_EACH = 6  # of one person
RETRY = 3000  # milliseconds until a browser opens a stream again that has ended
LASTS = 15 * 60.0  # seconds; then the browser opens another
BEAT = 5.0  # seconds in which a stream looks at least once: requests expire without a change


class Streams:
    """The open streams, and the one task that watches the store while there are any."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: dict[Events, str] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def enter(self, stream: Events, name: str) -> None:
        """Raises `Problem` when there are too many."""
        if len(self._open) >= MOST or list(self._open.values()).count(name) >= MOST_EACH:
            wait = {"Retry-After": "30"}
            raise Problem(429, "too_many_streams", "Too many open pages wait for news.", wait)
        self._open[stream] = name
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="console watches holds")

    def leave(self, stream: Events) -> None:
        self._open.pop(stream, None)

    def change(self) -> asyncio.Event:
        """Set at the next change that is noticed. Ask for it first, then look: none is missed."""
        return self._changed

    async def _watch(self) -> None:
        seen: object = None
        while self._open:
            try:
                approvals = self._desk.approvals
                version = await approvals.call(HoldStore.version) if approvals else None
            except StoreError:
                version = None  # whoever looks is told
            if version != seen:
                seen = version
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(POLL)

    def close(self) -> None:
        """End all streams."""
        if self._watcher:
            self._watcher.cancel()
        for stream in list(self._open):
            stream.stop()


class Events(Handler):
    """GET /events: `event: holds` when what the caller sees has changed, until they leave."""

    touches = False  # an open page alone keeps nobody signed in
    _stopped = False
    _task: asyncio.Task[None] | None = None

    async def get(self) -> None:
        self.web.streams.enter(self, self.me.principal.name)
        self._task = asyncio.create_task(self._follow(), name="console event stream")
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._stopped:  # it is the server that ends, not this stream
                raise
        finally:
            self.web.streams.leave(self)

    async def _follow(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.write(f"retry: {RETRY}\n\n")
        seen: object = None
        end = time.monotonic() + LASTS
        with contextlib.suppress(StreamClosedError):
            while time.monotonic() < end:
                change = self.web.streams.change()
                state = await showing.state(self.approvals, self.me.principal)
                self.write(": here\n\n" if state == seen else "event: holds\ndata: changed\n\n")
                seen = state
                await self.flush()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(change.wait(), BEAT)
                if not await self._still():
                    self.write("event: signed-out\ndata: over\n\n")
                    return

    async def _still(self) -> bool:
        try:
            again = await caller.find(self)
        except Problem as e:
            return e.status_code >= 500
        return again is not None and again.principal.name == self.me.principal.name

    def stop(self) -> None:
        """End it: the caller has left, or the console closes."""
        self._stopped = True
        if self._task:
            self._task.cancel()

    def on_connection_close(self) -> None:
        self.stop()
