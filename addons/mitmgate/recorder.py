"""Session recorder: every exchange to a `.mitm` file that replays, with a ledger line beside it.

The admitted request is in the journal before it goes to the model; if it cannot be, it does not go.
What is written is a copy without credentials: the prompt as the caller sent it, the answer as the
caller got it. All disk work is done by one thread of the recorder's own.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mitmproxy import exceptions, http
from mitmproxy.io import tnetstring
from mitmproxy.log import ALERT

from mitmgate import options
from mitmgate.core.ledger import Archive, RecorderFile, RecordingError
from mitmgate.core.rules import load
from mitmgate.core.tokens import CREDENTIAL_HEADERS
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal, deny
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

UPKEEP = 1.0  # seconds between two looks at what is to be synced or rotated


def read(path: Path) -> tuple[RecorderFile, str]:
    """recorder.yaml. Raises `RuleError`."""
    loaded = load(path, RecorderFile)
    return loaded.file, loaded.digest


class Recorder(GateAddon):
    """Reads recorder.yaml; writes below gate_state."""

    name = "mitmgate.recorder"
    sees_refusals = True

    def __init__(self) -> None:
        self._file = RuleFile(read)
        self._state = Path()
        self._archive: Archive | None = None
        self._writer = ThreadPoolExecutor(1, "recorder")
        self._upkeep: asyncio.Task[None] | None = None
        # The headers of a request as the caller sent them: they change before the answer comes.
        self._asked: weakref.WeakKeyDictionary[http.HTTPFlow, http.Headers] = (
            weakref.WeakKeyDictionary()
        )

    def configure(self, updated: set[str]) -> None:
        if not updated & {"gate_rules", "gate_state"}:
            return
        self._file.load(options.rules("recorder"))
        self._state = options.state()
        try:
            self._writer.submit(self._open, self._file.rules).result()
            assert self._archive is not None
            alive = {exchange.id for exchange in Exchange.under_way()}
            for note in self._archive.recover(_interrupted, alive):
                logger.log(ALERT, "%s", note)
        except (RecordingError, ValueError) as e:
            raise exceptions.OptionsError(f"recorder: {e}") from None

    def _open(self, rules: RecorderFile) -> None:
        """Begin to write as `rules` say, in the writer's thread. Nothing is written if it fails."""
        archive, self._archive = self._archive, None
        if archive:
            archive.close()
        self._archive = Archive(self._state, rules)
        if not rules.refuses_unrecorded:
            logger.log(ALERT, "unsafe_required is off: what cannot be recorded passes unrecorded")

    def _reopen(self) -> None:
        """The rules have changed while the gate runs."""

        def tell(opening: Future[None]) -> None:
            if error := opening.exception():
                logger.log(ALERT, "recorder: %s; nothing passes until it can record", error)

        self._writer.submit(self._open, self._file.rules).add_done_callback(tell)

    def running(self) -> None:
        self._file.watch(self._reopen)
        self._upkeep = asyncio.create_task(self._maintain(), name="recorder upkeep")

    def done(self) -> None:
        self._file.stop()
        if self._upkeep:
            self._upkeep.cancel()
        if self._archive:
            self._writer.submit(self._archive.close).result()
        self._writer.shutdown()

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        self._asked[flow] = flow.request.headers.copy()
        if exchange.refusal is not None or flow.response:
            return
        exchange.verdict.digests["recorder"] = self._file.digest
        exchange.publish()
        data = self._serialise(flow, exchange)
        await self._write(lambda archive: archive.admit(exchange.id, data))

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        try:
            await exchange.check_secret()
        except Refusal as e:
            exchange.refuse(e)
            exchange.answer_refusal()
        await self._settle(flow, exchange)

    async def error(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        exchange.aborted = exchange.aborted or _client_left(flow)
        await self._settle(flow, exchange)

    async def _settle(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        exchange.publish()
        data, fields = self._serialise(flow, exchange), _fields(flow, exchange)
        await self._write(lambda archive: archive.settle(exchange.id, data, fields))

    async def _write(self, work: Callable[[Archive], None]) -> None:
        def write() -> None:
            if self._archive is None:
                raise RecordingError(self._state, "the recorder could not begin to write")
            work(self._archive)

        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, write)
        except RecordingError as e:
            logger.log(ALERT, "not recorded: %s", e)
            if self._file.rules.refuses_unrecorded:
                deny(503, "recording_failed", "The gateway cannot record this exchange.")

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP)
            try:
                await self._write(lambda archive: archive.maintain())
            except Exception as e:
                logger.log(ALERT, "recorder upkeep: %s", e)

    def _serialise(self, flow: http.HTTPFlow, exchange: Exchange) -> bytes:
        """The flow as it will be read, and no credential in it. The live flow is not touched."""
        scrub = {*CREDENTIAL_HEADERS, "set-cookie", *self._file.rules.scrub}
        state: dict[str, Any] = flow.get_state()
        state["backup"] = None
        state["intercepted"] = False
        request, response = state["request"], state["response"]
        request["headers"] = _scrubbed(self._asked.get(flow, flow.request.headers), scrub)
        if exchange.prompt is not None and self._file.rules.prompts == "exact":
            request["content"] = exchange.sent
        elif exchange.prompt is None and exchange.principal is None and exchange.refusal:
            # Nobody's bytes: whoever has no token must not be able to fill the disk.
            request["content"], request["headers"] = b"", ()
            request["path"] = request["path"][:200]
        if response:
            response["headers"] = _scrubbed(flow.response.headers, scrub)  # type: ignore[union-attr]
            if exchange.delivery:
                response["content"] = bytes(exchange.delivery.captured)
        if state["error"] and exchange.secret:  # mitmproxy quotes what the server sent
            message = state["error"]["msg"].replace(exchange.secret, "[KEY]")
            state["error"]["msg"] = message
        return tnetstring.dumps(state)


def _scrubbed(headers: http.Headers, scrub: set[str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (name, value)
        for name, value in headers.fields
        if name.decode("latin-1").lower() not in scrub
    )


def _fields(flow: http.HTTPFlow, exchange: Exchange) -> dict[str, Any]:
    """What the ledger says of an exchange."""
    response = flow.response
    return {
        "exchange": exchange.id,
        "method": exchange.method,
        "path": exchange.path,
        "client": list(flow.client_conn.peername[:2]),
        "server": list((flow.server_conn.address or ("", 0))[:2]),
        "started": flow.request.timestamp_start,
        "first_byte": response.timestamp_start if response else None,
        "ended": response.timestamp_end if response else None,
        **exchange.summary(),
    }


def _interrupted(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A journaled request of a gate that died, and its ledger fields."""
    state: dict[str, Any] = tnetstring.loads(data)  # type: ignore[assignment]
    summary = {**state["metadata"].get("mitmgate", {}), "ending": "interrupted"}
    state["metadata"]["mitmgate"] = summary
    state["comment"] = f"{state['comment']} interrupted"
    state["marked"] = ":boom:"
    return tnetstring.dumps(state), {"exchange": state["id"], **summary}


def _client_left(flow: http.HTTPFlow) -> bool:
    message = flow.error.msg.lower() if flow.error else ""
    return not flow.client_conn.connected or "client" in message
