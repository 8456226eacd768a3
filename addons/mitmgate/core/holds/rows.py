"""Holds as rows of the store and back."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import asdict, fields
from typing import Any

from mitmgate.core.holds.errors import HoldUnknown
from mitmgate.core.holds.hold import Decision, Hold, Why, at
from mitmgate.core.holds.prompt import Mark, Passage

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # read aloud or typed, none is taken for another
_ELSEWHERE = ("waiting", "prompt")  # in tables of their own
_COLUMNS = [f.name for f in fields(Hold) if f.name not in _ELSEWHERE]
_LISTS = ("rules", "person", "why", "decisions")
_ODD = (AttributeError, LookupError, TypeError, ValueError)  # what JSON of another shape causes
SELECT = (
    "SELECT hold.*, EXISTS (SELECT 1 FROM waiter WHERE waiter.hold = hold.id AND until > :now)"
    " AS waiting FROM hold "
)
INSERT = (
    f"INSERT INTO hold ({', '.join(_COLUMNS)})"  # noqa: S608 - names of our own fields
    f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)


def hold_of(row: sqlite3.Row) -> Hold:
    """The hold in a row of `SELECT`. Raises `sqlite3.DataError` for a row that has none."""
    try:
        values = dict(row)
        values.update((name, tuple(json.loads(values[name]))) for name in _LISTS)
        values["why"] = tuple(Why(**why) for why in values["why"])
        values["decisions"] = tuple(map(_decision, values["decisions"]))
        values["waiting"] = bool(values["waiting"])
        return Hold(**values)
    except _ODD as e:
        raise sqlite3.DataError(f"a row that is no hold: {e}") from e


def row_of(hold: Hold) -> dict[str, object]:
    """The parameters of `INSERT` for a hold."""
    row: dict[str, object] = {name: getattr(hold, name) for name in _COLUMNS}
    row["rules"] = json.dumps(hold.rules)
    row["person"] = json.dumps(hold.person)
    row["why"] = json.dumps([asdict(why) for why in hold.why])
    row["decisions"] = json.dumps([asdict(decision) for decision in hold.decisions])
    return row


def unused_id(db: sqlite3.Connection) -> str:
    """An id for a new hold."""
    while True:
        new = "h-" + "".join(secrets.choice(_ALPHABET) for _ in range(6))
        if not db.execute("SELECT 1 FROM hold WHERE id = ?", (new,)).fetchone():
            return new


def normal_id(hold_id: str) -> str:
    """An id as it is stored, from one that somebody typed."""
    return hold_id.strip().lower()


def hold_by_id(db: sqlite3.Connection, hold_id: str, now: float) -> Hold:
    """The hold as it is at `now`, without its prompt. Raises `HoldUnknown`."""
    wanted = normal_id(hold_id)
    row = db.execute(SELECT + "WHERE id = :id", {"id": wanted, "now": now}).fetchone()
    if not row:
        raise HoldUnknown(f"there is no hold {wanted[:40]!r}")
    return at(hold_of(row), now)


def save(db: sqlite3.Connection, hold: Hold) -> Hold:
    """Write down what a step has changed."""
    row = row_of(hold)
    db.execute("UPDATE hold SET state = :state, decisions = :decisions WHERE id = :id", row)
    return hold


def prompt_of(passages: str) -> tuple[Passage, ...]:
    """What `passages_of` has written. Raises `sqlite3.DataError` for anything else."""
    try:
        return tuple(map(_passage, json.loads(passages)))
    except _ODD as e:
        raise sqlite3.DataError(f"a row that is no prompt: {e}") from e


def passages_of(prompt: tuple[Passage, ...]) -> str:
    """A prompt as JSON in UTF-8: most scripts take three bytes a character so, not six."""
    return json.dumps([asdict(passage) for passage in prompt], ensure_ascii=False)


def _decision(values: dict[str, Any]) -> Decision:
    return Decision(**(values | {"person": tuple(values.get("person", ()))}))


def _passage(values: dict[str, Any]) -> Passage:
    return Passage(**(values | {"marks": tuple(Mark(**mark) for mark in values["marks"])}))
