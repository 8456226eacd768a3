"""Deny rules on prompts: the shipped pack and made-up ones, in all views of the text."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import regex

from bench import corpus
from bench.figures import KB, Effort, Figure, Section, medians
from mitmgate.commands import CommandsFile
from mitmgate.core import matching
from mitmgate.core.rules import load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.wire.segment import Segment

RULES = Path(__file__).parents[3] / "rules"
PROMPT = 10 * KB
LIMIT = 15.0  # us/KB
PROMPT_LIMIT = 1.0  # ms for a prompt of 10 KB

# A pattern around four words, and a text that it finds.
_FORMS: tuple[tuple[str, str], ...] = (
    (r"\b(?:{0}|{1})\b.{{0,80}}\b(?:{2}|{3})\b", "{0} the {2}"),
    (r"{0}\s+{1}", "{0} {1}"),
    (r"\b{0}[_-]?{1}\s*=\s*\w{{1,20}}", "{0}_{1} = 1"),
    (r"\b{0} (?:\w+ ){{0,3}}{1}\b", "{0} of the {1}"),
    (r"/{0}/[\w.-]+/{1}", "/{0}/x/{1}"),
    (r"(?<!no ){0}.{{0,40}}{1}(?! not)", "{0} or {1}"),
)


def measure(effort: Effort) -> Section:
    loaded = load(RULES / "commands.yaml", CommandsFile)
    shipped = [rule for rule in loaded.file.rules if rule.match][: effort.rules]
    rules = [*shipped, *made_up(effort.rules - len(shipped))]
    begun = time.process_time()
    matcher = matching.compile(loaded, rules, ("rules",))
    matcher.ready()
    compiling = time.process_time() - begun
    flags = regex.IGNORECASE | regex.VERSION0
    patterns = [regex.compile(rule.match, flags) for rule in rules if rule.match]
    found: list[int] = []

    def gate(texts: list[str]) -> None:
        for text in texts:
            found.append(len(matcher.scan([Segment("prompt", "messages[0].content", text)], None)))

    def naive(texts: list[str]) -> None:
        for text in texts:
            for pattern in patterns:
                pattern.search(text)

    figures = []
    for name, source, binding in (
        ("ASCII prose", corpus.prose, True),
        ("code", corpus.code, True),
        ("prose with typographic quotes", corpus.typographic_prose, False),
    ):
        texts = corpus.cuts(source(), PROMPT, effort.prompts, effort.rounds)
        figures += _figures(f"{len(rules)} rules, {name}", texts, gate, naive, binding=binding)
    figures.append(Figure(f"{len(rules)} rules: check and compile", "s", compiling))
    return Section(
        "Deny rules (normalisation included)",
        tuple(figures),
        (
            f"{len(shipped)} rules of rules/commands.yaml and {len(rules) - len(shipped)} made up "
            "from words of the texts; prompts of 10 KB, one segment each",
            f"{sum(found) / len(found):.1f} findings a prompt on average; "
            f"prefilter: {'Hyperscan' if matcher.prefiltered else 'none'}",
            "naive: `regex.search` of every rule on the text as it came, in no other view",
            "what bounds it: making the views, 8 to 14 a prompt, and scanning some of them",
        ),
    )


def made_up(count: int) -> list[Rule]:
    """`count` rules around words of the texts, the same in every run."""
    chance = random.Random(3)  # noqa: S311  (the same rules in every run)
    vocabulary = corpus.words()
    made = []
    for i in range(count):
        chosen = chance.sample(vocabulary, 4)
        pattern, sample = (part.format(*chosen) for part in chance.choice(_FORMS))
        tests = {"match": [sample], "pass": ["good morning"]}
        rule = {"id": f"made-up-{i}", "title": "Made up", "action": "deny", "match": pattern}
        made.append(Rule.model_validate({**rule, "tests": tests}))
    return made


def _figures(
    name: str,
    texts: list[list[str]],
    gate: Callable[[list[str]], None],
    naive: Callable[[list[str]], None],
    *,
    binding: bool,
) -> list[Figure]:
    taken = medians({"gate": gate, "naive": naive}, texts)
    prompts = len(texts[0])
    kilobyte = {who: seconds * 1e6 / prompts / (PROMPT / KB) for who, seconds in taken.items()}
    whole = {who: seconds * 1e3 / prompts for who, seconds in taken.items()}
    limit, prompt_limit = (LIMIT, PROMPT_LIMIT) if binding else (None, None)
    return [
        Figure(name, "us/KB", kilobyte["gate"], kilobyte["naive"], limit),
        Figure("  the same, a whole prompt", "ms", whole["gate"], whole["naive"], prompt_limit),
    ]
