"""Identity check: who is calling, and may they call this.

Every request carries a token; it is verified each time, and every credential header is stripped so
that neither the model server nor a recording ever sees one. What the caller learns is the class of
the failure; what failed exactly is in the log. A token that is revoked ends what it has begun.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy import ctx, http
from mitmproxy.log import ALERT

from mitmgate import metrics, options
from mitmgate.core import tokens
from mitmgate.core.principal import Principal
from mitmgate.core.rules import load
from mitmgate.core.wire import catalogue
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.endpoints import GENERATING, OPERATIONS
from mitmgate.desk import Desk
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal
from mitmgate.reading import unreadable
from mitmgate.rulefile import RuleFile
from mitmgate.sweep import Sweep

logger = logging.getLogger(__name__)

RETRY_AFTER = "5"  # seconds until a caller may ask again that could not be judged


def check(path: Path) -> tuple[tokens.IdentityFile, str]:
    """identity.yaml, checked without fetching anything. Raises `RuleError`."""
    loaded = load(path, tokens.IdentityFile)
    tokens.compile(loaded, OPERATIONS)
    return loaded.file, loaded.digest


def read(path: Path, previous: tokens.Identity | None = None) -> tuple[tokens.Identity, str]:
    """identity.yaml with the keys of every issuer. Blocks while it fetches; raises `RuleError`.

    What did not change is taken over from `previous`: keys that cannot be had just now, and
    proofs that must not be taken twice.
    """
    loaded = load(path, tokens.IdentityFile)
    identity = tokens.compile(loaded, OPERATIONS, previous)
    for problem in asyncio.run(identity.start()):
        logger.log(ALERT, "%s; its tokens get 503 until its keys come", problem)
    for note in identity.ignored_keys():
        logger.warning("a key is not used: %s", note)
    return identity, loaded.digest


class Identity(GateAddon):
    """Reads identity.yaml."""

    name = "mitmgate.identity"

    def __init__(self) -> None:
        self._file = RuleFile(self._read)
        self._limiter = tokens.Limiter()
        self._sweep = Sweep(lambda: self._file.rules.verifier, self._refusal)
        self._renewal: asyncio.Task[None] | None = None

    def _read(self, path: Path) -> tuple[tokens.Identity, str]:
        return read(path, getattr(self._file, "rules", None))

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
        if self._renewal:
            self._in_force()

    def running(self) -> None:
        self._file.watch(self._in_force)
        self._in_force()
        self._sweep.start()
        Desk.of(ctx.master).verify = self._verify

    def done(self) -> None:
        Desk.of(ctx.master).verify = None
        self._file.stop()
        self._sweep.stop()
        if self._renewal:
            self._renewal.cancel()

    async def _verify(self, presented: tokens.Presented) -> Principal:
        """Who bears a token, for those who sign in elsewhere. Raises `TokenError`."""
        return await self._file.rules.verifier.verify(presented)

    def _in_force(self) -> None:
        """New rules: their key sets are kept fresh from now on, and can be watched."""
        identity = self._file.rules
        if self._renewal:
            self._renewal.cancel()
        self._renewal = asyncio.create_task(identity.keep_fresh(), name="key sets")
        metrics.KEYS_AGE.clear()
        metrics.KEYS_STALE.clear()
        for issuer in identity.issuers:
            name, keys = issuer.rules.id, issuer.keys
            metrics.KEYS_AGE.labels(name).set_function(partial(_age, keys))
            metrics.KEYS_STALE.labels(name).set_function(partial(_is_stale, keys))
        bound = any(grant.bound == "mtls" for grant in identity.rules.grants)
        if bound and not ctx.options.request_client_cert:
            logger.log(
                ALERT,
                "a grant is bound by mtls, and callers are not asked for their certificate: "
                "--set request_client_cert=true",
            )

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        exchange, identity = Exchange.of(flow), self._file.rules
        carried = take_credentials(flow.request)
        try:
            presented = tokens.presented(
                carried,
                method=exchange.method,
                target=exchange.target,
                certificate=_certificate(flow),
            )
            exchange.principal = await identity.verifier.verify(presented)
        except tokens.TokenError as e:
            raise self._refusal(exchange, e) from None
        self._sweep.follow(exchange, presented.token)
        exchange.verdict.digests["identity"] = self._file.digest
        self._allow(exchange, None)

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        prompt = await exchange.read_request()
        # A model that is not named is the server's own choice.
        model = (prompt.model or "") if prompt.endpoint.generates else prompt.model
        self._admit(exchange, self._allow(exchange, model))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.endpoint.lists and exchange.streams:
            raise unreadable(exchange.id, DocumentError("a list of models comes as a stream"))

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange, response = Exchange.of(flow), flow.response
        if response and response.status_code < 400 and exchange.endpoint.lists:
            await self._cut_down(exchange)

    def _allow(self, exchange: Exchange, model: str | None) -> tokens.Grant:
        principal, operation = exchange.principal, exchange.endpoint.operation
        assert principal is not None  # requestheaders refuses, or sets one
        try:
            wanted = tokens.Wanted(operation, model, exchange.method)
            grant = self._file.rules.authorizer.allow(principal, wanted)
        except (tokens.TokenError, tokens.NotAllowed) as e:
            raise self._refusal(exchange, e) from None
        exchange.grant = grant.id
        exchange.masking = grant.masking
        return grant

    def _admit(self, exchange: Exchange, grant: tokens.Grant) -> None:
        """Count the exchange against the limits of its grant."""
        assert exchange.principal is not None
        limits, under_way = grant.limits, 0
        if limits and limits.concurrent:
            under_way = sum(
                other.occupies
                and other.grant == grant.id
                and (limits.per == "grant" or _name(other) == exchange.principal.name)
                for other in Exchange.under_way()
            )
        try:
            self._limiter.take(grant, exchange.principal, len(exchange.sent), under_way)
        except tokens.LimitReached as e:
            logger.info("exchange %s: %s: %s", exchange.id, e.code, e)
            if e.retry_after is None:
                raise Refusal(413, e.code, "The prompt is larger than this caller may send.") from e
            headers = {"Retry-After": str(e.retry_after)}
            message = "This caller has reached its limit: try again later."
            raise Refusal(429, e.code, message, headers=headers) from None
        exchange.admitted = True

    async def _cut_down(self, exchange: Exchange) -> None:
        """Leave in a list of models those that the caller may use."""
        principal, authorizer = exchange.principal, self._file.rules.authorizer
        assert principal is not None
        answer = (await exchange.read_answer()).encode()
        try:
            kept = catalogue.only(answer, authorizer.usable(principal, GENERATING))
        except DocumentError as e:
            raise unreadable(exchange.id, e) from None
        if kept is not answer:
            exchange.replace_answer(kept)
            exchange.answer = None  # the other addons read what is left

    def _refusal(self, exchange: Exchange, error: tokens.TokenError | tokens.NotAllowed) -> Refusal:
        logger.info("exchange %s: %s", exchange.id, error.diagnostics())
        headers = _challenge(error, with_dpop=self._file.rules.rules.dpop is not None)
        return Refusal(
            error.status, error.code, error.description, headers=headers, public=error.public
        )


def take_credentials(request: http.Request) -> list[tuple[str, str]]:
    """Take every credential off a request. Returns its headers as they came."""
    carried = list(request.headers.items(multi=True))
    for name in tokens.CREDENTIAL_HEADERS:
        request.headers.pop(name, None)
    request.path = tokens.without_credentials(request.path)
    return carried


def _challenge(error: tokens.TokenError | tokens.NotAllowed, *, with_dpop: bool) -> dict[str, str]:
    """RFC 6750 section 3 and RFC 9449 section 7.1: what the caller should bring."""
    if isinstance(error, tokens.Unavailable):
        return {"Retry-After": RETRY_AFTER}
    dpop = f'DPoP algs="{" ".join(tokens.ALGORITHMS)}"'
    if isinstance(error, tokens.ProofWrong):
        nonce = {"DPoP-Nonce": error.nonce} if isinstance(error, tokens.NonceWanted) else {}
        return {"WWW-Authenticate": f'{dpop}, error="{error.public}"', **nonce}
    bearer = "Bearer"
    if not isinstance(error, tokens.TokenMissing):
        bearer += f' error="{error.public}"'
    return {"WWW-Authenticate": f"{bearer}, {dpop}" if with_dpop else bearer}


def _certificate(flow: http.HTTPFlow) -> bytes:
    """The DER of the certificate whose key the caller has shown in the TLS handshake."""
    chain = flow.client_conn.certificate_list
    return chain[0].to_cryptography().public_bytes(Encoding.DER) if chain else b""


def _name(exchange: Exchange) -> str:
    return exchange.principal.name if exchange.principal else ""


def _age(keys: tokens.Keys) -> float:
    age = keys.age()
    return math.nan if age is None else age


def _is_stale(keys: tokens.Keys) -> float:
    return float(keys.problem is not None)
