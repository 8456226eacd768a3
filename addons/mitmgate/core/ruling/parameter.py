"""Parameters of a request held against the bounds of a rule.

A parameter of another type than a number is out of bounds: servers take the string "100000" for
the number, and what nobody can compare must not pass. So is one that is spelled in another case,
which servers written in Go read as the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from mitmgate.core.rules.rule import Rule, path


def breaches(rule: Rule, data: Any) -> list[tuple[str, str]]:
    """The parameters of `rule` that break it, each with its value as JSON.

    A parameter that is null is not there. `data` is the request's body, None if it has none.
    """
    found = [(name, value) for name in rule.parameter for value in _find(data, name)]
    if rule.present is False and not found:
        return [(rule.parameter[0], "")]
    return [(name, json.dumps(value)) for name, value in found if _breaks(rule, value)]


def _find(data: Any, name: str) -> Iterator[Any]:
    """Every value that a server may find under a name or a path (RFC 6901)."""
    values = [data]
    for step in path(name)[1:].split("/"):
        wanted = step.replace("~1", "/").replace("~0", "~").casefold()
        values = [
            item
            for value in values
            if isinstance(value, dict)
            for key, item in value.items()
            if key.casefold() == wanted
        ]
    return (value for value in values if value is not None)


def _breaks(rule: Rule, value: Any) -> bool:
    if rule.present:
        return True
    if rule.max_entries is not None:
        if not isinstance(value, dict | list) or len(value) > rule.max_entries:
            return True
    if rule.max is None and rule.min is None:
        return False
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return True
    above = rule.max is not None and value > rule.max
    below = rule.min is not None and value < rule.min
    return above or below
