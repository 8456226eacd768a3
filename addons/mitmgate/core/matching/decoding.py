"""Encoded text made readable: percent and backslash escapes, hex and base64.

Decoding is done in place, so that a sentence of which only a word is encoded reads as a sentence.
What decodes to anything but text is left alone. Every decoding is shorter than what it replaces,
so the limit on bodies bounds it; there is no second limit behind which something could be hidden.
"""

from __future__ import annotations

import binascii
import re

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
_RUN = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_DISTINCTIVE = re.compile(r"[A-Z0-9]")
_STANDARD = str.maketrans("-_", "+/", "= \t\r\n")
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in b"\t\n\v\f\r")


def decode(text: str) -> str:
    """`text` with one layer of each encoding taken off; `text` itself if there is none."""
    text = _PERCENT.sub(_from_percent, text)
    text = _BACKSLASH.sub(_from_backslash, text)
    text = _HEX.sub(_from_hex, text)
    return _BASE64.sub(_from_base64, text)


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
    digits = blob.translate(_STANDARD)
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]  # a single digit left over says nothing
    return _readable(binascii.a2b_base64(digits + "=" * (-len(digits) % 4)))


def _readable(data: bytes) -> str | None:
    """`data` as text, or None if an eighth or more of it is not. UTF-16 of ASCII is read too."""
    data = data.replace(b"\0", b"")
    text = data.decode("utf-8", "replace")
    unreadable = text.count("\ufffd") + len(data) - len(data.translate(None, _CONTROLS))
    # Blanks, so that the first and last words stay words next to `0x` or what else stood there.
    return f" {text} " if text and unreadable * 8 < len(text) else None
