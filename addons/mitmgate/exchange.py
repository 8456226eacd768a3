"""One request and its answer, as all addons see it.

The only module that touches `flow.metadata`, `flow.comment`, `flow.marked` and
`flow.response.stream`. An exchange lives beside its flow, never in it: metadata survives in
recordings and replays, and nothing that was once verified may be read back from there.
"""

from __future__ import annotations

import logging
import uuid
import weakref
from typing import Any

from mitmproxy import connection, http

from mitmgate import answerhead
from mitmgate.core.principal import Principal
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.body import Body
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.encoding import EncodingError
from mitmgate.core.wire.media import Form, form
from mitmgate.core.wire.prompt import Prompt
from mitmgate.core.wire.segment import plain
from mitmgate.core.wire.stream import Filter, StreamError
from mitmgate.delivery import Delivery, instead
from mitmgate.presence import has_left
from mitmgate.reading import answer_of, body_limit, request_of, unreadable
from mitmgate.refusal import Refusal, deny, refusal_event, refusal_response
from mitmgate.verdict import Verdict

logger = logging.getLogger(__name__)


class Exchange:
    """The state of one live flow."""

    def __init__(self, flow: http.HTTPFlow) -> None:
        self._flow = weakref.ref(flow)
        # mitmproxy's replay of a request keeps the flow's id, and that may be in a ledger already.
        self.id: str = str(uuid.uuid4()) if flow.is_replay == "request" else flow.id
        self.target: str = flow.request.path
        self.path = self.target.partition("?")[0]
        # As it goes out: `request.method` is in capitals, whatever the caller sent.
        self.method: str = flow.request.data.method.decode("ascii", "replace")
        self._endpoint = endpoints.find(self.method, self.path)
        self.principal: Principal | None = None
        self.grant = ""
        self.admitted = False  # counts against the limits of its grant
        self.masking = "default"
        self.session = ""  # what the caller says, and nobody has verified
        self.verdict = Verdict()
        self.refusal: Refusal | None = None
        self.prompt: Prompt | None = None
        self.sent = b""  # the request's body as the caller meant it, decoded and unmasked
        self.answer: Body | None = None
        self.filters: list[Filter] = []
        self.delivery: Delivery | None = None
        self.aborted = False  # the caller went away
        self.secret = ""  # what of the request may never come back, if something was put in
        self._sent = False  # the request is on its way to the model server
        self._form: Form | None = None  # what the answer is, once somebody has asked
        self._whole_text = False
        self.marks: set[tuple[str, str]] = set()

    # Finding one

    @staticmethod
    def of(flow: http.HTTPFlow) -> Exchange:
        """The exchange of a live flow. Raises `KeyError` for a flow that is not live."""
        return _exchanges[flow]

    @staticmethod
    def find(flow: http.HTTPFlow) -> Exchange | None:
        """The exchange of a flow, or None for one that was read from a file."""
        return _exchanges.get(flow)

    @staticmethod
    def begin(flow: http.HTTPFlow) -> Exchange:
        """A fresh exchange: nothing of an earlier run of the same flow remains."""
        exchange = _exchanges[flow] = Exchange(flow)
        return exchange

    @staticmethod
    def under_way() -> list[Exchange]:
        """All exchanges that have not ended."""
        return list(_exchanges.values())

    @staticmethod
    def end(flow: http.HTTPFlow) -> None:
        _exchanges.pop(flow, None)

    @property
    def flow(self) -> http.HTTPFlow:
        flow = self._flow()
        assert flow is not None  # an exchange is reached through its flow
        return flow

    # Reading

    @property
    def endpoint(self) -> Endpoint:
        """What is called. Raises a 404 `Refusal` for an endpoint that no dialect knows."""
        if self._endpoint is None:
            deny(
                404,
                "endpoint_unknown",
                f"{self.method} {self.path} is not an endpoint of this gateway.",
            )
        return self._endpoint

    @property
    def operation(self) -> str:
        return self._endpoint.operation if self._endpoint else ""

    @property
    def model(self) -> str:
        return (self.prompt.model if self.prompt else None) or ""

    async def read_request(self) -> Prompt:
        """The request, decoded and parsed once. Raises a 4xx `Refusal` for what cannot be read.

        What goes on is what was read: a compressed body is forwarded decompressed.
        """
        if self.prompt is not None:
            return self.prompt
        request = self.flow.request
        body, prompt = await request_of(request, self.endpoint, self.target, self.left)
        if body is not request.raw_content:
            self.replace_request(body)
        self.sent = body
        self.prompt = prompt
        self.verdict.cover("prompt", prompt.body.coverage if prompt.body else {})
        return prompt

    def left(self) -> bool:
        """Whether the caller has left, while the request is in a hook."""
        self.aborted = self.aborted or has_left(self.flow)
        return self.aborted

    def replace_request(self, body: bytes) -> None:
        """Forward `body` in place of what the caller sent."""
        request = self.flow.request
        request.headers.pop("content-encoding", None)
        request.raw_content = body
        if "transfer-encoding" not in request.headers:
            request.headers["content-length"] = str(len(body))

    async def read_answer(self) -> Body:
        """An answer that came whole, decoded and parsed once. Raises a 502 `Refusal`."""
        if self.answer is not None:
            return self.answer
        response = self.flow.response
        assert response is not None
        body, answer = await answer_of(response, self.endpoint, self.id)
        if body is not response.raw_content:
            self.replace_answer(body)
        self.answer = answer
        self.verdict.cover("answer", answer.coverage)
        return answer

    def check_head(self) -> None:
        """Refuse an answer in whose headers the model server says its key back."""
        response = self.flow.response
        if self.secret and response and self.secret.encode() in bytes(response.headers):
            raise key_echoed()

    async def check_secret(self) -> None:
        """Refuse a whole answer in which the model server says its key back."""
        if self.secret and self._sent and self.refusal is None and self.delivery is None:
            answer = await self.read_answer()
            if any(self.secret in segment.text for segment in answer.segments("answer")):
                raise key_echoed()

    def replace_answer(self, body: bytes) -> None:
        """Deliver `body` in place of what the model server sent."""
        response = self.flow.response
        assert response is not None
        response.headers.pop("content-encoding", None)
        response.raw_content = body
        response.headers.pop("transfer-encoding", None)
        response.headers["content-length"] = str(len(body))

    @property
    def occupies(self) -> bool:
        """Whether it counts as under way: a refusal does not end what the model has begun."""
        return self.admitted and (self.refusal is None or self._sent)

    @property
    def upgrades(self) -> bool:
        """Whether the caller asks to leave HTTP, where nothing could be read."""
        headers = self.flow.request.headers
        return "upgrade" in headers or "upgrade" in headers.get("connection", "").lower()

    @property
    def trails(self) -> bool:
        """Whether trailers are announced, which mitmproxy cannot carry over HTTP/1."""
        return "trailer" in self.flow.request.headers

    def send(self) -> None:
        """The request is judged and goes to the model server: ask for what can be read back."""
        self._sent = True
        request = self.flow.request
        request.headers.pop("te", None)
        request.headers["accept-encoding"] = "identity"
        if request.raw_content and "transfer-encoding" not in request.headers:
            # HTTP/2 needs no length; over HTTP/1 a body without one would be read as a request.
            request.headers["content-length"] = str(len(request.raw_content))
        if not request.is_http2:
            request.authority = ""  # an absolute-form target is the caller's word
        if self.prompt and self.prompt.streams:
            # llama.cpp closes behind a stream although it announces keep-alive; a request that
            # mitmproxy sends on that connection meanwhile is lost.
            request.headers["connection"] = "close"

    # Answering

    @property
    def streams(self) -> bool:
        """Whether the answer, whose headers have come, is transformed on its way.

        One that an addon made comes whole, whatever it says it is. What is said first holds: all
        addons go by it, and a script behind them that relabels the answer must not part them.
        """
        response = self.flow.response
        if response is None or self.refusal is not None or not self._sent:
            return False
        if self._form is None:
            self._form = self._form_of(response)
            self._whole_text = "content-length" in response.headers
        return self._form in ("sse", "ndjson") or (self._form == "text" and not self._whole_text)

    def _form_of(self, response: http.Response) -> Form:
        """What the answer is. SDKs read a stream as one whatever it calls itself, and so do we."""
        kind = form(response.headers.get("content-type", ""))
        stream = self._endpoint.stream if self._endpoint else None
        asked = self.prompt is not None and self.prompt.streams and response.status_code < 400
        return stream.framing if stream and asked and kind in ("text", "none") else kind

    def refuse(self, refusal: Refusal) -> None:
        """Answer the caller with a refusal. The first one counts."""
        if self.refusal is not None:
            return
        self.refusal = refusal
        logger.info(
            "refused %d %s: %s %s for %s, exchange %s",
            refusal.status,
            refusal.code,
            plain(self.method),
            plain(self.path),
            self.principal.name if self.principal else "an unknown caller",
            self.id,
        )

    def cut(self, refusal: Refusal) -> None:
        """Refuse an exchange that is under way: a stream ends where it is, a hold is given up."""
        self.refuse(refusal)
        if self.delivery:
            self.delivery.cut(refusal)

    def answer_refusal(self) -> None:
        """Put the refusal in the place of the answer, wherever that stands by now."""
        if self.refusal is None or (self.delivery and self.delivery.started):
            return
        response, body = refusal_response(self.refusal, self.id, self.path)
        self.flow.response = response
        response.raw_content = body

    def open_answer(self) -> None:
        """The answer's headers have come and every addon has seen them: let it flow, or not."""
        response = self.flow.response
        assert response is not None
        response.stream = False  # whatever a script wants, the answer is read first
        if self._sent:
            self._check_head(response)
        if self.streams and self._form:
            try:
                delivery = Delivery(
                    response,
                    self._form,
                    self._endpoint,
                    self.filters,
                    body_limit(),
                    self._fault,
                )
            except (StreamError, EncodingError) as e:
                self.refuse(unreadable(self.id, e))
            else:
                delivery.prepare(self.flow.request.http_version, response)
                self.delivery = response.stream = delivery
        if self.refusal is not None:
            made, body = refusal_response(self.refusal, self.id, self.path)
            response.status_code, response.reason = made.status_code, made.reason
            response.headers = made.headers
            response.stream = instead(body)

    def _check_head(self, response: http.Response) -> None:
        """Only what callers may see of the head of an answer passes."""
        if response.status_code < 200:
            # mitmproxy takes an interim answer for the last one and would give the real one to
            # whoever asks next on that connection.
            self.flow.server_conn.state = connection.ConnectionState.CLOSED
            self.refuse(Refusal(502, "interim_answer", "The model server sent an interim answer."))
        if "trailer" in response.headers:
            self.refuse(Refusal(502, "trailers_refused", "The model server announced trailers."))
        answerhead.trim(response)
        request = self.flow.request
        if request.headers.get("connection") == "close" and not request.is_http2:
            # mitmproxy closes the caller's connection too, and a caller has to know.
            response.headers["connection"] = "close"

    def _fault(self, error: Exception) -> bytes:
        """A stream failed after its headers were out: the event that says so."""
        if isinstance(error, Refusal):
            refusal = error
        elif isinstance(error, StreamError | EncodingError):
            refusal = unreadable(self.id, error)
        else:
            refusal = self.fault("stream", error)
        self.refuse(refusal)
        return refusal_event(refusal, self._endpoint)

    def fault(self, where: str, error: BaseException) -> Refusal:
        """A control broke: log it for the operator; the caller gets a 503 without details."""
        logger.error("%s failed, exchange %s is refused", where, self.id, exc_info=error)
        return Refusal(503, "gate_fault", "The gateway could not judge this exchange.")

    # Telling

    @property
    def ending(self) -> str:
        """How the exchange ended: complete, refused, client_aborted or upstream_error.

        Until then admitted, or held.
        """
        if self.aborted:
            return "client_aborted"
        if self.refusal is not None:
            return "refused"
        if self.flow.error:
            return "upstream_error"
        if self.flow.response is None:
            return "held" if self.verdict.hold else "admitted"
        return "complete"

    def summary(self) -> dict[str, Any]:
        """The exchange in plain values, as metadata and ledger hold it."""
        principal = self.principal
        if self.delivery:
            self.verdict.cover("answer", self.delivery.coverage)
        return {
            "principal": principal.name if principal else "",
            "subject": principal.subject if principal else "",
            "display": principal.display if principal else "",
            "token_id": principal.token_id if principal else "",
            "scopes": sorted(principal.scopes) if principal else [],
            "groups": sorted(principal.groups) if principal else [],
            "bound": principal.bound if principal else "none",
            "session": self.session,
            "grant": self.grant,
            "dialect": self._endpoint.dialect.name if self._endpoint else "",
            "operation": self.operation,
            "model": self.model,
            "ending": self.ending,
            "refusal": self.refusal.code if self.refusal else "",
            "status": self.flow.response.status_code if self.flow.response else 0,
            **self.verdict.plain(),
        }

    def publish(self) -> None:
        """Write the summary where mitmproxy's filters and people find it."""
        flow, summary = self.flow, self.summary()
        flow.metadata["mitmgate"] = summary
        words = [summary["principal"] or "unknown", summary["display"]]
        words += [summary["operation"], summary["model"]]
        words.append(summary["ending"])
        code = self.refusal.code if self.refusal else ""
        words += [code, *(word for word in self.verdict.words() if word != code)]
        words += [f"{each['verdict']} by {each['subject']}" for each in summary["approvals"]]
        flow.comment = " ".join(word for word in words if word)
        if self.refusal:
            flow.marked = self.refusal.marker
        elif self.verdict.hold:
            flow.marked = ":hourglass:"
        elif self.verdict.masked:
            flow.marked = ":see_no_evil:"


def recorded(flow: http.HTTPFlow) -> dict[str, Any]:
    """What a gate has published of a flow; empty for one that none has seen.

    For people to read: it may come from a file, and nothing may be decided by it.
    """
    summary = flow.metadata.get("mitmgate")
    return summary if isinstance(summary, dict) else {}


def key_echoed() -> Refusal:
    """The model server has answered with the very key that was sent to it."""
    return Refusal(502, "key_echoed", "The model server's answer held what callers may not see.")


_exchanges: weakref.WeakKeyDictionary[http.HTTPFlow, Exchange] = weakref.WeakKeyDictionary()
