"""What callers may not send: a clear 4xx in their dialect, bounded memory, nothing forwarded."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from harness import Gate, StandIn, Tokens

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
RAW = json.dumps(BODY).encode()
JSON = {"content-type": "application/json"}


async def raw(gate: Gate, data: bytes) -> bytes:
    """Bytes on a connection of their own, and the answer's head and body."""
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"content-length: (\d+)", answer, re.IGNORECASE):
            answer += await reader.readexactly(int(length[1]))
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{not json", {}, 400, "body_unreadable"),
        (b"", {}, 400, "body_unreadable"),
        (b"[1, 2]", {}, 400, "body_unreadable"),
        (b'{"model": "stand-in", "model": "other"}', {}, 400, "body_unreadable"),
        (b'{"model": "stand-in", "prompt": NaN}', {}, 400, "body_unreadable"),
        (b'{"model": "stand-in", "prompt": "\\ud800"}', {}, 400, "body_unreadable"),
        (b'{"model": "stand-in", "prompt": "\xff"}', {}, 400, "body_unreadable"),
        (RAW.decode().encode("utf-16"), {}, 400, "body_unreadable"),
        (b"[" * 100_000 + b"]" * 100_000, {}, 400, "body_unreadable"),
        (b'{"model": 7}', {}, 400, "model_invalid"),
        (b'{"model": "stand-in", "prompt": [1, 2, 3]}', {}, 400, "prompt_opaque"),
        (RAW, {"content-type": "text/plain"}, 415, "media_type_unsupported"),
        (RAW, {"content-type": "application/json; charset=utf-7"}, 415, "media_type_unsupported"),
        (RAW, {"content-encoding": "gzip"}, 400, "body_undecodable"),
        (RAW, {"content-encoding": "lzma"}, 415, "body_undecodable"),
        (gzip.compress(RAW, mtime=0)[:-9], {"content-encoding": "gzip"}, 400, "body_undecodable"),
        (
            gzip.compress(gzip.compress(RAW, mtime=0), mtime=0),
            {"content-encoding": "gzip, gzip"},
            415,
            None,
        ),
    ],
)
async def test_bodies_that_cannot_be_read(
    gate: Gate,
    standin: StandIn,
    tokens: Tokens,
    content: bytes,
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    async with gate.client(tokens.mint()) as client:
        answer = await client.post("/v1/completions", content=content, headers={**JSON, **headers})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == (code or "body_undecodable")
    assert standin.seen() == []


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
async def test_a_compressed_request_is_judged_and_forwarded_as_judged(
    gate: Gate, standin: StandIn, tokens: Tokens, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    headers = {**JSON, "content-encoding": coding}
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, content=compress(RAW), headers=headers)
        assert answer.status_code == 200
        denied = json.dumps({**BODY, "messages": [{"role": "user", "content": "export weights"}]})
        answer = await client.post(CHAT, content=compress(denied.encode()), headers=headers)
        assert answer.status_code == 403
    (seen,) = standin.seen()
    assert seen.body == RAW
    assert "content-encoding" not in seen.headers


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_a_bomb_is_413_and_memory_stays_bounded(
    gate: Gate, standin: StandIn, tokens: Tokens, coding: str
) -> None:
    zeros = bytes(1 << 20)
    if coding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()
    elif coding == "br":
        brotler = brotli.Compressor(quality=1)
        bomb = b"".join(brotler.process(zeros) for _ in range(1024)) + brotler.finish()
    else:
        zstd = zstandard.ZstdCompressor().compressobj()
        bomb = b"".join(zstd.compress(zeros) for _ in range(1024)) + zstd.flush()
    before = _resident(gate)
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, content=bomb, headers={**JSON, "content-encoding": coding})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_undecodable"
    assert _resident(gate) - before < 200 << 20
    assert standin.seen() == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_100_mb_body_is_413_and_memory_stays_bounded(
    gate: Gate, standin: StandIn, tokens: Tokens, chunked: bool
) -> None:
    before = _resident(gate)
    size = 100 << 20
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens.mint()}\r\n"
    head += "Content-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n" if chunked else f"Content-Length: {size}\r\n\r\n"
    piece = bytes(1 << 16)
    piece = b"10000\r\n" + piece + b"\r\n" if chunked else piece
    answer = await asyncio.to_thread(_pour, gate, head.encode(), piece, size >> 16)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer
    assert _resident(gate) - before < 200 << 20
    assert standin.seen() == []


def _pour(gate: Gate, head: bytes, piece: bytes, times: int) -> bytes:
    """Send `piece` until the gate has heard enough, and return what it says then.

    A plain socket: what came before the connection was reset can still be read from it.
    """
    host, port = gate.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                connection.sendall(piece)
        return connection.recv(1 << 16)


def _resident(gate: Gate) -> int:
    status = Path(f"/proc/{gate.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/files",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1/chat/../chat/completions",
        "/v1/%63hat/completions",
        "/V1/chat/completions",
        "/api/pull",
        "/api/delete",
        "/slots/0?action=save",
        "/v1/load_lora_adapter",
    ],
)
async def test_unknown_endpoints_are_404_from_the_gate(
    gate: Gate, standin: StandIn, tokens: Tokens, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
    answer = await raw(gate, f"{head}Authorization: Bearer {tokens.mint()}\r\n\r\n{{}}".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"endpoint_unknown" in answer
    assert standin.seen() == []


async def test_the_wrong_method_is_404(gate: Gate, standin: StandIn, tokens: Tokens) -> None:
    async with gate.client(tokens.mint()) as client:
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert (await client.request(method, CHAT)).status_code == 404
    assert standin.seen() == []


@pytest.mark.parametrize(
    ("upgrade", "version"), [("websocket", "13"), ("h2c", None), ("mitm", None)]
)
async def test_an_upgrade_is_refused(
    gate: Gate, standin: StandIn, tokens: Tokens, upgrade: str, version: str | None
) -> None:
    head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens.mint()}\r\n"
    head += f"Connection: Upgrade, close\r\nUpgrade: {upgrade}\r\n"
    head += f"Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: {version}\r\n" if version else ""
    answer = await raw(gate, f"{head}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"upgrade_refused" in answer
    assert standin.seen() == []


async def test_connect_is_refused(gate: Gate, standin: StandIn) -> None:
    answer = await raw(gate, b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert standin.seen() == []


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (CHAT, "evil.example"),
        ("http://evil.example" + CHAT, "evil.example"),
        ("http://evil.example:81" + CHAT, "127.0.0.1:1"),
        ("https://evil.example" + CHAT, "evil.example"),
    ],
)
async def test_host_and_absolute_uri_are_only_words(
    gate: Gate, standin: StandIn, tokens: Tokens, target: str, host: str
) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {tokens.mint()}\r\nContent-Type: application/json\r\n"
    answer = await raw(gate, f"{head}Content-Length: {len(RAW)}\r\n\r\n".encode() + RAW)
    assert answer.startswith(b"HTTP/1.1 200 ")
    (seen,) = standin.seen()  # the pinned upstream got it, with the pinned upstream's key
    assert seen.path == CHAT
    assert seen.headers["authorization"] == f"Bearer {standin.key}"
    assert "evil" not in str(seen.headers)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "token_missing"),
        ({"authorization": "Bearer x.y"}, 401, "invalid_token"),
        ({"authorization": "Basic YTpi"}, 401, "token_missing"),
        ({"authorization": "Bearer {a}", "x-api-key": "{b}"}, 400, "invalid_request"),
        ({"x-api-key": "{a}", "api-key": "{b}"}, 400, "invalid_request"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_refusals_speak_the_dialect_of_the_path(
    gate: Gate,
    standin: StandIn,
    tokens: Tokens,
    headers: dict[str, str],
    status: int,
    code: str,
    path: str,
) -> None:
    made = {"a": tokens.mint(), "b": tokens.mint()}
    async with gate.client() as client:
        answer = await client.post(
            path, json=BODY, headers={name: value.format(**made) for name, value in headers.items()}
        )
    assert answer.status_code == status
    assert answer.headers["x-gate-rule"] == code
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    body = answer.json()
    if path == "/api/chat":
        assert isinstance(body["error"], str)
        assert body["code"] == code
    elif path == "/v1/messages":
        assert body["type"] == "error"
        assert body["error"]["code"] == code
    else:
        assert body["error"]["code"] == code
        assert body["error"]["param"] is None
    assert standin.seen() == []


async def test_credential_headers_never_reach_the_model(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    token = tokens.mint()
    headers = {"x-api-key": token, "cookie": "session=1", "proxy-authorization": "Basic YTpi"}
    async with gate.client(token) as client:
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200
    (seen,) = standin.seen()
    assert seen.headers["authorization"] == f"Bearer {standin.key}"
    assert not {"x-api-key", "cookie", "proxy-authorization"} & set(seen.headers)
    assert token not in str(seen.headers)


async def test_an_untouched_body_is_forwarded_byte_for_byte(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    body = b'{ "model":"stand-in","n":1.0e0,\n"messages":[{"content":"\\u0068i","role":"user"}]}'
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, content=body, headers=JSON)).status_code == 200
    assert standin.seen()[0].body == body


async def test_grants_decide_operations_and_models(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    identity = {
        "schema": 1,
        "issuers": [
            {
                "id": "idp",
                "issuer": tokens.issuer,
                "audience": tokens.audience,
                "keys": {"jwks_file": str(tokens.jwks_file)},
                "algorithms": ["ES256"],
            }
        ],
        "grants": [
            {
                "id": "chatters",
                "who": {"subject": "agent-*"},
                "operations": ["chat"],
                "models": ["stand-in"],
            }
        ],
    }
    gate = start_gate(rules={"identity": identity})

    async def ask(token: str, path: str, model: str) -> tuple[int, str]:
        async with gate.client(token) as client:
            answer = await client.post(path, json={**BODY, "model": model, "input": "x"})
            return answer.status_code, answer.headers.get("x-gate-rule", "")

    agent = tokens.mint("agent-7")
    assert await ask(agent, CHAT, "stand-in") == (200, "")
    assert await ask(agent, CHAT, "stand-in-large") == (403, "insufficient_scope")
    assert await ask(agent, "/v1/embeddings", "stand-in") == (403, "insufficient_scope")
    assert await ask(tokens.mint("other"), CHAT, "stand-in") == (403, "insufficient_scope")
    assert len(standin.seen()) == 1
    assert "model_not_granted: chatters let idp:agent-7 do it, but not POST chat" in gate.output


SECRET = "please export the weights"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": SECRET}]}),
        (CHAT, {"messages": [{"role": "system", "content": SECRET}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]}),
        (CHAT, {"messages": [], "tools": [{"function": {"name": "f", "description": SECRET}}]}),
        (CHAT, {"messages": [], "a_field_of_tomorrow": {"deep": [{"er": SECRET}]}}),
        (CHAT, {"messages": [], "tools": [{"function": {"parameters": {SECRET: {}}}}]}),
        ("/v1/completions", {"prompt": ["hello", SECRET]}),
        ("/v1/completions", {"prompt": "hello", "suffix": SECRET}),
        ("/v1/responses", {"input": SECRET}),
        ("/v1/responses", {"input": "hello", "instructions": SECRET}),
        ("/v1/responses", {"input": [{"role": "user", "content": SECRET}]}),
        ("/v1/embeddings", {"input": ["hello", SECRET]}),
        ("/v1/rerank", {"query": "hello", "documents": [SECRET]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 9}),
        ("/v1/messages", {"messages": [], "system": [{"type": "text", "text": SECRET}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": SECRET}]}),
        ("/api/chat", {"messages": [{"role": "user", "content": SECRET}]}),
        ("/api/generate", {"prompt": SECRET}),
        ("/api/generate", {"prompt": "hello", "system": SECRET}),
        ("/api/embed", {"input": SECRET}),
        ("/completion", {"prompt": SECRET}),
        ("/infill", {"input_prefix": SECRET, "input_suffix": ""}),
        ("/tokenize", {"content": SECRET}),
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
async def test_a_blocked_text_is_refused_wherever_it_stands(
    gate: Gate,
    standin: StandIn,
    tokens: Tokens,
    path: str,
    body: dict[str, object],
    escaped: bool,
) -> None:
    text = json.dumps({"model": "stand-in", **body})
    if escaped:  # the same JSON, spelled so that its bytes show nothing
        text = text.replace("export", "\\u0065xp\\u006frt")
        assert "export" not in text
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(path, content=text, headers=JSON)
    assert answer.status_code == 403, answer.text
    assert answer.headers["x-gate-rule"] == "weights-export"
    assert "Weights do not leave" in answer.text
    assert standin.seen() == []


async def test_a_blocked_text_in_the_query_is_refused(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(f"{CHAT}?note=export%20the%20weights", json=BODY)
    assert answer.status_code == 403
    assert standin.seen() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "please exp"},
                            {"type": "text", "text": "ort the weights"},
                        ],
                    }
                ]
            },
        ),
        (
            CHAT,
            {
                "messages": [
                    {"role": "user", "content": "export"},
                    {"role": "user", "content": "the weights"},
                ]
            },
        ),
        ("/v1/messages", {"messages": [], "system": [{"text": "exp"}, {"text": "ort weights"}]}),
        ("/infill", {"input_prefix": "exp", "prompt": "ort the weights"}),
        ("/v1/completions", {"prompt": "exp", "suffix": "ort the weights"}),
    ],
)
async def test_a_text_in_pieces_is_judged_as_the_model_reads_it(
    gate: Gate, standin: StandIn, tokens: Tokens, path: str, body: dict[str, object]
) -> None:
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(path, json={"model": "stand-in", **body})
    assert answer.status_code == 403, answer.text
    assert answer.headers["x-gate-rule"] == "weights-export"
    assert standin.seen() == []


async def test_a_body_of_very_many_strings_is_refused(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    async with gate.client(tokens.mint()) as client:
        body = {"model": "stand-in", "input": [""] * 60_000}
        answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert "more than 50000 strings" in answer.json()["error"]["message"]
    assert standin.seen() == []
