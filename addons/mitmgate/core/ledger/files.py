"""The few operations on files that have to be exact: whole writes, private files, synced names."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def create(path: Path) -> int:
    """A new file for appending, readable by its owner alone. Raises `OSError` if it exists."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)


def write_all(file: int, data: bytes) -> None:
    """One write() of all of `data`. Raises `OSError`; part of it may have been written then."""
    if os.write(file, data) != len(data):
        # the kernel writes what fits and reports the lack of space only to the next call
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_directory(path: Path) -> None:
    """Make the names in a directory as durable as the files they name."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def replace_text(path: Path, text: str) -> None:
    """Put `text` at `path` so that a reader sees the old content or the new, never a part."""
    aside = path.with_name(path.name + ".part")
    aside.unlink(missing_ok=True)
    file = create(aside)
    try:
        write_all(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)
    aside.rename(path)
