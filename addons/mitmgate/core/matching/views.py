"""What else a text says: the views in which rules look for their patterns.

Raw text alone is easily dodged with a zero-width space, a Cyrillic letter or base64. Each view
turns a text into texts to be searched as well; they are for matching only and are never forwarded.
Case is not folded here: rules ignore case, and folding it would break the parts of a rule that do
not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib import resources

import regex

from mitmgate.core.matching.decoding import decode

type View = Callable[[str], Iterable[str]]

ROUNDS = 2  # of decoding: base64 in base64 is read, a third layer is not
MANY = 32  # from so many different characters on, one translate() beats a replace() for each

# Not visible or not text: format characters (zero-width, bidi, tags), fillers, surrogates.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cs}\x80-\x84\x86-\x9f]")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r\x1c\x1d\x1e\x1f")
_TAG = regex.compile("[\U000e0020-\U000e007e]")
_TAGS = {0xE0000 + c: c for c in range(0x20, 0x7F)}  # invisible twins of ASCII, which models read


def raw(text: str) -> tuple[str]:
    """The text itself."""
    return (text,)


def normalised(text: str) -> Iterator[str]:
    """The text as a reader would see it, whitespace squeezed; if it is not ASCII, then again with
    ASCII for its look-alikes, then again without accents.

    ASCII text costs a few microseconds per KB; any other about ten times that.
    """
    yield _squeeze(clean(text))
    if not text.isascii():
        folded = fold(text)
        yield _squeeze(folded)
        if not folded.isascii():
            yield _squeeze(fold(_replace(unicodedata.normalize("NFKD", folded), _unmarked)))


def decoded(text: str) -> Iterator[str]:
    """The text with what is encoded in it decoded in place, up to `ROUNDS` times over."""
    encoded = fold(text)
    if not text.isascii() and _TAG.search(text):
        shown = text.translate(_TAGS)
        yield from normalised(shown)
        encoded = fold(shown)
    for _ in range(ROUNDS):
        plain = decode(encoded)
        if plain == encoded:
            return
        if not plain.isascii():
            yield plain
        yield from normalised(plain)
        encoded = fold(plain)


VIEWS: tuple[tuple[str, View], ...] = (
    ("raw", raw),
    ("normalised", normalised),
    ("decoded", decoded),
)


def views_of(text: str) -> Iterator[tuple[str, str]]:
    """Every different text to search for `text`, with the name of its view; the raw text first."""
    seen: set[str] = set()
    for name, view in VIEWS:
        for shown in view(text):
            if shown not in seen:
                seen.add(shown)
                yield name, shown


def clean(text: str) -> str:
    """`text` in NFKC and without what cannot be seen; digits of any script are ASCII."""
    if not text.isascii():
        text = _replace(unicodedata.normalize("NFKC", text), _cleaned)
    if not text.isascii():
        return text
    return text.encode("ascii").translate(None, _CONTROLS).decode("ascii")


def fold(text: str) -> str:
    """`clean(text)` with every character that looks like an ASCII one replaced by that."""
    text = clean(text)
    return text if text.isascii() else _replace(text, _lookalikes().get)


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _replace(text: str, replacement: Callable[[str], str | None]) -> str:
    changes = {c: new for c in set(text) if (new := replacement(c)) is not None}
    if len(changes) > MANY:
        return text.translate({ord(c): new for c, new in changes.items()})
    for character, new in changes.items():
        text = text.replace(character, new)
    return text


@lru_cache(maxsize=1 << 14)
def _cleaned(character: str) -> str | None:
    if character.isascii():
        return "" if ord(character) in _CONTROLS else None
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
