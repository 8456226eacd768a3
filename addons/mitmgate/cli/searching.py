"""What `mitmgate sessions`, `show` and `export` share: the options that choose exchanges."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydantic

from mitmgate.core.ledger import (
    VERDICTS,
    BadRecord,
    Entry,
    Finding,
    Identities,
    Query,
    entries,
)
from mitmgate.core.rules import Duration
from mitmgate.core.wire.endpoints import OPERATIONS

IDENTITY = "MITMGATE_IDENTITY"  # an environment variable's name

_DURATION: pydantic.TypeAdapter[float] = pydantic.TypeAdapter(Duration)


def add_place(command: argparse.ArgumentParser) -> None:
    """Where to look, for a command that also takes `--state`."""
    help = "directory of recordings, or one file (default: recordings in --state)"
    command.add_argument("path", type=Path, nargs="?", metavar="PATH", help=help)


def add_identity(command: argparse.ArgumentParser) -> None:
    """What opens recordings that are encrypted."""
    help = f"secret keys as age-keygen writes them, for what is encrypted (default: ${IDENTITY})"
    command.add_argument("--identity", type=Path, metavar="FILE", help=help)


def identities(options: argparse.Namespace) -> Identities | None:
    """What `add_identity` was given. Raises `OSError`."""
    given: Path | None = options.identity
    if given is None and os.environ.get(IDENTITY):
        given = Path(os.environ[IDENTITY])
    return Identities.read(given) if given else None


def add_filters(command: argparse.ArgumentParser) -> None:
    """Which exchanges. Every option but the times may be given again: then one has to fit."""
    several = (
        ("--principal", "GLOB", "a subject, or ISSUER/SUBJECT; in quotes, as in 'agent-*'"),
        ("--session", "NAME", "as the caller named it"),
        ("--operation", "NAME", "such as chat"),
        ("--model", "GLOB", "as the caller named it, in quotes"),
        ("--verdict", "WORD", ", ".join(VERDICTS)),
        ("--rule", "ID", "a rule that matched, a refusal's code, or a recognizer that masked"),
        ("--exchange", "ID", "its beginning is enough"),
    )
    choices = {"--operation": sorted(OPERATIONS), "--verdict": VERDICTS}
    for flag, metavar, help in several:
        command.add_argument(
            flag, action="append", default=[], metavar=metavar, help=help, choices=choices.get(flag)
        )
    times = "a time as in 2026-03-02T09:00Z (UTC, unless it says otherwise), or 2h, 7d ago"
    command.add_argument("--since", type=moment, metavar="WHEN", help=times)
    command.add_argument("--until", type=moment, metavar="WHEN", help="the same; it is left out")


def query(options: argparse.Namespace) -> Query:
    """What `add_filters` was given."""
    return Query(
        principals=tuple(options.principal),
        sessions=tuple(options.session),
        operations=tuple(options.operation),
        models=tuple(options.model),
        verdicts=tuple(options.verdict),
        rules=tuple(options.rule),
        exchanges=tuple(options.exchange),
        since=options.since,
        until=options.until,
    )


class Search:
    """Exchanges where the options say. What cannot be read is printed as it is met, and counted."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._path: Path = options.path or options.state / "recordings"
        self.faults = 0

    def entries(self, wanted: Query) -> Iterator[Entry]:
        """Raises `FileNotFoundError` where there are no recordings."""
        if not self._path.exists():
            raise FileNotFoundError(
                f"{self._path} does not exist; name another PATH, or --state DIR"
            )
        return entries(self._path, wanted, self.tell)

    def tell(self, fault: Finding | BadRecord | str) -> None:
        """Something is left out."""
        self.faults += 1
        print(fault, file=sys.stderr)

    @property
    def code(self) -> int:
        """What the command ends with."""
        return 1 if self.faults else 0


def moment(given: str) -> float:
    """A point in time in Unix seconds: ISO 8601, or how long ago."""
    try:
        return time.time() - _DURATION.validate_python(given)
    except pydantic.ValidationError:
        pass
    try:
        said = datetime.fromisoformat(given)
    except ValueError:
        message = f"{given!r} is no time: write 2026-03-02T09:00Z, or 2h or 7d for how long ago"
        raise argparse.ArgumentTypeError(message) from None
    return (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()


def written(moment: float, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """A point in time as people read it, and as `--since` takes it. UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime(form)
