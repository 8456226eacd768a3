"""Holds as rows of the store and back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, fields

from mitmgate.core.holds.hold import Decision, Hold

_COLUMNS = [f.name for f in fields(Hold) if f.name != "waiting"]
SELECT = (
    "SELECT hold.*, EXISTS (SELECT 1 FROM waiter WHERE waiter.hold = hold.id AND until > :now)"
    " AS waiting FROM hold "
)
INSERT = f"INSERT INTO hold VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"  # noqa: S608 - names of our own fields


def hold_of(row: sqlite3.Row) -> Hold:
    """The hold in a row of `SELECT`. Raises `sqlite3.DataError` for a row that has none."""
    try:
        values = dict(row)
        values["rules"] = tuple(json.loads(values["rules"]))
        values["decisions"] = tuple(Decision(**d) for d in json.loads(values["decisions"]))
        values["waiting"] = bool(values["waiting"])
        return Hold(**values)
    except (TypeError, ValueError) as e:
        raise sqlite3.DataError(f"a row that is no hold: {e}") from e


def row_of(hold: Hold) -> dict[str, object]:
    """The parameters of `INSERT` for a hold."""
    row: dict[str, object] = {name: getattr(hold, name) for name in _COLUMNS}
    row["rules"] = json.dumps(hold.rules)
    row["decisions"] = json.dumps([asdict(decision) for decision in hold.decisions])
    return row
