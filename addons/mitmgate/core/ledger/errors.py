"""What goes wrong when something is to be written down."""

from __future__ import annotations

from pathlib import Path


class RecordingError(Exception):
    """Something could not be put on disk. `path` says where, the text also says why.

    The exchange it was about is not recorded; the files are as they were before, and the next
    attempt may succeed.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: {reason}")

    @classmethod
    def of(cls, path: Path, error: OSError) -> RecordingError:
        """The `RecordingError` for an `error` met at `path`."""
        return cls(path, error.strerror or str(error))


class Stopped(Exception):
    """The gate is ending: work that can wait until the next start is left."""
