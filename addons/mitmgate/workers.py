"""Processes beside the gate's own in which large bodies are read and judged.

In a thread a prompt of megabytes keeps all callers waiting: for seconds it shares one interpreter
with them. `concurrent.futures` has processes, but loses every job when one of them dies, cannot end
one that hangs, and would import mitmdump in each. A job whose worker dies, hangs or fails raises
`WorkerError`, which refuses its exchange alone; the next job gets a new worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

import mitmgate
from mitmgate.core.ruling import Ruling
from mitmgate.core.worker import ANSWER, JOB, Envelope, Job
from mitmgate.refusal import deny

# How many workers there are at most; a job that comes meanwhile waits, with its body. Those for
# bodies from HUGE on are others and stand back further: what takes long keeps no large one waiting.
MOST = max(2, os.cpu_count() or 2)
MOST_HUGE = max(1, (os.cpu_count() or 2) // 2)
HUGE = 1 << 20
NICE, NICE_HUGE = 10, 15
PATIENCE = 60.0, 30.0  # seconds for a job, and as many more for each MB; measured: 3 a MB
LOOKS = 1.0  # seconds between two looks at whether the caller of a job that waits is still there
KNOWN = 4  # rule sets that a worker keeps
# This very package, wherever else there is one: mitmproxy has its folder from `-s`.
_START = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("mitmgate", sys.argv[1])
package = sys.modules["mitmgate"] = module_from_spec(spec)
spec.loader.exec_module(package)
from mitmgate.core.worker import main
main(int(sys.argv[2]))
"""


class WorkerError(Exception):
    """A job was not done, so nothing is known of what it was about."""


class Worker:
    """One process, started at once. It does a job at a time; any thread may end it."""

    def __init__(self, nice: int = NICE) -> None:
        """`nice` is how far it stands back where there are not enough processors. Raises `OSError`
        if it cannot be started."""
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, this package)
            [sys.executable, "-P", "-c", _START, mitmgate.__file__, str(nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0 if os.name == "posix" else None,  # Ctrl-C is for the gate
        )
        self._known: dict[str, None] = {}  # names of the rules that it has, last used last
        self._why = "it ended"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self, why: str = "the gate needs it no longer") -> None:
        """End it, in the middle of whatever it does."""
        if self.alive:
            self._why = why
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of the pipes of one that does no job."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # what it did not take
                    pipe.close()

    def do(self, job: Job, ruling: Ruling | None, body: bytes, patience: float) -> Any:
        """What `job` makes of `body`. Raises `WorkerError`; it may have ended then."""
        late = threading.Timer(patience, self.end, [f"it took more than {patience:.0f} s"])
        late.start()
        try:
            answer = self._exchange(pickle.dumps(self._envelope(job, ruling)), body)
        except (OSError, EOFError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # for how it ended by itself
            self.end("it closed the pipe")
            status = self._process.returncode
            raise WorkerError(f"worker {self.pid}: {self._why}, status {status}") from None
        finally:
            late.cancel()
        if "done" not in answer:
            raise WorkerError(f"worker {self.pid}: {answer['fault']}")
        return answer["done"]

    def _envelope(self, job: Job, ruling: Ruling | None) -> Envelope:
        rules: dict[str, bytes] = {}
        if ruling is not None:
            if ruling.name not in self._known:
                rules[ruling.name] = ruling.packed
            self._known.pop(ruling.name, None)
            self._known[ruling.name] = None
            if len(self._known) > KNOWN:
                del self._known[next(iter(self._known))]
        return Envelope(job, rules, tuple(self._known))

    def _exchange(self, envelope: bytes, body: bytes) -> Any:
        """Raises `OSError` or `EOFError` if the process ends first."""
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None
        assert source is not None
        sink.write(JOB.pack(len(envelope), len(body)) + envelope)
        sink.write(body)
        sink.flush()
        (length,) = ANSWER.unpack(_exactly(source, ANSWER.size))
        return json.loads(_exactly(source, length))


class Workers:
    """At most `most` workers, started when there is work for them and kept."""

    def __init__(self, most: int = MOST, nice: int = NICE) -> None:
        self._nice = nice
        self._threads = ThreadPoolExecutor(most, "workers")  # each waits for one worker
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self.closed = False

    async def ask(
        self,
        job: Job,
        body: bytes,
        ruling: Ruling | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> Any:
        """What a worker makes of `body`, as plain as JSON. `gone` says whether the caller left.

        Raises `WorkerError`, and a 499 `Refusal` if nobody waits any more before its turn has come.
        """
        turn = self._threads.submit(self._do, job, ruling, body)
        doing = asyncio.wrap_future(turn)
        try:
            while not (await asyncio.wait({doing}, timeout=LOOKS))[0]:
                if not turn.running() and gone() and turn.cancel():
                    deny(499, "client_left", "The caller left while the request waited.")
            return doing.result()
        finally:
            doing.cancel()

    def _do(self, job: Job, ruling: Ruling | None, body: bytes) -> Any:
        worker = self._take()
        least, more = PATIENCE
        try:
            return worker.do(job, ruling, body, least + more * len(body) / 1e6)
        except BaseException:
            worker.end("a job failed")
            raise
        finally:
            self._give_back(worker)

    def _take(self) -> Worker:
        with self._lock:
            if self.closed:
                raise WorkerError("the gate ends")
            while self._idle:
                if (worker := self._idle.pop()).alive:
                    break
                worker.close()
            else:
                worker = Worker(self._nice)
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if worker.alive and not self.closed:
                self._idle.append(worker)
                return
        worker.close()

    @property
    def pids(self) -> list[int]:
        with self._lock:
            return [worker.pid for worker in (*self._idle, *self._busy)]

    def close(self) -> None:
        """End all workers, and with them what they do."""
        with self._lock:
            self.closed = True
            for worker in self._idle:
                worker.close()
            for worker in self._busy:
                worker.end()
            self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)


_shared: dict[bool, Workers] = {}  # by whether they are for what is huge


def workers(size: int) -> Workers:
    """Those of this gate for a body of `size` bytes, which all addons share."""
    huge = size >= HUGE
    if huge not in _shared:
        _shared[huge] = Workers(MOST_HUGE, NICE_HUGE) if huge else Workers()
    return _shared[huge]


def close() -> None:
    """End all workers of this gate; what still needs some gets others."""
    while _shared:
        _shared.popitem()[1].close()


def _exactly(source: IO[bytes], length: int) -> bytes:
    data = source.read(length)
    if len(data) < length:
        raise EOFError
    return data
