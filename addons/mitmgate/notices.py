"""Telling people that something waits, off the way of exchanges: a queue for each webhook.

What goes wrong here is logged and counted and changes nothing else: a hold waits for people whether
they were told or not.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mitmproxy.log import ALERT

from mitmgate import metrics
from mitmgate.core.holds import ApprovalFile, Hold, notify
from mitmgate.core.holds.message import message
from mitmgate.core.holds.notify import Event, Notice
from mitmgate.core.holds.post import PostError, aside, post

logger = logging.getLogger(__name__)

QUEUE = 1000  # events that one webhook may still have to be told of
ATTEMPTS = 8
FIRST, LONGEST = 1.0, 60.0  # seconds between tries; with jitter, some two minutes in all

_random = secrets.SystemRandom()


class Notices:
    """Tells the webhooks in approval.yaml, which `rules` gives as it is in force.

    `mask` gives what a hold's approvers may read of a text, or raises if that cannot be known; it
    is called in a thread. `sleep` waits between two tries. Used on the event loop alone. Each
    webhook has a queue of its own, so one that hangs delays no other.
    """

    def __init__(
        self,
        rules: Callable[[], ApprovalFile],
        mask: Callable[[Hold, str], str],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rules = rules
        self._mask = mask
        self._sleep = sleep
        self._queues: dict[Notice, _Queue] = {}
        self._closed = False

    def notify(self, hold: Hold, event: Event) -> None:
        """Tell of `event`, soon. Never waits and never raises."""
        if self._closed:
            return
        try:
            rules = self._rules()
            happening = _Happening(hold, event, rules.console.url)
            listed = dict.fromkeys(rules.notify)
            for notice in [n for n, q in self._queues.items() if n not in listed and q.idle]:
                del self._queues[notice]
            for notice in listed:
                if event in notice.on:
                    if notice not in self._queues:
                        self._queues[notice] = _Queue(notice, self._mask, self._sleep)
                    self._queues[notice].put(happening)
        except Exception as e:
            logger.log(ALERT, "nobody is told of %s: %s", hold.id, type(e).__name__)

    def close(self) -> None:
        """Give up what is under way, and tell of nothing more."""
        self._closed = True
        for queue in self._queues.values():
            queue.stop()


@dataclass(frozen=True, slots=True)
class _Happening:
    hold: Hold
    event: Event
    console: str | None

    def is_over(self, now: float) -> bool:
        """Nobody needs to hear that something waits, once it waits no longer."""
        return self.event == "held" and now >= self.hold.expires


class _Queue:
    """What one webhook is still to be told of; its task lives while there is something."""

    def __init__(
        self,
        notice: Notice,
        mask: Callable[[Hold, str], str],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._notice = notice
        self._mask = mask
        self._sleep = sleep
        self._waiting: deque[_Happening] = deque()
        self._task: asyncio.Task[None] | None = None
        self._overflows = False

    @property
    def idle(self) -> bool:
        return self._task is None or self._task.done()

    def put(self, happening: _Happening) -> None:
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            metrics.NOTIFICATIONS.labels("dropped").inc()
            if not self._overflows:
                text = "%r: %d messages wait to be taken, the oldest are dropped"
                logger.log(ALERT, text, self._notice.webhook, QUEUE)
            self._overflows = True
        self._waiting.append(happening)
        if self.idle:
            self._task = loop.create_task(self._work(), name="notices")

    def stop(self) -> None:
        self._waiting.clear()
        if self._task:
            self._task.cancel()

    async def _work(self) -> None:
        while self._waiting:
            happening = self._waiting.popleft()
            hold = happening.hold
            try:
                host = await self._tell(happening)
                logger.info("%s was told of %s", host, hold.id)
                result = "delivered"
            except Exception as e:
                reason = e if isinstance(e, PostError) else type(e).__name__
                logger.log(ALERT, "somebody was not told of %s: %s", hold.id, reason)
                result = "dropped"
            metrics.NOTIFICATIONS.labels(result).inc()
        self._overflows = False

    async def _tell(self, happening: _Happening) -> str:
        """Try until it succeeds; returns the host. Raises the last failure."""
        hold, event = happening.hold, happening.event
        if happening.is_over(time.time()):
            raise PostError(repr(self._notice.webhook), "could not be told before it had expired")
        body = await aside(lambda: self._written(happening))
        id = notify.event_id(hold, event)
        for attempt in range(ATTEMPTS):
            try:
                return await post(self._notice, id, body)
            except PostError as e:
                wait = min(FIRST * 2**attempt, LONGEST) * _random.uniform(0.5, 1.0)
                wait = max(wait, e.after)
                last = attempt == ATTEMPTS - 1
                if e.final or last or happening.is_over(time.time() + wait):
                    raise
                metrics.NOTIFICATIONS.labels("retried").inc()
                logger.info("%s is told again in %.1f s: %s", hold.id, wait, e)
            await self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _written(self, happening: _Happening) -> bytes:
        hold = happening.hold

        def mask(text: str) -> str:
            return self._mask(hold, text)

        def write(notice: Notice) -> bytes:
            return message(notice, hold, happening.event, happening.console, mask)

        try:
            return write(self._notice)
        except Exception as e:
            if not self._notice.prompt:
                raise
            # What cannot be masked is not shown; that something waits is told all the same.
            logger.log(ALERT, "%s is told without its prompt: %s", hold.id, type(e).__name__)
            return write(self._notice.model_copy(update={"prompt": False}))
