"""Files and pictures that stand in a request: what they say they are, and the text in them.

In place they are data URLs, or base64 beside a declared type. Of each, type, name and size are
judged; what is inside only where it says that it is text, or says nothing, and reads as text. What
is in a PDF or a picture is not read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.segment import Segment

_DATA_URL = re.compile(r"(?is)\s*data:([^,]{0,200}),(.*)")
_TYPES = ("media_type", "mime_type", "mimeType", "mimetype", "format")
_NAMES = ("filename", "file_name", "fileName", "title", "name")
_PAYLOADS = ("data", "blob", "file_data", "bytes", "b64_json", "base64")
_PICTURES = ("images", "image_data")
_TEXTUAL = re.compile(
    r"(?a)text/.*|application/(?:.*[+/.-])?(?:json|xml|yaml|x-yaml|toml|javascript|ecmascript|"
    r"x-ndjson|jsonl|csv|sql|graphql|x-sh|x-python|x-www-form-urlencoded|rtf|svg)|image/svg.*|"
)
_PARTS: dict[str, Where] = {
    "system": "system",
    "developer": "system",
    "tool": "tool_results",
    "function": "tool_results",
    "tool_result": "tool_results",
    "function_call_output": "tool_results",
    "custom_tool_call_output": "tool_results",
}


def files(data: Any) -> list[Segment]:
    """What every file in a request says of itself, and the text of those that hold one.

    Raises `DocumentError` for a request nested too deeply.
    """
    try:
        return list(_walk("", data, {}, "prompt"))
    except RecursionError:
        raise DocumentError("nested too deeply") from None


def _walk(at: str, value: Any, around: dict[str, Any], part: Where) -> Iterator[Segment]:
    if isinstance(value, str):
        if found := _DATA_URL.fullmatch(value):
            yield from _file(at, *_of_url(found[1]), found[2], around, part)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _walk(f"{at}[{position}]", item, around, part)
    elif isinstance(value, dict):
        for says in (value.get("type"), value.get("role")):
            part = _PARTS.get(says, part) if isinstance(says, str) else part
        # A name may stand one object further out: Anthropic's document, OpenAI's file.
        own = {k: v for k, v in value.items() if isinstance(v, str) and k in (*_TYPES, *_NAMES)}
        if "data" in value or "file_data" in value or "blob" in value or "url" in value:
            own = {**{k: v for k, v in around.items() if k in _NAMES}, **own}
        for key, item in value.items():
            here = f"{at}.{key}" if at else key
            payload = key in _PAYLOADS or (key == "images" and at == "")
            if isinstance(item, str) and payload and not _DATA_URL.match(item):
                if own.keys() & {*_TYPES} or key != "data" or at.endswith("]"):
                    yield from _file(here, _declared(own), True, item, own, part)
            elif key in _PICTURES and isinstance(item, list):
                for position, each in enumerate(item):
                    place = f"{here}[{position}]"
                    if isinstance(each, str) and not _DATA_URL.match(each):
                        yield from _file(place, "image", True, each, own, part)
                    else:
                        yield from _walk(place, each, own, part)
            else:
                yield from _walk(here, item, own, part)


def _of_url(head: str) -> tuple[str, bool]:
    """The type of a data URL, and whether what follows is base64."""
    kind, *parameters = (each.strip().lower() for each in head.split(";"))
    return kind or "text/plain", "base64" in parameters


def _declared(around: dict[str, Any]) -> str:
    kind = next((around[name] for name in _TYPES if name in around), "").strip().lower()
    return f"audio/{kind}" if kind and "/" not in kind else kind.partition(";")[0]


def _file(
    at: str, kind: str, coded: bool, payload: str, around: dict[str, Any], part: Where
) -> Iterator[Segment]:
    size = len(payload.rstrip("=")) * 3 // 4 if coded else len(payload)
    name = next((around[each] for each in _NAMES if each in around), "")
    yield Segment("files", at, f"type: {kind}; name: {name}; size: {size}")
    if _TEXTUAL.fullmatch(kind) and (text := _text(payload, coded=coded)):
        yield Segment(part, at, text)


def _text(payload: str, *, coded: bool) -> str:
    """The text inside, "" where there is none that could be read."""
    try:
        if coded:
            plain = re.sub(r"\s+", "", payload).translate({45: "+", 95: "/"}).rstrip("=")
            raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        else:
            raw = unquote_to_bytes(payload)
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (binascii.Error, ValueError):
        return ""
