"""The SQLite file under the hold store: opening, schema, transactions, and errors with its path.

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

from mitmgate.core.holds.errors import StoreError

VERSION = 1
APPLICATION = 0x6D676174  # "mgat": tells a hold store from any other SQLite file
BUSY = 3.0  # seconds to wait for another process; then StoreError, never a hang

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE hold (
  id TEXT PRIMARY KEY, digest TEXT NOT NULL, principal TEXT NOT NULL, issuer TEXT NOT NULL,
  subject TEXT NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, rules TEXT NOT NULL,
  message TEXT NOT NULL, excerpt TEXT NOT NULL, exchange TEXT NOT NULL, created REAL NOT NULL,
  expires REAL NOT NULL, quorum INTEGER NOT NULL, state TEXT NOT NULL, decisions TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_live_hold ON hold (digest) WHERE state IN ('pending', 'approved');
CREATE INDEX hold_digest ON hold (digest, created);
CREATE INDEX hold_state ON hold (state, created);
CREATE TABLE waiter (
  hold TEXT NOT NULL REFERENCES hold, exchange TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY (hold, exchange)
) STRICT;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


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
        # the busy timeout does not cover two processes that create the file at once
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), deadline)
        _patiently(lambda: self._ensure_schema(connection), deadline)
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreError(self.path, f"is corrupt: {found}")

    def _ensure_schema(self, connection: sqlite3.Connection) -> None:
        version, application, tables = (
            connection.execute(query).fetchone()[0]
            for query in (
                "PRAGMA user_version",
                "PRAGMA application_id",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        if (version, application, tables) == (0, 0, 0):
            try:
                connection.executescript(_SCHEMA)
            except sqlite3.OperationalError as e:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if "already exists" not in str(e):  # another process was faster
                    raise
        elif application != APPLICATION:
            raise StoreError(self.path, "is another program's database")
        elif version != VERSION:
            raise StoreError(self.path, f"has schema {version}, this mitmgate knows {VERSION}")

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
        with self.read() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

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


def _patiently(step: Callable[[], object], deadline: float) -> None:
    while True:
        try:
            step()
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
