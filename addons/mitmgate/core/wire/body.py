"""A whole body, request or answer: its texts, and the same bytes with some of them replaced."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire.arguments import Edit, edit_arguments
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.joining import joined_parts
from mitmgate.core.wire.schema import Kind, Leaf, Schema, address, leaves
from mitmgate.core.wire.segment import Segment

_WHERE: dict[Kind, Where] = {
    Kind.SYSTEM: "system",
    Kind.TOOLS: "tools",
    Kind.TOOL_CALLS: "tool_calls",
    Kind.TOOL_RESULTS: "tool_results",
}
_CALLS: dict[Where, Where] = {"answer": "answer.tool_calls", "prompt": "tool_calls"}
_JSON = (Kind.ARGUMENTS, Kind.TOOL_CALLS)  # may be JSON inside a string


class Body(Protocol):
    """What a control needs of a body."""

    def segments(self, where: Where) -> list[Segment]:
        """Every text; `where` is the part of those that have no part of their own."""

    def readings(self, where: Where) -> list[Segment]:
        """Every text, and again what is judged in another form: the arguments of tool calls."""

    def edit(self, edit: Edit) -> None:
        """Run every text through `edit`; copies of it in other form (logprobs) are dropped."""

    def encode(self) -> bytes:
        """The body with its edits, and the very bytes it was read from when there are none."""

    @property
    def size(self) -> int:
        """Bytes as read."""

    @property
    def edited(self) -> bool: ...

    @property
    def coverage(self) -> dict[str, int]:
        """How many strings of each kind there are, for the ledger."""


def part_of(kind: Kind, where: Where) -> Where:
    """The part that a string of `kind` is of; `where` is that of text with no part of its own."""
    if kind in (Kind.ARGUMENTS, Kind.CALLED):
        return _CALLS.get(where, where)
    return _WHERE.get(kind, where)


def edit_leaf(
    document: Document, leaf: Leaf, edit: Edit, edit_json: Edit, *, drop: bool = True
) -> Leaf:
    """Edit one string of a document in place, as its kind asks for; `drop` drops copies of text.

    Returns the leaf as it then stands, for the next edit.
    """
    if leaf.kind is Kind.BLOB:
        return leaf
    if leaf.kind is Kind.COPY:
        if drop:
            document.drop(leaf.index)
        return leaf
    text = (edit_json if leaf.kind in _JSON else edit)(leaf.text)
    if text == leaf.text:
        return leaf
    if leaf.part == "value":
        document.replace_value(leaf.index, text)
    else:
        document.replace(leaf.index, text)
    return replace(leaf, text=text)


class JsonBody:
    """A JSON body. Raises `DocumentError` when `raw` is not strict JSON.

    `every` looks at names and ids of the protocol as well: in a request, anybody can write there
    what they like. They are `names`, and no texts.
    """

    def __init__(self, raw: bytes, schema: Schema, *, every: bool = False) -> None:
        self.document = Document(raw)
        self.size = len(raw)
        found = leaves(self.document, schema, every=every)
        self.leaves = [leaf for leaf in found if leaf.kind is not Kind.META]
        self.names = [leaf for leaf in found if leaf.kind is Kind.META]

    def segments(self, where: Where, *, keys: bool = True) -> list[Segment]:
        """Every text; `keys` leaves out those that are keys of the document when False."""
        return [
            Segment(part_of(leaf.kind, where), address(leaf.path), leaf.text)
            for leaf in self.leaves
            if leaf.kind not in (Kind.BLOB, Kind.COPY) and (keys or leaf.part != "key")
        ]

    def readings(self, where: Where) -> list[Segment]:
        """Every text, the parts of lists of parts together, and the arguments of tool calls one by
        one and together. Choices are no parts: each is an answer of its own."""
        part = part_of(Kind.ARGUMENTS, where)
        together = joined_parts(self.segments(where, keys=False))
        return [
            *self.segments(where),
            *(each for each in together if not each.address.startswith("choices[*]")),
            *(
                segment
                for leaf in self.leaves
                if leaf.kind is Kind.ARGUMENTS and leaf.text
                for segment in unfold(part, address(leaf.path), leaf.text)
            ),
        ]

    def edit(self, edit: Edit) -> None:
        edit_json = partial(edit_arguments, edit=edit)
        self.leaves = [edit_leaf(self.document, leaf, edit, edit_json) for leaf in self.leaves]

    def encode(self) -> bytes:
        return self.document.encode()

    @property
    def edited(self) -> bool:
        return self.document.edited

    @property
    def coverage(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for leaf in self.leaves:
            counts[leaf.kind.value] = counts.get(leaf.kind.value, 0) + 1
        return counts


class UnreadBody(JsonBody):
    """A JSON body that another process has read: here, only once somebody asks for its texts.

    Do that in a thread. `coverage` is what the other process has counted.
    """

    def __init__(self, raw: bytes, schema: Schema, coverage: dict[str, int]) -> None:
        self.size = len(raw)
        self._raw = raw
        self._schema = schema
        self._coverage = coverage

    def __getattr__(self, name: str) -> Any:
        if name not in ("document", "leaves", "names"):
            raise AttributeError(name)
        super().__init__(self._raw, self._schema, every=True)
        return self.__dict__[name]

    def encode(self) -> bytes:
        return super().encode() if self.edited else self._raw

    @property
    def edited(self) -> bool:
        return "document" in self.__dict__ and super().edited

    @property
    def coverage(self) -> dict[str, int]:
        return self._coverage


class TextBody:
    """A body of plain text. Raises `DocumentError` when `raw` is not UTF-8."""

    def __init__(self, raw: bytes) -> None:
        try:
            self.text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DocumentError("the text is not UTF-8") from None
        self._original = self.text
        self.size = len(raw)

    def readings(self, where: Where) -> list[Segment]:
        return self.segments(where)

    def segments(self, where: Where) -> list[Segment]:
        return [Segment(where, "$", self.text)] if self.text else []

    def edit(self, edit: Edit) -> None:
        self.text = edit(self.text)

    def encode(self) -> bytes:
        return self.text.encode("utf-8")

    @property
    def edited(self) -> bool:
        return self.text != self._original

    @property
    def coverage(self) -> dict[str, int]:
        return {"text": 1} if self._original else {}
