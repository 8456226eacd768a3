"""Requests and answers from files: HTTP/1.1 as it is on the wire, or a body alone.

For looking at one message without a gate. A body alone is put into a request of the given method
and path, or into an answer with status 200.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from mitmproxy import http
from mitmproxy.net.http import http1

_REQUEST = re.compile(rb"[A-Z]{1,20} \S+ HTTP/\d(?:\.\d)?[ \t]*\r?\n")
_RESPONSE = re.compile(rb"HTTP/\d(?:\.\d)? \d{3}\b[^\n]*\n")
_END = re.compile(rb"\r?\n\r?\n|\Z")
_VERSION = re.compile(rb"(HTTP/\d)(?=[ \r\n]|\Z)")


def is_request(data: bytes) -> bool:
    """Whether a file has a whole request in it, and not the body of one."""
    return bool(_REQUEST.match(data))


def request_of(
    data: bytes, method: str, target: str, headers: Sequence[tuple[str, str]]
) -> http.Request:
    """The request in a file; `method` and `target` are for a body alone, `headers` are added.

    A body alone is JSON, unless the headers say otherwise. Raises `ValueError`.
    """
    if is_request(data):
        lines, body = _parts(data)
        request = http1.read_request_head(lines)
        body = _body(request, body)
    else:
        request, body = http.Request.make(method, "http://gate/"), data
        request.path = target
        request.headers["content-length"] = str(len(data))
        if not any(name.lower() == "content-type" for name, _ in headers) and data:
            request.headers["content-type"] = "application/json"
    for name, value in headers:
        request.headers.add(name, value)
    request.raw_content = body
    return request


def response_of(data: bytes) -> http.Response:
    """The answer in a file. What a body alone is shows in its beginning. Raises `ValueError`."""
    if _RESPONSE.match(data):
        lines, body = _parts(data)
        response = http1.read_response_head(lines)
        body = _body(response, body)
    else:
        response, body = http.Response.make(200, b"", {"content-type": _kind(data)}), data
    response.raw_content = body
    return response


def _parts(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of the head, and the rest."""
    end = _END.search(data)
    assert end is not None
    first, *others = data[: end.start()].splitlines()
    return [_VERSION.sub(rb"\1.0", first), *others], data[end.end() :]


def _body(message: http.Message, rest: bytes) -> bytes:
    """What of a file is the body: editors end files with a line break of their own."""
    if "transfer-encoding" in message.headers:
        if re.match(rb"[0-9a-fA-F]+\s*(?:;[^\n]*)?\r?\n", rest):
            raise ValueError("the body is chunked: save it as it is without Transfer-Encoding")
        del message.headers["transfer-encoding"]  # as tools print what they have decoded
    given = message.headers.get("content-length")
    if given is None:
        return rest.removesuffix(b"\n").removesuffix(b"\r")
    if not given.isdecimal() or int(given) > len(rest):
        raise ValueError(f"Content-Length is {given}, and the body has {len(rest)} bytes")
    return rest[: int(given)]


def _kind(data: bytes) -> str:
    start = data.lstrip()
    if re.match(rb"(?:data|event|id|retry)?:", start):
        return "text/event-stream"
    if start[:1] not in (b"{", b"["):
        return "text/plain"
    lines = start.splitlines()
    return "application/x-ndjson" if len(lines) > 1 and _are_json(lines) else "application/json"


def _are_json(lines: Sequence[bytes]) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in lines if line.strip())
    except ValueError:
        return False
