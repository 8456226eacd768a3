"""A small file that may change while the gate runs, looked at cheaply and read when it changed."""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class WatchedFile:
    """Content of `path` whenever it is new.

    It is looked at no more often than each `every` seconds of `clock`; 0 is each time.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        every: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._every = every
        self._clock = clock
        self._next_look = -math.inf
        self._stamp: tuple[int, int, int] | None = None

    def changed(self) -> bytes | None:
        """The content if it is not what the last call saw, else None.

        Raises `ValueError` with a reason when it cannot be read or is too large; the next look
        then reads again.
        """
        now = self._clock()
        if now < self._next_look:
            return None
        self._next_look = now + self._every
        seen, self._stamp = self._stamp, None
        try:
            stamp = _stamp(self.path.stat())
            if stamp == seen:
                self._stamp = stamp
                return None
            with open_ordinary(self.path) as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read(self._max_bytes + 1)
        except OSError as e:
            raise ValueError(f"cannot be read: {e.strerror or type(e).__name__}") from None
        if len(content) > self._max_bytes:
            raise ValueError(f"is larger than {self._max_bytes >> 10} KB")
        self._stamp = stamp
        return content


def open_ordinary(path: Path) -> BinaryIO:
    """The file at `path`, for reading. Raises `OSError`, also for a pipe or a device.

    Whoever opens a pipe waits for its writer, and here everybody would wait with them.
    """
    file = open(path, "rb", opener=_without_waiting)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no ordinary file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
