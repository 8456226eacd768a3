"""What stands in an answer where a value stood.

A fixed text, the value's last characters, or a pseudonym: a keyed hash, so that the same value gets
the same name under one key and nobody without the key can try values against it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

import pydantic

from mitmgate.core.rules import Model

Replacer = Callable[[str], str]


class KeepLast(Model):
    """The value's last letters and digits stay, the others become `*`; separators stay."""

    keep_last: Annotated[int, pydantic.Field(ge=1, le=8)]


class Pseudonym(Model):
    """`[CARD-3f9a1c]` for `pseudonym: CARD`."""

    pseudonym: Annotated[str, pydantic.Field(pattern=r"^[A-Z][A-Z0-9_-]{0,31}$")]


Fixed = Annotated[str, pydantic.Field(min_length=1, max_length=64)]
Replacement = Fixed | KeepLast | Pseudonym


def replacer(replacement: Replacement, key: bytes) -> Replacer:
    """The function that turns a value into what replaces it."""
    match replacement:
        case KeepLast(keep_last=count):
            return lambda value: _keep_last(value, count)
        case Pseudonym(pseudonym=name):
            return lambda value: f"[{name}-{_digest(value, name, key)}]"
    return lambda _: replacement


def _keep_last(value: str, count: int) -> str:
    signs = sum(char.isalnum() for char in value)
    hidden = signs - count if signs >= 2 * count else signs  # never show more than is hidden
    out = []
    for char in value:
        if char.isalnum() and hidden > 0:
            hidden -= 1
            char = "*"
        out.append(char)
    return "".join(out)


def _digest(value: str, name: str, key: bytes) -> str:
    """Six hex digits; separators and case do not make another person of the same number."""
    plain = "".join(char for char in value.casefold() if char not in " -()")
    return hmac.digest(key, f"{name}\0{plain}".encode("utf-8", "surrogatepass"), "sha256").hex()[:6]
