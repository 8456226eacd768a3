"""Tool calls as what they would do: every argument by its path, and the arguments read together.

A call is an object of arguments, often as JSON inside a string, and a command may be spread over
them: `{"cmd": "rm", "args": ["-rf", "/"]}` says `rm -rf /`. Names and schemas of tools are not
known here; what calls itself a call is taken for one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mitmgate.core.rules.rule import ANY, Where
from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.segment import Segment

_DEPTH = 5  # lists and objects deeper in are read value by value, and not as one text
_CALLS = ("function_call", "tool_calls", "tool_call")
_ARGUMENTS = ("arguments", "input", "action")
_DEFINITIONS = ("tools", "functions")  # of tools, not calls


def unfold(where: Where, address: str, value: Any) -> list[Segment]:
    """The arguments of one call, as JSON in a string or as they stand.

    Text that is no JSON is one argument of which nobody knows the name. So are arguments that
    other readers may read in another way: keys given twice, JSON that was cut off.
    """
    if isinstance(value, str):
        try:
            value = Document(value.encode("utf-8", "surrogatepass")).data
        except DocumentError:
            return [Segment(where, address, value, ANY)]
    try:
        return list(_values(where, address, "", value, 0))
    except RecursionError:
        raise DocumentError("nested too deeply") from None


def calls(data: Any) -> list[Segment]:
    """The arguments of every call in a request. Raises `DocumentError` if nested too deeply."""
    found: list[Segment] = []

    def walk(value: Any, at: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                here = f"{at}.{key}" if at else key
                if not at and key in _DEFINITIONS:
                    continue
                if at and key in _ARGUMENTS:
                    found.extend(unfold("tool_calls", here, item))
                elif key in _CALLS and isinstance(item, str):
                    found.extend(unfold("tool_calls", here, item))
                else:
                    walk(item, here)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                walk(item, f"{at}[{position}]")

    try:
        walk(data, "")
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    return found


def _values(where: Where, at: str, name: str, value: Any, depth: int) -> Iterator[Segment]:
    if isinstance(value, dict | list):
        words = list(_words(value)) if depth < _DEPTH else []
        if len(words) > 1:  # one alone is there anyway
            texts = [" ".join(words)]
            if isinstance(value, dict):  # a command before the list of its arguments
                single = {k: v for k, v in value.items() if isinstance(v, str)}
                texts.append(" ".join(_words({**single, **value})))
            for text in dict.fromkeys(texts):
                yield Segment(where, f"{at}.*", text, name)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            step = str(key).replace("~", "~0").replace("/", "~1")
            here = f"{at}.{key}" if isinstance(key, str) else f"{at}[{key}]"
            yield from _values(where, here, f"{name}/{step}", item, depth + 1)
    elif (word := _word(value)) is not None:
        yield Segment(where, at, word, name)
        if depth < _DEPTH and word.lstrip()[:1] in ("{", "[", '"') and isinstance(value, str):
            with contextlib.suppress(DocumentError):  # JSON inside a string, which models write
                inside = Document(word.encode("utf-8", "surrogatepass")).data
                yield from _values(where, at, name, inside, depth + 1)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _words(item)
    elif (text := _word(value)) is not None:
        yield text


def _word(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, bool) else str(value)
