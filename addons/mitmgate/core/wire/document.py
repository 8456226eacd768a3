"""JSON read strictly and edited in place.

`Document` parses once with the stdlib and finds every string literal once; since both go through
the text in the same order, the n-th literal is the n-th string of the walk. An edit replaces one
literal and copies every other byte as it was: numbers keep their digits, keys their order, and a
document without edits is returned byte for byte.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_STRINGS = 50_000  # each is looked at by every control, and the event loop is shared

_LARGE = 1 << 16  # characters; a pattern that goes through more keeps other threads waiting
_LITERAL = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_DIGITS = "-0123456789"  # what a number begins with
_TO_VALUE = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
# What some readers of lines take for the end of one; a server that escaped it had a reason.
_LINE_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class DocumentError(ValueError):
    """Text that is not one strict JSON document."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DocumentError(f"the key {twice[:60]!r} stands twice in one object")
    return mapping


def _no_constant(name: str) -> Any:
    raise DocumentError(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_plain = json.JSONDecoder()


def _literal(text: str, *, ascii_only: bool) -> str:
    literal = json.dumps(text, ensure_ascii=ascii_only)
    return _LINE_BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", literal)


def _literals(text: str) -> list[tuple[int, int]]:
    """Where the string literals of a JSON text are. It may stop after too many of them."""
    if len(text) <= _LARGE:
        return [found.span() for found in _LITERAL.finditer(text)]
    spans: list[tuple[int, int]] = []
    start = text.find('"')
    while start >= 0 and len(spans) <= MAX_STRINGS:
        end = text.find('"', start + 1)
        while _is_escaped(text, end):
            end = text.find('"', end + 1)
        spans.append((start, end + 1))
        start = text.find('"', end + 1)
    return spans


def _is_escaped(text: str, at: int) -> bool:
    """Whether an odd number of backslashes stands before `at`."""
    before = at - 1
    while text[before] == "\\":
        before -= 1
    return (at - before) % 2 == 0


class Document:
    """One JSON document. Raises `DocumentError` unless `raw` is strict JSON in UTF-8.

    Refused are duplicate keys, NaN and Infinity, unpaired surrogates and a byte order mark: each
    can be read in two ways, and what is judged must be what is forwarded.
    """

    __slots__ = ("_ascii", "_edits", "_literals", "_raw", "_text", "data")

    def __init__(self, raw: bytes) -> None:
        try:
            self._text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DocumentError("the text is not UTF-8") from None
        try:
            self.data: Any = _decoder.decode(self._text)
        except json.JSONDecodeError as e:
            raise DocumentError(f"not JSON: {e.msg} at character {e.pos}") from None
        except RecursionError:
            raise DocumentError("nested too deeply") from None
        except DocumentError:
            raise
        except ValueError:  # an integer of more digits than Python converts
            raise DocumentError("a number is too long") from None
        self._raw = raw
        self._ascii = raw.isascii()
        self._literals = _literals(self._text)
        if len(self._literals) > MAX_STRINGS:
            raise DocumentError(f"it holds more than {MAX_STRINGS} strings")
        self._edits: dict[int, tuple[int, str]] = {}
        if _SURROGATE_ESCAPE.search(self._text):
            self._refuse_unpaired()

    def _refuse_unpaired(self) -> None:
        for start, end in self._literals:
            literal = self._text[start:end]
            if _SURROGATE_ESCAPE.search(literal) and _SURROGATE.search(json.loads(literal)):
                raise DocumentError("a string holds half of a surrogate pair")

    @property
    def strings(self) -> int:
        """How many string literals there are, keys included."""
        return len(self._literals)

    @property
    def edited(self) -> bool:
        return bool(self._edits)

    def replace(self, index: int, text: str) -> None:
        """Put `text` in place of string literal number `index`."""
        start, end = self._literals[index]
        self._edits[start] = (end, _literal(text, ascii_only=self._ascii))

    def value(self, key_index: int) -> str:
        """The JSON of the value of the key that is literal `key_index`, as it came."""
        start, end = self._value(key_index)
        return self._text[start:end]

    def replace_value(self, key_index: int, json_text: str) -> None:
        """Put `json_text` in place of the value of the key that is literal `key_index`."""
        start, end = self._value(key_index)
        self._edits[start] = (end, json_text)

    def drop(self, key_index: int) -> None:
        """Put nothing in place of the value of the key that is literal `key_index`: `[]` for an
        array, 0 for a number, which clients want to be one, and `null` for anything else."""
        first = self.value(key_index)[0]
        self.replace_value(key_index, "[]" if first == "[" else "0" if first in _DIGITS else "null")

    def _value(self, key_index: int) -> tuple[int, int]:
        found = _TO_VALUE.match(self._text, self._literals[key_index][1])
        if found is None:
            raise ValueError(f"string literal {key_index} is not a key")
        _, end = _plain.raw_decode(self._text, found.end())
        return found.end(), end

    def encode(self) -> bytes:
        """The document with its edits; the very bytes it was made from when there are none."""
        if not self._edits:
            return self._raw
        pieces: list[str] = []
        done = 0
        for start in sorted(self._edits):
            if start < done:  # inside something dropped
                continue
            end, replacement = self._edits[start]
            pieces += (self._text[done:start], replacement)
            done = end
        pieces.append(self._text[done:])
        return "".join(pieces).encode("utf-8")
