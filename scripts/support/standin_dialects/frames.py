"""How events are framed: server-sent events, and JSON lines."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def data(value: dict[str, Any]) -> bytes:
    """A server-sent event without a name, as OpenAI's older endpoints send."""
    return f"data: {dumps(value)}\n\n".encode()


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event named by its `type`."""
    return f"event: {value['type']}\ndata: {dumps(value)}\n\n".encode()


def line(value: dict[str, Any]) -> bytes:
    return f"{dumps(value)}\n".encode()
