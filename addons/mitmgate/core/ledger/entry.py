"""An exchange as the ledger tells of it, and what can be asked about it. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mitmgate.core import summary
from mitmgate.core.ledger.pair import FLOWS
from mitmgate.core.principal import issuer_of
from mitmgate.core.summary import VERDICTS

__all__ = ["VERDICTS", "Entry", "Query"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange as line `number` of `ledger` tells of it; `fields` are that line's.

    `begun` is when the file was begun, in Unix seconds. A field that the line lacks is "" or 0.
    """

    ledger: Path
    number: int
    fields: Mapping[str, Any]
    begun: float = 0.0

    def __getitem__(self, name: str) -> str:
        return summary.word(self.fields, name)

    @property
    def flows(self) -> Path:
        """The `.mitm` in which its flow is."""
        return self.ledger.with_suffix(FLOWS)

    @property
    def started(self) -> float:
        """When the request came, in Unix seconds; of a line that does not say, when its file was
        begun."""
        return summary.number(self.fields, "started") or self.begun

    @property
    def ended(self) -> float:
        """When the answer was over, or else when the request came."""
        return summary.number(self.fields, "ended") or self.started

    @property
    def issuer(self) -> str:
        """The id of the issuer who vouched for the caller."""
        return issuer_of(self["principal"], self["subject"])

    @property
    def found(self) -> tuple[str, ...]:
        """The rules that found something, each once."""
        return summary.rules(self.fields)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Those of `VERDICTS` that hold, how it ended first."""
        return summary.verdicts(self.fields)


@dataclass(frozen=True, slots=True)
class Query:
    """Which exchanges are wanted: of each tuple that is not empty, one has to fit.

    `principals` are globs on the subject, on `issuer:subject` or on `issuer/subject`; `models` are
    globs, `exchanges` the beginnings of ids, `rules` the ids of rules, the codes of refusals or the
    ids of recognizers. `since` and `until` are Unix seconds, and about when a request came.
    """

    principals: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def matches(self, entry: Entry) -> bool:
        """True if `entry` is wanted."""
        callers = (entry["subject"], entry["principal"], f"{entry.issuer}/{entry['subject']}")
        return (
            (self.since is None or entry.started >= self.since)
            and (self.until is None or entry.started < self.until)
            and (not self.exchanges or entry["exchange"].startswith(self.exchanges))
            and (not self.sessions or entry["session"] in self.sessions)
            and (not self.operations or entry["operation"] in self.operations)
            and (not self.models or _fits(entry["model"], self.models))
            and (not self.principals or any(_fits(each, self.principals) for each in callers))
            and (not self.verdicts or not set(self.verdicts).isdisjoint(entry.verdicts))
            and (not self.rules or not set(self.rules).isdisjoint(_rules(entry)))
        )


def _fits(value: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, glob) for glob in globs)


def _rules(entry: Entry) -> Iterator[str]:
    yield from entry.found
    yield entry["refusal"]
    yield from summary.counts(entry.fields, "masked")
