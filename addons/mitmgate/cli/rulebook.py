"""All rule files of a directory: each read as its addon reads it, then held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmgate import approval, commands, credentials, identity, masker, recorder
from mitmgate.core.rules import Problem, RuleError


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, a line a file, and everything that is wrong.

    `rules` are those of the files that load, as their readers return them, by name; `digests`
    are as in the ledger.
    """

    lines: tuple[str, ...]
    problems: tuple[Problem, ...]
    rules: dict[str, Any]
    digests: dict[str, str]


type Readers = Mapping[str, Callable[[Path], tuple[Any, str]]]

READERS: Readers = {
    "identity": identity.check,
    "commands": commands.read,
    "approval": approval.read,
    "masker": lambda path: masker.read(path, b"pseudonyms are not made here"),
    "recorder": recorder.read,
    "credentials": credentials.read,
}


def check(directory: Path, readers: Readers = READERS) -> Report:
    """Read every rule file in `directory`. Remote key sets are not fetched."""
    lines: list[str] = []
    problems: list[Problem] = []
    rules: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for name, read in readers.items():
        path = directory / f"{name}.yaml"
        try:
            rules[name], digests[name] = read(path)
        except RuleError as e:
            problems += e.problems
        else:
            lines.append(f"{path}  {digests[name][:12]}")
    for path in sorted(directory.glob("*.y*ml")):
        if path.name not in {f"{name}.yaml" for name in READERS}:
            lines.append(f"{path}  is read by no addon of the gate's own")
    return Report(tuple(lines), (*problems, *_across(directory, rules)), rules, digests)


def _across(directory: Path, rules: dict[str, Any]) -> list[Problem]:
    """What only shows when files are read together."""
    found = []
    if "identity" in rules and "masker" in rules:
        path = directory / "identity.yaml"
        for grant in rules["identity"].grants:
            if grant.masking not in rules["masker"].profiles:
                message = f"grant {grant.id}: masker.yaml has no profile {grant.masking!r}"
                found.append(Problem(path, 0, "grants", message))
    if "approval" in rules and "masker" in rules:
        file = rules["approval"][0]
        named = [("approvers", file.approvers), *((rule.id, rule.approvers) for rule in file.rules)]
        for where, approvers in named:
            if approvers and approvers.profile not in (None, *rules["masker"].profiles):
                message = f"{where}: masker.yaml has no profile {approvers.profile!r}"
                found.append(Problem(directory / "approval.yaml", 0, "approvers", message))
    if "commands" in rules and "approval" in rules:
        denied = {rule.id for rule in rules["commands"].rules}
        for rule in rules["approval"][1].rules:
            if rule.id in denied:
                message = f"the id {rule.id} is taken by a rule in commands.yaml"
                found.append(Problem(directory / "approval.yaml", 0, "rules", message))
    return found
