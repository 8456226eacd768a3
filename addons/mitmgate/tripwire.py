"""The last addon of all: what the gate's addons have not all seen does not pass.

mitmproxy skips all scripts when one of them raises, and goes on without one that is edited into an
error. The tripwire sits at the end of mitmproxy's own chain, where no script can skip it and no
reload reaches it.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from mitmproxy import addonmanager, ctx, exceptions, http
from mitmproxy.log import ALERT

from mitmgate import errorpage, options
from mitmgate.exchange import Exchange
from mitmgate.refusal import Refusal

logger = logging.getLogger(__name__)


class Armed(Protocol):
    """What the tripwire knows of an addon."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...


class Tripwire:
    """Closes the gate while an addon of it is unloaded, and refuses what one has not seen.

    Closed means that every request gets 503, until the addon loads again.
    """

    name = "mitmgate.tripwire"

    def __init__(self) -> None:
        self.started = False
        self._armed: dict[str, Armed] = {}
        self._closed: dict[tuple[str, str], str] = {}  # (addon name, event) -> why it is closed

    @staticmethod
    def of(master: Any) -> Tripwire:
        """The tripwire of this mitmproxy, added at first use."""
        wire = master.addons.get(Tripwire.name)
        if wire is None:
            wire = Tripwire()
            master.addons.add(wire)
        assert isinstance(wire, Tripwire)
        return wire

    def arm(self, addon: Armed) -> None:
        """`addon` is loaded: from now on nothing passes that it has not seen."""
        if not self._armed and not self._closed:
            for sentence in options.conflicts(ctx.options.keys()):
                logger.error("%s", sentence)
            options.settle()
            errorpage.install()
        self._armed[addon.name] = addon
        self._closed = {at: why for at, why in self._closed.items() if at[0] != addon.name}

    def disarm(self, addon: Armed) -> None:
        """`addon` is unloaded: by a reload, which arms it again, or for good, or at shutdown."""
        if self._armed.get(addon.name) is addon:
            del self._armed[addon.name]
        self._closed[addon.name, "done"] = f"{addon.name} is unloaded"
        if not _ending():
            logger.log(ALERT, "%s is unloaded: the gate is closed until it loads again", addon.name)

    def close(self, name: str, event: str) -> None:
        """Refuse everything until the addon `name` has done `event`, or is loaded again."""
        self._closed[name, event] = f"{name} did not {event}"

    def reopen(self, name: str, event: str) -> None:
        """The addon `name` has done `event`."""
        self._closed.pop((name, event), None)

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
        for sentence in (*self._out_of_order(), *self._unmet()):
            logger.error("%s", sentence)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.request.stream = False  # a request leaves when it has been read, and not before
        self._check(flow, "requestheaders")

    def request(self, flow: http.HTTPFlow) -> None:
        self._check(flow, "requestheaders")
        exchange = self._check(flow, "request")
        if exchange and not flow.response:
            exchange.send()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = self._check(flow, "responseheaders")
        if exchange is None:
            return
        try:
            exchange.open_answer()
        except Exception as e:
            exchange.refuse(exchange.fault(self.name, e))
            exchange.open_answer()

    def response(self, flow: http.HTTPFlow) -> None:
        if exchange := self._check(flow, "response"):
            if flow.response:
                flow.response.trailers = None  # nobody reads them
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
        if exchange.refusal is None and event == "requestheaders":
            if refusal := unwanted(exchange):
                exchange.refuse(refusal)
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
        unmet = []
        before: set[str] = set()
        for addon in self._armed.values():  # in the order in which they were loaded
            unmet += [
                f"{addon.name} needs {need}: load it first, with "
                f"-s addons/{need.split('.')[-1]}.py before it, or use -s addons/gateway.py"
                for need in addon.needs
                if need not in before
            ]
            before.add(addon.name)
        return unmet

    def _out_of_order(self) -> list[str]:
        """A script before the gate's own could skip them by raising, and change what they judge."""
        loader = ctx.master.addons.get("scriptloader")
        armed = {id(addon) for addon in self._armed.values()}
        foreign: list[str] = []
        for script in loader.addons if loader else ():
            if not any(id(each) in armed for each in addonmanager.traverse([script])):
                foreign.append(script.path)
            elif foreign:
                return [
                    f"the script {foreign[0]} stands before {script.path}: "
                    "give the gate's own -s first"
                ]
        return []


def unwanted(exchange: Exchange) -> Refusal | None:
    """Why a request is refused for what its headers ask of the connection."""
    if exchange.upgrades:
        return Refusal(400, "upgrade_refused", "Protocol upgrades are not accepted.")
    if exchange.trails:
        return Refusal(400, "trailers_refused", "Trailers are not accepted.")
    return None


def _ending() -> bool:
    return bool(ctx.master.should_exit.is_set())
