"""A text as a reader sees it: NFKC, nothing invisible, ASCII for its look-alikes, single blanks.

Case is not folded here: rules ignore case, and folding it would break the parts of a rule that do
not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import resources

import regex

MANY = 32  # from so many different characters on, one translate() beats a replace() for each

# Not visible or not text: format characters (zero-width, bidi, tags), fillers, surrogates.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cs}\x80-\x84\x86-\x9f]")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r\x1c\x1d\x1e\x1f")
_ASCII = bytes(range(128))
_BLANKS = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
_OTHER_BLANKS = regex.compile(r"[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_TAGS = {0xE0000 + c: c for c in range(0x20, 0x7F)}  # invisible twins of ASCII, which models read


def clean(text: str) -> str:
    """`text` in NFKC and without what cannot be seen; digits of any script are ASCII."""
    if not text.isascii():
        text = _replace(unicodedata.normalize("NFKC", text), _cleaned)
    data = text.encode("utf-8", "surrogatepass")
    visible = data.translate(None, _CONTROLS)
    return text if len(visible) == len(data) else visible.decode("utf-8", "surrogatepass")


def untag(text: str) -> str:
    """`text` with tag characters, which nobody sees, as the ASCII that they stand for."""
    return text.translate(_TAGS)


def fold(text: str) -> str:
    """`clean(text)` with every character that looks like an ASCII one replaced by that."""
    return latinise(clean(text))


def latinise(cleaned: str) -> str:
    """A clean text with every character that looks like an ASCII one replaced by that."""
    return cleaned if cleaned.isascii() else _replace(cleaned, _lookalikes().get)


def unaccent(folded: str) -> str:
    """A folded text without accents and other marks."""
    return fold(_replace(unicodedata.normalize("NFKD", folded), _unmarked))


def unmark(folded: str) -> str:
    """A folded text without marks that are no part of a letter: struck out, underlined."""
    return folded if folded.isascii() else _replace(folded, _unmarked)


def squeeze(text: str) -> str:
    """`text` with every run of white space as one blank, without making a string of every word."""
    if not text.isascii():
        text = _OTHER_BLANKS.sub(" ", text)
    data = text.encode("utf-8", "surrogatepass").translate(_BLANKS)
    if b"  " not in data:
        return data.decode("utf-8", "surrogatepass")
    parts = map(bytes.strip, data.split(b"  "))
    squeezed = b" ".join([part for part in parts if part])
    before = b" " if data[:1] == b" " and squeezed else b""
    after = b" " if data[-1:] == b" " else b""
    return (before + squeezed + after).decode("utf-8", "surrogatepass")


def _replace(text: str, replacement: Callable[[str], str | None]) -> str:
    """`text` with its characters beyond ASCII replaced, except where `replacement` says None."""
    beyond = text.encode("utf-8", "surrogatepass").translate(None, _ASCII)
    different = set(beyond.decode("utf-8", "surrogatepass"))
    changes = {c: new for c in different if (new := replacement(c)) is not None}
    if len(changes) > MANY:
        return text.translate({ord(c): new for c, new in changes.items()})
    for character, new in changes.items():
        text = text.replace(character, new)
    return text


@lru_cache(maxsize=1 << 14)
def _cleaned(character: str) -> str | None:
    if _INVISIBLE.match(character):
        return ""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    # Ignoring case compares character by character; sharp s and its like need two.
    return folded if len(folded := character.casefold()) > 1 else None


def _unmarked(character: str) -> str | None:
    return "" if unicodedata.category(character) in ("Mn", "Me") else None


@cache
def _lookalikes() -> dict[str, str]:
    table = resources.files(__package__).joinpath("confusables.txt").read_text("utf-8")
    rows = (line.split() for line in table.splitlines() if not line.startswith("# "))
    return {chr(int(code, 16)): ascii_twin for ascii_twin, *codes in rows for code in codes}
