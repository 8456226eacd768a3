"""Base64 in a text, both alphabets of it: alone, wrapped in lines, or in a path or a name.

Half of it is finding out that names of things are none: those decode as well, to rubbish.
"""

from __future__ import annotations

import binascii
import re
from functools import cache, lru_cache
from itertools import islice

from mitmgate.core.matching import prefilter
from mitmgate.core.matching.reading import Edit, ascii_bytes

# Wrapped lines (40 characters and more) taken together.
_BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{11,}(?:(?<=[A-Za-z0-9+/_-]{40})[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]+)*={0,2}"
)
# Where it may stand at all, for Hyperscan, which is ten times as quick as `re` at that: in runs of
# its digits that are long and no word, or that go on in a new line.
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_MAYBE_BASE64 = (
    "(?:^|[^A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{40}|[a-z+/_-]{11,}[A-Z0-9]|"
    + "|".join("[a-z+/_-]" * i + "[A-Z0-9]" + "[A-Za-z0-9+/_-]" * (10 - i) for i in range(11))
    + ")"
)
_IN_RUN = bytes(ord("x") if byte in _DIGITS else ord(" ") for byte in range(256))
_RUN = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_PIECE = re.compile(r"[A-Za-z0-9]{11,}={0,2}")
_SEPARATOR = re.compile(r"[+/_-](?=[A-Za-z0-9])(?=[a-z+/_-]{0,10}[A-Z0-9])(?=[A-Za-z0-9+/_-]{11})")
# Where one of these may be at all.
_GLUED = re.compile(
    rb"[+/_-](?=[a-z+/_-]{0,10}[A-Z0-9])[A-Za-z0-9+/_-]{11}|^(?=[a-z]{0,10}[A-Z0-9])[A-Za-z0-9]{11}"
)
_WORD = re.compile("[A-Z][a-z]+")  # `Installation`
KNOWN = 1 << 12  # words that need not be looked at again: names stand in a text time and again
GLUED = 4  # separators after which the rest of a run is tried as base64
_DISTINCTIVE = re.compile(r"[A-Z0-9]")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r")


def plainly(text: str) -> list[Edit]:
    """The base64 of `text`, found without Hyperscan."""
    return [edit for found in _BASE64.finditer(text) for edit in _from_run(text, found)]


def blobs(text: str) -> list[Edit]:
    """The base64 of `text`."""
    data = ascii_bytes(text)
    inside: list[int] = []  # ends of what any of it has, ascending
    _base64_scanner().scan(data, lambda _, end: inside.append(end))
    runs = data.translate(_IN_RUN)
    edits: list[Edit] = []
    done = 0
    for end in inside:
        if end <= done:
            continue
        start = runs.rfind(b" ", 0, end) + 1
        stop = runs.find(b" ", end)
        stop = len(runs) if stop < 0 else stop
        if stop - start < 40:  # cannot go on in the next line
            done = stop
            padded = stop + (_padding(data, stop) if data[stop : stop + 1] == b"=" else 0)
            if found := _from_word(data[start:padded], stop - start):
                edits += [(start + a, start + b, plain) for a, b, plain in found]
        elif match := _BASE64.match(text, start):
            done = match.end()
            edits += _from_run(text, match)
    return edits


@lru_cache(maxsize=KNOWN)
def _from_word(run: bytes, size: int) -> list[Edit]:
    """The base64 in a short run, of which the first `size` are digits and the rest is padding."""
    digits = run[:size]
    padded = digits[:-1] if size & 3 == 1 else digits + b"=="[: -size & 3]
    raw = binascii.a2b_base64(padded.translate(_STANDARD))
    # Most are names of things. Half the bytes to which those decode are above 127, and few of
    # these, if any, are UTF-8.
    shown = "" if raw.isascii() else raw.decode("utf-8", "replace")
    rubbish = shown.count("\ufffd")
    if 8 * rubbish < len(shown) or raw.isascii():
        if not rubbish and (plain := readable(raw)):
            return [(0, len(run), plain)]
        return _pieces(run.decode(), 0, len(run))
    if not digits.isalnum() and _GLUED.search(digits):
        return _pieces(run.decode(), 0, len(run))
    return []


def _from_run(text: str, found: re.Match[str]) -> list[Edit]:
    if plain := _read(found[0]):
        if "\ufffd" in plain and "\n" not in found[0]:
            return _pieces(text, found.start(), found.end())
        return [(found.start(), found.end(), plain)]
    if not _DISTINCTIVE.search(found[0]):
        return []
    if "\n" not in found[0]:
        return _pieces(text, found.start(), found.end())
    edits: list[Edit] = []  # the lines did not belong together after all
    for line in _RUN.finditer(text, found.start(), found.end()):
        if plain := _read(line[0]):
            edits.append((line.start(), line.end(), plain))
        else:
            edits += _pieces(text, line.start(), line.end())
    return edits


def _pieces(text: str, start: int, stop: int) -> list[Edit]:
    """Base64 that stands in a path or a name, whose separators are digits of base64 as well.

    What decodes to rubbish in part comes here, too.
    """
    if _WORD.fullmatch(text, start, stop):
        return []
    whole = [start, *(s.end() for s in islice(_SEPARATOR.finditer(text, start, stop), GLUED))]
    read = [(at, plain) for at in whole if (plain := _read(text[at:stop]))]
    if read:  # the one with the least rubbish in it
        at, plain = min(read, key=lambda each: each[1].count("\ufffd"))
        return [(at, stop, plain)]
    return [
        (piece.start(), piece.end(), plain)
        for piece in _PIECE.finditer(text, start, stop)
        if piece.end() - piece.start() < stop - start and (plain := _read(piece[0]))
    ]


def _padding(data: bytes, stop: int) -> int:
    return len(data[stop : stop + 2]) - len(data[stop : stop + 2].lstrip(b"="))


@cache
def _base64_scanner() -> prefilter.Scanner:
    return prefilter.Scanner({0: _MAYBE_BASE64}, flags=0)


def _read(blob: str) -> str | None:
    if not _DISTINCTIVE.search(blob):
        return None  # a word: base64 of any text has capitals or digits
    return readable(binascii.a2b_base64(_padded(blob.encode().translate(_STANDARD, b"= \t\r\n"))))


def _padded(digits: bytes) -> bytes:
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # a single digit left says nothing
    return digits + b"=" * (-len(digits) % 4)


def readable(data: bytes) -> str | None:
    """`data` as text, or None if an eighth or more of it is not. UTF-16 of ASCII is read too."""
    data = data.replace(b"\0", b"")
    text = data.decode("utf-8", "replace")
    unreadable = text.count("\ufffd") + len(data) - len(data.translate(None, _CONTROLS))
    # Blanks, so that the first and last words stay words next to `0x` or what else stood there.
    return f" {text} " if text and unreadable * 8 < len(text) else None
