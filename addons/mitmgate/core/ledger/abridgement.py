"""What a ledger line says of an exchange, made short enough for a line.

Thousands of findings, or a model's name of a megabyte, are no reason to leave an exchange
unrecorded: its flow has all of it, and the line says how much is not listed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

MOST, LEAST = 1024, 64  # items of a list, characters of a text: what is tried first, and last
CUT = "..."


def abridged(fields: Mapping[str, object], room: int) -> dict[str, Any]:
    """`fields`, which are JSON, with long lists and texts cut so that all is `room` bytes at most.

    Of findings the first of each rule are kept before others, and `found` then counts all of them
    by rule. `left_out` says for each field how many items, or characters, are missing. Raises
    `ValueError` for what cannot be cut so far.
    """
    most = MOST
    while most >= LEAST:
        short = _shortened(fields, most)
        if len(json.dumps(short)) <= room:
            return short
        most //= 2
    raise ValueError(f"a ledger line cannot be cut to {room} bytes")


def _shortened(fields: Mapping[str, object], most: int) -> dict[str, Any]:
    short: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    for name, value in fields.items():
        if name == "findings" and isinstance(value, list) and len(value) > most:
            short["found"] = dict(Counter(str(each["rule"]) for each in value).most_common(most))
            value = _first_of_each(value)
        short[name] = _cut(value, most)
        if isinstance(value, str | list | tuple | dict) and len(value) > most:
            left_out[name] = len(value) - most
    return {**short, "left_out": left_out}


def _first_of_each(findings: list[Any]) -> list[Any]:
    """The first finding of each rule, then the others: whoever looks for a rule finds it."""
    first = {each["rule"]: i for i, each in reversed(list(enumerate(findings)))}
    return sorted(findings, key=lambda each: each is not findings[first[each["rule"]]])


def _cut(value: object, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + CUT
    if isinstance(value, list | tuple):
        return [_cut(each, most) for each in value[:most]]
    if isinstance(value, dict):
        return {_cut(name, most): _cut(value[name], most) for name in list(value)[:most]}
    return value
