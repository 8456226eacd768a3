"""Session recorder: every exchange to a `.mitm` file that replays, with a ledger line beside it.

The admitted request is in the journal before it goes to the model; if it cannot be, it does not go.
What is written is a copy without credentials: the prompt as the caller sent it, the answer as the
caller got it. All disk work is done by one thread of the recorder's own.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mitmproxy import exceptions, http
from mitmproxy.io import tnetstring
from mitmproxy.log import ALERT

from mitmgate import options, scrubbing
from mitmgate.core.ledger import Archive, RecorderFile, RecordingError, Stopped
from mitmgate.core.rules import load
from mitmgate.core.wire.segment import plain
from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal
from mitmgate.rulefile import RuleFile

logger = logging.getLogger(__name__)

UPKEEP = 1.0  # seconds between two looks at what is to be synced, rotated or tried again
RETENTION = 60.0  # seconds between two looks at what is too old or too much
SESSION = 128  # characters of a session's name that are kept


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
        self._keeper = ThreadPoolExecutor(1, "recorder-keeper")  # what takes long
        self._tasks: list[asyncio.Task[None]] = []
        self._alive: set[str] = set()
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
        except (RecordingError, ValueError) as e:
            raise exceptions.OptionsError(f"recorder: {e}") from None

    def _open(self, rules: RecorderFile) -> None:
        """Write as `rules` say, in the writer's thread. Nothing is written if it fails."""
        if self._archive and self._archive.state != self._state:
            before, self._archive = self._archive, None
            before.stop()
            before.close()
        if self._archive:
            _tell(self._archive.reopen(rules))
        else:
            self._alive = {exchange.id for exchange in Exchange.under_way()}
            self._archive = Archive(self._state, rules)
            _tell(self._archive.notes)
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
        self._tasks = [
            asyncio.create_task(self._maintain(), name="recorder upkeep"),
            asyncio.create_task(self._keep(), name="recorder retention"),
        ]

    def done(self) -> None:
        self._file.stop()
        for task in self._tasks:
            task.cancel()
        if self._archive:
            self._archive.stop()
        self._keeper.shutdown()
        if self._archive:
            try:
                self._writer.submit(self._archive.close).result()
            except RecordingError as e:
                logger.log(ALERT, "recorder: %s; the next start closes it", e)
        self._writer.shutdown()

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        self._asked[flow] = flow.request.headers.copy()
        if exchange.principal is not None:  # nobody else may put anything into a ledger
            exchange.session = _session(flow.request.headers, self._file.rules)
        if exchange.refusal is not None or flow.response:
            return
        exchange.verdict.digests["recorder"] = self._file.digest
        exchange.publish()
        state = self._copy(flow, exchange)
        try:
            await self._write(
                lambda archive: archive.admit(
                    exchange.id, tnetstring.dumps(state), scrubbing.interrupted
                )
            )
        except RecordingError as e:
            logger.log(ALERT, "not recorded: %s", e)
            if self._file.rules.refuses_unrecorded:
                raise _unrecorded() from None

    async def response(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        try:
            await exchange.check_secret()
        except Refusal as e:
            exchange.refuse(e)
            exchange.answer_refusal()
        await self._settle(flow, exchange, answers=True)

    async def error(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange.of(flow)
        exchange.aborted = exchange.aborted or _client_left(flow)
        await self._settle(flow, exchange, answers=False)

    async def _settle(self, flow: http.HTTPFlow, exchange: Exchange, *, answers: bool) -> None:
        """Record an exchange that is over; `answers` says that an answer can still be withheld."""
        exchange.publish()
        state, fields = self._copy(flow, exchange), _fields(flow, exchange)
        try:
            await self._write(
                lambda archive: archive.settle(exchange.id, tnetstring.dumps(state), fields)
            )
        except RecordingError as e:
            logger.log(ALERT, "not recorded: %s", e)
            delivered = exchange.delivery is not None and exchange.delivery.started
            if answers and not delivered and self._file.rules.refuses_unrecorded:
                exchange.refuse(_unrecorded())
                exchange.answer_refusal()
                exchange.publish()
            await self._retry_later(flow, exchange)

    async def _retry_later(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Keep what has happened, a refusal for want of space included, until there is space."""
        state, fields = self._copy(flow, exchange), _fields(flow, exchange)
        try:
            await self._write(
                lambda archive: archive.keep(exchange.id, tnetstring.dumps(state), fields)
            )
        except RecordingError as e:
            logger.log(
                ALERT, "exchange %s is not kept until it can be recorded: %s", exchange.id, e
            )

    async def _write[T](self, work: Callable[[Archive], T]) -> T:
        """Run `work` in the writer's thread. Raises `RecordingError`."""

        def write() -> T:
            if self._archive is None:
                raise RecordingError(self._state, "the recorder could not begin to write")
            return work(self._archive)

        return await asyncio.get_running_loop().run_in_executor(self._writer, write)

    async def _maintain(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(UPKEEP)
            try:
                _tell(await self._write(lambda archive: archive.maintain()))
                said = ""
            except Exception as e:
                if str(e) != said:  # once, not every second
                    said = str(e)
                    logger.log(ALERT, "recorder: %s; it is tried again every second", e)

    async def _keep(self) -> None:
        """Record what dead gates left, then remove what may go, beside the traffic."""
        loop, said, recovered = asyncio.get_running_loop(), "", None
        while True:
            archive, pause = self._archive, RETENTION
            try:
                if archive and archive is not recovered:
                    await loop.run_in_executor(self._keeper, self._recover, archive)
                    recovered = archive
                if archive:
                    step = await loop.run_in_executor(self._keeper, archive.retain, self._run)
                    _tell(step.alerts)
                    for note in step.notes:
                        logger.info("%s", note)
                    pause = UPKEEP if step.removed else RETENTION
                said = ""
            except Stopped:
                pause = UPKEEP
            except Exception as e:
                if str(e) != said:
                    said = str(e)
                    logger.log(ALERT, "recorder: %s; it is tried again in a minute", e)
            await asyncio.sleep(pause)

    def _recover(self, archive: Archive) -> None:
        for note in archive.recover(scrubbing.interrupted, self._run, self._alive):
            logger.log(ALERT, "%s", note)

    def _run(self, work: Callable[[], object]) -> object:
        return self._writer.submit(work).result()

    def _copy(self, flow: http.HTTPFlow, exchange: Exchange) -> dict[str, Any]:
        asked = self._asked.get(flow, flow.request.headers)
        return scrubbing.copy(flow, exchange, asked, self._file.rules)


def _unrecorded() -> Refusal:
    return Refusal(503, "recording_failed", "The gateway cannot record this exchange.")


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        logger.log(ALERT, "%s", note)


def _session(headers: http.Headers, rules: RecorderFile) -> str:
    """What the caller says which session this is of."""
    names = (name for name in rules.sessions if name not in rules.scrub)
    return plain(next((headers[name] for name in names if headers.get(name)), ""))[:SESSION]


def _fields(flow: http.HTTPFlow, exchange: Exchange) -> dict[str, Any]:
    """What the ledger says of an exchange."""
    response, known = flow.response, exchange.principal is not None
    return {
        "exchange": exchange.id,
        "method": exchange.method if known else exchange.method[: scrubbing.LONGEST],
        "path": exchange.path if known else exchange.path[: scrubbing.LONGEST],
        "client": list(flow.client_conn.peername[:2]),
        "server": list((flow.server_conn.address or ("", 0))[:2]),
        "started": flow.request.timestamp_start,
        "first_byte": response.timestamp_start if response else None,
        "ended": response.timestamp_end if response else None,
        **exchange.summary(),
    }


def _client_left(flow: http.HTTPFlow) -> bool:
    message = flow.error.msg.lower() if flow.error else ""
    return not flow.client_conn.connected or "client" in message
