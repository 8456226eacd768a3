"""A judged request or answer, as values: what was read and found in it, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mitmgate.core.matching import Finding
from mitmgate.core.principal import Principal
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Asked, Ruling
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.segment import Segment

Does = Literal["goes on", "held", "refused"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A finding, the file of its rule, and the whole text that it was made in, where that is one.

    In a stream, texts are judged in pieces, and `text` is None.
    """

    file: str
    finding: Finding
    text: str | None


@dataclass(frozen=True, slots=True)
class Excepted:
    """A hit that there would be for anybody else; `unless` is the place in the rule's list."""

    rule: Rule
    unless: int
    address: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the gate does. `by` names the control; `public` is the code that the caller sees.

    Where it goes on, the rest is empty. `rules` are those that hold a request.
    """

    does: Does
    by: str = ""
    status: int = 0
    code: str = ""
    public: str = ""
    message: str = ""
    detail: str = ""
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """One message: what was read in it, what was found, and what comes of it."""

    method: str
    target: str
    endpoint: Endpoint | None
    model: str | None
    streams: bool
    texts: Sequence[Segment]
    hits: Sequence[Hit]
    excepted: Sequence[Excepted]
    masked: Sequence[tuple[str, str]]  # recognizer, and what it masks, which is "" in a stream
    outcome: Outcome


def hits_of(file: str, found: Iterable[Finding], texts: Sequence[Segment] | None) -> list[Hit]:
    """Findings as the recording has them: once for each rule and place."""
    first = {(finding.rule.id, finding.address): finding for finding in reversed(tuple(found))}
    kept = reversed(first.values())
    return [Hit(file, each, None if texts is None else _text(each, texts)) for each in kept]


def _text(finding: Finding, texts: Iterable[Segment]) -> str | None:
    """The text that a finding was made in; several may stand at one address."""
    rule = finding.rule
    fitting = [
        segment.text
        for segment in texts
        if segment.address == finding.address
        and finding.end <= len(segment.text)
        and (segment.where == "fetches" if rule.network else segment.where in rule.where)
        and (bool(rule.network) or rule.covers(segment.where, segment.name))
    ]
    as_seen = (text for text in fitting if text[finding.start :].startswith(finding.text))
    return next(as_seen, fitting[0] if fitting else None)


def excepted_of(rules: Ruling, asked: Asked, principal: Principal | None) -> list[Excepted]:
    """What `rules` would find in a request, or in the texts of an answer, of anybody else."""
    if principal is None or not any(rule.unless for rule in rules.rules):
        return []
    found: dict[tuple[str, str], Excepted] = {}
    for finding in rules.asked(asked, None):
        for i, who in enumerate(finding.rule.unless):
            if who.matches(principal):
                key = (finding.rule.id, finding.address)
                found.setdefault(key, Excepted(finding.rule, i, finding.address))
    return list(found.values())
