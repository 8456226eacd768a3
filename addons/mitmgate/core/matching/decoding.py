"""Encoded text made readable: escapes, entities, character codes, hex, base32 and base64.

Decoding is done in place, so that a sentence of which only a word is encoded reads as a sentence.
What decodes to anything but text is left alone. No decoding is longer than what it replaces by
more than a blank at each end, so the limit on bodies bounds it; there is no second limit behind
which something could be hidden.
"""

from __future__ import annotations

import base64
import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache, partial

from mitmgate.core.matching import prefilter
from mitmgate.core.matching.blobs import blobs, plainly, readable
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
# Where such things may stand at all, for Hyperscan, which is ten times as quick as `re` at that.
_PAIRS, _NUMBERS, _BINARY, _CAPITALS, _CALLS = range(5)
_SIGNS = {
    _PAIRS: "[0-9A-Fa-f]{2}(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5}",
    _NUMBERS: r"(?:^|[^0-9])[0-9]{2,3}(?:[ ,;\t\r\n]{1,3}[0-9]{2,3}){4}",
    _BINARY: r"[01]{7,8}(?:[ ,]{0,2}[01]{7,8}){2}",
    _CAPITALS: "[A-Z2-7]{16}",
    _CALLS: "[cC][hH][rR]W?[(]",
}


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
        yield plainly
        return
    signs = _signs(text)
    for sign, pattern, plain in _CODED:
        if sign in signs:
            yield partial(_substitutions, pattern, plain)
    yield blobs


def _substitutions(
    pattern: re.Pattern[str], plain: Callable[[re.Match[str]], str | None], text: str
) -> list[Edit]:
    return [
        (found.start(), found.end(), new)
        for found in pattern.finditer(text)
        if (new := plain(found)) is not None
    ]


def _signs(text: str) -> set[int]:
    """Which of `_SIGNS` are in `text`."""
    found: set[int] = set()
    _signs_scanner().scan(ascii_bytes(text), lambda sign, _: found.add(sign))
    return found


@cache
def _signs_scanner() -> prefilter.Scanner:
    return prefilter.Scanner(_SIGNS, flags=0, once=frozenset(_SIGNS))


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
    return readable(data)


def _from_codes(found: re.Match[str]) -> str | None:
    """In any base in which it is text. `72 69 76 76 79 32` is in two, so both are shown."""
    numbers = re.findall("[0-9]+", found[0])
    shown = []
    for base in (10, 8, 16):
        if base == 8 and re.search("[89]", found[0]):
            continue
        values = [int(number, base) for number in numbers]
        if max(values) < 256 and (plain := readable(bytes(values))):
            shown.append(plain)
    return "\n".join(shown) or None


def _character(code: int) -> str:
    return chr(code) if code < 0x110000 else "\ufffd"


def _from_hex(found: re.Match[str]) -> str | None:
    digits = re.sub(r"0x|[ :,]", "", found[0])
    return readable(bytes.fromhex(digits))


def _from_base32(found: re.Match[str]) -> str | None:
    digits = found[0].rstrip("=")
    if len(digits) % 8 in (1, 3, 6):
        digits = digits[:-1]
    return readable(base64.b32decode(digits + "=" * (-len(digits) % 8)))


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
