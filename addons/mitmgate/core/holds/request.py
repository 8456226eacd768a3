"""What a hold is bound to: one digest for "the same request by the same principal".

A retry may order its keys and space its JSON differently and is still the same request; any other
difference makes another one, so the approval of one request never lets another through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

_DOMAIN = b"mitmgate hold 1"
_encode = json.JSONEncoder(allow_nan=False).encode


class _Number(str):
    """A JSON number as it was written, so that 1e400 and 1e500 stay two requests."""

    __slots__ = ()


def digest(
    principal: str, method: str, path: str, body: bytes | object, rule_ids: Iterable[str]
) -> str:
    """The sha256, in hex, that identifies a request.

    `principal` is `Principal.name`; `path` includes the query; `body` is what came on the wire, or
    parsed JSON. Bytes that are not JSON, or are JSON that can be read in two ways (a key given
    twice), count byte for byte. Raises `ValueError` for an object that JSON cannot express.
    """
    parts = [principal, method, path, *_body(body), *sorted(set(rule_ids))]
    hashed = hashlib.sha256(_DOMAIN)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        # every part is led by its length: no two lists of parts give the same bytes
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.hexdigest()


def _body(body: bytes | object) -> tuple[str, str | bytes]:
    if not isinstance(body, bytes):
        try:
            return "json", _canonical(body)
        except RecursionError:
            raise ValueError("nested too deeply to be told from another request") from None
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse,
            object_pairs_hook=_mapping,
        )
        return "json", _canonical(value)
    except (ValueError, RecursionError):
        return "bytes", body


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _canonical(value: object) -> str:
    """RFC 8785 but for numbers, which it would round to doubles; here they keep every digit."""
    match value:
        case _Number():
            return str(value)
        case None | bool() | str() | int() | float():
            return _encode(value)
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key that is not a string")
            items = [f"{_encode(key)}:{_canonical(value[key])}" for key in sorted(value)]
            return "{" + ",".join(items) + "}"
        case list() | tuple():
            return "[" + ",".join([_canonical(item) for item in value]) + "]"
    raise ValueError(f"{type(value).__name__} is not JSON")
