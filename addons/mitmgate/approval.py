"""Approval hold: a risky prompt waits for a person before it reaches the model.

The connection is kept waiting for a while, then the caller is told to try again; stock SDKs do
that by themselves, and the same request attaches to the same hold. Decisions come from
`mitmgate approve`, from the commands below, or from resuming or killing the flow in mitmweb.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Concatenate

from mitmproxy import command, connection, ctx, exceptions, hooks, http
from mitmproxy.log import ALERT

from mitmgate import options
from mitmgate.core import holds, matching
from mitmgate.core.holds import Hold, HoldStore
from mitmgate.core.matching import Finding, Matcher
from mitmgate.core.principal import Principal
from mitmgate.core.rules import load
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal, deny
from mitmgate.reading import off_loop
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

POLL = 0.2  # seconds until a decision made by another process is noticed
RETRY_AFTER = "5"  # seconds; the SDKs wait that long before they send the request again
LEASE = 5.0  # seconds that a waiting connection is believed in after it was last seen


def read(path: Path) -> tuple[tuple[holds.ApprovalFile, Matcher], str]:
    """approval.yaml, its rules compiled and self-tested. Raises `RuleError`."""
    loaded = load(path, holds.ApprovalFile)
    matcher = matching.compile(loaded, loaded.file.rules, ("rules",))
    return (loaded.file, matcher), loaded.digest


class Approval(GateAddon):
    """Reads approval.yaml; keeps holds in `holds.sqlite` below gate_state."""

    name = "mitmgate.approval"
    needs = ("mitmgate.identity",)

    def __init__(self) -> None:
        self._file = RuleFile(read)
        self._store: HoldStore | None = None
        # One thread: SQLite calls never stand on the event loop, nor in each other's way.
        self._thread = ThreadPoolExecutor(1, "holds")
        self._waiting: dict[str, _Waiter] = {}  # by exchange id
        self._poller: asyncio.Task[None] | None = None

    def configure(self, updated: set[str]) -> None:
        if "gate_rules" in updated:
            self._file.load(options.rules("approval"))
            if self._file.rules[0].approvers:
                logger.log(ALERT, "approvers is not consulted yet: operators decide, nobody else")
        if "gate_state" in updated:
            try:
                self._store = HoldStore(options.state() / "holds.sqlite")
                self._store.abandon()
            except holds.StoreError as e:
                raise exceptions.OptionsError(str(e)) from None

    def running(self) -> None:
        self._file.watch()

    def done(self) -> None:
        self._file.stop()
        if self._poller:
            self._poller.cancel()
        self._thread.shutdown(wait=False)
        if self._store:
            self._store.close()

    def client_disconnected(self, client: connection.Client) -> None:
        for waiter in self._waiting.values():
            if waiter.flow.client_conn.id == client.id:
                waiter.left = True
                waiter.wake.set()

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        prompt = await exchange.read_request()
        file, matcher = self._file.rules
        exchange.verdict.digests["approval"] = self._file.digest
        size = prompt.body.size if prompt.body else 0
        found = await off_loop(
            lambda: matcher.scan(prompt.readings(), exchange.principal), size, matching.INLINE
        )
        exchange.verdict.findings += found
        risky = [finding for finding in found if finding.rule.enforced]
        if risky:
            await self._hold(flow, exchange, file, risky)

    async def _hold(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        file: holds.ApprovalFile,
        risky: list[Finding],
    ) -> None:
        principal = exchange.principal
        assert principal is not None  # identity stands before
        rules = sorted({finding.rule.id for finding in risky})
        bound = (principal.name, exchange.method, exchange.target, exchange.sent, rules)
        digest = await off_loop(lambda: holds.digest(*bound), len(exchange.sent))
        judged = _shape(flow)
        try:
            hold, _ = await self._in_store(
                HoldStore.open,
                digest,
                principal,
                operation=exchange.operation,
                model=exchange.model,
                rules=rules,
                message=risky[0].rule.message,
                excerpt="\n".join(f"{f.address}: {f.text}" for f in risky),
                exchange=exchange.id,
                ttl=file.ttl,
                quorum=file.quorum,
            )
            exchange.verdict.hold = hold.id
            if hold.state == "pending":
                hold = await self._wait(flow, exchange, hold, file.hold)
            if _shape(flow) != judged:
                deny(409, "request_edited", "The request was changed while it waited.")
            if hold.state == "approved":
                hold = await self._in_store(HoldStore.consume, digest, principal.name)
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
        if "respond-async" in flow.request.headers.get("prefer", "").lower():
            return hold
        end = time.monotonic() + min(seconds, max(0.0, hold.expires - time.time()))
        waiter = self._waiting[exchange.id] = _Waiter(flow)
        exchange.publish()
        flow.intercept()
        await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))
        logger.info("%s waits: mitmgate approve %s --reason '...'", exchange.id, hold.id)
        self._follow()
        try:
            while hold.state == "pending" and (left := end - time.monotonic()) > 0:
                if not flow.intercepted:
                    hold = await self._decided_here(flow, hold)
                    break
                lease = (hold.id, exchange.id, time.time() + LEASE)
                await self._in_store(HoldStore.attend, *lease)
                await waiter.wait(min(LEASE / 2, left))
                if exchange.refusal is not None:
                    raise exchange.refusal  # its token was revoked meanwhile
                if waiter.left:
                    # An approval that comes later lets a retry through and runs nothing itself.
                    exchange.aborted = True
                    raise Refusal(499, "client_left", "The caller left while the request waited.")
                hold = await self._in_store(HoldStore.get, hold.id)
            return hold
        finally:
            del self._waiting[exchange.id]
            flow.resume()
            await self._in_store(HoldStore.leave, exchange.id)

    async def _decided_here(self, flow: http.HTTPFlow, hold: Hold) -> Hold:
        """Somebody resumed or killed the flow in mitmproxy's own interface."""
        killed = flow.error is not None
        if killed:
            flow.error, flow.live = None, True  # the caller gets a refusal, not a dead connection
        verdict: holds.Verdict = "deny" if killed else "approve"
        reason = f"{'killed' if killed else 'resumed'} in mitmproxy"
        decision = (hold.id, _operator(), verdict, reason, "mitmweb")
        return await self._in_store(HoldStore.decide, *decision)

    def _follow(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="holds")

    async def _poll(self) -> None:
        """While anybody waits, wake them when the store changes or mitmproxy's user acts."""
        seen = None
        while self._waiting:
            version = await self._in_store(HoldStore.version)
            for waiter in self._waiting.values():
                # Killing a flow wakes nobody by itself.
                given_up = Exchange.of(waiter.flow).refusal is not None
                if version != seen or given_up or not waiter.flow.intercepted:
                    waiter.wake.set()
            seen = version
            await asyncio.sleep(POLL)

    async def _in_store[**P, T](
        self, method: Callable[Concatenate[HoldStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a method of the store in its thread. One that does not answer is a fault: 503."""
        store = self._store
        assert store is not None
        call = functools.partial(method, store, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    @command.command("gate.holds")
    def show(self) -> str:
        """The requests that wait for approval."""
        assert self._store is not None
        lines = [describe(hold) for hold in self._store.list(("pending", "approved"))]
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
        assert self._store is not None
        try:
            after = self._store.decide(hold, _operator(), verdict, reason, "command")
        except (holds.HoldError, holds.StoreError) as e:
            raise exceptions.CommandError(str(e)) from None
        logger.info("%s is %s", after.id, after.state)


class _Waiter:
    """A connection that waits, and what wakes it."""

    def __init__(self, flow: http.HTTPFlow) -> None:
        self.flow = flow
        self.left = False  # the caller is gone
        self.wake = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), timeout)
        self.wake.clear()


def describe(hold: Hold) -> str:
    """One line about a hold."""
    left = max(0, int(hold.expires - time.time()))
    return (
        f"{hold.id} {hold.state} {hold.principal} {hold.operation} {hold.model} "
        f"[{', '.join(hold.rules)}] {left}s left"
    )


def _shape(flow: http.HTTPFlow) -> tuple[object, ...]:
    """What of a request reaches the model server; mitmweb lets people edit a flow that waits."""
    request = flow.request
    where = (request.scheme, request.host, request.port, request.method, request.path)
    return (*where, request.headers.fields, request.raw_content)


def _keep_decisions(exchange: Exchange, hold: Hold) -> None:
    exchange.verdict.approvals = [
        {key: str(value) for key, value in asdict(decision).items()} for decision in hold.decisions
    ]


def _operator() -> Principal:
    """Whoever has mitmproxy's own interface before them."""
    return Principal(issuer="os", subject=getpass.getuser())


def _pending(hold: Hold) -> Refusal:
    headers = {"Retry-After": RETRY_AFTER, "X-Should-Retry": "true", "X-Gate-Hold": hold.id}
    message = f"{hold.message} The request waits for approval as {hold.id}: try again."
    return Refusal(409, hold.rules[0], message, headers=headers, marker=":hourglass:")


def _refused(hold: Hold, message: str) -> Refusal:
    headers = {"X-Should-Retry": "false", "X-Gate-Hold": hold.id}
    return Refusal(403, hold.rules[0], message, headers=headers)
