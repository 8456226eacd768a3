"""Identity check: who is calling, and may they call this.

Every request carries a token; it is verified each time, and every credential header is stripped so
that neither the model server nor a recording ever sees one. What the caller learns is the class of
the failure; what failed exactly is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

from mitmproxy import http

from mitmgate import options
from mitmgate.core import tokens
from mitmgate.core.rules import RuleError, load
from mitmgate.core.wire.endpoints import OPERATIONS
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)


def check(path: Path) -> tuple[tokens.IdentityFile, str]:
    """identity.yaml, checked without fetching anything. Raises `RuleError`."""
    loaded = load(path, tokens.IdentityFile)
    tokens.compile(loaded, OPERATIONS)
    return loaded.file, loaded.digest


def read(path: Path) -> tuple[tokens.Identity, str]:
    """identity.yaml with the keys of every issuer. Blocks while it fetches; raises `RuleError`."""
    loaded = load(path, tokens.IdentityFile)
    identity = tokens.compile(loaded, OPERATIONS)
    try:
        asyncio.run(identity.start())
    except tokens.KeySetError as e:
        raise RuleError([loaded.problem(("issuers",), str(e))]) from None
    return identity, loaded.digest


class Identity(GateAddon):
    """Reads identity.yaml."""

    name = "mitmgate.identity"

    def __init__(self) -> None:
        self._file = RuleFile(read)

    def configure(self, updated: set[str]) -> None:
        if "gate_rules" not in updated:
            return
        # Key sets are fetched before the first request is let in, so start-up waits for them;
        # in a thread, because this hook is called from a running event loop.
        failure: list[Exception] = []

        def first() -> None:
            try:
                self._file.load(options.rules("identity"))
            except Exception as e:
                failure.append(e)

        thread = threading.Thread(target=first, name="first keys")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]

    def running(self) -> None:
        self._file.watch()

    def done(self) -> None:
        self._file.stop()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        exchange, identity = Exchange.of(flow), self._file.rules
        headers = flow.request.headers
        carried = [(k, v) for k, v in headers.items(multi=True)]
        for name in tokens.CREDENTIAL_HEADERS:
            headers.pop(name, None)
        try:
            principal = await identity.verifier.verify(tokens.bearer(carried))
        except tokens.TokenError as e:
            logger.info("exchange %s: %s", exchange.id, e.diagnostics())
            raise Refusal(e.status, e.code, e.description, headers=_challenge(e)) from None
        exchange.principal = principal
        exchange.verdict.digests["identity"] = self._file.digest
        self._allow(exchange, None)

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        prompt = await exchange.read_request()
        # A model that is not named is the server's own choice.
        model = (prompt.model or "") if prompt.endpoint.generates else prompt.model
        self._allow(exchange, model)

    def _allow(self, exchange: Exchange, model: str | None) -> None:
        principal, operation = exchange.principal, exchange.endpoint.operation
        assert principal is not None  # requestheaders refuses, or sets one
        try:
            grant = self._file.rules.authorizer.allow(principal, operation, model)
        except tokens.NotAllowed as e:
            logger.info("exchange %s: %s", exchange.id, e.diagnostics())
            headers = {"WWW-Authenticate": f'Bearer error="{e.error}"'}
            raise Refusal(403, e.code, e.description, headers=headers) from None
        exchange.grant = grant.id
        exchange.masking = grant.masking


def _challenge(error: tokens.TokenError) -> dict[str, str]:
    """RFC 6750 section 3: what the caller should bring."""
    if error.status == 503:
        return {"Retry-After": "5"}
    return {"WWW-Authenticate": f'Bearer error="{error.error}"' if error.error else "Bearer"}
