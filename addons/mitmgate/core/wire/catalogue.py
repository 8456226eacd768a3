"""The models that a server says it has, cut down to those that a caller may use.

Every array at the top of the answer is a list of models (`data` of the OpenAI API, `models` of
Ollama, both of llama.cpp). An entry stays when all names in it are usable; one without a name
that is known goes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mitmgate.core.wire.document import Document, DocumentError

_NAMES = ("id", "name", "model")


def only(raw: bytes, usable: Callable[[str], bool]) -> bytes:
    """`raw` without the models that are not `usable`, byte for byte as it was if all are.

    Raises `DocumentError` for what is no object in strict JSON.
    """
    document = Document(raw).data
    if not isinstance(document, dict):
        raise DocumentError("a list of models is an object")
    kept = {
        key: [entry for entry in value if _stays(entry, usable)]
        if isinstance(value, list)
        else value
        for key, value in document.items()
    }
    if kept == document:
        return raw
    return json.dumps(kept, ensure_ascii=raw.isascii(), separators=(",", ":")).encode()


def _stays(entry: Any, usable: Callable[[str], bool]) -> bool:
    if isinstance(entry, str):
        names = [entry]
    elif isinstance(entry, dict):
        names = [entry[key] for key in _NAMES if isinstance(entry.get(key), str)]
    else:
        names = []
    return bool(names) and all(map(usable, names))
