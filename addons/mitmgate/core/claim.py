"""One claim of a token by name or by path, and words made of several.

A name that starts with a slash is a JSON pointer (RFC 6901) into claims inside claims, such as
`/kubernetes.io/namespace`; any other is a claim at the top, as it is spelled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

_PLACE = re.compile(r"\{([^{}]*)\}")
_MAX_WORDS = 200  # characters; a name is read by people


def find(claims: Mapping[str, Any], name: str) -> Any:
    """The value of the claim `name`, or None where there is none."""
    if not name.startswith("/"):
        return claims.get(name)
    value: Any = claims
    for step in name[1:].split("/"):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step.replace("~1", "/").replace("~0", "~"))
    return value


def words(value: Any) -> tuple[str, ...]:
    """A claim as the words that globs are held against: a list is several, an object is none.

    Numbers are decimal, booleans are `true` and `false`, whichever way the issuer spells them.
    """
    if isinstance(value, list):
        return tuple(word for each in value if not isinstance(each, list) for word in words(each))
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool | int | float):
        return (json.dumps(value),)
    return ()


def fill(template: str, claims: Mapping[str, Any]) -> str:
    """`template` with each `{claim}` replaced; "" if one is missing or could not be shown."""
    missing = False

    def value(place: re.Match[str]) -> str:
        nonlocal missing
        found = words(find(claims, place[1]))
        missing |= not found
        return ",".join(found)

    text = _PLACE.sub(value, template)
    return "" if missing or not text.isprintable() or len(text) > _MAX_WORDS else text


def _name(value: str) -> str:
    if not value or value == "/":
        raise ValueError("should be a claim's name, or a path such as /kubernetes.io/namespace")
    if value.startswith("/") and re.search(r"~(?![01])", value):
        raise ValueError("in a path, ~ is written ~0 and / within a name ~1 (RFC 6901)")
    return value


def _template(value: str) -> str:
    places = _PLACE.findall(value)
    if not places or re.search(r"[{}]", _PLACE.sub("", value)):
        raise ValueError("should have claims in braces, such as '{repository} on {ref}'")
    for place in places:
        _name(place)
    return value


ClaimName = Annotated[str, pydantic.AfterValidator(_name)]
Template = Annotated[str, pydantic.AfterValidator(_template)]
