"""How much callers may use a grant: requests and prompt bytes a minute, exchanges at once.

Counted in this process and forgotten with it; several gates count each for itself. The rate is a
generic cell rate algorithm (ITU-T I.371): two numbers a caller, and the exact time to wait. The
`limits` package would start a thread for nearly every request to forget old ones.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.file import Grant

MINUTE = 60.0
REMEMBERED = 100_000  # callers and grants; one that is forgotten has been idle for the longest


class LimitReached(Exception):
    """The caller has to wait. `retry_after` is in whole seconds, None where waiting is no help."""

    def __init__(self, code: str, detail: str, retry_after: int | None) -> None:
        self.code = code
        self.retry_after = retry_after
        super().__init__(detail)


class Limiter:
    """What has been used of every grant lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # (grant, caller, what) -> when all that was used will have been paid back
        self._due: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def take(self, grant: Grant, principal: Principal, size: int, under_way: int) -> None:
        """Count a request of `size` bytes, with `under_way` others. Raises `LimitReached`.

        A request that is refused counts for nothing.
        """
        limits = grant.limits
        if limits is None:
            return
        if limits.concurrent and under_way >= limits.concurrent:
            detail = f"{grant.id} allows {limits.concurrent} exchanges at once"
            raise LimitReached("concurrency_limited", detail, 1)
        used = []
        for code, each, allowed in (
            ("rate_limited", 1, limits.requests_per_minute),
            ("prompt_bytes_limited", size, limits.prompt_bytes_per_minute),
        ):
            if allowed:
                caller = "" if limits.per == "grant" else principal.name
                used.append((key := (grant.id, caller, code), self._after(key, each, allowed)))
        for key, due in used:
            self._due[key] = due
            self._due.move_to_end(key)
        while len(self._due) > REMEMBERED:
            self._due.popitem(last=False)

    def _after(self, key: tuple[str, str, str], each: int, allowed: int) -> float:
        """When it will be paid back if `each` more is used. Raises `LimitReached`."""
        grant, _, code = key
        detail = f"{grant} allows {allowed} a minute"
        if each > allowed:
            raise LimitReached(code, f"{detail}, and this is {each}", None)
        now = self._clock()
        due = max(self._due.get(key, now), now) + each * MINUTE / allowed
        if (wait := due - now - MINUTE) > 1e-6:
            raise LimitReached(code, detail, math.ceil(wait))
        return due
