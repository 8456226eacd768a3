"""The ledger's lines: canonical JSON, each with its own hash and the hash of the line before.

A file is a `head` (which names the file before it), `entry` lines (one per exchange), signed
`checkpoint` lines, `removed` lines (one per file that retention took away), and an `end`. Sequence
numbers run on from file to file. Nothing here opens a file: `core.ledger.recording` writes lines,
`core.ledger.verify` reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mitmgate.core.ledger.signature import Signer, Verifier

FORMAT = 1
GENESIS = "0" * 64
MAX_LINE = 1 << 20  # bytes; what a reader has to hold at most

Kind = Literal["head", "entry", "checkpoint", "removed", "end"]
RESERVED = frozenset(
    ["kind", "seq", "offset", "length", "sha256", "prev", "hash", "key", "signature"]
)


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a chain has got to: its last line's number and hash, and where the `.mitm` ends."""

    seq: int = -1
    hash: str = GENESIS
    end: int = 0


BEGIN = Tip()


class LineTooLong(ValueError):
    """More than a line may hold."""


class BadLine(Exception):
    """A line that is not as it was written. `seq` is its number, if it still says one."""

    def __init__(self, message: str, seq: int | None = None) -> None:
        self.seq = seq
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Line:
    """One line as read: internally sound, not yet compared with its neighbours."""

    kind: Kind
    seq: int
    offset: int
    length: int
    prev: str
    hash: str
    fields: Mapping[str, Any]

    @property
    def tip(self) -> Tip:
        """Where the chain stands after this line."""
        return Tip(self.seq, self.hash, self.offset + self.length)

    def signed_by(self, verifier: Verifier) -> bool:
        """True if the line carries a signature that `verifier` confirms."""
        body = {k: v for k, v in self.fields.items() if k not in ("signature", "hash")}
        return verifier.verifies(self.fields.get("signature"), _canonical(body))


def link(
    tip: Tip,
    kind: Kind,
    fields: Mapping[str, object],
    *,
    flow: bytes = b"",
    signer: Signer | None = None,
) -> tuple[bytes, Tip]:
    """The next line after `tip`, newline included, and the tip after it.

    `flow` is what the line speaks for, if anything; a line with a `signer` is signed and thereby
    everything before it. Raises `ValueError` for fields that are reserved or not JSON, and
    `LineTooLong`.
    """
    if clash := RESERVED.intersection(fields):
        raise ValueError(f"the ledger's own words cannot be fields: {', '.join(sorted(clash))}")
    body: dict[str, Any] = {
        **_plain(fields),
        "kind": kind,
        "seq": tip.seq + 1,
        "offset": tip.end,
        "length": len(flow),
        "prev": tip.hash,
    }
    if flow:
        body["sha256"] = hashlib.sha256(flow).hexdigest()
    if signer:
        body["key"] = signer.key_id
        body["signature"] = signer.sign(_canonical(body))
    body["hash"] = _hash(body)
    line = _canonical(body) + b"\n"
    if len(line) > MAX_LINE:
        raise LineTooLong(f"a ledger line of {len(line)} bytes; {MAX_LINE} are the most")
    return line, Tip(tip.seq + 1, body["hash"], tip.end + len(flow))


def read_line(raw: bytes) -> Line:
    """A line as `link` made it. Raises `BadLine` for any other bytes, down to a changed space."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadLine("is not JSON") from None
    if not isinstance(body, dict):
        raise BadLine("is not a JSON object")
    said = body.get("seq")
    seq = said if type(said) is int else None
    claimed = body.pop("hash", None)
    if claimed != _hash(body):
        raise BadLine("was changed: its hash does not fit", seq)
    body["hash"] = claimed
    if _canonical(body) + b"\n" != raw:
        raise BadLine("was written by something else: it is not canonical JSON", seq)
    try:
        line = Line(**{key: body[key] for key in _OWN}, fields=body)
    except KeyError as e:
        raise BadLine(f"lacks {e.args[0]}", seq) from None
    numbers = (line.seq, line.offset, line.length)
    if line.kind not in _KINDS or not all(type(n) is int and n >= 0 for n in numbers):
        raise BadLine("is no line of a ledger", seq)
    return line


_OWN = ("kind", "seq", "offset", "length", "prev", "hash")
_KINDS = get_args(Kind)


def _plain(fields: Mapping[str, object]) -> dict[str, Any]:
    """`fields` as a reader will see them, so that writing them again gives the same bytes."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(fields), allow_nan=False))
    except (TypeError, RecursionError) as e:
        raise ValueError(f"ledger fields have to be JSON: {e}") from None
    return plain


def _canonical(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")


def _hash(body: Mapping[str, object]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()
