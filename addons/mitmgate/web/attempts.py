"""How often an address may bring a token that is not accepted: enough for people, not for a flood.

Tokens cannot be guessed; this keeps verification and the log from being kept busy.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST = 10  # failures
SPAN = 60.0  # seconds
REMEMBERED = 1000  # addresses


class Attempts:
    """The failures of every address lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Seconds until `address` may try again; 0 for now."""
        times, now = self._failures.get(address, deque()), self._clock()
        while times and now - times[0] >= SPAN:
            times.popleft()
        return math.ceil(SPAN - (now - times[0])) if len(times) >= MOST else 0

    def failed(self, address: str) -> None:
        """Count a failure."""
        self._failures.setdefault(address, deque(maxlen=MOST)).append(self._clock())
        self._failures.move_to_end(address)
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
