"""Torn ends: bytes after the last whole record, moved to a side file and never thrown away."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mitmgate.core.ledger.files import create

TORN = ".torn"


def digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cut(path: Path, end: int) -> tuple[int, str | None]:
    """Move what stands in `path` after byte `end` to a side file.

    Returns how many bytes that was, and the hash of the side file if there is one: it may be there
    from a recovery that died behind its cut. Raises `OSError`.
    """
    size = path.stat().st_size - end
    torn = path.with_name(path.name + TORN)
    if size:
        torn.unlink(missing_ok=True)  # of a recovery that did not get as far as the cut
        with path.open("rb") as source, os.fdopen(create(torn), "wb") as target:
            source.seek(end)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        os.truncate(path, end)
    return size, digest(torn) if torn.exists() else None
