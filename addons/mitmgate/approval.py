"""Approval hold: a risky prompt waits for a person before it reaches the model.

The connection is kept waiting for a while, then the caller is told to try again; stock SDKs do
that by themselves, and the same request attaches to the same hold. Decisions come from
`mitmgate approve`, from the commands below, or from resuming or killing the flow in mitmweb.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mitmproxy import command, connection, ctx, exceptions, hooks, http
from mitmproxy.log import ALERT

from mitmgate import findings, options, workers
from mitmgate.approvals import POLL, Approvals
from mitmgate.core import holds, ruling
from mitmgate.core.holds import Hold, HoldStore, Mark, Passage, State, Why
from mitmgate.core.holds.notify import Event
from mitmgate.core.matching import Finding
from mitmgate.core.rules import load
from mitmgate.core.ruling import Ruling
from mitmgate.core.wire.segment import Segment
from mitmgate.desk import Desk
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal, deny
from mitmgate.notices import Notices
from mitmgate.presence import has_left
from mitmgate.reading import off_loop, read_asked
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

RETRY_AFTER = "5"  # seconds; the SDKs wait that long before they send the request again
LEASE = 5.0  # seconds that a waiting connection is believed in after it was last seen
UPKEEP = 2.0  # seconds between two looks at what is overdue, old or decided


def read(path: Path) -> tuple[tuple[holds.ApprovalFile, Ruling], str]:
    """approval.yaml, its rules compiled and self-tested. Raises `RuleError`."""
    loaded = load(path, holds.ApprovalFile)
    if loaded.file.mode == "audit":
        logger.log(ALERT, "%s is in audit: its rules only log, but for those with a mode", path)
    rules = ruling.compile(loaded, loaded.file.rules, ("rules",))
    return (loaded.file, rules), loaded.digest


def waits(findings: Iterable[Finding]) -> list[Finding]:
    """Those findings for which a request has to wait."""
    return [finding for finding in findings if finding.rule.enforced]


class Approval(GateAddon):
    """Reads approval.yaml; keeps holds in `holds.sqlite` below gate_state."""

    name = "mitmgate.approval"
    needs = ("mitmgate.identity",)

    def __init__(self) -> None:
        self._file = RuleFile(read)
        self._approvals: Approvals | None = None
        self._notices: Notices | None = None
        self._waiting: dict[str, _Waiter] = {}  # by exchange id
        self._tasks: list[asyncio.Task[None]] = []
        self._poller: asyncio.Task[None] | None = None

    def configure(self, updated: set[str]) -> None:
        if "gate_rules" in updated:
            self._file.load(options.rules("approval"))
        if "gate_state" in updated:
            try:
                store = HoldStore(options.state() / "holds.sqlite")
                store.abandon()
            except holds.StoreError as e:
                raise exceptions.OptionsError(str(e)) from None
            if self._approvals:
                self._approvals.close()
            desk = Desk.of(ctx.master)
            desk.approvals = self._approvals = Approvals(store, lambda: self._file.rules[0])
            self._notices = self._notices or Notices(lambda: self._file.rules[0], desk.shown)
        if {"gate_rules", "gate_state"} & updated:
            # For `mitmgate approve`, which must go by the same rules.
            path = options.rules("approval").resolve()
            (options.state() / holds.IN_FORCE).write_text(str(path), "utf-8")

    def running(self) -> None:
        self._file.watch()
        self._tasks.append(asyncio.create_task(self._keep_up(), name="holds upkeep"))

    def done(self) -> None:
        self._file.stop()
        workers.close()
        for task in (*self._tasks, self._poller):
            if task:
                task.cancel()
        if self._notices:
            self._notices.close()
        if self._approvals:
            Desk.of(ctx.master).approvals = None
            self._approvals.close()

    def client_disconnected(self, client: connection.Client) -> None:
        for waiter in self._waiting.values():
            if waiter.flow.client_conn.id == client.id:
                waiter.left = True
                waiter.wake.set()

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        prompt = await exchange.read_request()
        rules = self._file.rules[1]
        exchange.verdict.digests["approval"] = self._file.digest
        found = await findings.in_request(exchange, rules)
        exchange.verdict.find(exchange.id, found)
        if risky := waits(found):
            asked = await read_asked(flow.request, exchange.method, exchange.target, prompt)
            await self._hold(flow, exchange, risky, asked.texts)

    async def _hold(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        risky: list[Finding],
        texts: Sequence[Segment],
    ) -> None:
        approvals, principal = self._approvals, exchange.principal
        assert approvals is not None  # configure has made it, and identity stands before
        assert principal is not None
        file = approvals.rules
        rules = sorted({finding.rule.id for finding in risky})
        terms = file.terms(rules)
        bound = (principal.name, exchange.method, exchange.target, exchange.sent, rules)
        digest = await off_loop(lambda: holds.digest(*bound), len(exchange.sent))
        judged = _shape(flow)
        waits = "respond-async" not in flow.request.headers.get("prefer", "").lower()
        try:
            hold, new = await approvals.call(
                HoldStore.open,
                digest,
                principal,
                operation=exchange.operation,
                model=exchange.model,
                rules=rules,
                message=risky[0].rule.message,
                excerpt="\n".join(f"{f.address}: {f.text}" for f in risky),
                exchange=exchange.id,
                ttl=terms.ttl,
                quorum=terms.quorum,
                why=[Why(f.rule.id, f.rule.title, f.rule.message) for f in _once(risky)],
                prompt=_passages(texts, risky),
                person=file.person(principal),
                limits=file.limits,
                until=time.time() + LEASE if waits and terms.hold else None,
            )
            exchange.verdict.hold = hold.id
            if new:
                self._tell(hold, "held")
            if hold.state == "pending" and waits:
                hold = await self._wait(flow, exchange, hold, terms.hold)
            if _shape(flow) != judged:
                deny(409, "request_edited", "The request was changed while it waited.")
            if hold.state == "approved":
                if has_left(flow):
                    raise _left(exchange)
                hold = await approvals.call(HoldStore.consume, digest, principal.name)
        except holds.HoldLimit as e:
            deny(429, e.code, "Too many requests wait for approval.", Retry_After=RETRY_AFTER)
        except holds.HoldError as e:
            logger.info("exchange %s: %s", exchange.id, e)
            raise _refused(hold, f"The request was not approved ({e.code}).") from None
        _keep_decisions(exchange, hold)
        if hold.state == "consumed":
            logger.info("exchange %s goes on: %s was approved", exchange.id, hold.id)
            return
        if hold.state == "pending":
            raise _pending(hold)
        reason = hold.decisions[-1].reason if hold.decisions else "nobody approved it in time"
        raise _refused(hold, f"{hold.message} Denied: {reason}")

    async def _wait(
        self, flow: http.HTTPFlow, exchange: Exchange, hold: Hold, seconds: float
    ) -> Hold:
        """Keep the connection waiting for a decision. Returns the hold as it is at the end."""
        approvals = self._approvals
        assert approvals is not None
        end = time.monotonic() + min(seconds, max(0.0, hold.expires - time.time()))
        waiter = self._waiting[exchange.id] = _Waiter(flow, hold.id)
        exchange.publish()
        flow.intercept()
        await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))
        logger.info("%s waits: mitmgate approve %s --reason '...'", exchange.id, hold.id)
        self._follow()
        try:
            while hold.state == "pending" and (left := end - time.monotonic()) > 0:
                await waiter.wait(left)
                if exchange.refusal is not None:
                    raise exchange.refusal  # its token was revoked meanwhile
                if waiter.left:
                    raise _left(exchange)
                if not flow.intercepted:
                    await self._decide_here(flow, hold)
                hold = await approvals.get(hold.id)
            return hold
        finally:
            del self._waiting[exchange.id]
            flow.resume()
            await approvals.call(HoldStore.leave, exchange.id)

    async def _decide_here(self, flow: http.HTTPFlow, hold: Hold) -> None:
        """Somebody resumed or killed the flow in mitmproxy's own interface."""
        killed = flow.error is not None
        if killed:
            flow.error, flow.live = None, True  # the caller gets a refusal, not a dead connection
        verdict: holds.Verdict = "deny" if killed else "approve"
        reason = f"{'killed' if killed else 'resumed'} in mitmproxy"
        assert self._approvals is not None
        try:
            await self._approvals.decide(hold.id, holds.account(), verdict, reason, "mitmweb")
        except holds.HoldError as e:
            logger.log(ALERT, "%s: %s", hold.id, e)
        flow.intercept()  # until the hold is decided, which it may be now

    def _tell(self, hold: Hold, event: Event) -> None:
        if self._notices:
            self._notices.notify(hold, event)

    def _follow(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="holds")

    async def _poll(self) -> None:
        """While anybody waits: renew the leases, and wake those whose hold has changed."""
        approvals = self._approvals
        assert approvals is not None
        renewed = 0.0
        while self._waiting:
            waiting = dict(self._waiting)
            held = {waiter.hold for waiter in waiting.values()}
            states: dict[str, State] = dict.fromkeys(held, "pending")
            try:
                if time.monotonic() - renewed > LEASE / 2:
                    until = time.time() + LEASE
                    leases = {exchange: (each.hold, until) for exchange, each in waiting.items()}
                    await approvals.call(HoldStore.attend_all, leases)
                    renewed = time.monotonic()
                states = await approvals.call(HoldStore.states, held)
            except (holds.HoldError, holds.StoreError) as e:
                logger.log(ALERT, "%s", e)  # it may answer again before anybody gives up
            self._wake(waiting, states)
            await asyncio.sleep(POLL)

    def _wake(self, waiting: Mapping[str, _Waiter], states: Mapping[str, State]) -> None:
        for waiter in waiting.values():
            exchange = Exchange.find(waiter.flow)
            given_up = exchange is None or exchange.refusal is not None
            waiter.left = waiter.left or has_left(waiter.flow)
            # Killing a flow wakes nobody by itself.
            changed = states.get(waiter.hold) != "pending" or not waiter.flow.intercepted
            if changed or given_up or waiter.left:
                waiter.wake.set()

    async def _keep_up(self) -> None:
        """End what is overdue, forget what is old, and tell of what was decided, by whichever way
        and in whichever process."""
        pending: set[str] = set()
        while True:
            approvals = self._approvals
            assert approvals is not None
            try:
                await approvals.call(HoldStore.expire)
                await approvals.call(HoldStore.prune, time.time() - approvals.rules.keep)
                for hold, state in (await approvals.call(HoldStore.states, pending)).items():
                    if state != "pending":
                        self._tell(await approvals.get(hold), "decided")
                pending = {hold.id for hold in await approvals.list()}
            except (holds.HoldError, holds.StoreError) as e:
                logger.log(ALERT, "%s", e)
            await asyncio.sleep(UPKEEP)

    @command.command("gate.holds")
    def show(self) -> str:
        """The requests that wait for approval."""
        assert self._approvals is not None
        lines = [describe(hold) for hold in self._approvals.store.list(("pending", "approved"))]
        return "\n".join(lines) or "nothing waits"

    @command.command("gate.approve")
    def approve(self, hold: str, reason: str) -> None:
        """Approve a held request."""
        self._decide(hold, "approve", reason)

    @command.command("gate.deny")
    def deny(self, hold: str, reason: str) -> None:
        """Deny a held request."""
        self._decide(hold, "deny", reason)

    def _decide(self, hold: str, verdict: holds.Verdict, reason: str) -> None:
        assert self._approvals is not None
        try:
            after = holds.decide(
                self._approvals.store,
                self._file.rules[0],
                hold,
                holds.account(),
                verdict,
                reason,
                "command",
            )
        except (holds.HoldError, holds.StoreError) as e:
            raise exceptions.CommandError(str(e)) from None
        logger.info("%s is %s", after.id, after.state)


class _Waiter:
    """A connection that waits for a hold, and what wakes it."""

    def __init__(self, flow: http.HTTPFlow, hold: str) -> None:
        self.flow = flow
        self.hold = hold
        self.left = False  # the caller is gone
        self.wake = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), timeout)
        self.wake.clear()


def describe(hold: Hold) -> str:
    """One line about a hold."""
    left = max(0, int(hold.expires - time.time()))
    who = f"{hold.principal} ({hold.display})" if hold.display else hold.principal
    return (
        f"{hold.id} {hold.state} {who} {hold.operation} {hold.model} "
        f"[{', '.join(hold.rules)}] {left}s left"
    )


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of each rule."""
    return list({finding.rule.id: finding for finding in findings}.values())


def _passages(texts: Iterable[Segment], risky: Iterable[Finding]) -> list[Passage]:
    """The texts of a request as approvers read them. What was put together only to be judged is
    shown where it has marks of its own, else its parts are enough."""
    marks: dict[str, list[Mark]] = {}
    for finding in risky:
        mark = Mark(finding.start, finding.end, finding.rule.id)
        marks.setdefault(finding.address, []).append(mark)
    shown: dict[tuple[str, str], Passage] = {}
    for segment in texts:
        found = tuple(marks.get(segment.address, ()))
        if segment.where == "headers":  # no hold rule looks at them
            continue
        if not found and ("*" in segment.address or segment.address == "$"):
            continue
        shown.setdefault(
            (segment.where, segment.address),
            Passage(segment.where, segment.address, segment.text, found),
        )
    return list(shown.values())


def _shape(flow: http.HTTPFlow) -> tuple[object, ...]:
    """What of a request reaches the model server; mitmweb lets people edit a flow that waits."""
    request = flow.request
    where = (request.scheme, request.host, request.port, request.method, request.path)
    return (*where, request.headers.fields, request.raw_content)


def _keep_decisions(exchange: Exchange, hold: Hold) -> None:
    exchange.verdict.approvals = [
        {
            "issuer": decision.issuer,
            "subject": decision.subject,
            "verdict": decision.verdict,
            "reason": decision.reason,
            "channel": decision.channel,
            "time": str(decision.time),
        }
        for decision in hold.decisions
    ]


def _left(exchange: Exchange) -> Refusal:
    """The caller is gone: an approval lets a retry through, and runs nothing by itself."""
    exchange.aborted = True
    return Refusal(499, "client_left", "The caller left while the request waited.")


def _pending(hold: Hold) -> Refusal:
    headers = {"Retry-After": RETRY_AFTER, "X-Should-Retry": "true", "X-Gate-Hold": hold.id}
    message = f"{hold.message} The request waits for approval as {hold.id}: try again."
    return Refusal(409, hold.rules[0], message, headers=headers, marker=":hourglass:")


def _refused(hold: Hold, message: str) -> Refusal:
    headers = {"X-Should-Retry": "false", "X-Gate-Hold": hold.id}
    return Refusal(403, hold.rules[0], message, headers=headers)
