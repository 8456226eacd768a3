"""What the ledger says of a file that retention took away, so that the gap it leaves is no fault.

The worker that removes a file first says so in a `removed` line of its own ledger, signed if there
is a key. Nobody else can: a line is chained, and with a public key only a signed one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mitmgate.core.ledger.chain import BadLine, Line, read_line
from mitmgate.core.ledger.signature import Verifier

Reason = Literal["age", "size"]

_MARK = b'"kind":"removed"'  # canonical JSON: a quote within a string would be escaped


@dataclass(frozen=True, slots=True)
class Removal:
    """`file` (a `.mitm` name) with its records `first` to `last`; `last_hash` is its last line's.

    `bytes` is what it took on disk, `time` when it was removed, in Unix seconds.
    """

    file: str
    first: int
    last: int
    last_hash: str
    entries: int
    bytes: int
    reason: Reason
    time: float

    @classmethod
    def of(cls, line: Line) -> Removal:
        """What a `removed` line says. Raises `BadLine`."""
        said: Any = {name: line.fields.get(name) for name in cls.__slots__}
        numbers = (said["first"], said["last"], said["entries"], said["bytes"])
        texts = (said["file"], said["last_hash"], said["reason"])
        if (
            not all(type(n) is int for n in numbers)
            or not all(isinstance(text, str) for text in texts)
            or not isinstance(said["time"], float | int)
        ):
            raise BadLine("does not say what was removed", line.seq)
        return cls(**said)

    @property
    def fields(self) -> Mapping[str, object]:
        """For `core.ledger.chain.link`."""
        return asdict(self)

    def precedes(self, head: Line) -> bool:
        """Whether a file with this `head` goes on where the removed one ended."""
        return (head.prev, head.seq) == (self.last_hash, self.last + 1)


def removals(ledger: Path, verifier: Verifier | None) -> Iterator[Removal]:
    """What a ledger says was removed, of what is signed if there is a `verifier`.

    Only the lines are looked at, not the chain. Raises `OSError`.
    """
    with ledger.open("rb") as lines:
        for raw in lines:
            if _MARK not in raw:
                continue
            try:
                line = read_line(raw)
                if line.kind == "removed" and (verifier is None or line.signed_by(verifier)):
                    yield Removal.of(line)
            except BadLine:
                continue  # no proof of anything; `verify` reports it
