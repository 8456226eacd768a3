"""The rule file that an addon stands on: loaded at start, watched, swapped whole.

A file that does not load at start ends start-up; one that is edited into an error is reported, and
the rules that were in force stay in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from mitmproxy import exceptions
from mitmproxy.log import ALERT

from mitmgate.core.rules import RuleError

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between two looks at the file


class RuleFile[T]:
    """Compiled rules of type `T` and the file they come from.

    `read` loads and compiles the file at a path, in a thread when it is a reload; it raises
    `RuleError`.
    """

    def __init__(self, read: Callable[[Path], tuple[T, str]]) -> None:
        self._read = read
        self._path = Path()
        self._stamp: object = None
        self._task: asyncio.Task[None] | None = None
        self.rules: T
        self.digest = ""

    def load(self, path: Path) -> None:
        """Load for the first time, or from another place. Raises `OptionsError`."""
        self._path, self._stamp = path, _stamp(path)
        try:
            self.rules, self.digest = self._read(path)
        except RuleError as e:
            raise exceptions.OptionsError(str(e)) from None

    def watch(self, swapped: Callable[[], None] | None = None) -> None:
        """Follow edits from now on; `swapped` is called after each that took effect."""
        self._task = asyncio.create_task(self._follow(swapped), name=f"rules {self._path.name}")

    def stop(self) -> None:
        """No longer follow edits."""
        if self._task:
            self._task.cancel()

    async def _follow(self, swapped: Callable[[], None] | None) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                self.rules, self.digest = await asyncio.to_thread(self._read, self._path)
            except Exception as e:
                # Whatever it is: the old rules stay, and the operator hears of it.
                problems = str(e) if isinstance(e, RuleError) else repr(e)
                logger.log(
                    ALERT, "%s is not used, the old rules stay in force:\n%s", self._path, problems
                )
                continue
            logger.log(ALERT, "%s is in force, digest %s", self._path, self.digest[:12])
            if swapped:
                swapped()


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
