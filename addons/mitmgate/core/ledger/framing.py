"""Where one flow ends in a `.mitm` file.

A flow is a typed netstring, `<length>:<payload><type>` (https://tnetstrings.info, as mitmproxy
writes it). Only the outermost frame is looked at; the payload is never parsed.
"""

from __future__ import annotations

import re
from typing import BinaryIO

_HEAD = re.compile(rb"(0|[1-9][0-9]{0,11}):")
_TYPES = frozenset(b",;#^!~}]")
_LONGEST_HEAD = 13  # twelve digits and a colon


def is_frame(data: bytes) -> bool:
    """True if `data` is exactly one whole frame."""
    return _frame_length(data[:_LONGEST_HEAD]) == len(data) and data[-1] in _TYPES


def read_frame(file: BinaryIO) -> bytes:
    """The whole frame that begins where `file` stands. Raises `ValueError` where none does."""
    start = file.tell()
    length = _frame_length(file.read(_LONGEST_HEAD))
    if length is None:
        raise ValueError("no frame begins here")
    file.seek(start)
    return file.read(length)


def whole_frames(file: BinaryIO, start: int, end: int) -> tuple[int, int]:
    """How many whole frames stand in `file` from byte `start`, and where the last of them ends.

    Stops at the first thing that is no whole frame, or at byte `end`.
    """
    count = 0
    while start < end:
        file.seek(start)
        length = _frame_length(file.read(_LONGEST_HEAD))
        if length is None or start + length > end:
            break
        file.seek(start + length - 1)
        if file.read(1)[0] not in _TYPES:
            break
        start += length
        count += 1
    return count, start


def _frame_length(head: bytes) -> int | None:
    match = _HEAD.match(head)
    return match.end() + int(match[1]) + 1 if match else None
