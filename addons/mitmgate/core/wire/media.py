"""Media types (RFC 9110 section 8.3.1): what a body says it is."""

from __future__ import annotations

import re
from email.message import Message
from typing import Literal

Form = Literal["json", "sse", "ndjson", "text", "none", "other"]
_NAME = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)


def form(content_type: str) -> Form:
    """The form of a body, and "other" for any that cannot be read, a foreign charset included."""
    if not content_type.strip():
        return "none"
    header = Message()
    header["content-type"] = content_type
    parameters = header.get_params([])
    charsets = [str(value).lower() for name, value in parameters if name.lower() == "charset"]
    if charsets not in ([], ["utf-8"], ["utf8"], ["us-ascii"]):
        return "other"
    name = content_type.partition(";")[0].strip().lower()
    if not _NAME.fullmatch(name):  # the email package would call it text/plain
        return "other"
    if name in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        return "ndjson"
    if name == "text/event-stream":
        return "sse"
    if name == "application/json" or name.endswith("+json"):
        return "json"
    if name.startswith("text/"):
        return "text"
    return "other"
