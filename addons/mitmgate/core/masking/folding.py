"""Other ways to write an ASCII character, each folded to it, one character for one.

Full-width forms, digits of other scripts, non-breaking and typographic hyphens and spaces: models
write card and phone numbers with them, and so does someone who wants to get a value past a mask.
Lengths never change, so a match in the folded text has its place in the original. Characters that
look alike but are not the same by Unicode, and ones without width, are not folded. The letter of
an escaped line end or tab (`\\n` in JSON or source code) becomes a blank: no value begins with it.
"""

from __future__ import annotations

import unicodedata

_HYPHENS = "\u00ad\u2010\u2011\u2012\u2013\u2212\ufe63"
_SIGNS = "@.-+:/_%()="  # full-width; the others are punctuation in Chinese and Japanese prose
_ASCII = bytes(range(128))


def _table() -> dict[str, str]:
    table = dict.fromkeys(_HYPHENS, "-")
    for code in range(0x80, 0x20000):
        char = chr(code)
        if unicodedata.category(char) == "Zs":
            table[char] = " "
        elif (digit := unicodedata.decimal(char, None)) is not None:
            table[char] = str(digit)
        elif 0xFF01 <= code <= 0xFF5E or 0x1D400 <= code <= 0x1D7FF:  # full-width, mathematical
            plain = unicodedata.normalize("NFKC", char)
            if plain.isascii() and (plain.isalnum() or plain in _SIGNS):
                table[char] = plain
    return table


_TABLE = _table()
_FOLDABLE = frozenset(_TABLE)


def beyond_ascii(text: str) -> set[str]:
    """Which characters beyond ASCII stand in `text`."""
    if text.isascii():
        return set()
    data = text.encode("utf-8", "surrogatepass").translate(None, _ASCII)
    return set(data.decode("utf-8", "surrogatepass"))


def fold(text: str, beyond: set[str] | None = None) -> str:
    """`text` with the same length, and ASCII wherever Unicode says it means that.

    `beyond` is `beyond_ascii(text)`, for who has it already. What a character becomes depends on
    it and on the one before it alone.
    """
    for char in _FOLDABLE.intersection(beyond_ascii(text) if beyond is None else beyond):
        text = text.replace(char, _TABLE[char])
    if "\\" in text:
        for letter in "nrt":
            text = text.replace(f"\\{letter}", "\\ ")
    return text
