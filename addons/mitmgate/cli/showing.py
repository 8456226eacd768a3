"""A judged request or answer, as people read it and as programs do: `explain --request`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mitmgate.cli.judgement import Hit, Judged, Outcome
from mitmgate.core.matching import Finding
from mitmgate.core.wire.segment import Segment, plain

SHOWN = 100  # characters of a text; of a longer one its length is said
AROUND = 30  # characters on either side of what was found

type Views = Callable[[str], Sequence[tuple[str, str]]]


def lines(judged: Judged, views: Views, side: str) -> Iterator[str]:
    """Lines for people about one side, "request" or "answer"; `views` are those of a text."""
    yield f"{side}: {judged.method} {plain(judged.target)}, {_endpoint(judged)}"
    for segment in judged.texts:
        yield f"  {segment.where} {plain(segment.address)}: {_shortened(segment.text)}"
        for name, text in views(segment.text):
            yield f"    as {name}: {_shortened(text)}"
    for hit in judged.hits:
        rule, finding = hit.finding.rule, hit.finding
        yield (
            f"  found by {rule.id} ({hit.file}.yaml): {rule.action}, {rule.severity}, "
            f"{rule.status}, {rule.mode or 'enforce'}{'' if rule.enforced else ': changes nothing'}"
        )
        place = f"at {plain(finding.address)}"
        if hit.text is not None:
            place += f" [{finding.start}:{finding.end}] {marked(hit.text, finding)}"
        yield f"    {place}"
        if finding.view == "timeout":
            yield "    the search took too long, which counts as a hit"
        elif finding.view != "raw":
            yield f"    as {finding.view}: {_shortened(finding.text)}"
    for each in judged.excepted:
        yield f"  {each.rule.id} excepts this caller (unless[{each.unless}]) at {each.address}"
    counts = Counter(name for name, _ in judged.masked)
    for name, count in counts.items():
        texts = ", ".join(_shortened(text) for one, text in judged.masked if one == name and text)
        yield f"  masked by {name} x{count}{': ' if texts else ''}{texts}"
    for finding in audited(judged):
        yield f"  would have been {_would(finding)}: {finding.rule.id} at {finding.address} (audit)"
    yield f"{side} {sentence(judged.outcome)}"


def sentence(outcome: Outcome) -> str:
    """What the gate does, in one line."""
    if outcome.does == "goes on":
        return "goes on"
    if outcome.does == "held":
        held = f"is held for approval by {', '.join(outcome.rules)}: {outcome.message}"
        return f"{held} ({outcome.status} {outcome.detail})"
    said = f"is refused by {outcome.by}: {outcome.status} {outcome.public}"
    if outcome.code != outcome.public:
        said += f"; the log says {outcome.code}: {outcome.detail}"
    elif outcome.detail and outcome.detail not in outcome.message:
        said += f": {outcome.message} ({outcome.detail})"
    else:
        said += f": {outcome.message}"
    return said


def audited(judged: Judged) -> list[Finding]:
    """What would have changed something, were its rule not in audit."""
    return [hit.finding for hit in judged.hits if hit.finding.rule.only_in_audit]


def document(judged: Judged, views: Views) -> dict[str, Any]:
    """The same as an object for programs; its keys stay."""
    endpoint, outcome = judged.endpoint, judged.outcome
    return {
        "method": judged.method,
        "target": judged.target,
        "dialect": endpoint.dialect.name if endpoint else None,
        "operation": endpoint.operation if endpoint else None,
        "model": judged.model,
        "streams": judged.streams,
        "texts": [_text(segment, views) for segment in judged.texts],
        "findings": [finding(hit) for hit in judged.hits],
        "exceptions": [
            {"rule": each.rule.id, "unless": each.unless, "address": each.address}
            for each in judged.excepted
        ],
        "masked": dict(Counter(name for name, _ in judged.masked)),
        "audit": [
            {"rule": each.rule.id, "would_be": _would(each), "address": each.address}
            for each in audited(judged)
        ],
        "verdict": {
            "outcome": outcome.does,
            "by": outcome.by or None,
            "status": outcome.status or None,
            "code": outcome.code or None,
            "public": outcome.public or None,
            "message": outcome.message or None,
            "detail": outcome.detail or None,
            "rules": list(outcome.rules),
        },
    }


def _endpoint(judged: Judged) -> str:
    endpoint = judged.endpoint
    if endpoint is None:
        return "no endpoint of the gate"
    said = f"{endpoint.operation} of {endpoint.dialect.name}"
    if judged.model is not None:
        said += f", model {judged.model}"
    return f"{said}, streamed" if judged.streams else said


def _text(segment: Segment, views: Views) -> dict[str, Any]:
    return {
        "where": segment.where,
        "address": segment.address,
        "name": segment.name,
        **_cut(segment.text),
        "views": [{"view": name, **_cut(text)} for name, text in views(segment.text)],
    }


def _cut(text: str) -> dict[str, Any]:
    return {"text": text[:SHOWN], "characters": len(text), "shortened": len(text) > SHOWN}


def finding(hit: Hit) -> dict[str, Any]:
    finding, rule, text = hit.finding, hit.finding.rule, hit.text
    return {
        "rule": rule.id,
        "file": f"{hit.file}.yaml",
        "action": rule.action,
        "severity": rule.severity,
        "status": rule.status,
        "mode": rule.mode or "enforce",
        "enforced": rule.enforced,
        "address": finding.address,
        "start": None if text is None else finding.start,
        "end": None if text is None else finding.end,
        "original": None if text is None else text[finding.start : finding.end],
        "view": finding.view,
        "text": finding.text,
    }


def _would(finding: Finding) -> str:
    return "held" if finding.rule.action == "hold" else "refused"


def marked(text: str, finding: Finding) -> str:
    """What was found, between angle brackets, with a little of what is around it."""
    start, end = finding.start, finding.end
    before, found, after = text[:start], text[start:end], text[end:]
    if len(found) > SHOWN:
        half = SHOWN // 2
        found = f"{found[:half]}...{found[-half:]}"
    before = f"...{before[-AROUND:]}" if len(before) > AROUND else before
    after = f"{after[:AROUND]}..." if len(after) > AROUND else after
    return f"{plain(before)}>>>{plain(found)}<<<{plain(after)}"


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return plain(text)
    return f"{plain(text[:SHOWN])}... ({len(text)} characters)"
