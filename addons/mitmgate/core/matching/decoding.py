"""Encoded text made readable: escapes, entities, character codes, hex, base32 and base64.

Decoding is done in place, so that a sentence of which only a word is encoded reads as a sentence.
What decodes to anything but text is left alone. No decoding is longer than what it replaces by
more than a blank at each end, so the limit on bodies bounds it; there is no second limit behind
which something could be hidden.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from itertools import islice

from mitmgate.core.matching import prefilter
from mitmgate.core.matching.reading import Edit, Reading, Span, ascii_bytes, spans_after

# Each pattern begins with a character, not with what is around it: that makes searching quick.
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*")
# `\x72\x6d`, `\u0072`, `\162` and the escapes of JSON inside JSON (tool call arguments)
_BACKSLASH = re.compile(
    r"\\(?:(?P<hex>x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2})*)"
    r"|(?P<utf16>u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*)"
    r"|u\{(?P<point>0*[0-9A-Fa-f]{1,6})\}"
    r"|(?P<octal>[0-3][0-7]{2}(?:\\[0-3][0-7]{2})*)"
    r"|(?P<character>[nrtbf\"'/\\]))"
)
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}
# `&lt;`, `&#105;`, `&#x69`: as `html.unescape` reads them, without a semicolon too
_ENTITY = re.compile(
    r"&(?:#0*(?P<decimal>[0-9]{1,7})(?![0-9])|#[xX]0*(?P<hex>[0-9A-Fa-f]{1,6})(?![0-9A-Fa-f])"
    r"|[A-Za-z][A-Za-z0-9]{1,31});?"
)
# `chr(105)+chr(103)`
_CHR = re.compile(
    r"[cC][hH][rR]W?\(\s?(?:0x)?[0-9A-Fa-f]{1,6}\s?\)"
    r"(?:[\s+.&,|]{0,5}[cC][hH][rR]W?\(\s?(?:0x)?[0-9A-Fa-f]{1,6}\s?\))*"
)
_CALL = re.compile(r"\(\s?(?:0x([0-9A-Fa-f]+)|([0-9]+))\s?\)")
# `105 103 110`, in decimal or octal; `01101001 01100111`
_CODES = re.compile(
    r"[0-9](?<![0-9A-Fa-f].)(?<![ ,][0-9][0-9A-Fa-f][ ,].)(?<![ ,][A-Fa-f][0-9][ ,].)"
    r"(?<![0-9][A-Fa-f], .)(?<![A-Fa-f][0-9], .)[0-9]{1,2}"
    r"(?:[ ,;\t\r\n]{1,3}[0-9]{2,3}(?![0-9A-Fa-f])){4,}+"
    r"(?![ ,]{1,2}(?:[0-9][A-Fa-f]|[A-Fa-f][0-9]))"
)
_BITS = re.compile(r"(?<![0-9])[01]{7,8}(?:[ ,]{0,2}[01]{7,8}){2,}(?![0-9])")
# `726d202d7266`, `72 6d 20 2d 72 66`, `0x72, 0x6d, ...`
# Not in the midst of other letters: there it is base64, of which it would be the ruin.
_HEX = re.compile(
    r"[0-9A-Fa-f](?:(?<![A-Za-z0-9].)|(?<=0[xX].))[0-9A-Fa-f]"
    r"(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5,}"
    r"(?=[0-9A-Fa-f]?(?![A-Za-z0-9]))"
)
_BASE32 = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{16,}={0,6}(?![A-Za-z0-9])")
# Both alphabets of base64, wrapped lines (40 characters and more) taken together.
_BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{11,}(?:(?<=[A-Za-z0-9+/_-]{40})[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]+)*={0,2}"
)
# Where such things may stand at all, for Hyperscan, which is ten times as quick as `re` at that:
# base64 in runs of its digits that are long and no word, or that go on in a new line.
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_MAYBE_BASE64 = (
    "(?:^|[^A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{40}|[a-z+/_-]{11,}[A-Z0-9]|"
    + "|".join("[a-z+/_-]" * i + "[A-Z0-9]" + "[A-Za-z0-9+/_-]" * (10 - i) for i in range(11))
    + ")"
)
_PAIRS, _NUMBERS, _BINARY, _CAPITALS, _CALLS = range(5)
_SIGNS = {
    _PAIRS: "[0-9A-Fa-f]{2}(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5}",
    _NUMBERS: r"(?:^|[^0-9])[0-9]{2,3}(?:[ ,;\t\r\n]{1,3}[0-9]{2,3}){4}",
    _BINARY: r"[01]{7,8}(?:[ ,]{0,2}[01]{7,8}){2}",
    _CAPITALS: "[A-Z2-7]{16}",
    _CALLS: "[cC][hH][rR]W?[(]",
}
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


def decode(text: str) -> str:
    """`text` with one layer of each encoding taken off; `text` itself if there is none."""
    return decoded(unescaped(Reading(text)))[0].text


def unescaped(reading: Reading) -> Reading:
    """Percent, backslash and entity escapes undone, which may stand anywhere in ordinary text."""
    for sign, pattern, plain in _ESCAPES:
        if sign in reading.text:
            reading = reading.edited(_substitutions(pattern, plain, reading.text))
    return reading


def escapes(text: str) -> list[Span]:
    """Where `unescaped` would change a text, as far as can be told before it has; ascending."""
    return sorted(
        (start, end)
        for sign, pattern, plain in _ESCAPES
        if sign in text
        for start, end, _ in _substitutions(pattern, plain, text)
    )


def decoded(reading: Reading) -> tuple[Reading, list[Span]]:
    """What is encoded as a whole decoded, and where in the result that stands."""
    spans: list[Span] = []
    for edits in _layers(reading.text):
        made = [edit for edit in edits(reading.text) if not _within(edit, spans)]
        if made:
            spans = spans_after(spans, made)
            reading = reading.edited(made)
    return reading, spans


def _within(edit: Edit, spans: list[Span]) -> bool:
    """Whether an edit is of what has only just been decoded: that is for the next round."""
    i = bisect_left(spans, edit[1], key=lambda span: span[0])
    return i > 0 and spans[i - 1][1] > edit[0]


def _layers(text: str) -> Iterator[Callable[[str], list[Edit]]]:
    """What takes off one encoding each, of those that may be in `text`."""
    if not prefilter.hyperscan:
        yield from (partial(_substitutions, pattern, plain) for _, pattern, plain in _CODED)
        yield lambda text: [
            edit for found in _BASE64.finditer(text) for edit in _from_run(text, found)
        ]
        return
    signs = _signs(text)
    for sign, pattern, plain in _CODED:
        if sign in signs:
            yield partial(_substitutions, pattern, plain)
    yield _blobs


def _substitutions(
    pattern: re.Pattern[str], plain: Callable[[re.Match[str]], str | None], text: str
) -> list[Edit]:
    return [
        (found.start(), found.end(), new)
        for found in pattern.finditer(text)
        if (new := plain(found)) is not None
    ]


def _blobs(text: str) -> list[Edit]:
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
        if not rubbish and (plain := _readable(raw)):
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


def _signs(text: str) -> set[int]:
    """Which of `_SIGNS` are in `text`."""
    found: set[int] = set()
    _signs_scanner().scan(ascii_bytes(text), lambda sign, _: found.add(sign))
    return found


@cache
def _signs_scanner() -> prefilter.Scanner:
    return prefilter.Scanner(_SIGNS, flags=0, once=frozenset(_SIGNS))


@cache
def _base64_scanner() -> prefilter.Scanner:
    return prefilter.Scanner({0: _MAYBE_BASE64}, flags=0)


def _from_percent(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace")


def _from_backslash(found: re.Match[str]) -> str:
    if found["hex"]:
        return bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "replace")
    if found["utf16"]:
        return bytes.fromhex(found[0].replace("\\u", "")).decode("utf-16-be", "replace")
    if found["octal"]:
        return bytes(int(code, 8) for code in found[0][1:].split("\\")).decode("utf-8", "replace")
    if found["point"]:
        return _character(int(found["point"], 16))
    return _CHARACTERS.get(found["character"], found["character"])


def _from_entity(found: re.Match[str]) -> str | None:
    if found["decimal"]:
        return html.unescape(f"&#{found['decimal']};")
    if found["hex"]:
        return html.unescape(f"&#x{found['hex']};")
    plain = html.unescape(found[0])
    return plain if plain != found[0] else None


def _from_calls(found: re.Match[str]) -> str | None:
    codes = [int(x, 16) if x else int(d) for x, d in _CALL.findall(found[0])]
    return "".join(map(_character, codes)) or None


def _from_bits(found: re.Match[str]) -> str | None:
    digits = re.sub("[ ,]", "", found[0])
    size = 7 if len(re.split("[ ,]", found[0])[0]) == 7 else 8
    if len(digits) % size:
        return None
    data = bytes(int(digits[i : i + size], 2) for i in range(0, len(digits), size))
    return _readable(data)


def _from_codes(found: re.Match[str]) -> str | None:
    """In any base in which it is text. `72 69 76 76 79 32` is in two, so both are shown."""
    numbers = re.findall("[0-9]+", found[0])
    shown = []
    for base in (10, 8, 16):
        if base == 8 and re.search("[89]", found[0]):
            continue
        values = [int(number, base) for number in numbers]
        if max(values) < 256 and (plain := _readable(bytes(values))):
            shown.append(plain)
    return "\n".join(shown) or None


def _character(code: int) -> str:
    return chr(code) if code < 0x110000 else "\ufffd"


def _from_hex(found: re.Match[str]) -> str | None:
    digits = re.sub(r"0x|[ :,]", "", found[0])
    return _readable(bytes.fromhex(digits))


def _from_base32(found: re.Match[str]) -> str | None:
    digits = found[0].rstrip("=")
    if len(digits) % 8 in (1, 3, 6):
        digits = digits[:-1]
    return _readable(base64.b32decode(digits + "=" * (-len(digits) % 8)))


_ESCAPES = (
    ("%", _PERCENT, _from_percent),
    ("\\", _BACKSLASH, _from_backslash),
    ("&", _ENTITY, _from_entity),
)
_CODED = (
    (_CALLS, _CHR, _from_calls),
    (_BINARY, _BITS, _from_bits),
    (_NUMBERS, _CODES, _from_codes),
    (_PAIRS, _HEX, _from_hex),
    (_CAPITALS, _BASE32, _from_base32),
)


def _read(blob: str) -> str | None:
    if not _DISTINCTIVE.search(blob):
        return None  # a word: base64 of any text has capitals or digits
    return _readable(binascii.a2b_base64(_padded(blob.encode().translate(_STANDARD, b"= \t\r\n"))))


def _padded(digits: bytes) -> bytes:
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # a single digit left says nothing
    return digits + b"=" * (-len(digits) % 4)


def _readable(data: bytes) -> str | None:
    """`data` as text, or None if an eighth or more of it is not. UTF-16 of ASCII is read too."""
    data = data.replace(b"\0", b"")
    text = data.decode("utf-8", "replace")
    unreadable = text.count("\ufffd") + len(data) - len(data.translate(None, _CONTROLS))
    # Blanks, so that the first and last words stay words next to `0x` or what else stood there.
    return f" {text} " if text and unreadable * 8 < len(text) else None
