"""What `mitmgate backtest` found, counted, and as lines for people or objects for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mitmgate.cli import showing
from mitmgate.cli.backtest.changes import KINDS, Change
from mitmgate.cli.backtest.comparing import Compared
from mitmgate.cli.backtest.deciding import Doubt
from mitmgate.cli.backtest.recorded import Recorded, UnreadableError
from mitmgate.core.wire.segment import plain

# What a change of each kind is called in the last lines.
_SAID = {
    "denied": "newly denied",
    "held": "newly held",
    "masked": "newly masked",
    "undenied": "no longer denied",
    "unheld": "no longer held",
    "unmasked": "no longer masked",
    "reason": "for another reason",
}
_SHOWN = 3  # texts that are masked, of one recognizer in one exchange
ERRORS = 100  # places that cannot be read, of which each is named; more are only counted


class Tally:
    """Everything counted. Its size depends on the rules and not on how many exchanges there are."""

    def __init__(self, *, files: int, against: bool) -> None:
        self.files = files
        self.against = against
        self.exchanges = 0
        self.changed = 0
        self.partly = 0  # exchanges of which something was not judged
        self.changes: Counter[tuple[str, str]] = Counter()  # kind and rule -> exchanges
        self.doubts: Counter[tuple[str, str]] = Counter()  # side and reason -> exchanges
        self.firsts: dict[tuple[str, str], tuple[str, str]] = {}  # an exchange, and its detail
        self.unreadable = 0
        self.errors: list[UnreadableError] = []  # the first of them

    def count(self, found: Compared | UnreadableError) -> None:
        if isinstance(found, UnreadableError):
            self.unreadable += 1
            if len(self.errors) < ERRORS:
                self.errors.append(found)
            return
        self.exchanges += 1
        self.changed += bool(found.changes)
        self.partly += bool(found.doubts)
        self.changes.update({(each.kind, each.rule) for each in found.changes})
        for doubt in found.doubts:
            self.firsts.setdefault((doubt.side, doubt.reason), (found.exchange.id, doubt.detail))
        self.doubts.update({(each.side, each.reason) for each in found.doubts})

    def of(self, kind: str) -> int:
        """How often there is a change of a kind, or anything that was not judged."""
        if kind == "unjudged":
            return self.partly
        return sum(count for (each, _), count in self.changes.items() if each == kind)


class Lines:
    """For people: a line for each change, and at the end what there was and was not."""

    def __init__(self, tally: Tally, *, show_text: bool) -> None:
        self._tally = tally
        self._show_text = show_text

    def lines(self, found: Compared | UnreadableError) -> Iterator[str]:
        if isinstance(found, Compared):
            for change in found.changes:
                yield self._line(found.exchange, change)

    def end(self, failed: list[str], seconds: float) -> Iterator[str]:
        tally = self._tally
        rate = tally.exchanges / seconds if seconds else 0
        yield f"{tally.exchanges} exchanges in {tally.files} files, {rate:.0f}/s"
        for kind in KINDS:
            rules = [(rule, n) for (each, rule), n in tally.changes.most_common() if each == kind]
            if rules:
                named = ", ".join(f"{rule} x{count}" for rule, count in rules)
                yield f"{_SAID[kind]}: {named}"
        if not tally.changes:
            yield "nothing would change"
        for (side, reason), count in tally.doubts.most_common():
            id, detail = self._tally.firsts[side, reason]
            yield f"not judged: {side} of {count}: {reason}; first {id}: {plain(detail)}"
        if failed:
            yield f"failed on {', '.join(failed)}"

    def _line(self, exchange: Recorded, change: Change) -> str:
        summary, hit = exchange.summary, change.hit
        assert summary is not None
        what = f"{summary.principal} {summary.operation} {summary.model}".strip()
        line = f"{change.kind:<8} {exchange.id} {plain(what)}: {change.side}, {change.rule}"
        if change.was:
            line += f" in the place of {change.was}"
        if change.count > 1:
            line += f" x{change.count}"
        address = hit.finding.address if hit else change.address
        if address:
            line += f" at {plain(address)}"
        if not self._show_text:
            return line
        if hit:
            text = hit.finding.text if hit.text is None else ""
            line += f" {plain(text) if text else showing.marked(hit.text or '', hit.finding)}"
        if change.texts:
            line += f" {', '.join(map(plain, change.texts[:_SHOWN]))}"
            line += ", ..." if len(change.texts) > _SHOWN else ""
        return line


class Objects:
    """For programs: an object for each change, doubt and error, and last a summary. Keys stay."""

    def __init__(self, tally: Tally, *, show_text: bool) -> None:
        self._tally = tally
        self._show_text = show_text

    def lines(self, found: Compared | UnreadableError) -> Iterator[str]:
        if isinstance(found, UnreadableError):
            place = {"file": str(found.path), "offset": found.offset}
            yield json.dumps({"type": "error", **place, "message": found.message})
            return
        place = self._place(found.exchange)
        for change in found.changes:
            yield json.dumps({"type": "change", **place, **self._change(change)})
        for doubt in found.doubts:
            yield json.dumps({"type": "unjudged", **place, **_doubt(doubt)})

    def end(self, failed: list[str], seconds: float) -> Iterator[str]:
        tally = self._tally
        yield json.dumps(
            {
                "type": "summary",
                "files": tally.files,
                "exchanges": tally.exchanges,
                "changed": tally.changed,
                "partly_unjudged": tally.partly,
                "baseline": "rules" if tally.against else "recorded",
                "changes": {kind: tally.of(kind) for kind in KINDS},
                "rules": [
                    {"change": kind, "rule": rule, "exchanges": count}
                    for (kind, rule), count in tally.changes.most_common()
                ],
                "unjudged": [
                    {"side": side, "reason": reason, "exchanges": count}
                    for (side, reason), count in tally.doubts.most_common()
                ],
                "errors": tally.unreadable,
                "failed_on": failed,
                "seconds": round(seconds, 3),
            }
        )

    @staticmethod
    def _place(exchange: Recorded) -> dict[str, Any]:
        summary = exchange.summary
        return {
            "exchange": exchange.id,
            "file": str(exchange.path),
            "offset": exchange.offset,
            "principal": summary.principal if summary else None,
            "operation": summary.operation if summary else None,
            "model": summary.model if summary else None,
        }

    def _change(self, change: Change) -> dict[str, Any]:
        finding = showing.finding(change.hit) if change.hit else None
        if finding and not self._show_text:
            finding |= {"original": None, "text": None}
        return {
            "change": change.kind,
            "side": change.side,
            "rule": change.rule,
            "was": change.was or None,
            "address": finding["address"] if finding else change.address,
            "finding": finding,
            "count": change.count,
            "texts": list(change.texts) if self._show_text else [],
        }


def _doubt(doubt: Doubt) -> dict[str, Any]:
    return {"side": doubt.side, "reason": doubt.reason, "detail": doubt.detail}
