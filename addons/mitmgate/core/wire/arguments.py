"""A tool call's arguments: JSON that the model wrote, edited so that it stays JSON.

Numbers are edited here, unlike anywhere else: a card number is one with or without quotes. What
is not strict JSON is edited as text, and so are its string literals without their escapes, since
callers read more than strict JSON: the beginning of a call that was cut off, keys given twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.schema import Kind, leaves

type Edit = Callable[[str], str]  # a text to what shall stand in its place

_STRING = r'"([^"\\]*(?:\\.[^"\\]*)*)'
_OPEN = re.compile(_STRING + r'\\?("|\Z)', re.DOTALL)  # the last one may be cut off
_NUMBER = re.compile(_STRING + r'"|(-?)(\d[\d.eE+-]{4,})', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def edit_arguments(text: str, edit: Edit) -> str:
    """`text` with `edit` applied to each string and number, and to the whole where it stays JSON.

    The whole is looked at because a key may say what its value is: `{"password": "..."}`.
    """
    try:
        document = Document(text.encode("utf-8", "surrogatepass"))
        found = leaves(document, Kind.TEXT)
    except DocumentError:
        return edit(_OPEN.sub(lambda literal: _literal(literal, edit), text))
    for leaf in found:
        edited = edit(leaf.text)
        if edited != leaf.text:
            document.replace(leaf.index, edited)
    text = document.encode().decode("utf-8")
    text = _NUMBER.sub(lambda number: _number(number, edit), text)
    whole = edit(text)
    return whole if whole != text and _is_json(whole) else text


def _number(found: re.Match[str], edit: Edit) -> str:
    _, sign, digits = found.groups()
    if digits is None:  # a string
        return found[0]
    edited = edit(digits)
    return found[0] if edited == digits else json.dumps(sign + edited)


def _literal(found: re.Match[str], edit: Edit) -> str:
    """One string literal of broken JSON; left alone unless `edit` changes what it means."""
    if "\\" not in found[0]:
        return found[0]  # as it means what it says, editing the whole text will do
    meant = _ESCAPE.sub(_unescape, found[1])
    meant = meant.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    edited = edit(meant)
    if edited == meant:
        return found[0]
    literal = json.dumps(edited, ensure_ascii=False)
    return literal if found[2] else literal[:-1]


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else _CONTROLS.get(found[2], found[2])


def _is_json(text: str) -> bool:
    try:
        Document(text.encode("utf-8"))
    except DocumentError:
        return False
    return True
