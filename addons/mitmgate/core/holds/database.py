"""The SQLite file under the hold store: opening, transactions, and errors with its path.

WAL, because the gate and `mitmgate approve` use the file at the same time. Every transaction that
writes begins IMMEDIATE, so that what it read is still true when it writes.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mitmgate.core.holds import schema
from mitmgate.core.holds.errors import StoreError

BUSY = 3.0  # seconds to wait for another process; then StoreError, never a hang


class Database:
    """One connection. Any thread may use it; calls wait for each other."""

    def __init__(self, path: Path, *, create: bool = True, busy: float = BUSY) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._errors():
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.touch(mode=0o600)  # it keeps parts of prompts; SQLite gives -wal its mode
            elif not path.exists():
                raise StoreError(path, "does not exist")
            connection = sqlite3.connect(
                path, timeout=busy, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection, time.monotonic() + busy)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        connection.row_factory = sqlite3.Row
        # FULL, though WAL with NORMAL cannot corrupt: after a power cut NORMAL may forget the last
        # commits, and an approval that was used would be approved again. Holds come at the pace of
        # people, so one fsync a step costs nothing.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # what is deleted are prompts: they leave the file, not only its index
        connection.execute("PRAGMA secure_delete = ON")
        # the busy timeout does not cover two processes that create the file at once
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), deadline)
        _patiently(lambda: self._ensure_schema(connection), deadline)
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreError(self.path, f"is corrupt: {found}")

    def _ensure_schema(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection, "DEFERRED"):  # another process may be creating it just now
            version = self._version(connection)
        if version == schema.VERSION:
            return
        with _transaction(connection):
            # Read again: another process may have been faster.
            for statements in schema.STEPS[self._version(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    def _version(self, connection: sqlite3.Connection) -> int:
        version, application, tables = (
            connection.execute(query).fetchone()[0]
            for query in (
                "PRAGMA user_version",
                "PRAGMA application_id",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        if (version, application, tables) == (0, 0, 0):
            return 0
        if application != schema.APPLICATION:
            raise StoreError(self.path, "is another program's database")
        if version not in range(1, schema.VERSION + 1):
            known = schema.VERSION
            raise StoreError(self.path, f"has schema {version}, this mitmgate knows {known}")
        return int(version)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one query. Raises `StoreError`."""
        with self._lock, self._errors():
            if self._connection is None:
                raise StoreError(self.path, "is closed")
            yield self._connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: committed at the end, undone by any exception."""
        with self.read() as connection, _transaction(connection):
            yield connection

    def close(self) -> None:
        """Close the file; later calls raise `StoreError`."""
        with self._lock, self._errors():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            locked = isinstance(e, sqlite3.OperationalError) and "locked" in str(e)
            reason = "is locked by another process" if locked else f"does not answer: {e}"
            raise StoreError(self.path, reason) from e
        except OSError as e:
            raise StoreError(self.path, f"cannot be opened: {e.strerror}") from e


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _patiently(step: Callable[[], object], deadline: float) -> None:
    while True:
        try:
            step()
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
