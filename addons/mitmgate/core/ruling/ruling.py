"""All rules of a file, held against a request or an answer.

Patterns are the matcher's business (`core.matching`); parameters and addresses are looked at here,
and which rules are about such requests at all.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mitmgate.core.matching import Finding, Matcher, size_of
from mitmgate.core.matching.matcher import SHOWN
from mitmgate.core.matching.views import views_of
from mitmgate.core.principal import Principal
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling.network import networks
from mitmgate.core.ruling.parameter import breaches
from mitmgate.core.wire.prompt import Prompt
from mitmgate.core.wire.segment import Segment
from mitmgate.core.wire.surroundings import headers, query


@dataclass(frozen=True, slots=True)
class Asked:
    """What rules see of a request. `operation` is "" for an endpoint that no dialect knows.

    `texts` are all its texts, `data` its body as parsed, None where it has none.
    """

    method: str
    operation: str
    texts: Sequence[Segment]
    data: Any = None

    @property
    def size(self) -> int:
        """Characters that are judged: a text counts in each form in which it is read."""
        return size_of(self.texts)


def asked_of(
    method: str, target: str, fields: Iterable[tuple[str, str]], prompt: Prompt | None = None
) -> Asked:
    """What rules see of a request; `fields` are its headers. Without a `prompt`, of one to an
    endpoint that nobody knows."""
    around = headers(fields)
    if prompt is None:
        return Asked(method, "", (Segment("path", "path", target), *query(target), *around))
    data = prompt.body.document.data if prompt.body else None
    return Asked(method, prompt.endpoint.operation, (*prompt.readings(), *around), data)


class Ruling:
    """The rules of a file. `compile` makes it, checks included; any thread may judge with it."""

    def __init__(
        self, rules: Sequence[Rule], matcher: Matcher, excepted: Set[str] = frozenset()
    ) -> None:
        """What rules with the ids in `excepted` find does not count."""
        self.rules = tuple(rules)
        self._matcher = matcher
        self._parameters = [rule for rule in rules if rule.parameter]
        self._networks = [rule for rule in rules if rule.network]
        self._excepted = excepted

    @cached_property
    def packed(self) -> bytes:
        """These very rules as another process takes them with `unpacked`: checked, and compiled
        but for what Hyperscan makes of them."""
        return pickle.dumps((self.rules, self._matcher.patterns, self._excepted))

    @cached_property
    def name(self) -> str:
        """Tells these rules from all others."""
        return hashlib.sha256(self.packed).hexdigest()

    @property
    def prefiltered(self) -> bool:
        """False where Hyperscan is missing: the same findings, at hundreds of times the cost."""
        return self._matcher.prefiltered

    @property
    def reads_answers(self) -> bool:
        return any(rule.reads_answers for rule in self.rules)

    def excepting(self, ids: Set[str]) -> Ruling:
        """The same rules, but what those with these ids find does not count."""
        return Ruling(self.rules, self._matcher, self._excepted | ids)

    def asked(self, request: Asked, principal: Principal | None) -> tuple[Finding, ...]:
        """All hits in a request."""
        found = self.anywhere(request, principal)
        return self._about(found, request.method, request.operation)

    def anywhere(self, request: Asked, principal: Principal | None) -> list[Finding]:
        """All hits in a request, those too of rules that are not about its method or operation."""
        found = list(self._matcher.scan(request.texts, principal))
        for rule in self._parameters:
            if not _excepts(rule, principal):
                for name, value in breaches(rule, request.data):
                    found.append(_finding(rule, name.removeprefix("/"), value, "parameter"))
        for rule in self._networks:
            if not _excepts(rule, principal):
                found += _led_to(rule, request.texts)
        return found

    def answered(
        self, texts: Iterable[Segment], principal: Principal | None, method: str, operation: str
    ) -> tuple[Finding, ...]:
        """All hits in texts of an answer to such a request."""
        return self._about(self._matcher.scan(texts, principal), method, operation)

    def _about(self, found: Iterable[Finding], method: str, operation: str) -> tuple[Finding, ...]:
        return tuple(
            finding
            for finding in found
            if finding.rule.applies(method, operation) and finding.rule.id not in self._excepted
        )

    def views(self, text: str) -> list[tuple[str, str]]:
        """What `text` is read as where that differs from it: the name of a view, and the text."""
        readings = views_of(text, self._matcher.lexicon)
        return [(name, reading.text) for name, reading in readings if reading.text != text]


def unpacked(packed: bytes) -> Ruling:
    """The ruling of which `packed` is. It is unpickled: never give it what others could write."""
    rules, patterns, excepted = pickle.loads(packed)  # noqa: S301
    return Ruling(rules, Matcher(patterns), excepted)


def sample(rule: Rule, text: str) -> Asked:
    """A rule's own test as the request that it is a sample of.

    Raises `ValueError` for one that is no JSON object where a body is needed.
    """
    if rule.parameter:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("is no JSON object")
        return Asked("", "", (), data)
    return Asked("", "", (Segment("fetches", "tests", text),))


def hits(rule: Rule, request: Asked) -> bool:
    """Whether a rule on a parameter or an address finds anything in a request."""
    return bool(breaches(rule, request.data) if rule.parameter else _led_to(rule, request.texts))


def _led_to(rule: Rule, texts: Iterable[Segment]) -> list[Finding]:
    return [
        _finding(rule, segment.address, segment.text, "network")
        for segment in texts
        if segment.where == "fetches" and not networks(segment.text).isdisjoint(rule.network)
    ]


def _finding(rule: Rule, address: str, text: str, view: str) -> Finding:
    return Finding(rule, address, 0, len(text), text[:SHOWN], view)


def _excepts(rule: Rule, principal: Principal | None) -> bool:
    return any(who.matches(principal) for who in rule.unless)
