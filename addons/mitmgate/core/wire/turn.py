"""One text of a conversation, with who says it and what it is; and how a conversation ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire import speaker
from mitmgate.core.wire.schema import Leaf, Path, address
from mitmgate.core.wire.segment import Segment
from mitmgate.core.wire.speaker import Objects, Part

_ENDS = ("finish_reason", "stop_reason", "done_reason", "stop_type")
_WORD = re.compile(r"[a-z_.]{1,40}")


@dataclass(frozen=True, slots=True)
class Turn(Segment):
    """One text. `role` is who says it, `part` what it is, `message` and `call` (addresses) what it
    belongs to: texts of one message have one heading, a call's name and arguments stand together.
    """

    role: str = ""
    part: Part = "text"
    message: str = ""
    call: str = ""

    @property
    def is_top(self) -> bool:
        """Whether it is a field of the document itself."""
        return not {*".["} & {*self.address}


def turn_of(where: Where, path: Path, text: str, part: Part, role: str) -> Turn:
    message = speaker.message(path)
    call = address(speaker.call(path)) if part in ("call", "id", "arguments") else ""
    return Turn(
        where,
        address(path),
        text,
        role=role,
        part=part,
        message=address(message) if message else "",
        call=call,
    )


def is_type(leaf: Leaf) -> bool:
    return leaf.path[-1:] == ("type",) and bool(_WORD.fullmatch(leaf.text))


def figures(known: Objects) -> Iterator[tuple[str, str]]:
    """How it ended and what it took, by address."""
    vectors: list[int] = []
    for path, each in known.items():
        for name in _ENDS:
            if isinstance(each.get(name), str) and each[name]:
                yield address((*path, name)), each[name]
        usage = each.get("usage")
        if isinstance(usage, dict):
            numbers = [f"{k} {v}" for k, v in usage.items() if type(v) is int]
            if numbers:
                yield address((*path, "usage")), ", ".join(numbers)
        given = each.get("embeddings", [each.get("embedding")])
        for vector in given if isinstance(given, list) else ():
            if isinstance(vector, list):
                vectors.append(len(vector))
    if vectors:
        yield "embeddings", f"{len(vectors)} of {max(vectors)} numbers"


def fields(told: dict[str, str]) -> list[Turn]:
    return [Turn("answer", name, text, part="field") for name, text in told.items()]
