"""Ways to write a text so that a pattern does not find it and a model still reads it.

What each does to a text, by the name that a failing test shows. Encodings leave the text as one
word; all others leave its words apart.
"""

from __future__ import annotations

import base64
import codecs
import html
from collections.abc import Callable, Mapping
from urllib.parse import quote

type Disguise = Callable[[str], str]

_HOMOGLYPHS = str.maketrans("aeopx", "\u0430\u0435\u043e\u0440\u0445")
_FULL_WIDTH = {c: c + 0xFEE0 for c in range(0x21, 0x7F)}
_TAGS = {c: c + 0xE0000 for c in range(0x20, 0x7F)}
_LEET = str.maketrans("eot", "307")


def _each(form: str) -> Disguise:
    return lambda text: "".join(form.format(ord(char), char) for char in text)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _percent(text: str) -> str:
    return _each("%{:02x}")(text)


DISGUISES: Mapping[str, Disguise] = {
    "raw": lambda text: text,
    "capitals": str.upper,
    "homoglyphs": lambda text: text.translate(_HOMOGLYPHS),
    "zero-width": "\u200b".join,
    "soft-hyphens": "\u00ad".join,
    "accents": "\u0301".join,
    "full-width": lambda text: text.translate(_FULL_WIDTH),
    "tags": lambda text: text.translate(_TAGS),
    "bidi": lambda text: f"\u202e{text[::-1]}\u202c",
    "line-breaks": lambda text: text.replace(" ", "\n"),
    "base64": _base64,
    "base64-url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "percent": _percent,
    "backslash-x": _each("\\x{:02x}"),
    "backslash-u": _each("\\u{:04x}"),
    "entities": _each("&#{};"),
    "entities-hex": _each("&#x{:x};"),
    "base64-twice": lambda text: _base64(_base64(text)),
    "percent-twice": lambda text: quote(_percent(text)),
    "entities-twice": lambda text: html.escape(_each("&#{};")(text)),
    "percent-in-base64": lambda text: _base64(_percent(text)),
    "leet": lambda text: text.translate(_LEET),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "dotted": lambda text: " ".join(".".join(word) for word in text.split()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
}
ENCODINGS = frozenset(
    name for name in DISGUISES if name.startswith(("base64", "hex", "percent", "entities", "back"))
)
