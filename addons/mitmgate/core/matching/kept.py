"""Compiled patterns on disk: Hyperscan takes seconds to make what is read back in a millisecond.

They are in the user's cache directory (`$XDG_CACHE_HOME`, else `~/.cache`), below `mitmgate`.
Hyperscan believes what it reads, so the directory must be the user's own and closed to all others;
otherwise nothing is read from it and nothing kept. A file that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

OLD = 60 * 86400.0  # seconds after which one that nobody has read is removed
_SUM = hashlib.sha256().digest_size


def read(key: str) -> bytes | None:
    """What was kept under `key`, None if there is nothing that can be relied on."""
    with suppress(OSError, RuntimeError):
        path = _directory() / key
        with path.open("rb") as file:
            total, content = file.read(_SUM), file.read()
        if hashlib.sha256(content).digest() == total:
            os.utime(path)
            return content
    return None


def keep(key: str, content: bytes) -> None:
    """Keep `content` under `key`, if there is a place for it. Never raises."""
    with suppress(OSError, RuntimeError):
        directory = _directory()
        draft = directory / f".{secrets.token_hex(8)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        draft.replace(directory / key)
        for path in directory.iterdir():
            if path.stat().st_mtime < time.time() - OLD:
                path.unlink()


def _directory() -> Path:
    """Raises `OSError` for one that others might write to, `RuntimeError` without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    directory = (Path(base) if base else Path("~/.cache").expanduser()) / "mitmgate"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat(follow_symlinks=False)
    if os.name != "posix" or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise PermissionError(directory)
    return directory
