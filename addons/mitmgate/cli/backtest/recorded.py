"""Exchanges out of recordings, one after the other: what was asked, answered and decided.

Files are read in spans of whole frames, so that memory stays small and several processes can share
a file. Nothing is written, and no hook runs. The ledger is not needed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from mitmproxy import http
from mitmproxy.flow import Flow

from mitmgate.cli.recorded import read_flow
from mitmgate.core.ledger import BadRecord, Identities, opened
from mitmgate.core.ledger.framing import read_frame, whole_frames
from mitmgate.core.ledger.pair import FLOWS
from mitmgate.core.principal import Bound, issuer_of
from mitmgate.exchange import recorded

SPAN = 256 << 10  # bytes of a recording that are read in one go; more where one flow is larger


class UnreadableError(Exception):
    """What is no recording, from byte `offset` of `path` on."""

    def __init__(self, path: Path, offset: int, message: str) -> None:
        super().__init__(f"{path}: byte {offset}: {message}")
        self.path = path
        self.offset = offset
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:  # it comes from other processes
        return UnreadableError, (self.path, self.offset, self.message)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of a recording: `flows` whole flows."""

    path: Path
    start: int
    end: int
    flows: int


def recordings(given: Iterable[Path]) -> list[Path]:
    """The files that are meant, each once; of a directory, every `.mitm` in it and below.

    Raises `OSError` for one that is not there, `ValueError` for a directory without recordings.
    """
    found: dict[Path, Path] = {}
    for path in given:
        paths = sorted(path.rglob(f"*{FLOWS}")) if path.is_dir() else [path]
        if not paths:
            raise ValueError(f"{path}: no recording ({FLOWS}) is in this directory")
        for each in paths:
            found.setdefault(each.resolve(strict=True), each)
    return list(found.values())


def spans(path: Path) -> Iterator[Span]:
    """A recording in pieces. Raises `UnreadableError` where a flow is torn, and `OSError`."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start, reach = 0, SPAN
        while start < end:
            flows, stop = whole_frames(file, start, min(start + reach, end))
            if flows:
                yield Span(path, start, stop, flows)
                start, reach = stop, SPAN
            elif start + reach < end:
                reach *= 2
            else:
                message = f"no whole flow begins here; {end - start} bytes were not read"
                raise UnreadableError(path, start, message)


class Found(pydantic.BaseModel):
    """A hit, as it was recorded."""

    model_config = pydantic.ConfigDict(frozen=True)

    rule: str
    action: str
    mode: str = "enforce"
    address: str = ""


class Summary(pydantic.BaseModel):
    """What the gate has recorded of an exchange; see `Exchange.summary`."""

    model_config = pydantic.ConfigDict(frozen=True)

    principal: str
    subject: str
    scopes: frozenset[str] | None = None  # older recordings do not have these three
    groups: frozenset[str] | None = None
    bound: Bound | None = None
    grant: str
    operation: str
    model: str
    ending: str
    refusal: str
    findings: tuple[Found, ...]
    masked: dict[str, int]
    hold: str
    rules: dict[str, str]

    @property
    def issuer(self) -> str:
        return issuer_of(self.principal, self.subject)

    @property
    def admitted(self) -> bool:
        """Whether the request went on to the model: the recorder journals nothing else."""
        return "recorder" in self.rules

    @property
    def denied_by(self) -> Found | None:
        """The hit of the rule that refused it, if it was one that denies."""
        denies = (each for each in self.findings if each.action == "deny")
        return next((each for each in denies if each.rule == self.refusal), None)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An exchange in a recording: `path` and `offset` are where.

    `summary` is None for a flow that no gate has recorded, `request` for one that is not HTTP.
    """

    path: Path
    offset: int
    id: str
    summary: Summary | None
    request: http.Request | None
    response: http.Response | None


def exchanges(
    span: Span, identities: Identities | None = None
) -> Iterator[Recorded | UnreadableError]:
    """What stands in a span; a frame with something else in it is handed out as the error.

    So is one that is encrypted to others. Raises `IdentityNeeded`, and `ValueError` for
    identities that are none.
    """
    with span.path.open("rb") as file:
        file.seek(span.start)
        for _ in range(span.flows):
            offset = file.tell()
            place = f"{span.path}: byte {offset}"
            try:
                flow = opened(read_frame(file), identities, place)
            except BadRecord as e:
                yield UnreadableError(span.path, offset, str(e).removeprefix(f"{place}: "))
                continue
            try:
                yield _recorded(span.path, offset, read_flow(io.BytesIO(flow)))
            except ValueError as e:
                reason = str(e).partition("\n")[0]
                yield UnreadableError(span.path, offset, f"is no recorded flow: {reason}")


def _recorded(path: Path, offset: int, flow: Flow) -> Recorded:
    if not isinstance(flow, http.HTTPFlow):
        return Recorded(path, offset, flow.id, None, None, None)
    kept = recorded(flow)
    summary = Summary.model_validate(kept) if kept else None
    return Recorded(path, offset, flow.id, summary, flow.request, flow.response)
