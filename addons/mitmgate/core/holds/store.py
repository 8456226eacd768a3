"""Holds on disk: every step of the state machine as one transaction that survives a crash.

The gate and the `approve` command each open the file; whoever commits first has decided. Calls
block (up to `BUSY` seconds), so an event loop makes them through `asyncio.to_thread`. Old rows are
kept; nothing here notifies anybody.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.holds.database import BUSY, Database
from mitmgate.core.holds.errors import HoldLimit, HoldUnknown
from mitmgate.core.holds.hold import Decision, Hold, State, Verdict, at, consumed, decided
from mitmgate.core.holds.rows import INSERT, SELECT, hold_of, row_of
from mitmgate.core.principal import Principal

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # read aloud or typed, none is taken for another


@dataclass(frozen=True, slots=True)
class Limits:
    """How many holds may be pending at once, and how many characters of a prompt a hold keeps."""

    per_principal: int = 20
    overall: int = 500
    excerpt: int = 2000


class HoldStore:
    """The holds in the SQLite file at `path`; see the module for who may call it.

    `create=False` refuses a file that is not there, for commands that look at a gate's holds.
    Every method raises `StoreError` when the file cannot be used, and `HoldError`s as documented.
    """

    def __init__(
        self,
        path: Path,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
        create: bool = True,
        busy: float = BUSY,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._database = Database(path, create=create, busy=busy)

    def open(
        self,
        digest: str,
        principal: Principal,
        *,
        operation: str,
        model: str,
        rules: Iterable[str],
        message: str,
        excerpt: str,
        exchange: str,
        ttl: float,
        quorum: int = 1,
    ) -> tuple[Hold, bool]:
        """The hold of this request, and whether it is new.

        A retry attaches to the hold that is pending or approved, as it was opened. A denial stands
        until the denied hold's time is over: asking again meanwhile returns it rather than asking
        people again. `ttl` is seconds. Raises `HoldLimit`.
        """
        now = self._clock()
        with self._database.write() as db:
            self._expire(db, now)
            row = db.execute(
                SELECT + "WHERE digest = :digest AND (state IN ('pending', 'approved')"
                " OR state = 'denied' AND expires > :now) ORDER BY created DESC, rowid DESC",
                {"digest": digest, "now": now},
            ).fetchone()
            if row:
                return hold_of(row), False
            self._check_limits(db, principal.name)
            hold = Hold(
                id=_unused_id(db),
                digest=digest,
                principal=principal.name,
                issuer=principal.issuer,
                subject=principal.subject,
                operation=operation,
                model=_text(model),
                rules=tuple(rules),
                message=message,
                excerpt=_bounded(excerpt, self._limits.excerpt),
                exchange=exchange,
                created=now,
                expires=now + ttl,
                quorum=quorum,
            )
            db.execute(INSERT, row_of(hold))
            return hold, True

    def decide(
        self, hold_id: str, who: Principal, verdict: Verdict, reason: str, channel: str
    ) -> Hold:
        """Record what `who` says through `channel` (console, cli, command, mitmweb).

        Returns the hold after it. Raises `HoldUnknown` and what `hold.decided` raises.
        """
        now = self._clock()
        with self._database.write() as db:
            hold = self._get(db, hold_id, now)
            decision = Decision(who.issuer, who.subject, verdict, reason, channel, now)
            return self._save(db, decided(hold, decision))

    def consume(self, digest: str, principal: str) -> Hold:
        """Use the approval of the request `digest` by the principal of that name, once.

        Of all callers in all processes one gets the hold back; the others get `HoldConsumed`.
        Also raises `HoldUnknown`, `HoldPending`, `HoldDenied`, `HoldExpired`, `HoldNotYours`.
        """
        now = self._clock()
        with self._database.write() as db:
            row = db.execute(
                SELECT + "WHERE digest = :digest"
                " ORDER BY state IN ('pending', 'approved') DESC, created DESC, rowid DESC",
                {"digest": digest, "now": now},
            ).fetchone()
            if not row:
                raise HoldUnknown("no hold for this request")
            return self._save(db, consumed(hold_of(row), principal, now))

    def expire(self, now: float | None = None) -> tuple[Hold, ...]:
        """Write down which holds are over their time, and return those that were not before."""
        with self._database.write() as db:
            return self._expire(db, self._clock() if now is None else now)

    def get(self, hold_id: str) -> Hold:
        """One hold, overdue ones as expired. Raises `HoldUnknown`."""
        with self._database.read() as db:
            return self._get(db, hold_id, self._clock())

    def list(self, states: Iterable[State] = ("pending",)) -> tuple[Hold, ...]:
        """The holds that are in one of `states` now, oldest first."""
        now, wanted = self._clock(), set(states)
        # an overdue hold is expired, swept or not, so the live states are always read along
        stored = wanted | ({"pending", "approved"} if "expired" in wanted else set())
        with self._database.read() as db:
            rows = db.execute(
                SELECT + "JOIN json_each(:states) ON state = value ORDER BY created, hold.rowid",
                {"states": json.dumps(sorted(stored)), "now": now},
            ).fetchall()
            holds = tuple(at(hold_of(row), now) for row in rows)
        return tuple(hold for hold in holds if hold.state in wanted)

    def attend(self, hold_id: str, exchange: str, until: float) -> None:
        """Say that the connection of `exchange` waits for the hold, until `until` (Unix seconds).

        `until` is a lease: of a gate that dies nobody waits once it is over. Raises `HoldUnknown`.
        """
        with self._database.write() as db:
            hold = self._get(db, hold_id, self._clock())
            db.execute(
                "INSERT INTO waiter VALUES (?, ?, ?)"
                " ON CONFLICT (hold, exchange) DO UPDATE SET until = excluded.until",
                (hold.id, exchange, until),
            )

    def leave(self, exchange: str) -> None:
        """The connection of `exchange` waits no longer; no error if it did not."""
        with self._database.write() as db:
            db.execute("DELETE FROM waiter WHERE exchange = ?", (exchange,))

    def abandon(self) -> None:
        """Nobody waits: for a gate that starts, whose earlier connections are gone.

        Another gate on the same store has its waiters back when it renews their leases.
        """
        with self._database.write() as db:
            db.execute("DELETE FROM waiter")

    def version(self) -> tuple[int, int]:
        """A mark that differs after any change, by this process or another; cheap to poll."""
        with self._database.read() as db:
            # data_version counts what other connections commit, total_changes what this one does
            return db.execute("PRAGMA data_version").fetchone()[0], db.total_changes

    def close(self) -> None:
        """Close the file. Holds stay as they are."""
        self._database.close()

    def _get(self, db: sqlite3.Connection, hold_id: str, now: float) -> Hold:
        wanted = hold_id.strip().lower()
        row = db.execute(SELECT + "WHERE id = :id", {"id": wanted, "now": now}).fetchone()
        if not row:
            raise HoldUnknown(f"there is no hold {wanted[:40]!r}")
        return at(hold_of(row), now)

    def _expire(self, db: sqlite3.Connection, now: float) -> tuple[Hold, ...]:
        rows = db.execute(
            SELECT + "WHERE state IN ('pending', 'approved') AND expires <= :now"
            " ORDER BY created, rowid",
            {"now": now},
        ).fetchall()
        if rows:
            db.execute("DELETE FROM waiter WHERE until <= ?", (now,))
        return tuple(self._save(db, at(hold_of(row), now)) for row in rows)

    def _save(self, db: sqlite3.Connection, hold: Hold) -> Hold:
        row = row_of(hold)
        db.execute("UPDATE hold SET state = :state, decisions = :decisions WHERE id = :id", row)
        return hold

    def _check_limits(self, db: sqlite3.Connection, principal: str) -> None:
        overall, own = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE principal = ?) FROM hold"
            " WHERE state = 'pending'",
            (principal,),
        ).fetchone()
        if own >= self._limits.per_principal:
            raise HoldLimit(f"{principal} has {own} requests waiting for approval already")
        if overall >= self._limits.overall:
            raise HoldLimit(f"{overall} requests are waiting for approval already")


def _unused_id(db: sqlite3.Connection) -> str:
    while True:
        new = "h-" + "".join(secrets.choice(_ALPHABET) for _ in range(6))
        if not db.execute("SELECT 1 FROM hold WHERE id = ?", (new,)).fetchone():
            return new


def _text(text: str) -> str:
    """`text` without lone surrogates, which JSON can carry and SQLite cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _bounded(text: str, limit: int) -> str:
    text = _text(text)
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
