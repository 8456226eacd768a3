"""What the gate has written about an exchange, as people read it.

It comes out of a file, which anybody may have edited: what is not of the form that the gate writes
is left out, and nothing is written raw that a terminal obeys. Nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mitmgate.core.wire.segment import plain

_MOST = 50  # findings, approvals or recognizers


def account(summary: Mapping[str, Any]) -> list[str]:
    """A line each: who asked what, how it ended, what was found, who let it through, what was
    masked. `summary` is `metadata["mitmgate"]` or a line of the ledger."""
    lines = [
        ("caller", _caller(summary)),
        ("asked", _asked(summary)),
        ("ended", _ended(summary)),
        *(("found", line) for line in _findings(summary)),
        ("hold", _word(summary, "hold")),
        *(("decided", line) for line in _approvals(summary)),
        ("masked", _masked(summary)),
    ]
    return [f"{name:<9}{plain(text)}" for name, text in lines if text]


def found(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """The ids of rules by the address at which they hit."""
    at: dict[str, list[str]] = {}
    for finding in _records(summary, "findings"):
        at.setdefault(_word(finding, "address"), []).append(_word(finding, "rule"))
    return at


def _caller(summary: Mapping[str, Any]) -> str:
    name, display = _word(summary, "principal") or "unknown", _word(summary, "display")
    grant = _word(summary, "grant")
    return f"{name}{f' ({display})' if display else ''}{f', by grant {grant}' if grant else ''}"


def _asked(summary: Mapping[str, Any]) -> str:
    operation, dialect = _word(summary, "operation"), _word(summary, "dialect")
    model = _word(summary, "model")
    of = f"{operation} of {dialect}" if operation and dialect else operation
    return f"{of}{f', model {model}' if model else ''}"


def _ended(summary: Mapping[str, Any]) -> str:
    status, code = summary.get("status"), _word(summary, "refusal")
    words = [_word(summary, "ending"), str(status) if type(status) is int and status else "", code]
    return " ".join(word for word in words if word)


def _findings(summary: Mapping[str, Any]) -> Iterator[str]:
    for finding in _records(summary, "findings"):
        what = [_word(finding, "action"), _word(finding, "severity")]
        if (mode := _word(finding, "mode")) not in ("", "enforce"):
            what.append(f"{mode} only")
        view = _word(finding, "view")
        read = f", read as {view}" if view not in ("", "raw", "text") else ""
        yield f"{_word(finding, 'rule')} ({', '.join(what)}) at {_word(finding, 'address')}{read}"


def _approvals(summary: Mapping[str, Any]) -> Iterator[str]:
    for each in _records(summary, "approvals"):
        who = ":".join(word for word in (_word(each, "issuer"), _word(each, "subject")) if word)
        verdict = {"approve": "approved by", "deny": "denied by"}.get(
            _word(each, "verdict"), _word(each, "verdict")
        )
        yield f"{verdict} {who}{_at(_word(each, 'time'))} ({_word(each, 'channel')}): " + _word(
            each, "reason"
        )


def _at(seconds: str) -> str:
    try:
        return f" on {datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def _masked(summary: Mapping[str, Any]) -> str:
    counts = summary.get("masked")
    if not isinstance(counts, Mapping):
        return ""
    return ", ".join(f"{name} x{count}" for name, count in list(counts.items())[:_MOST])


def _word(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value[:2_000] if isinstance(value, str) else ""


def _records(summary: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    given = summary.get(name)
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return []
    return [each for each in given if isinstance(each, Mapping)][:_MOST]
