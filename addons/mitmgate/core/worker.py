"""The process in which large bodies are read and judged, while the gate's own serves others.

It takes jobs from its standard input, one at a time, and answers on its standard output. It ends
with the pipe: however the gate dies, nothing is left behind. `mitmgate.workers` starts it.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import struct
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Protocol

from mitmgate.core.matching import Finding
from mitmgate.core.principal import Principal
from mitmgate.core.ruling import Ruling, asked_of, unpacked
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.prompt import Prompt, PromptError, read_prompt

JOB = struct.Struct(">QQ")  # the lengths of a pickled job and of the body that follows it
ANSWER = struct.Struct(">Q")  # the length of the JSON that follows

# A finding as it comes back: the rule's id, then its other fields.
type Found = tuple[str, str, int, int, str, str]


class Job(Protocol):
    """Something to do with a body. The answer is plain: it goes back as JSON."""

    def run(self, body: bytes, rulings: dict[str, Ruling]) -> object: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """A request but for its body, which is decoded."""

    method: str
    target: str
    content_type: str

    def read(self, body: bytes) -> Prompt:
        """Raises `PromptError`."""
        endpoint = _endpoint(self.method, self.target)
        return read_prompt(endpoint, self.target, self.content_type, body)


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """Whether a request can be read, and what the gate has to know of it to go on."""

    asking: Asking

    def run(self, body: bytes, rulings: dict[str, Ruling]) -> dict[str, Any]:
        try:
            prompt = self.asking.read(body)
        except PromptError as e:
            return {"refused": [e.status, e.code, str(e)]}
        coverage = prompt.body.coverage if prompt.body else {}
        return {"model": prompt.model, "streams": prompt.streams, "coverage": coverage}


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """What the ruling called `ruling` finds in a request that was read before."""

    asking: Asking
    headers: tuple[tuple[str, str], ...]
    principal: Principal | None
    ruling: str

    def run(self, body: bytes, rulings: dict[str, Ruling]) -> list[Found]:
        asking = self.asking
        asked = asked_of(asking.method, asking.target, self.headers, asking.read(body))
        return _plain(rulings[self.ruling].asked(asked, self.principal))


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """What the ruling called `ruling` finds in a decoded answer to a request."""

    method: str
    target: str
    status: int
    content_type: str
    principal: Principal | None
    ruling: str

    def run(self, body: bytes, rulings: dict[str, Ruling]) -> dict[str, Any]:
        endpoint = _endpoint(self.method, self.target)
        answer = read_answer(endpoint, self.status, self.content_type, body)
        try:
            texts = answer.readings("answer")
        except DocumentError as e:
            return {"unreadable": str(e)}
        found = rulings[self.ruling].answered(
            texts, self.principal, self.method, endpoint.operation
        )
        return {"found": _plain(found)}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A job on its way: `rules` are those that the worker has not, packed, by their name; `known`
    are the names of all that it is to have from now on."""

    job: Job
    rules: dict[str, bytes]
    known: tuple[str, ...]


def findings(ruling: Ruling, found: Iterable[Found]) -> tuple[Finding, ...]:
    """What came back, as findings of the caller's own rules. Raises `KeyError` for another's."""
    rules = {rule.id: rule for rule in ruling.rules}
    return tuple(
        Finding(rules[id], address, start, end, text, view)
        for id, address, start, end, text, view in found
    )


def main(nice: int) -> None:
    """Serve until the pipe closes, `nice` to all other processes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not do it among the answers
    if hasattr(os, "nice"):
        os.nice(nice)
    arrived: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, arrived), daemon=True).start()
    rulings: dict[str, Ruling] = {}
    while True:
        answer = _answer(*arrived.get(), rulings)
        answers.write(ANSWER.pack(len(answer)) + answer)
        answers.flush()


def _receive(source: IO[bytes], arrived: queue.SimpleQueue[tuple[bytes, bytes]]) -> None:
    """Take in jobs; without the other end there is nobody to work for, whatever is under way."""
    while len(lengths := source.read(JOB.size)) == JOB.size:
        job, body = (source.read(length) for length in JOB.unpack(lengths))
        arrived.put((job, body))
    os._exit(0)


def _answer(packed: bytes, body: bytes, rulings: dict[str, Ruling]) -> bytes:
    try:
        envelope: Envelope = pickle.loads(packed)  # noqa: S301  (only the gate writes to the pipe)
        rulings |= {name: unpacked(rules) for name, rules in envelope.rules.items()}
        for name in rulings.keys() - set(envelope.known):
            del rulings[name]
        return json.dumps({"done": envelope.job.run(body, rulings)}).encode()
    except Exception:
        return json.dumps({"fault": traceback.format_exc()}).encode()


def _endpoint(method: str, target: str) -> Endpoint:
    endpoint = endpoints.find(method, target.partition("?")[0])
    if endpoint is None:
        raise LookupError(f"no endpoint is {method} {target!r}")
    return endpoint


def _plain(found: Iterable[Finding]) -> list[Found]:
    return [(f.rule.id, f.address, f.start, f.end, f.text, f.view) for f in found]
