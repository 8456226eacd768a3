"""What a gate has written about an exchange: `metadata["mitmgate"]`, or a line of the ledger.

Anybody may have edited the file that it comes out of: what is not of the form that the gate writes
is as good as absent. It is for people and for searching; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ENDINGS = ("complete", "refused", "client_aborted", "upstream_error", "interrupted")
VERDICTS = (*ENDINGS, "denied", "held", "approved", "masked")

type Summary = Mapping[str, Any]


def word(summary: Summary, name: str) -> str:
    """A field that is text, or else ""."""
    value = summary.get(name)
    return value if isinstance(value, str) else ""


def number(summary: Summary, name: str) -> float:
    """A field that is a number, or else 0."""
    value = summary.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def records(summary: Summary, name: str) -> list[Summary]:
    """The objects in a field that is a list of them."""
    given = summary.get(name)
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return []
    return [each for each in given if isinstance(each, Mapping)]


def counts(summary: Summary, name: str) -> Mapping[str, int]:
    """A field that says how many of which."""
    given = summary.get(name)
    return given if isinstance(given, Mapping) else {}


def found(summary: Summary) -> dict[str, list[str]]:
    """The ids of rules by the address at which they hit."""
    at: dict[str, list[str]] = {}
    for finding in records(summary, "findings"):
        at.setdefault(word(finding, "address"), []).append(word(finding, "rule"))
    return at


def rules(summary: Summary) -> tuple[str, ...]:
    """The rules that found something, each once, in the order of their findings."""
    return tuple(dict.fromkeys(word(each, "rule") for each in records(summary, "findings")))


def verdicts(summary: Summary) -> tuple[str, ...]:
    """How an exchange ended, and what was done to it: words of `VERDICTS`, or `admitted` of one
    that goes on.

    `denied` is refused by a rule or by an approver; a request that was told to come again while it
    waits is `refused` and `held`, and not `denied`.
    """
    held, refusal = bool(word(summary, "hold")), word(summary, "refusal")
    decisions = [word(each, "verdict") for each in records(summary, "approvals")]
    waits = held and summary.get("status") == 409
    holds = {
        "denied": refusal in rules(summary) and not waits,
        "held": held,
        "approved": "approve" in decisions and not refusal,
        "masked": bool(counts(summary, "masked")),
    }
    return tuple(
        dict.fromkeys((word(summary, "ending"), *(name for name, it_is in holds.items() if it_is)))
    )
