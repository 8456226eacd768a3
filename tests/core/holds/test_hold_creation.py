"""A store that somebody else creates while we look at what is there."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mitmgate.core.holds import HoldStore


def test_a_store_that_is_created_meanwhile_is_no_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "holds.sqlite"
    real = sqlite3.connect

    class Slow(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "PRAGMA application_id":
                monkeypatch.setattr(sqlite3, "connect", real)
                HoldStore(path).close()
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **more: real(*a, factory=Slow, **more))
    store = HoldStore(path)
    assert store.list(("pending",)) == ()
    store.close()
