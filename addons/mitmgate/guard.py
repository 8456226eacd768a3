"""What every addon stands on: hooks that fail closed.

mitmproxy forwards a request when a hook raises. `GateAddon` turns the exception into a refusal, and
tells the tripwire which addons there are and which hook has run.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from mitmproxy import addonmanager, ctx, exceptions, http

from mitmgate import options
from mitmgate.exchange import Exchange
from mitmgate.refusal import Refusal, deny
from mitmgate.tripwire import Tripwire

__all__ = ["GateAddon", "Refusal", "deny"]

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
        """Called by mitmproxy; the shared options are there. Override it to add your own."""

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
        if exchange is None:
            return None
        if event == "response":
            # It may have been refused between two hooks, and what the model said is then nobody's.
            exchange.answer_refusal()
        if exchange.refusal is not None and not self.sees_refusals:
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
        Tripwire.of(ctx.master).close(self.name, event)
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
        _arm(self, event, *args)
        try:
            hook(self, *args)
        except Exception as e:
            failed(self, e)
        else:
            if event != "done":
                Tripwire.of(ctx.master).reopen(self.name, event)

    return plain


def _arm(addon: GateAddon, event: str, *args: Any) -> None:
    if event == "load":
        options.add(*args)
        Tripwire.of(ctx.master).arm(addon)
    elif event == "done":
        Tripwire.of(ctx.master).disarm(addon)


# The base's own hooks arm the tripwire too, for an addon that overrides neither.
GateAddon.load = _checked("load", GateAddon.load)  # type: ignore[method-assign]
GateAddon.done = _checked("done", GateAddon.done)  # type: ignore[method-assign]
