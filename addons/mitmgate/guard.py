"""What every addon stands on: hooks that fail closed, and a tripwire behind all of them.

mitmproxy forwards a request when a hook raises, skips all scripts when one of them raises, and
goes on without an addon whose script is edited to an error. So `GateAddon` turns an exception into
a refusal, and the `Tripwire`, which sits at the end of mitmproxy's own chain where no script can
skip it, lets nothing pass on which an addon of the gate has not run.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from mitmproxy import addonmanager, ctx, exceptions, http
from mitmproxy.log import ALERT

from mitmgate import options
from mitmgate.exchange import Exchange, Refusal, deny

__all__ = ["GateAddon", "Refusal", "Tripwire", "deny"]

logger = logging.getLogger(__name__)

HOOKS = ("requestheaders", "request", "responseheaders", "response", "error")


class GateAddon:
    """Base of every addon of the gate, the built-in ones and yours.

    Write mitmproxy hooks as usual, plain or async. They run for live flows only, with an `Exchange`
    in place (`Exchange.of(flow)`). Call `deny()` to refuse; any other exception refuses the
    exchange with 503. A hook is skipped once an exchange is refused, unless `sees_refusals`.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # names of addons that must stand before this one
    sees_refusals: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} needs a `name`, such as 'acme.quota'")
        for hook in HOOKS:
            if hook in cls.__dict__:
                setattr(cls, hook, _guarded(hook, cls.__dict__[hook]))
        for event in ("load", "configure", "running", "done"):
            if event in cls.__dict__:
                setattr(cls, event, _checked(event, cls.__dict__[event]))

    def load(self, loader: addonmanager.Loader) -> None:
        """Called by mitmproxy. An addon that overrides it need not call it."""

    def done(self) -> None:
        """Called by mitmproxy. An addon that overrides it need not call it."""


def _guarded(event: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A flow hook that fails closed. CancelledError is no Exception and passes through."""

    def enter(self: GateAddon, flow: http.HTTPFlow) -> Exchange | None:
        exchange = Exchange.find(flow)
        again = exchange is not None and (self.name, event) in exchange.marks
        if flow.live and event in ("requestheaders", "request"):
            if exchange is None or (again and event == "requestheaders"):
                exchange = Exchange.begin(flow)
        if exchange is None or (exchange.refusal is not None and not self.sees_refusals):
            return None
        return exchange

    def leave(self: GateAddon, exchange: Exchange, error: Exception | None) -> None:
        if error is not None:
            if not isinstance(error, Refusal):
                error = exchange.fault(f"{self.name}.{event}", error)
            exchange.refuse(error)
            if event in ("requestheaders", "request", "response"):
                exchange.answer_refusal()
        exchange.marks.add((self.name, event))

    @functools.wraps(hook)
    def plain(self: GateAddon, flow: http.HTTPFlow) -> None:
        if exchange := enter(self, flow):
            try:
                hook(self, flow)
            except Exception as e:
                leave(self, exchange, e)
            else:
                leave(self, exchange, None)

    @functools.wraps(hook)
    async def waiting(self: GateAddon, flow: http.HTTPFlow) -> None:
        if exchange := enter(self, flow):
            try:
                await hook(self, flow)
            except Exception as e:
                leave(self, exchange, e)
            else:
                leave(self, exchange, None)

    return waiting if inspect.iscoroutinefunction(hook) else plain


def _checked(event: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A lifecycle hook that arms the tripwire, and closes the gate when it raises.

    An `OptionsError` is the operator's to mend: a line each, no traceback. mitmproxy ends start-up
    on any of them; later on, the gate stays closed.
    """

    def failed(self: GateAddon, error: Exception) -> None:
        Tripwire.of(ctx.master).close(self.name, f"{self.name} did not {event}")
        if isinstance(error, exceptions.OptionsError):
            for line in str(error).splitlines():
                logger.error("%s", line)
        else:
            logger.error("%s.%s failed", self.name, event, exc_info=error)

    if inspect.iscoroutinefunction(hook):
        # mitmproxy awaits `running` at start and calls it without waiting after a reload.
        raise TypeError(f"{event} must be a plain function: start a task in it")

    @functools.wraps(hook)
    def plain(self: GateAddon, *args: Any) -> None:
        _arm(self, event)
        try:
            hook(self, *args)
        except Exception as e:
            failed(self, e)

    return plain


def _arm(addon: GateAddon, event: str) -> None:
    if event == "load":
        Tripwire.of(ctx.master).arm(addon)
    elif event == "done":
        Tripwire.of(ctx.master).disarm(addon)


# The base's own hooks arm the tripwire too, for an addon that overrides neither.
GateAddon.load = _checked("load", GateAddon.load)  # type: ignore[method-assign]
GateAddon.done = _checked("done", GateAddon.done)  # type: ignore[method-assign]


class Tripwire:
    """The last addon of all: what the gate's addons have not all seen does not pass.

    It outlives the scripts: with one unloaded, or loaded with an error, the gate is closed and
    every request gets 503, until it loads again.
    """

    name = "mitmgate.tripwire"

    def __init__(self) -> None:
        self.started = False
        self._armed: dict[str, GateAddon] = {}
        self._closed: dict[str, str] = {}  # addon name -> why the gate is closed

    @staticmethod
    def of(master: Any) -> Tripwire:
        """The tripwire of this mitmproxy, added at first use."""
        wire = master.addons.get(Tripwire.name)
        if wire is None:
            wire = Tripwire()
            master.addons.add(wire)
        assert isinstance(wire, Tripwire)
        return wire

    def arm(self, addon: GateAddon) -> None:
        """`addon` is loaded: from now on nothing passes that it has not seen."""
        if not self._armed and not self._closed:
            for sentence in options.conflicts(ctx.options.keys()):
                logger.error("%s", sentence)
            options.settle()
        self._armed[addon.name] = addon
        self._closed.pop(addon.name, None)

    def disarm(self, addon: GateAddon) -> None:
        """`addon` is unloaded: by a reload, which arms it again, or for good, or at shutdown."""
        if self._armed.get(addon.name) is addon:
            del self._armed[addon.name]
        self._closed.setdefault(addon.name, f"{addon.name} is unloaded")
        if not _ending():
            logger.log(ALERT, "%s is unloaded: the gate is closed until it loads again", addon.name)

    def close(self, name: str, reason: str) -> None:
        """Refuse everything until `name` is loaded again."""
        self._closed[name] = reason

    @property
    def closed(self) -> str:
        """Why the gate is closed; empty when it is open."""
        return "; ".join(self._closed.values())

    # mitmproxy

    def configure(self, updated: set[str]) -> None:
        if sentences := options.conflicts(updated):
            raise exceptions.OptionsError(" ".join(sentences))

    def running(self) -> None:
        self.started = True
        chain = ctx.master.addons.chain
        chain.append(chain.pop(chain.index(self)))  # behind whatever was added since
        for sentence in (*_out_of_order(), *self._unmet()):
            logger.error("%s", sentence)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._check(flow, "requestheaders")

    def request(self, flow: http.HTTPFlow) -> None:
        self._check(flow, "requestheaders")
        exchange = self._check(flow, "request")
        if exchange and not flow.response:
            exchange.send()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if exchange := self._check(flow, "responseheaders"):
            exchange.open_answer()

    def response(self, flow: http.HTTPFlow) -> None:
        if exchange := self._check(flow, "response"):
            exchange.publish()
            Exchange.end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        if exchange := Exchange.find(flow):
            exchange.publish()
            Exchange.end(flow)

    def _check(self, flow: http.HTTPFlow, event: str) -> Exchange | None:
        exchange = Exchange.find(flow)
        if exchange is None:
            if not flow.live:
                return None
            exchange = Exchange.begin(flow)
        if exchange.refusal is None and event == "requestheaders" and exchange.upgrades:
            exchange.refuse(Refusal(400, "upgrade_refused", "Protocol upgrades are not accepted."))
        if exchange.refusal is None and (reason := self.closed or self._skipped(exchange, event)):
            logger.log(ALERT, "exchange %s is refused: %s", exchange.id, reason)
            exchange.refuse(Refusal(503, "gate_closed", "The gateway is closed."))
        if exchange.refusal is not None and event != "responseheaders":
            exchange.answer_refusal()
        return exchange

    def _skipped(self, exchange: Exchange, event: str) -> str:
        missing = [
            name
            for name, addon in self._armed.items()
            if hasattr(addon, event) and (name, event) not in exchange.marks
        ]
        return f"{', '.join(missing)} did not run on {event}" if missing else ""

    def _unmet(self) -> list[str]:
        return [
            f"{addon.name} needs {need}: load it first, with -s addons/{need.split('.')[-1]}.py "
            "before it, or use -s addons/gateway.py"
            for addon in self._armed.values()
            for need in addon.needs
            if need not in self._armed
        ]


def _ending() -> bool:
    return bool(ctx.master.should_exit.is_set())


def _out_of_order() -> list[str]:
    """A script before the gate's own could skip them by raising, and change what they judge."""
    loader = ctx.master.addons.get("scriptloader")
    foreign: list[str] = []
    for script in loader.addons if loader else ():
        gates = any(isinstance(each, GateAddon) for each in addonmanager.traverse([script]))
        if not gates:
            foreign.append(script.path)
        elif foreign:
            return [
                f"the script {foreign[0]} stands before {script.path}: give the gate's own -s first"
            ]
    return []
