"""`mitmgate sessions`: a line for each exchange, or for each session.

A session is what the caller says it is, so that of one caller is never put together with that of
another. Only ledgers are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mitmgate.cli.searching import Search, add_filters, add_place, query, written
from mitmgate.cli.table import Column, Table, terminal
from mitmgate.core.ledger import Entry

WIDE = 110  # places of a terminal from which times have their year


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command, but for `--state`."""
    add_place(command)
    add_filters(command)
    command.add_argument("--group", action="store_true", help="a line for each session")
    command.add_argument("--limit", type=_count, metavar="N", help="the newest N alone")
    command.add_argument("--json", action="store_true", help="a JSON object a line")


def run(options: argparse.Namespace) -> int:
    """List recorded exchanges, the newest last, by caller, session, time, model or verdict."""
    search = Search(options)
    found: Iterable[Entry] = search.entries(query(options))
    if options.group:
        rows: Iterable[Entry | Session] = grouped(found)
    else:
        rows = found
    if options.limit is not None:
        rows = deque(rows, options.limit)
    none = True
    width = terminal()
    table = _table(width, grouped=options.group)
    for row in rows:
        none = False
        if options.json:
            print(json.dumps(exchange(row) if isinstance(row, Entry) else row.document()))
        else:
            table.add(_cells(row, width))
    if none and not options.json:
        print("nothing found", file=sys.stderr)
    return search.code


@dataclass(slots=True)
class Session:
    """The exchanges that one caller has put under one name, "" for those under none."""

    principal: str
    name: str
    first: float
    last: float = 0.0
    exchanges: int = 0
    models: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one more."""
        self.first = min(self.first, entry.started)
        self.last = max(self.last, entry.started)
        self.exchanges += 1
        self.models[entry["model"]] += 1
        self.operations[entry["operation"]] += 1
        self.verdicts.update(entry.verdicts)

    def document(self) -> dict[str, Any]:
        """For programs; its keys stay."""
        return {
            "principal": self.principal,
            "session": self.name,
            "first": written(self.first),
            "last": written(self.last),
            "exchanges": self.exchanges,
            "models": dict(self.models),
            "operations": dict(self.operations),
            "verdicts": dict(self.verdicts),
        }


def grouped(found: Iterable[Entry]) -> list[Session]:
    """Sessions in the order of their last exchanges."""
    sessions: dict[tuple[str, str], Session] = {}
    for entry in found:
        key = (entry["principal"], entry["session"])
        sessions.setdefault(key, Session(*key, entry.started)).add(entry)
    return sorted(sessions.values(), key=lambda each: each.last)


def exchange(entry: Entry) -> dict[str, Any]:
    """What a ledger says of an exchange, for programs; the keys stay."""
    return {
        "exchange": entry["exchange"],
        "time": written(entry.started, "%Y-%m-%dT%H:%M:%S.%fZ"),
        "seconds": round(entry.ended - entry.started, 6),
        "principal": entry["principal"],
        "session": entry["session"],
        "operation": entry["operation"],
        "model": entry["model"],
        "verdict": list(entry.verdicts),
        "status": entry.fields.get("status", 0),
        "refusal": entry["refusal"],
        "rules": list(entry.found),
        "masked": entry.fields.get("masked") or {},
        "hold": entry["hold"],
        "file": str(entry.flows),
        "offset": entry.fields["offset"],
        "length": entry.fields["length"],
        "encrypted": bool(entry["encrypted"]),
    }


def _table(width: int | None, *, grouped: bool) -> Table:
    """Times and ids have as many places as they need, the rest of the line is shared out."""
    time = 14 if _short(width) else 20
    if grouped:
        columns: list[Column] = [("FIRST", time), ("LAST", time), ("COUNT", 5)]
        columns += [("PRINCIPAL", 0.15), ("SESSION", 0.13), ("MODELS", 0.12), ("VERDICTS", 0)]
    else:
        columns = [("TIME", time), ("ID", 8), ("PRINCIPAL", 0.17), ("OPERATION", 0.1)]
        columns += [("MODEL", 0.13), ("SESSION", 0.1), ("VERDICT", 0)]
    return Table(columns, width)


def _cells(row: Entry | Session, width: int | None) -> list[str]:
    form = "%m-%d %H:%M:%S" if _short(width) else "%Y-%m-%dT%H:%M:%SZ"
    if isinstance(row, Entry):
        about = [row[name] or "-" for name in ("principal", "operation", "model", "session")]
        why = [row["refusal"], *(rule for rule in row.found if rule != row["refusal"])]
        words = row.verdicts[1:] if "denied" in row.verdicts else row.verdicts
        verdict = " ".join(filter(None, [*words, *why]))
        id = row["exchange"] if width is None else row["exchange"][:8]
        return [written(row.started, form), id, *about, verdict]
    verdicts = ", ".join(f"{count} {word}" for word, count in row.verdicts.most_common())
    models = " ".join(name for name, _ in row.models.most_common() if name)
    about = [row.principal or "-", row.name or "-", models or "-", verdicts]
    return [written(row.first, form), written(row.last, form), str(row.exchanges), *about]


def _short(width: int | None) -> bool:
    return width is not None and width < WIDE


def _count(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 1")
    return int(given)
