"""What else a text says: the views in which rules look for their patterns.

Raw text alone is easily dodged with a zero-width space, a Cyrillic letter or base64. Each view
turns a text into texts to be searched as well; they are for matching only and are never forwarded.
Case is not folded here: rules ignore case, and folding it would break the parts of a rule that do
not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib import resources

import regex

from mitmgate.core.matching.decoding import decode

ROUNDS = 2  # of decoding: base64 in base64 is read, a third layer is not
MANY = 32  # from so many different characters on, one translate() beats a replace() for each

# Not visible or not text: format characters (zero-width, bidi, tags), fillers, surrogates.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cs}\x80-\x84\x86-\x9f]")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r\x1c\x1d\x1e\x1f")
_TAG = regex.compile("[\U000e0020-\U000e007e]")
_TAGS = {0xE0000 + c: c for c in range(0x20, 0x7F)}  # invisible twins of ASCII, which models read
_ASCII = bytes(range(128))
_BLANKS = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
_OTHER_BLANKS = [c for c in map(chr, range(128, 0x3001)) if c.isspace()]


def views_of(text: str) -> Iterator[tuple[str, str]]:
    """Every different text to search for `text`, with the name of its view; the raw text first.

    What is encoded is decoded in place, up to `ROUNDS` times over. ASCII costs a few microseconds
    per KB, more if something in it looks encoded; any other text several times that.
    """
    yield "raw", text
    seen = [text]  # few, and comparing costs less than a hash of each
    for name, shown in _others(text):
        if shown not in seen:
            seen.append(shown)
            yield name, shown


def _others(text: str) -> Iterator[tuple[str, str]]:
    cleaned = clean(text)
    folded = _latinised(cleaned)
    for shown in _normalised(cleaned, folded):
        yield "normalised", shown
    if not text.isascii() and _TAG.search(text):
        cleaned = clean(text.translate(_TAGS))
        folded = _latinised(cleaned)
        for shown in _normalised(cleaned, folded):
            yield "decoded", shown
    for _ in range(ROUNDS):
        plain = decode(folded)
        if plain == folded:
            return
        if not plain.isascii():
            yield "decoded", plain
        cleaned = clean(plain)
        folded = _latinised(cleaned)
        for shown in _normalised(cleaned, folded):
            yield "decoded", shown


def _normalised(cleaned: str, folded: str) -> Iterator[str]:
    """The text as a reader would see it, whitespace squeezed; if it is not ASCII, then again with
    ASCII for its look-alikes, then again without accents.
    """
    yield _squeeze(cleaned)
    if folded != cleaned:
        yield _squeeze(folded)
    if not folded.isascii():
        yield _squeeze(fold(_replace(unicodedata.normalize("NFKD", folded), _unmarked)))


def clean(text: str) -> str:
    """`text` in NFKC and without what cannot be seen; digits of any script are ASCII."""
    if not text.isascii():
        text = _replace(unicodedata.normalize("NFKC", text), _cleaned)
    data = text.encode("utf-8", "surrogatepass")
    visible = data.translate(None, _CONTROLS)
    return text if len(visible) == len(data) else visible.decode("utf-8", "surrogatepass")


def fold(text: str) -> str:
    """`clean(text)` with every character that looks like an ASCII one replaced by that."""
    return _latinised(clean(text))


def _latinised(cleaned: str) -> str:
    return cleaned if cleaned.isascii() else _replace(cleaned, _lookalikes().get)


def _squeeze(text: str) -> str:
    """`" ".join(text.split())`, without making a string of every word."""
    if not text.isascii() and any(blank in text for blank in _OTHER_BLANKS):
        return " ".join(text.split())
    data = text.encode("utf-8", "surrogatepass").translate(_BLANKS)
    if b"  " in data or data[:1] == b" " or data[-1:] == b" ":
        parts = map(bytes.strip, data.split(b"  "))
        data = b" ".join([part for part in parts if part])
    return data.decode("utf-8", "surrogatepass")


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
