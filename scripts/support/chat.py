"""A client of OpenAI's chat endpoint for the demo, from the standard library alone.

The demo installs no SDK; callers have their own, and `tests/e2e` proves that those work.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what the model said, or the error's message; header names are in lower case."""

    status: int
    headers: dict[str, str]
    text: str
    code: str = ""
    complete: bool = True  # a stream ended with its own last event


def ask(
    url: str,
    body: dict[str, Any],
    token: str = "",
    *,
    heard: Callable[[str], None] = lambda _: None,
    timeout: float = 120,
) -> Answer:
    """POST `body` to `/v1/chat/completions`. `heard` gets each piece of a stream as it arrives.

    Raises `OSError` and `http.client.HTTPException` when there is no proper answer.
    """
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        if response.status != 200:
            error = json.loads(response.read())["error"]
            return Answer(response.status, names, error["message"], str(error.get("code", "")))
        if not body.get("stream"):
            message = json.loads(response.read())["choices"][0]["message"]
            return Answer(200, names, message["content"])
        text, complete = _read_stream(response, heard)
        return Answer(200, names, text, complete=complete)
    finally:
        connection.close()


def _read_stream(
    response: http.client.HTTPResponse, heard: Callable[[str], None]
) -> tuple[str, bool]:
    text, complete = "", False
    for line in response:
        data = line.decode().strip().removeprefix("data: ")
        if data == "[DONE]":
            complete = True
        elif data:
            for choice in json.loads(data).get("choices", []):
                piece = choice["delta"].get("content") or ""
                text += piece
                heard(piece)
    return text, complete
