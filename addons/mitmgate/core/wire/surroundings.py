"""What of a request is judged beside the texts of its body: query, headers, addresses, numbers.

The query's values as a server decodes them; headers by name; the addresses that the model server
would fetch from itself, which no rule on texts can tell from those that people talk about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.segment import Segment

# Keys whose string is an address, whatever it looks like; of others it has to look like one.
_ADDRESS = re.compile(r"(?i:(?:.*[_-])?ur[li]s?)|.*[a-z]U[Rr][LlIi]s?")
_MEDIA = ("image", "images", "audio", "video", "videos", "file", "files", "src", "href", "source")
_LIKE_ONE = re.compile(r"(?i)\s*(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}\S|\s*file:")
_HOST = re.compile(r"(?i).*(?:host|addr|url|uri|endpoint|(?:^|_)ips?$).*")
_IN_TEXT = re.compile(r"!\[[^\]]{0,500}\]\(\s*([^\s)]+)")  # a picture in Markdown
_SHORT = 5  # characters; true, false and most parameters are no longer
# The arguments of tool calls: what fetches these is the caller's own agent.
_CALLS = ("arguments", "input", "action")


def query(target: str) -> list[Segment]:
    """The query's names and values, decoded as forms are, and all of its values together."""
    pairs = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    found = [
        Segment("query", f"query.{name}", text)
        for name, value in pairs
        for text in dict.fromkeys((value, name))
        if text
    ]
    if len(pairs) > 1:
        found.append(Segment("query", "query.*", " ".join(value for _, value in pairs)))
    return found


def headers(fields: Iterable[tuple[str, str]]) -> list[Segment]:
    """Every header; one that stands several times is read as a list, too (RFC 9110)."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        clean = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        values.setdefault(name.lower(), []).append(clean)
    return [
        Segment("headers", f"headers.{name}", text, name)
        for name, each in values.items()
        for text in (each if len(each) == 1 else [*each, ", ".join(each)])
    ]


def fetches(data: Any, *, in_text: bool = False) -> list[Segment]:
    """Every address in a request from which the model server would fetch.

    `in_text` is for servers that fetch the pictures of a Markdown text (TGI). Raises
    `DocumentError` for a request nested too deeply.
    """
    try:
        return [
            Segment("fetches", at, text)
            for at, text in _addresses("", "", data, in_text=in_text)
            if text and not text.lstrip().lower().startswith("data:")
        ]
    except RecursionError:
        raise DocumentError("nested too deeply") from None


def numbers(data: Any) -> list[Segment]:
    """Numbers where a text may be: a template writes `"content": 4111111111111111` out as well."""
    found: list[Segment] = []

    def walk(at: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                here = f"{at}.{key}" if at else key
                if isinstance(item, int | float) and len(text := str(item)) > _SHORT:
                    found.append(Segment("prompt", here, text))
                walk(here, item)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, dict | list):
                    walk(f"{at}[{position}]", item)

    try:
        walk("", data)
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    return found


def _addresses(at: str, key: str, value: Any, *, in_text: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if _ADDRESS.fullmatch(key) or (key.lower() in _MEDIA and _LIKE_ONE.match(value)):
            yield at, value
        elif in_text:
            yield from ((at, found) for found in _IN_TEXT.findall(value))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _addresses(f"{at}[{position}]", key, item, in_text=in_text)
    elif isinstance(value, dict):
        for name, item in value.items():
            here = f"{at}.{name}" if at else name
            if name == "kv_transfer_params":
                yield from _peers(here, "", item)
            elif not at or name not in _CALLS:
                yield from _addresses(here, name, item, in_text=in_text)


def _peers(at: str, key: str, value: Any) -> Iterator[tuple[str, str]]:
    """vLLM's other half of a prefill, which it gets the cache from."""
    if isinstance(value, str) and _HOST.fullmatch(key):
        yield at, value
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _peers(f"{at}[{position}]", key, item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _peers(f"{at}.{name}", name, item)
