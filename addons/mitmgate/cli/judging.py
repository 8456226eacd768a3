"""What the gate would do about one request or answer, without a gate.

Every step is the addons' own function, in the order of their hooks, on an exchange of its own.
Nothing is forwarded, stored, counted or held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from mitmproxy import connection, http

from mitmgate import approval, commands, masker
from mitmgate.cli.judgement import Excepted, Hit, Judged, Outcome, excepted_of, hits_of
from mitmgate.cli.rulesets import Rules
from mitmgate.core import masking
from mitmgate.core.matching import Finding
from mitmgate.core.principal import Principal
from mitmgate.core.ruling import Asked, Ruling
from mitmgate.core.tokens import NotAllowed, TokenError, Wanted
from mitmgate.core.wire.body import Body
from mitmgate.core.wire.conversation import UnreadError, answered
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.prompt import Prompt
from mitmgate.core.wire.segment import Segment
from mitmgate.exchange import Exchange
from mitmgate.identity import take_credentials
from mitmgate.reading import asked_of, unreadable
from mitmgate.refusal import Refusal
from mitmgate.tripwire import unwanted


class Trial:
    """One request, and its answer, before `rules`. Credentials in it are taken off and not read.

    With `bare`, what is only there to be shown is left out: exceptions, and the texts of a stream.
    """

    def __init__(self, rules: Rules, request: http.Request, *, bare: bool = False) -> None:
        self._rules = rules
        self._bare = bare
        here = ("127.0.0.1", 0)
        self._flow = http.HTTPFlow(
            connection.Client(peername=here, sockname=here), connection.Server(address=None)
        )
        self._flow.request = request
        self._exchange = Exchange.begin(self._flow)
        take_credentials(request)
        self._endpoint: Endpoint | None = None
        self._prompt: Prompt | None = None
        self._refused: Outcome | None = None

    async def read(self) -> Wanted | None:
        """Read the request. What it wants, as far as it can be read; None for no endpoint."""
        exchange = self._exchange
        try:
            self._endpoint = exchange.endpoint
            if refusal := unwanted(exchange):
                raise refusal
            self._prompt = await exchange.read_request()
        except Exception as e:
            self._refused = self._failure("endpoint" if self._endpoint is None else "body", e)
        if self._endpoint is None:
            return None
        model = self._prompt.model if self._prompt else None
        if self._prompt and self._endpoint.generates:
            model = model or ""
        return Wanted(self._endpoint.operation, model, exchange.method)

    def ask(
        self,
        principal: Principal | None,
        error: TokenError | NotAllowed | None,
        profile: str,
    ) -> Judged:
        """What comes of the request, after `read`; `error` is what identity says to it."""
        self._exchange.principal = principal
        asked = asked_of(
            self._flow.request, self._exchange.method, self._exchange.target, self._prompt
        )
        if error is not None:
            says = (error.status, error.code, error.public, error.description, error.detail)
            return self._judged(asked.texts, (), (), (), Outcome("refused", "identity", *says))
        if self._endpoint is not None and self._refused is not None:
            return self._judged((), (), (), (), self._refused)
        files = {"commands": self._rules.commands}
        if self._refused is None:
            files["approval"] = self._rules.approval
        found = {name: rules.asked(asked, principal) for name, rules in files.items()}
        outcome = self._refused or Outcome("goes on")
        try:
            commands.judge(self._exchange, found["commands"])
        except Refusal as e:
            outcome = self._failure("commands", e)
        waiting = approval.waits(found.get("approval", ()))
        if waiting and outcome.does == "goes on":
            ids = tuple(sorted({finding.rule.id for finding in waiting}))
            message = waiting[0].rule.message
            long = f"{ids[0]} if nobody decides within {self._rules.holds.hold:g} s"
            outcome = Outcome("held", "approval", 409, ids[0], ids[0], message, long, ids)
        masked: list[tuple[str, str]] = []
        if outcome.does != "refused" and self._prompt and self._prompt.body:
            try:
                masked = _mask(self._prompt.body, self._rules.masking.profile(profile).prompt)
            except Exception as e:
                outcome = self._failure("masker", e)
        hits = [hit for name, each in found.items() for hit in hits_of(name, each, asked.texts)]
        excepted = [
            each
            for rules in ([] if self._bare else files.values())
            for each in excepted_of(rules, asked, principal)
        ]
        return self._judged(asked.texts, hits, excepted, masked, outcome)

    async def answer(
        self, response: http.Response, principal: Principal | None, profile: str
    ) -> Judged:
        """What comes of an answer, after `read`, whatever comes of the request."""
        flow, rules = self._flow, self._rules.commands
        raw = response.raw_content or b""
        flow.response = response
        exchange = self._exchange = Exchange.begin(flow)  # of the request's hits none counts
        exchange.principal, exchange.prompt = principal, self._prompt
        exchange.send()
        texts: Sequence[Segment] = ()
        found: Sequence[Finding] = ()
        masked: list[tuple[str, str]] = []
        outcome, by = Outcome("goes on"), "answer"
        try:
            masks = self._rules.masking.profile(profile).answer
            if exchange.streams:
                if rules.reads_answers:
                    exchange.filters.append(commands.Judge(exchange, rules))
                if masks:
                    exchange.filters.append(masker.StreamMask(masks, exchange.verdict.masked))
            exchange.open_answer()
            if exchange.delivery:
                exchange.delivery(raw)
                exchange.delivery(b"")
                found = tuple(exchange.verdict.findings)
                counts = exchange.verdict.masked.items()
                masked = [(name, "") for name, count in counts for _ in range(count)]
                texts = () if self._bare else _said(exchange, response, raw)
            if exchange.refusal is not None:
                by = "commands" if exchange.refusal.code in _ids(rules) else by
                raise exchange.refusal
            if exchange.delivery is None:
                body = await exchange.read_answer()
                texts = _readings(body, exchange)
                found = rules.answered(texts, principal, exchange.method, exchange.operation)
                by = "commands"
                commands.judge(exchange, found)
                by = "masker"
                masked = _mask(body, masks)
        except Exception as e:
            outcome = self._failure(by, e)
        whole = texts if exchange.delivery is None else None
        asked = Asked(exchange.method, exchange.operation, texts)
        excepted = [] if self._bare else excepted_of(rules, asked, principal)
        return self._judged(texts, hits_of("commands", found, whole), excepted, masked, outcome)

    def _judged(
        self,
        texts: Sequence[Segment],
        hits: Sequence[Hit],
        excepted: Sequence[Excepted],
        masked: Sequence[tuple[str, str]],
        outcome: Outcome,
    ) -> Judged:
        exchange, prompt, flow = self._exchange, self._prompt, self._flow
        asks_for_stream = prompt is not None and prompt.streams
        return Judged(
            exchange.method,
            exchange.target,
            self._endpoint,
            prompt.model if prompt else None,
            exchange.delivery is not None or (flow.response is None and asks_for_stream),
            texts,
            hits,
            excepted,
            masked,
            outcome,
        )

    def _failure(self, by: str, error: Exception) -> Outcome:
        """What the gate makes of an exception."""
        cause = error.__context__ if isinstance(error, Refusal) else error
        if not isinstance(error, Refusal):
            error = self._exchange.fault(by, error)
        detail = f"{cause}" if cause else ""
        return Outcome("refused", by, error.status, error.code, error.public, error.message, detail)


def _readings(body: Body, exchange: Exchange) -> Sequence[Segment]:
    try:
        return body.readings("answer")
    except DocumentError as e:
        raise unreadable(exchange.id, e) from None


def _said(exchange: Exchange, response: http.Response, raw: bytes) -> Sequence[Segment]:
    """The texts of a stream, to be shown; it has been judged, and may be one that breaks off."""
    kind = response.headers.get("content-type", "")
    with contextlib.suppress(UnreadError):
        return answered(exchange.method, exchange.target, response.status_code, kind, raw)[0]
    return ()


def _ids(rules: Ruling) -> set[str]:
    return {rule.id for rule in rules.rules}


def _mask(body: Body, masks: masking.Masker) -> list[tuple[str, str]]:
    """What `masks` finds in a body, which is masked then."""
    found: list[tuple[str, str]] = []

    def edit(text: str) -> str:
        masked = masks.mask(text)
        found.extend((hit.recognizer, text[hit.start : hit.end]) for hit in masked.hits)
        return masked.text

    if masks:
        body.edit(edit)
    return found
