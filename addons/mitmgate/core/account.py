"""The account of an exchange, as people read it: a line each for who, what, how it ended and why.

It is made of a `summary`; see there for what is believed. Nothing in it is written raw that a
terminal obeys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mitmgate.core.summary import Summary, counts, records, verdicts, word
from mitmgate.core.wire.rendering import Style
from mitmgate.core.wire.segment import plain

_MOST = 50  # findings, approvals or recognizers
_LONGEST = 4_000  # characters of a line


@dataclass(frozen=True, slots=True)
class Fact:
    """One line. `bad` says that something was found or refused."""

    name: str
    text: str
    bad: bool = False

    def line(self, style: Style) -> str:
        """Its name, its text."""
        text = plain(self.text[:_LONGEST])
        return f"{self.name:<9}{style.alert(text) if self.bad else text}"


def account(summary: Summary) -> list[Fact]:
    """Who asked what, how it ended, what was found, who let it through, what was masked."""
    facts = [
        Fact("caller", _caller(summary)),
        Fact("session", _session(summary)),
        Fact("asked", _asked(summary)),
        Fact("ended", _ended(summary), bad=word(summary, "refusal") != ""),
        *(Fact("found", text, bad=True) for text in _findings(summary)),
        Fact("hold", word(summary, "hold")),
        *(Fact("decided", text) for text in _approvals(summary)),
        Fact("masked", _masked(summary)),
    ]
    return [fact for fact in facts if fact.text]


def times(begun: float, first: float | None, ended: float | None) -> Fact:
    """When it came, in Unix seconds, and how long the answer took."""
    text = moment(begun)
    text += f", first byte in {first - begun:.2f} s" if first else ""
    text += f", all in {ended - begun:.2f} s" if ended else ""
    return Fact("time", text)


def moment(seconds: float) -> str:
    """A point in time, given in Unix seconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _caller(summary: Summary) -> str:
    name, display = word(summary, "principal") or "unknown", word(summary, "display")
    said = f"{name} ({display})" if display else name
    for before, key in (("by grant", "grant"), ("with token", "token_id")):
        said += f", {before} {word(summary, key)}" if word(summary, key) else ""
    client = _address(summary, "client")[:1]
    return f"{said}, from {client[0]}" if client else said


def _session(summary: Summary) -> str:
    session = word(summary, "session")
    return f"{session} (as the caller says)" if session else ""


def _asked(summary: Summary) -> str:
    operation, dialect = word(summary, "operation"), word(summary, "dialect")
    model, server = word(summary, "model"), ":".join(_address(summary, "server"))
    said = [f"{operation} of {dialect}" if operation and dialect else operation]
    said += [f"model {model}" if model else ""]
    said += [f"{word(summary, 'method')} {word(summary, 'path')}".strip()]
    said += [f"at {server}" if server else ""]
    return ", ".join(each for each in said if each)


def _address(summary: Summary, name: str) -> list[str]:
    """Host and port, which the ledger alone has."""
    given = summary.get(name)
    return [str(each) for each in given[:2]] if isinstance(given, list) and any(given[:1]) else []


def _ended(summary: Summary) -> str:
    status, code = summary.get("status"), word(summary, "refusal")
    said = " ".join(verdicts(summary)) + (f": {code}" if code else "")
    return f"{said} (status {status})" if type(status) is int and status else said


def _findings(summary: Summary) -> Iterator[str]:
    for finding in records(summary, "findings")[:_MOST]:
        what = [word(finding, "action"), word(finding, "severity")]
        if (mode := word(finding, "mode")) not in ("", "enforce"):
            what.append(f"{mode} only")
        view = word(finding, "view")
        read = f", read as {view}" if view not in ("", "raw", "text") else ""
        address = word(finding, "address")  # which the ledger has not of what is encrypted
        at = f" at {address}" if address else ""
        yield f"{word(finding, 'rule')} ({', '.join(what)}){at}{read}"


def _approvals(summary: Summary) -> Iterator[str]:
    for each in records(summary, "approvals")[:_MOST]:
        who = ":".join(name for name in (word(each, "issuer"), word(each, "subject")) if name)
        verdict = word(each, "verdict")
        said = {"approve": "approved by", "deny": "denied by"}.get(verdict, verdict)
        channel, reason = word(each, "channel"), word(each, "reason")
        said = f"{said} {who}{_on(word(each, 'time'))} ({channel})"
        yield f"{said}: {reason}" if reason else said


def _on(seconds: str) -> str:
    try:
        return f" on {moment(float(seconds))}"
    except (ValueError, OverflowError, OSError):
        return ""


def _masked(summary: Summary) -> str:
    masked = list(counts(summary, "masked").items())[:_MOST]
    return ", ".join(f"{name} x{count}" for name, count in masked)
