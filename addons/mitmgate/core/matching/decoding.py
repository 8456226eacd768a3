"""Encoded text made readable: percent and backslash escapes, hex and base64.

Decoding is done in place, so that a sentence of which only a word is encoded reads as a sentence.
What decodes to anything but text is left alone. Every decoding is shorter than what it replaces,
so the limit on bodies bounds it; there is no second limit behind which something could be hidden.
"""

from __future__ import annotations

import binascii
import re
from functools import cache

from mitmgate.core.matching import prefilter

# Each pattern begins with a literal character, which is what makes searching for it quick.
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*")
# `\x72\x6d`, `\u0072`, and the escapes of JSON inside JSON (tool call arguments)
_BACKSLASH = re.compile(
    r"\\(?:(?P<hex>x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2})*)"
    r"|(?P<utf16>u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*)"
    r"|(?P<character>[nrtbf\"'/\\]))"
)
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}
# `726d202d7266`, `72 6d 20 2d 72 66`, `0x72, 0x6d, ...`
_HEX = re.compile(r"[0-9A-Fa-f]{2}(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5,}")
# Both alphabets of base64, wrapped lines (40 characters and more) taken together.
_BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{11,}(?:(?<=[A-Za-z0-9+/_-]{40})[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]+)*={0,2}"
)
# Where hex or base64 may stand at all, for Hyperscan, which is ten times as quick as `re` at that:
# six pairs of hex digits; runs of base64 digits that are long and no word, or go on in a new line.
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_MAYBE_HEX = "[0-9A-Fa-f]{2}(?:[ :,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){5}"
_MAYBE_BASE64 = (
    "(?:^|[^A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{40}|[a-z+/_-]{11,}[A-Z0-9]|"
    + "|".join("[a-z+/_-]" * i + "[A-Z0-9]" + "[A-Za-z0-9+/_-]" * (10 - i) for i in range(11))
    + ")"
)
_IN_RUN = bytes(ord("x") if byte in _DIGITS else ord(" ") for byte in range(256))
_RUN = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_DISTINCTIVE = re.compile(r"[A-Z0-9]")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r")


def decode(text: str) -> str:
    """`text` with one layer of each encoding taken off; `text` itself if there is none."""
    text = _PERCENT.sub(_from_percent, text)
    text = _BACKSLASH.sub(_from_backslash, text)
    if not prefilter.hyperscan:
        return _BASE64.sub(_from_base64, _HEX.sub(_from_hex, text))
    if _ends(_MAYBE_HEX, text, once=True):
        text = _HEX.sub(_from_hex, text)
    if ends := _ends(_MAYBE_BASE64, text):
        text = _decode_runs(text, sorted(ends))
    return text


def _decode_runs(text: str, inside: list[int]) -> str:
    """As `_BASE64.sub` does, knowing that all that can be decoded lies before one of `inside`."""
    runs = text.encode("ascii", "replace").translate(_IN_RUN)
    pieces: list[str] = []
    done = 0
    for end in inside:
        if end > done and (found := _BASE64.match(text, runs.rfind(b" ", 0, end) + 1)):
            pieces += text[done : found.start()], _from_base64(found)
            done = found.end()
    return "".join([*pieces, text[done:]])


def _ends(pattern: str, text: str, once: bool = False) -> list[int]:
    """The offsets at which `pattern`, which is of ASCII, matches end in `text`; or one of them."""
    ends: list[int] = []

    def note(_: int, end: int) -> bool:
        ends.append(end)
        return once

    _scanner(pattern).scan(text.encode("ascii", "replace"), note)
    return ends


@cache
def _scanner(pattern: str) -> prefilter.Scanner:
    return prefilter.Scanner({0: pattern}, flags=0)


def _from_percent(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace")


def _from_backslash(found: re.Match[str]) -> str:
    if found["hex"]:
        return bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "replace")
    if found["utf16"]:
        return bytes.fromhex(found[0].replace("\\u", "")).decode("utf-16-be", "replace")
    return _CHARACTERS.get(found["character"], found["character"])


def _from_hex(found: re.Match[str]) -> str:
    digits = re.sub(r"0x|[ :,]", "", found[0])
    return _readable(bytes.fromhex(digits)) or found[0]


def _from_base64(found: re.Match[str]) -> str:
    if plain := _read(found[0]):
        return plain
    if "\n" in found[0]:  # the lines did not belong together after all
        return _RUN.sub(_line_from_base64, found[0])
    return found[0]


def _line_from_base64(found: re.Match[str]) -> str:
    return _read(found[0]) or found[0]


def _read(blob: str) -> str | None:
    if not _DISTINCTIVE.search(blob):
        return None  # a word: base64 of any text has capitals or digits
    digits = blob.encode().translate(_STANDARD, b"= \t\r\n")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # a single digit left over says nothing
    return _readable(binascii.a2b_base64(digits + b"=" * (-len(digits) % 4)))


def _readable(data: bytes) -> str | None:
    """`data` as text, or None if an eighth or more of it is not. UTF-16 of ASCII is read too."""
    data = data.replace(b"\0", b"")
    text = data.decode("utf-8", "replace")
    unreadable = text.count("\ufffd") + len(data) - len(data.translate(None, _CONTROLS))
    # Blanks, so that the first and last words stay words next to `0x` or what else stood there.
    return f" {text} " if text and unreadable * 8 < len(text) else None
