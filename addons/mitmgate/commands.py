"""Command blocker: prompts and answers are searched for what the rules deny.

Requests are judged whole, before anything leaves. Answers are judged before they are delivered;
those that stream while they are, a few hundred characters behind at most, with tool calls held
until they are complete and judged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pydantic
from mitmproxy import http
from mitmproxy.log import ALERT

from mitmgate import options
from mitmgate.core import matching
from mitmgate.core.matching import Finding, Matcher
from mitmgate.core.rules import Listed, load
from mitmgate.core.rules import RuleFile as Envelope
from mitmgate.core.rules.rule import Rule
from mitmgate.core.wire.segment import Segment
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, deny
from mitmgate.reading import off_loop
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

# A stream's text is searched this many characters at a time, with the last of what went before.
STEP = 256
WINDOW = 4096


class CommandsFile(Envelope):
    """commands.yaml."""

    rules: Listed[Rule]

    @pydantic.field_validator("rules")
    @classmethod
    def _actions(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for rule in rules:
            if rule.action not in ("log", "deny"):
                raise ValueError(f"{rule.id}: action is log or deny here, not {rule.action}")
        return rules


def read(path: Path) -> tuple[Matcher, str]:
    """commands.yaml, compiled and self-tested. Raises `RuleError`."""
    loaded = load(path, CommandsFile)
    return matching.compile(loaded, loaded.file.rules, ("rules",)), loaded.digest


class Commands(GateAddon):
    """Reads commands.yaml."""

    name = "mitmgate.commands"

    def __init__(self) -> None:
        self._file = RuleFile(read)

    def configure(self, updated: set[str]) -> None:
        if "gate_rules" in updated:
            self._file.load(options.rules("commands"))
            if not self._file.rules.prefiltered:
                logger.log(ALERT, "hyperscan is not installed: rules are slow, results the same")

    def running(self) -> None:
        self._file.watch()

    def done(self) -> None:
        self._file.stop()

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        prompt = await exchange.read_request()
        matcher = self._file.rules
        exchange.verdict.digests["commands"] = self._file.digest
        size = prompt.body.size if prompt.body else 0
        findings = await off_loop(
            lambda: matcher.scan(prompt.readings(), exchange.principal), size, matching.INLINE
        )
        judge(exchange, findings)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.streams and self._reads_answers():
            exchange.filters.append(_Judge(exchange, self._file.rules))

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.delivery is None and self._reads_answers():
            answer, matcher = await exchange.read_answer(), self._file.rules
            findings = await off_loop(
                lambda: matcher.scan(answer.segments("answer"), exchange.principal),
                answer.size,
                matching.INLINE,
            )
            judge(exchange, findings)

    def _reads_answers(self) -> bool:
        return any("answer" in rule.where for rule in self._file.rules.rules)


def judge(exchange: Exchange, findings: Iterable[Finding]) -> None:
    """Keep what was found, once for each rule and place; refuse if a rule in force denies."""
    known = {(f.rule.id, f.address) for f in exchange.verdict.findings}
    for finding in findings:
        if (finding.rule.id, finding.address) not in known:
            exchange.verdict.findings.append(finding)
    for finding in exchange.verdict.findings:
        if finding.rule.action == "deny" and finding.rule.enforced:
            deny(403, finding.rule.id, finding.rule.message)


class _Judge:
    """The rules as a filter of a stream: text passes unchanged, or the stream ends."""

    masks = False

    def __init__(self, exchange: Exchange, matcher: Matcher) -> None:
        self._exchange = exchange
        self._matcher = matcher

    def channel(self) -> _Channel:
        return _Channel(self)

    def whole(self, text: str) -> str:
        if text:
            segment = Segment("answer", "stream", text)
            judge(self._exchange, self._matcher.scan([segment], self._exchange.principal))
        return text


class _Channel:
    def __init__(self, judge: _Judge) -> None:
        self._judge = judge
        self._window = ""
        self._fresh = 0

    def feed(self, text: str) -> str:
        self._window += text
        self._fresh += len(text)
        if self._fresh >= STEP:
            self._search()
        return text

    def finish(self) -> str:
        if self._fresh:
            self._search()
        return ""

    def _search(self) -> None:
        self._judge.whole(self._window)
        self._window = self._window[-WINDOW:]
        self._fresh = 0
