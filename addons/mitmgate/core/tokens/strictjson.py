"""JSON objects as two parsers could not disagree about them.

Names that stand twice and NaN are refused: what one reader takes for the issuer, another may not.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object in `content` (UTF-8, no BOM). Raises `ValueError` with a short reason."""
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except json.JSONDecodeError as e:
        raise ValueError(f"not JSON: {e.msg}") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
