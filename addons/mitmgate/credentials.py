"""Credentials: the model server's own key goes in last, and comes out again first.

The key is chosen by the address that the connection really goes to, never by Host, SNI or the URL,
which are the caller's words. Once the request is on the wire the key is taken out of the flow, so
that no recording, log or interface shows it.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pydantic
from mitmproxy import http
from mitmproxy.http import Headers

from mitmgate import options
from mitmgate.core.rules import Id, Listed, Model, Reference, load
from mitmgate.core.rules import RuleFile as Envelope
from mitmgate.exchange import Exchange, key_echoed
from mitmgate.guard import GateAddon, deny
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)


def _address(value: object) -> str:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("an address is HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    return f"{host.strip('[]').lower()}:{port}"


class Upstream(Model):
    """One model server and the header that carries its key."""

    id: Id
    address: Annotated[str, pydantic.PlainValidator(_address)]
    header: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    value: Reference


class CredentialsFile(Envelope):
    """credentials.yaml. A server without an entry gets no key."""

    upstreams: Listed[Upstream] = ()

    @pydantic.model_validator(mode="after")
    def _one_entry_each(self) -> CredentialsFile:
        for what in ("id", "address"):
            values = [getattr(upstream, what) for upstream in self.upstreams]
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"two upstreams have the {what} {value}")
        return self


def read(path: Path) -> tuple[dict[str, Upstream], str]:
    """credentials.yaml, by address. Raises `RuleError`."""
    loaded = load(path, CredentialsFile)
    return {upstream.address: upstream for upstream in loaded.file.upstreams}, loaded.digest


class Credentials(GateAddon):
    """Reads credentials.yaml."""

    name = "mitmgate.credentials"
    sees_refusals = True  # a key that is in the flow must come out, whatever happened

    def __init__(self) -> None:
        self._file = RuleFile(read)
        self._injected: weakref.WeakKeyDictionary[http.HTTPFlow, str] = weakref.WeakKeyDictionary()

    def configure(self, updated: set[str]) -> None:
        if "gate_rules" in updated:
            self._file.load(options.rules("credentials"))

    def running(self) -> None:
        self._file.watch()

    def done(self) -> None:
        self._file.stop()
        # mitmproxy saves flows that are still under way after this.
        for flow in list(self._injected):
            self._take_out(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        if exchange.refusal is not None or flow.response:
            return
        exchange.verdict.digests["credentials"] = self._file.digest
        upstream = self._file.rules.get(f"{flow.request.host.lower()}:{flow.request.port}")
        if upstream is None:
            return
        try:
            value = upstream.value.resolve()
        except ValueError as e:
            logger.error("the credential %s is not to be had: %s", upstream.id, e)
            deny(503, "credential_missing", "The gateway has no credential for the model server.")
        if not value.isprintable() or not value.isascii():
            logger.error("the credential %s has characters that no header may have", upstream.id)
            deny(503, "credential_invalid", "The gateway has no credential for the model server.")
        exchange.secret = max(value.split(), key=len, default="")
        flow.request.headers.pop(upstream.header, None)
        if flow.request.scheme == "http" and flow.request.http_version.startswith("HTTP/1"):
            line = (upstream.header.encode(), value.encode())
            flow.request.headers = _Sealed(flow.request.headers.fields, line)
        else:
            # HTTP/2 is written from the fields: a server may choose it over TLS, and a caller who
            # came with it has the request copied.
            flow.request.headers[upstream.header] = value
        self._injected[flow] = upstream.header

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        self._take_out(flow)
        exchange = Exchange.of(flow)
        if exchange.secret and exchange.refusal is None:
            exchange.check_head()
            if exchange.streams:
                exchange.filters.append(_Watch(exchange.secret))

    async def response(self, flow: http.HTTPFlow) -> None:
        await Exchange.of(flow).check_secret()

    def error(self, flow: http.HTTPFlow) -> None:
        self._take_out(flow)

    def _take_out(self, flow: http.HTTPFlow) -> None:
        if header := self._injected.pop(flow, None):
            flow.request.headers = Headers(flow.request.headers.fields)
            flow.request.headers.pop(header, None)


class _Sealed(Headers):
    """Headers with one line more on the wire than anybody sees in the flow.

    mitmproxy writes an HTTP/1 head from `bytes(headers)`; interfaces, copies, dumps and backups
    are made from the fields, which do not have it.
    """

    def __init__(
        self,
        fields: Iterable[tuple[bytes, bytes]] = (),
        line: tuple[bytes, bytes] | None = None,
        **headers: str,
    ) -> None:
        super().__init__(fields, **headers)
        self._line = line

    def __bytes__(self) -> bytes:
        return bytes(super().__bytes__()) + (b"%b: %b\r\n" % self._line if self._line else b"")


class _Watch:
    """Ends a stream in which the model server says the key back."""

    masks = False

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def channel(self) -> _Channel:
        return _Channel(self)

    def whole(self, text: str) -> str:
        if self._secret in text:
            raise key_echoed()
        return text

    def held(self, text: str) -> int:
        """How much of the end of `text` could be the beginning of the key."""
        longest = min(len(text), len(self._secret) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(self._secret[:n])), 0)


class _Channel:
    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._rest = ""

    def feed(self, text: str) -> str:
        text = self._watch.whole(self._rest + text)
        cut = len(text) - self._watch.held(text)
        self._rest = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        rest, self._rest = self._rest, ""
        return rest
