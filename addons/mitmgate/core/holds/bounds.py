"""How much may be held at once: requests that are pending, and connections that wait for them."""

from __future__ import annotations

import sqlite3

from mitmgate.core.holds.errors import HoldLimit
from mitmgate.core.holds.file import Limits


def check_pending(db: sqlite3.Connection, principal: str, limits: Limits) -> None:
    """Raises `HoldLimit` if one more hold of `principal` would be too many."""
    in_all, own = db.execute(
        "SELECT count(*), count(*) FILTER (WHERE principal = ?) FROM hold WHERE state = 'pending'",
        (principal,),
    ).fetchone()
    _check("requests", principal, own, in_all, limits)


def check_waiting(db: sqlite3.Connection, principal: str, limits: Limits, now: float) -> None:
    """The same for one more connection: many may wait for one hold."""
    in_all, own = db.execute(
        "SELECT count(*), count(*) FILTER (WHERE principal = ?) FROM waiter"
        " JOIN hold ON hold.id = waiter.hold WHERE until > ?",
        (principal, now),
    ).fetchone()
    _check("connections", principal, own, in_all, limits)


def _check(what: str, principal: str, own: int, in_all: int, limits: Limits) -> None:
    if own >= limits.per_caller:
        raise HoldLimit(f"{principal} has {own} {what} waiting for approval already")
    if in_all >= limits.in_all:
        raise HoldLimit(f"{in_all} {what} are waiting for approval already")
