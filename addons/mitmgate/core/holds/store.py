"""Holds on disk: every step of the state machine as one transaction that survives a crash.

The gate and the `approve` command each open the SQLite file; whoever commits first has decided.
Calls block up to `BUSY` seconds. Nothing here notifies anybody.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mitmgate.core.holds.bounds import check_pending, check_waiting
from mitmgate.core.holds.database import BUSY, Database
from mitmgate.core.holds.errors import HoldUnknown
from mitmgate.core.holds.file import Limits
from mitmgate.core.holds.hold import Decision, Hold, State, Verdict, Why, at, consumed, decided
from mitmgate.core.holds.interface import Store
from mitmgate.core.holds.person import recognised
from mitmgate.core.holds.prompt import Passage, bounded
from mitmgate.core.holds.rows import (
    INSERT,
    SELECT,
    hold_by_id,
    hold_of,
    normal_id,
    passages_of,
    prompt_of,
    row_of,
    save,
    unused_id,
)
from mitmgate.core.principal import Principal

EXCERPT = 2000  # characters
_LIMITS = Limits()
_ALIVE = "state IN ('pending', 'approved') AND expires > :now"


class HoldStore(Store):
    """The holds in the SQLite file at `path`.

    `create=False` refuses a file that is not there, for commands that look at a gate's holds.
    Any thread may call it.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        create: bool = True,
        busy: float = BUSY,
    ) -> None:
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
        why: Iterable[Why] = (),
        prompt: Iterable[Passage] = (),
        person: Iterable[str] | None = None,
        limits: Limits = _LIMITS,
        until: float | None = None,
    ) -> tuple[Hold, bool]:
        now = self._clock()
        with self._database.write() as db:
            self._expire(db, now)
            row = db.execute(
                SELECT + "WHERE digest = :digest AND (state IN ('pending', 'approved')"
                " OR state = 'denied' AND expires > :now) ORDER BY created DESC, rowid DESC",
                {"digest": digest, "now": now},
            ).fetchone()
            if row:
                hold = hold_of(row)
            else:
                check_pending(db, principal.name, limits)
                hold = Hold(
                    id=unused_id(db),
                    digest=digest,
                    principal=principal.name,
                    issuer=principal.issuer,
                    subject=principal.subject,
                    operation=operation,
                    model=_text(model),
                    rules=tuple(rules),
                    message=message,
                    excerpt=_shortened(excerpt),
                    exchange=exchange,
                    created=now,
                    expires=now + ttl,
                    quorum=quorum,
                    display=principal.display,
                    person=recognised(principal) if person is None else tuple(person),
                    why=tuple(why),
                )
                db.execute(INSERT, row_of(hold))
                passages = passages_of(bounded(prompt, limits.prompt))
                db.execute("INSERT INTO prompt VALUES (?, ?)", (hold.id, passages))
            if until is not None and hold.state == "pending":
                check_waiting(db, principal.name, limits, now)
                _attend(db, {exchange: (hold.id, until)})
                hold = replace(hold, waiting=True)
            return hold, row is None

    def decide(
        self,
        hold_id: str,
        who: Principal,
        verdict: Verdict,
        reason: str,
        channel: str,
        person: Iterable[str] | None = None,
    ) -> Hold:
        now = self._clock()
        words = recognised(who) if person is None else tuple(person)
        told = (verdict, reason, channel, now, who.display, words)
        with self._database.write() as db:
            hold = decided(hold_by_id(db, hold_id, now), Decision(who.issuer, who.subject, *told))
            return save(db, hold)

    def consume(self, digest: str, principal: str) -> Hold:
        now = self._clock()
        with self._database.write() as db:
            row = db.execute(
                SELECT + "WHERE digest = :digest"
                " ORDER BY state IN ('pending', 'approved') DESC, created DESC, rowid DESC",
                {"digest": digest, "now": now},
            ).fetchone()
            if not row:
                raise HoldUnknown("no hold for this request")
            return save(db, consumed(hold_of(row), principal, now))

    def expire(self, now: float | None = None) -> tuple[Hold, ...]:
        with self._database.write() as db:
            return self._expire(db, self._clock() if now is None else now)

    def prune(self, before: float) -> int:
        ended = "state NOT IN ('pending', 'approved') AND expires < ?"
        with self._database.write() as db:
            db.execute(
                f"DELETE FROM waiter WHERE hold IN (SELECT id FROM hold WHERE {ended})",  # noqa: S608
                (before,),
            )
            return db.execute(f"DELETE FROM hold WHERE {ended}", (before,)).rowcount  # noqa: S608

    def get(self, hold_id: str) -> Hold:
        with self._database.read() as db:
            hold = hold_by_id(db, hold_id, self._clock())
            row = db.execute("SELECT passages FROM prompt WHERE hold = ?", (hold.id,)).fetchone()
            return replace(hold, prompt=prompt_of(row[0])) if row and hold.alive else hold

    def list(self, states: Iterable[State] = ("pending",), *, limit: int = 500) -> tuple[Hold, ...]:
        now, wanted = self._clock(), set(states)
        values = {
            "states": json.dumps(sorted(wanted)),
            # an overdue hold is expired, swept or not
            "overdue": "expired" in wanted,
            "now": now,
            "limit": limit,
        }
        among = "state IN (SELECT value FROM json_each(:states))"
        with self._database.read() as db:
            rows = db.execute(
                SELECT + f"WHERE {_ALIVE} AND {among} ORDER BY created, rowid LIMIT :limit", values
            ).fetchall()
            if wanted - {"pending", "approved"}:
                values["limit"] = limit - len(rows)
                rows += db.execute(
                    SELECT + "WHERE CASE WHEN state NOT IN ('pending', 'approved')"
                    f" THEN {among} ELSE :overdue AND expires <= :now END"
                    " ORDER BY created DESC, rowid DESC LIMIT :limit",
                    values,
                ).fetchall()
            return tuple(at(hold_of(row), now) for row in rows)

    def states(self, hold_ids: Iterable[str]) -> dict[str, State]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT hold.id, CASE WHEN state IN ('pending', 'approved') AND expires <= :now"
                " THEN 'expired' ELSE state END FROM json_each(:ids) JOIN hold ON hold.id = value",
                {"ids": json.dumps(list(map(normal_id, hold_ids))), "now": self._clock()},
            ).fetchall()
            return dict(map(tuple, rows))

    def attend(self, hold_id: str, exchange: str, until: float) -> None:
        """`attend_all` for one connection."""
        self.attend_all({exchange: (hold_id, until)})

    def attend_all(self, waiting: Mapping[str, tuple[str, float]]) -> None:
        with self._database.write() as db:
            _attend(db, waiting)

    def leave(self, exchange: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM waiter WHERE exchange = ?", (exchange,))

    def abandon(self) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM waiter")

    def version(self) -> int:
        with self._database.read() as db:
            return int(db.execute("SELECT number FROM change").fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def _expire(self, db: sqlite3.Connection, now: float) -> tuple[Hold, ...]:
        rows = db.execute(
            SELECT + "WHERE state IN ('pending', 'approved') AND expires <= :now"
            " ORDER BY created, rowid",
            {"now": now},
        ).fetchall()
        if rows:
            db.execute("DELETE FROM waiter WHERE until <= ?", (now,))
        return tuple(save(db, at(hold_of(row), now)) for row in rows)


def _attend(db: sqlite3.Connection, waiting: Mapping[str, tuple[str, float]]) -> None:
    for exchange, (hold, until) in waiting.items():
        try:
            db.execute(
                "INSERT INTO waiter VALUES (?, ?, ?)"
                " ON CONFLICT (hold, exchange) DO UPDATE SET until = excluded.until",
                (normal_id(hold), exchange, until),
            )
        except sqlite3.IntegrityError:  # the foreign key
            raise HoldUnknown(f"there is no hold {hold[:40]!r}") from None


def _text(text: str) -> str:
    """`text` without lone surrogates, which JSON can carry and SQLite cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(text: str) -> str:
    text = _text(text)
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "\N{HORIZONTAL ELLIPSIS}"
