"""Rule files that judge, as `explain` and `backtest` need them: compiled, without a gate.

No key set is read and nothing is fetched: tokens are not verified with these.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mitmgate.cli import rulebook
from mitmgate.core import masking
from mitmgate.core.holds import ApprovalFile
from mitmgate.core.masking.model import Recognizer
from mitmgate.core.rules import RuleError, load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling
from mitmgate.core.tokens import IdentityFile
from mitmgate.core.tokens.file import problems_of
from mitmgate.core.wire.endpoints import OPERATIONS


@dataclass(frozen=True, slots=True)
class Rules:
    """The rule files that are about what is said."""

    commands: Ruling
    approval: Ruling
    holds: ApprovalFile
    masking: masking.Masking

    @staticmethod
    def read(directory: Path) -> Rules:
        """Raises `RuleError` with every problem of the three files."""
        names = ("commands", "approval", "masker")
        report = rulebook.check(directory, {name: rulebook.READERS[name] for name in names})
        if report.problems:
            raise RuleError(report.problems)
        return Rules.of(report.rules)

    @staticmethod
    def of(files: Mapping[str, Any]) -> Rules:
        """The three of all files, as their readers return them."""
        holds, waits = files["approval"]
        return Rules(files["commands"], waits, holds, files["masker"])

    def excepting(self, ids: Set[str]) -> Rules:
        """The same rules for a caller of whom these are known not to be."""
        return replace(
            self, commands=self.commands.excepting(ids), approval=self.approval.excepting(ids)
        )

    def views(self, text: str) -> list[tuple[str, str]]:
        """What rules read `text` as, each different reading once, with the name of its view."""
        found = {reading: name for name, reading in self.commands.views(text)}
        for name, reading in self.approval.views(text):
            found.setdefault(reading, name)
        return [(name, reading) for reading, name in found.items()]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A directory of rule files that is held against recordings.

    `digests` are those of its files, as exchanges have them recorded; `recognizers` are what
    masker.yaml says, by id; `prompts` is whether its recorder.yaml records them "masked".
    """

    directory: Path
    rules: Rules
    identity: IdentityFile
    recognizers: Mapping[str, Recognizer]
    prompts: str
    digests: Mapping[str, str]

    @staticmethod
    def read(directory: Path) -> RuleSet:
        """Raises `RuleError` with every problem of the files."""
        names = ("commands", "approval", "masker", "recorder")
        readers = {name: rulebook.READERS[name] for name in names}
        report = rulebook.check(directory, {"identity": _identity, **readers})
        if report.problems:
            raise RuleError(report.problems)
        masker = load(directory / "masker.yaml", masking.MaskerFile).file
        return RuleSet(
            directory,
            Rules.of(report.rules),
            report.rules["identity"],
            {each.id: each for each in masker.recognizers},
            report.rules["recorder"].prompts,
            report.digests,
        )

    def rule(self, id: str) -> Rule | None:
        """The rule of commands.yaml or approval.yaml that has this id."""
        both = (*self.rules.commands.rules, *self.rules.approval.rules)
        return next((rule for rule in both if rule.id == id), None)

    @property
    def answer_rules(self) -> list[Rule]:
        """The rules that look at what a model answers."""
        return [rule for rule in self.rules.commands.rules if rule.reads_answers]


def _identity(path: Path) -> tuple[IdentityFile, str]:
    """identity.yaml without its keys, which are seldom where rules are worked on."""
    loaded = load(path, IdentityFile)
    if problems := list(problems_of(loaded, OPERATIONS)):
        raise RuleError(problems)
    return loaded.file, loaded.digest
