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

from mitmgate import findings, options, workers
from mitmgate.core import matching, ruling
from mitmgate.core.matching import Finding
from mitmgate.core.rules import Listed, load
from mitmgate.core.rules import RuleFile as Envelope
from mitmgate.core.rules.rule import Mode, Rule, in_mode
from mitmgate.core.ruling import Ruling
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.segment import Segment
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, deny
from mitmgate.reading import off_loop, read_asked, unreadable
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

# A stream's text is searched this many characters at a time, with the last of what went before.
STEP = 256
WINDOW = 4096


class CommandsFile(Envelope):
    """commands.yaml. In `mode: audit` its rules change nothing, but for those with a mode."""

    mode: Mode = "enforce"
    rules: Listed[Rule]

    @pydantic.field_validator("rules")
    @classmethod
    def _actions(cls, rules: tuple[Rule, ...], info: pydantic.ValidationInfo) -> tuple[Rule, ...]:
        for rule in rules:
            if rule.action not in ("log", "deny"):
                raise ValueError(f"{rule.id}: action is log or deny here, not {rule.action}")
        return in_mode(rules, info.data.get("mode", "enforce"))


def read(path: Path) -> tuple[Ruling, str]:
    """commands.yaml, compiled and self-tested. Raises `RuleError`."""
    loaded = load(path, CommandsFile)
    if loaded.file.mode == "audit":
        logger.log(ALERT, "%s is in audit: its rules only log, but for those with a mode", path)
    return ruling.compile(loaded, loaded.file.rules, ("rules",)), loaded.digest


class Commands(GateAddon):
    """Reads commands.yaml."""

    name = "mitmgate.commands"
    sees_refusals = True

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
        workers.close()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """An endpoint that is refused as unknown may be one that a rule has a name for."""
        exchange = Exchange.of(flow)
        refusal = exchange.refusal
        if refusal is None or refusal.code != "endpoint_unknown" or exchange.principal is None:
            return
        rules = self._file.rules
        exchange.verdict.digests["commands"] = self._file.digest
        asked = await read_asked(flow.request, exchange.method, exchange.target)
        found = await off_loop(
            lambda: rules.asked(asked, exchange.principal), asked.size, matching.INLINE
        )
        exchange.refusal = None
        judge(exchange, found)  # another refusal may take its place
        exchange.refusal = refusal

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.refusal is not None:
            return
        await exchange.read_request()
        rules = self._file.rules
        exchange.verdict.digests["commands"] = self._file.digest
        judge(exchange, await findings.in_request(exchange, rules))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.refusal is None and exchange.streams and self._file.rules.reads_answers:
            exchange.filters.append(Judge(exchange, self._file.rules))

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange, rules = Exchange.of(flow), self._file.rules
        if exchange.refusal is not None or exchange.delivery is not None:
            return
        if rules.reads_answers:
            judge(exchange, await findings.in_answer(exchange, rules))


def judge(exchange: Exchange, findings: Iterable[Finding]) -> None:
    """Keep what was found, once for each rule and place; refuse if a rule in force denies."""
    exchange.verdict.find(exchange.id, findings)
    for finding in exchange.verdict.findings:
        if finding.rule.action == "deny" and finding.rule.enforced:
            deny(403, finding.rule.id, finding.rule.message)


class Judge:
    """The rules as a filter of a stream: text passes unchanged, or the stream ends."""

    masks = False

    def __init__(self, exchange: Exchange, rules: Ruling) -> None:
        self._exchange = exchange
        self._rules = rules
        self.holds_calls = any(
            rule.enforced and "answer.tool_calls" in rule.where for rule in rules.rules
        )

    def channel(self) -> _Channel:
        return _Channel(self)

    def whole(self, text: str) -> str:
        if text:
            self._judge([Segment("answer", "stream", text)])
        return text

    def call(self, text: str) -> str:
        if text:
            segment = Segment("answer.tool_calls", "stream", text)
            try:
                self._judge([segment, *unfold("answer.tool_calls", "stream", text)])
            except DocumentError as e:
                raise unreadable(self._exchange.id, e) from None
        return text

    def _judge(self, segments: list[Segment]) -> None:
        exchange = self._exchange
        found = self._rules.answered(
            segments, exchange.principal, exchange.method, exchange.operation
        )
        judge(exchange, found)


class _Channel:
    def __init__(self, judge: Judge) -> None:
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
