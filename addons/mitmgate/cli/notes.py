"""What `mitmgate check` says of rule files that load: what has no effect, and what is there twice.

Notes are for whoever writes rules. None is an error: the gate runs with these files as it should.
What is meant can be said in the files, and is no note then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mitmgate.cli.rulebook import Report
from mitmgate.core.holds import ApprovalFile
from mitmgate.core.masking import MaskerFile
from mitmgate.core.rules import load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling
from mitmgate.core.ruling.overlap import overlaps
from mitmgate.core.ruling.reach import idle
from mitmgate.core.tokens.file import IdentityFile
from mitmgate.core.tokens.shadow import shadowed
from mitmgate.core.wire.endpoints import OPERATIONS


@dataclass(frozen=True, slots=True)
class Note:
    """One of them. `id` is what it is about, `other` what that is held against, or ""."""

    kind: str
    id: str
    other: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def notes(directory: Path, rules: Mapping[str, Any]) -> list[Note]:
    """All notes on `rules`, which are those of `directory` by the name of their file."""
    identity: IdentityFile | None = rules.get("identity")
    issuers = [issuer.id for issuer in identity.issuers] if identity else []
    found = list(_rules(_rulings(rules), issuers))
    if identity:
        for grant, deny in shadowed(identity, OPERATIONS):
            message = f"the grant {grant.id} lets nobody in: {deny.id} denies all of it"
            found.append(Note("grant-shadowed", grant.id, deny.id, message))
    if "masker" in rules:
        masker = load(directory / "masker.yaml", MaskerFile).file
        approval: ApprovalFile | None = rules["approval"][0] if "approval" in rules else None
        found += _masking(masker, identity, approval)
    return found


def without_effect(rules: Mapping[str, Any]) -> dict[str, int]:
    """How many rules change nothing, by the reason; and how many are `deprecated`."""
    counts: Counter[str] = Counter()
    for rule in (rule for ruling in _rulings(rules) for rule in ruling.rules):
        counts.update([] if rule.enforced else [_reason(rule)])
        counts.update(["deprecated"] if rule.status == "deprecated" else [])
    return dict(counts)


def said(counts: Mapping[str, int]) -> str:
    """`without_effect` in words."""
    words = {
        "log": "with action log change nothing",
        "audit": "in audit change nothing",
        "experimental": "that are experimental change nothing",
        "deprecated": "that are deprecated are in force all the same",
    }
    return "; ".join(f"rules {words[reason]}: {count}" for reason, count in counts.items())


def document(
    report: Report, found: Sequence[Note], idle: Mapping[str, int], *, good: bool
) -> dict[str, Any]:
    """All of a check as an object for programs; its keys stay."""
    return {
        "good": good,
        "files": list(report.lines),
        "problems": [{**asdict(each), "path": str(each.path)} for each in report.problems],
        "notes": [asdict(each) for each in found],
        "without_effect": dict(idle),
    }


def _reason(rule: Rule) -> str:
    if rule.status == "experimental":
        return "experimental"
    return "log" if rule.action == "log" else "audit"


def _rulings(rules: Mapping[str, Any]) -> list[Ruling]:
    found: list[Ruling] = []
    if "commands" in rules:
        found.append(rules["commands"])
    if "approval" in rules:
        found.append(rules["approval"][1])
    return found


def _rules(rulings: Sequence[Ruling], issuers: Collection[str]) -> Iterator[Note]:
    for rule in (rule for ruling in rulings for rule in ruling.rules):
        if reason := idle(rule, issuers):
            yield Note("never", rule.id, "", f"{rule.id} can never match: {reason}")
    met = overlaps(rulings)
    for each in met:
        id, other = each.rule.id, each.other.id
        if each.shadowed:
            message = f"{other} finds all samples of {id}, and does all that {id} does"
            yield Note("shadowed", id, other, message)
        elif other not in each.rule.also_found_by:
            message = f"{other} finds {each.found} of {each.samples} samples of {id}, too"
            yield Note("overlap", id, other, message)
    yield from _gone(rulings, {(each.rule.id, each.other.id) for each in met})


def _gone(rulings: Sequence[Ruling], met: Collection[tuple[str, str]]) -> Iterator[Note]:
    """What `also_found_by` names for nothing. Rules that are not in force may be so for a while."""
    rules = {rule.id: rule for ruling in rulings for rule in ruling.rules}
    for id, rule in rules.items():
        for other in dict.fromkeys(rule.also_found_by):
            if other not in rules:
                message = f"also_found_by of {id} names {other}, and there is no such rule"
                yield Note("overlap-gone", id, other, message)
            elif (id, other) not in met and rules[other].enforced:
                message = f"{other} finds no sample of {id}: take it out of also_found_by"
                yield Note("overlap-gone", id, other, message)


def _masking(
    file: MaskerFile, identity: IdentityFile | None, approval: ApprovalFile | None
) -> Iterator[Note]:
    if identity:
        named: set[str | None] = {"default"}  # which it is for grants that name none
        named |= {grant.masking for grant in identity.grants if grant.effect == "allow"}
        if approval:
            decide = (approval.approvers, *(rule.approvers for rule in approval.rules))
            named |= {approvers.profile for approvers in decide if approvers}
        for name, profile in file.profiles.items():
            if name not in named and not profile.offered:
                yield Note("profile-unused", name, "", f"nobody names the profile {name}")
    used = {id for profile in file.profiles.values() for id in (*profile.answer, *profile.prompt)}
    for recognizer in file.recognizers:
        if recognizer.id not in used:
            message = f"no profile names the recognizer {recognizer.id}"
            yield Note("recognizer-unused", recognizer.id, "", message)
