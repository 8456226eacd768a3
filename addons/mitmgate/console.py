"""The console: the approvers' pages and API, /healthz and /readyz, /metrics for Prometheus.

A small Tornado server on its own address; `mitmgate.web` has the pages. Health and metrics ask
nobody to sign in, so bind it where only operators, Prometheus and approvers reach it.
"""

from __future__ import annotations

import logging
import socket

import tornado.httpserver
import tornado.netutil
import tornado.web
from mitmproxy import ctx, exceptions, http
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mitmgate import metrics
from mitmgate.desk import Desk
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon
from mitmgate.tripwire import Tripwire
from mitmgate.web import Web

logger = logging.getLogger(__name__)

BODY_LIMIT = 64 << 10  # bytes; the largest that anybody sends is a token or a reason
SLOW = 10.0  # seconds that a body may take
IDLE = 120.0  # seconds that a connection may stay open without a request


class Console(GateAddon):
    """Serves gate_console; empty switches it off."""

    name = "mitmgate.console"
    sees_refusals = True

    def __init__(self) -> None:
        self._server: tornado.httpserver.HTTPServer | None = None
        self._web: Web | None = None
        self._sockets: list[socket.socket] = []

    def configure(self, updated: set[str]) -> None:
        if "gate_console" not in updated:
            return
        self._close()
        address: str = ctx.options.gate_console
        if not address:
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise exceptions.OptionsError(
                f"gate_console: {address!r} is no HOST:PORT; empty switches the console off"
            )
        try:
            self._sockets = tornado.netutil.bind_sockets(int(port), host.strip("[]"))
        except (OSError, OverflowError) as e:
            raise exceptions.OptionsError(
                f"gate_console: cannot listen on {address}: {e}; "
                "choose another address with --set gate_console=HOST:PORT"
            ) from None
        if Tripwire.of(ctx.master).started:
            self.running()

    def running(self) -> None:
        if self._sockets and self._server is None:
            self._web = Web(Desk.of(ctx.master))
            routes = [("/healthz", Alive), ("/readyz", Ready), ("/metrics", Metrics)]
            self._server = tornado.httpserver.HTTPServer(
                self._web.application(routes),
                max_body_size=BODY_LIMIT,
                max_buffer_size=2 * BODY_LIMIT,
                body_timeout=SLOW,
                idle_connection_timeout=IDLE,
            )
            self._server.add_sockets(self._sockets)
            host, port = self._sockets[0].getsockname()[:2]
            logger.info("console listening at http://%s:%d", host, port)

    def done(self) -> None:
        self._close()

    def response(self, flow: http.HTTPFlow) -> None:
        self._count(Exchange.of(flow))

    def error(self, flow: http.HTTPFlow) -> None:
        self._count(Exchange.of(flow))

    def _count(self, exchange: Exchange) -> None:
        refusal = exchange.refusal.code if exchange.refusal else ""
        metrics.EXCHANGES.labels(exchange.operation, exchange.ending, refusal).inc()
        for name, count in exchange.verdict.masked.items():
            metrics.MASKED.labels(name).inc(count)
        for finding in exchange.verdict.findings:
            mode = finding.rule.mode or "enforce"
            metrics.FINDINGS.labels(finding.rule.id, mode, finding.view).inc()

    def _close(self) -> None:
        if self._web:
            self._web.close()
        if self._server:
            self._server.stop()
        else:
            for each in self._sockets:
                each.close()
        self._server, self._web, self._sockets = None, None, []


class Page(tornado.web.RequestHandler):
    """What all pages say about themselves."""

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Type", "text/plain; charset=utf-8")


class Alive(Page):
    """The process answers."""

    def get(self) -> None:
        self.finish("ok\n")


class Ready(Page):
    """The gate lets traffic through; 503 and why when it does not."""

    def get(self) -> None:
        closed = Tripwire.of(ctx.master).closed
        self.set_status(503 if closed else 200)
        self.finish(f"closed: {closed}\n" if closed else "ready\n")


class Metrics(Page):
    """Everything in the Prometheus text format."""

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(metrics.REGISTRY))
