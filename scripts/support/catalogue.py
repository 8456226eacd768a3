"""The part of rules/README.md that is made from the rule files; run this file to make it anew.

It lists what ships: deny and hold rules, what is known to get around them, recognizers, and the
endpoints that grants can name. The tests compare it with what stands in the README.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from mitmgate.commands import CommandsFile
from mitmgate.core.holds import ApprovalFile
from mitmgate.core.masking import MaskerFile, Recognizer
from mitmgate.core.rules import load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.wire.endpoints import ENDPOINTS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "rules" / "README.md"
BYPASSES = ROOT / "tests" / "rules" / "bypass.yaml"
BEGIN = "<!-- made by scripts/support/catalogue.py: begin -->"
END = "<!-- made by scripts/support/catalogue.py: end -->"


def catalogue(directory: Path) -> str:
    """The catalogue of the rule files in `directory`, in Markdown. Raises `RuleError`."""
    commands = load(directory / "commands.yaml", CommandsFile).file
    approval = load(directory / "approval.yaml", ApprovalFile).file
    masker = load(directory / "masker.yaml", MaskerFile).file
    endpoints = sorted((e.operation, e.dialect.name, e.method, e.path) for e in ENDPOINTS)
    parts = [
        "### Rules in commands.yaml",
        _table(RULE, map(_rule, commands.rules)),
        "### Rules in approval.yaml",
        _table(RULE, map(_rule, approval.rules)),
        "### Known ways around the rules",
        _table(BYPASS, _bypasses()),
        "### Recognizers in masker.yaml",
        _table(RECOGNIZER, (_recognizer(masker, each) for each in masker.recognizers)),
        "### Endpoints and their operations",
        _table(
            ("operation", "dialect", "method", "path"),
            (
                (operation, dialect, method, f"`{path}`")
                for operation, dialect, method, path in endpoints
            ),
        ),
    ]
    return "\n\n".join(parts)


def inserted(readme: str, made: str) -> str:
    """`readme` with `made` in place of the old catalogue. Raises `ValueError` without its marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the marks are missing: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


RULE = ("id", "action", "severity", "status", "looks at", "title")
BYPASS = ("id", "seen through", "missed")
RECOGNIZER = ("id", "replaced by", "validator", "profiles", "title")


def _rule(rule: Rule) -> Sequence[str]:
    return f"`{rule.id}`", rule.action, rule.severity, rule.status, _looks_at(rule), rule.title


def _looks_at(rule: Rule) -> str:
    if rule.parameter:
        return ", ".join(f"`{name}`" for name in rule.parameter)
    if rule.network:
        return f"fetches: {', '.join(rule.network)}"
    where = ", ".join(sorted(rule.where))
    return f"{where} ({', '.join(rule.methods)})" if rule.methods else where


def _bypasses() -> Iterator[Sequence[str]]:
    """For every rule, how many ways around it are seen through, and what those are that are not."""
    tries: dict[str, list[dict[str, object]]] = {}
    for group in yaml.safe_load(BYPASSES.read_text("utf-8")):
        tries.setdefault(group["rule"], []).extend(group["tries"])
    for name, each in tries.items():
        missed = [str(one["technique"]) for one in each if one.get("missed")]
        yield f"`{name}`", f"{len(each) - len(missed)} of {len(each)}", ", ".join(missed)


def _recognizer(file: MaskerFile, each: Recognizer) -> Sequence[str]:
    sides = [
        f"{name} ({side})"
        for name, profile in file.profiles.items()
        for side, ids in (("answer", profile.answer), ("prompt", profile.prompt))
        if each.id in ids
    ]
    replaced = f"`{each.replace}`" if isinstance(each.replace, str) else repr(each.replace)
    return f"`{each.id}`", replaced, each.validate_with or "", ", ".join(sides), each.title


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '\\|') for cell in row)} |" for row in lines)


if __name__ == "__main__":
    README.write_text(inserted(README.read_text("utf-8"), catalogue(ROOT / "rules")), "utf-8")
