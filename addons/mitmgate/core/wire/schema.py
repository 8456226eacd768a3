"""Where text lives in a JSON document, written down as data.

A schema mirrors the document: a dict for an object, a one-element list for an array, a `Kind` for
a leaf or for everything below it, a function for what depends on a neighbouring value; the key `*`
stands for those not named. What a schema does not name is text: a field that a server adds
tomorrow is judged and masked today.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mitmgate.core.wire.document import Document, DocumentError


class Kind(enum.Enum):
    """What a string is to a gate."""

    META = "meta"  # names and ids the protocol defines: never text of a person or a model
    BLOB = "blob"  # base64 payloads and images: counted in the coverage, not read as text
    COVERED = "covered"  # stands inside something that is read, or dropped, as one
    COPY = "logprobs"  # repeats text in pieces too small to mask: dropped where text is masked
    TEXT = "text"  # whole text
    CALLED = "called"  # the name of a tool that an answer calls
    CHANNEL = "channel"  # one piece of a text that runs through a stream
    ARGUMENTS = "arguments"  # a tool call's arguments: JSON, inside a string or as it stands
    FRAGMENT = "fragment"  # one piece of ARGUMENTS that runs through a stream
    SYSTEM = "system"
    TOOLS = "tools"
    TOOL_CALLS = "tool_calls"
    TOOL_RESULTS = "tool_results"


type Schema = Kind | dict[str, Schema] | list[Schema] | Callable[[Any], Schema]
type Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One string of a document: its kind, its path, its literal's number and its text.

    `part` is what of the document that is: a string, a key, or the whole value of a key. A value
    is read as one where strings alone would say too little: its text is the JSON as it came.
    """

    kind: Kind
    path: Path
    index: int
    text: str
    part: Literal["string", "key", "value"] = "string"


# What the schema says a string is, it has to look like, or it is text like any other.
_PASSED = (Kind.META, Kind.COVERED)
_ANY = re.compile("(?s).*")
_LONG = re.compile(r"(?a)(?:data:[\w.;=/+-]{0,100};base64,)?[\w+/\r\n-]{64,}={0,2}[\r\n]*")
_TRUE_TO = {
    Kind.META: re.compile(r"(?a)[\w.:/+ -]{0,200}"),
    Kind.BLOB: re.compile(r"(?a)(?:data:[\w.;=/+-]{0,100};base64,)?[\w+/=\s-]*"),
}


def leaves(
    document: Document, schema: Schema, unknown: Kind = Kind.TEXT, *, every: bool = False
) -> list[Leaf]:
    """Every string of `document` that is not META, in order, with the keys not named in `schema`.

    `unknown` is the kind of what the schema does not name. In an array whose objects carry an
    integer `index`, that is their step in the path, since a stream sends them one by one. With
    `every`, META is there too, and a BLOB that is no payload, or too short for one, is text.
    Raises `DocumentError` for a document nested too deeply to be walked.
    """
    found: list[Leaf] = []
    literal = 0
    passed = (Kind.COVERED,) if every else _PASSED
    silent = passed if every else (*_PASSED, Kind.BLOB)  # whose keys are no text

    def walk(value: Any, node: Schema, path: Path) -> None:
        nonlocal literal
        if callable(node):
            node = node(value)
        if isinstance(value, str):
            kind = node if isinstance(node, Kind) else unknown
            form = _LONG if every and kind is Kind.BLOB else _TRUE_TO.get(kind, _ANY)
            if not form.fullmatch(value):
                kind = Kind.TEXT
            if kind not in passed:
                found.append(Leaf(kind, path, literal, value))
            literal += 1
        elif isinstance(value, dict):
            below, known = (node, {}) if isinstance(node, Kind) else (unknown, node)
            named: Mapping[str, Schema] = known if isinstance(known, dict) else {}
            for key, item in value.items():
                inner = named.get(key, named.get("*", below))
                here = (*path, key)
                if key not in named and inner not in silent:
                    found.append(Leaf(_whole(inner, unknown), here, literal, key, "key"))
                elif inner is Kind.COPY:
                    if item and item is not True and not isinstance(item, str):
                        found.append(Leaf(Kind.COPY, here, literal, "", "value"))
                    inner = (
                        unknown if isinstance(item, str) else Kind.COVERED
                    )  # no copy is a string
                elif inner is Kind.ARGUMENTS and item and isinstance(item, dict | list):
                    text = document.value(literal)
                    found.append(Leaf(Kind.ARGUMENTS, here, literal, text, "value"))
                    inner = Kind.COVERED
                literal += 1
                walk(item, inner, here)
        elif isinstance(value, list):
            each = (
                node[0] if isinstance(node, list) else node if isinstance(node, Kind) else unknown
            )
            for position, item in enumerate(value):
                step = item.get("index", position) if isinstance(item, dict) else position
                walk(item, each, (*path, step if type(step) is int else position))

    try:
        walk(document.data, schema, ())
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    if literal != document.strings:
        raise AssertionError("the walk and the literals of a document disagree")
    return found


def _whole(schema: Schema, unknown: Kind) -> Kind:
    """The kind of a key: whole text, even where the value beside it is a piece of a channel."""
    kind = schema if isinstance(schema, Kind) else unknown
    pieces = (Kind.CHANNEL, Kind.FRAGMENT, Kind.ARGUMENTS, Kind.BLOB)
    return Kind.TEXT if kind in pieces else kind


def lookalike(value: Any, schema: Schema) -> str | None:
    """The first key that differs from a key which the schema names there only in its case.

    Servers written in Go read such a key as the one that is named; others ignore it.
    """
    node = schema(value) if callable(schema) else schema
    if isinstance(value, dict) and isinstance(node, dict):
        folded = {name.casefold() for name in node}
        for key, item in value.items():
            if key not in node and key.casefold() in folded:
                return str(key)
            found = lookalike(item, node.get(key, node.get("*", Kind.TEXT)))
            if found is not None:
                return found
    elif isinstance(value, list) and isinstance(node, list):
        for item in value:
            found = lookalike(item, node[0])
            if found is not None:
                return found
    return None


def address(path: Path) -> str:
    """`("messages", 2, "content")` as `messages[2].content`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "$"
