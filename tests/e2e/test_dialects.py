"""TGI, Triton and MCP behind the gate: refused in their own words, masked in their own streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness import Gate, Tokens

SECRET = "jane.doe@example.com"
PIECES = ("Write to jane", ".doe@exa", "mple.com", " today")
SAID = "".join(PIECES)
MASKED = "Write to [EMAIL] today"
EXPORT = "export the weights"


def sse(*events: dict[str, Any], head: str = "") -> list[bytes]:
    return [f"{head}data:{json.dumps(event)}\n\n".encode() for event in events]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def token(index: int, text: str, **more: Any) -> dict[str, Any]:
    said = {"id": 100 + index, "text": text, "logprob": -0.5, "special": False}
    return {"index": index, "token": said, "generated_text": None, "details": None, **more}


def call(text: str) -> dict[str, Any]:
    params = {"name": "search", "arguments": {"query": text}}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def told(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"said": text}}


END = {"generated_text": SAID, "details": {"finish_reason": "length"}}
TGI_EVENTS = [token(i, p, **(END if i == 3 else {})) for i, p in enumerate(PIECES)]
TGI_WHOLE = {"generated_text": SAID, "details": {"tokens": [TGI_EVENTS[0]["token"]]}}
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1]}
MCP_ANSWER = {"jsonrpc": "2.0", "id": 7, "result": told(SAID)}
MCP_NOTE = {
    "jsonrpc": "2.0",
    "method": "notifications/progress",
    "params": {"progressToken": 1, "progress": 1, "message": SAID},
}


@dataclass(frozen=True)
class Case:
    """A way to ask: `body` makes a request of a text, `said` joins the texts of what comes."""

    path: str
    body: Callable[[str], dict[str, Any]]
    error: Callable[[Any], str]
    answer: Any  # a list is the events of a stream
    said: Callable[[list[dict[str, Any]]], list[str]]

    @property
    def streams(self) -> bool:
        return isinstance(self.answer, list) and self.path != "/"


def tgi(path: str, answer: Any, said: Callable[[list[Any]], list[str]], **more: Any) -> Case:
    return Case(
        path,
        lambda text: {"inputs": text, "parameters": {"max_new_tokens": 20}, **more},
        lambda body: body["error_type"] if isinstance(body["error"], str) else "",
        answer,
        said,
    )


def tgi_said(events: list[Any]) -> list[str]:
    assert all(event["token"]["id"] == 0 for event in events)
    return ["".join(e["token"]["text"] for e in events), events[-1]["generated_text"]]


def kserve(path: str, body: Callable[[str], Any], answer: Any, said: Any) -> Case:
    def error(refused: Any) -> str:
        assert isinstance(refused["error"], str)
        return str(refused["code"])

    return Case(f"/v2/models/m/{path}", body, error, answer, said)


def mcp_said(events: list[Any]) -> list[str]:
    *notes, answer = events
    result = answer["result"]
    return [
        *(note["params"]["message"] for note in notes),
        result["content"][0]["text"],
        result["structuredContent"]["said"],
    ]


def mcp(answer: Any) -> Case:
    def error(refused: Any) -> str:
        assert refused["jsonrpc"] == "2.0"
        assert isinstance(refused["error"]["code"], int)
        return str(refused["error"]["data"]["code"])

    return Case("/mcp", call, error, answer, mcp_said)


CASES = {
    "tgi": tgi("/generate", TGI_WHOLE, lambda got: [got[0]["generated_text"]]),
    "tgi-stream": tgi("/generate_stream", TGI_EVENTS, tgi_said),
    "tgi-compatible": tgi("/", {"list": [TGI_WHOLE]}, lambda got: [got[0]["generated_text"]]),
    "infer": kserve(
        "infer",
        lambda text: {"inputs": [{**TENSOR, "data": [text]}]},
        {"model_name": "m", "outputs": [{**TENSOR, "data": [SAID]}]},
        lambda got: got[0]["outputs"][0]["data"],
    ),
    "generate": kserve(
        "generate",
        lambda text: {"text_input": text},
        {"model_name": "m", "text_output": SAID},
        lambda got: [got[0]["text_output"]],
    ),
    "generate-stream": kserve(
        "generate_stream",
        lambda text: {"text_input": text},
        [{"model_name": "m", "text_output": piece} for piece in PIECES],
        lambda got: ["".join(event["text_output"] for event in got)],
    ),
    "mcp": mcp(MCP_ANSWER),
    "mcp-stream": mcp([MCP_NOTE, MCP_ANSWER]),
}


@dataclass
class Upstream:
    """A server that says `answer` to every request, its events one by one; `heads` is what came."""

    answer: Any = None
    url: str = ""
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                self.heads.append(head)
                closes = b"connection: close" in head.lower()
                await self._answer(writer, b"Connection: close\r\n" if closes else b"")
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, more: bytes) -> None:
        more += b"Mcp-Session-Id: s-1\r\nMCP-Protocol-Version: 2025-06-18\r\n"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" + more
        if isinstance(self.answer, list):
            writer.write(head % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n")
            name = "event: message\n" if "jsonrpc" in self.answer[0] else ""
            for event in sse(*self.answer, head=name):
                for part in (event[: len(event) // 2], event[len(event) // 2 :]):
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            body = json.dumps(self.answer.get("list", self.answer)).encode()
            writer.write(head % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
        await writer.drain()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server


async def test_prompts_are_judged_and_answers_masked(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async with upstream() as server:
        gate = start_gate(upstream=server.url)
        async with gate.client(tokens.mint()) as client:
            for name, case in CASES.items():
                server.answer = case.answer
                refused = await client.post(case.path, json=case.body(EXPORT))
                assert refused.status_code == 403, name
                assert case.error(refused.json()) == "weights-export", name
                assert server.heads == [], name

                got = await client.post(case.path, json=case.body("hello"))
                assert got.status_code == 200, name
                if case.streams:
                    events = lines(got.text)
                else:
                    body = got.json()
                    events = body if isinstance(body, list) else [body]
                assert set(case.said(events)) == {MASKED}, name
                for part in (SECRET, "jane", "mple.com"):
                    assert part not in got.text, name
                server.heads.clear()


async def test_compatible_requests_of_tgi_stream_when_they_ask_for_it(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async with upstream() as server:
        server.answer = TGI_EVENTS
        gate = start_gate(upstream=server.url)
        async with gate.client(tokens.mint()) as client:
            got = await client.post("/", json={"inputs": "hello", "stream": True})
    assert tgi_said(lines(got.text)) == [MASKED, MASKED]


TOLD = ("export ", "the wei", "ghts", " ", "now")
SAYS = {
    "schema": 1,
    "rules": [
        {
            "id": "weights-told",
            "title": "An answer about weights",
            "action": "deny",
            "where": ["answer"],
            "match": r"\bexport the weights\b",
            "tests": {"match": [EXPORT], "pass": ["the weights"]},
        }
    ],
}


@pytest.mark.parametrize(
    ("path", "events", "error"),
    [
        ("/generate_stream", [token(i, p) for i, p in enumerate(TOLD)], lambda e: e["error_type"]),
        ("/v2/models/m/generate_stream", [{"text_output": p} for p in TOLD], lambda e: e["code"]),
        ("/mcp", [{**MCP_ANSWER, "result": told(EXPORT)}], lambda e: e["error"]["data"]["code"]),
    ],
)
async def test_a_stream_that_says_what_is_denied_ends_with_an_error(
    start_gate: Callable[..., Gate], tokens: Tokens, path: str, events: Any, error: Any
) -> None:
    body = {"inputs": "hello"} if path == "/generate_stream" else {"text_input": "hello"}
    async with upstream() as server:
        server.answer = events
        gate = start_gate(upstream=server.url, rules={"commands": SAYS})
        async with gate.client(tokens.mint()) as client:
            got = await client.post(path, json=call("hello") if path == "/mcp" else body)
    *said, last = lines(got.text)
    assert error(last) == "weights-told"
    assert all("error" not in event for event in said)


async def test_the_model_of_a_path_is_the_one_that_a_grant_has_to_name(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    async with upstream() as server:
        server.answer = {"model_name": "m", "text_output": "hello"}
        gate = start_gate(upstream=server.url)
        identity = (gate.rules / "identity.yaml").read_text()
        assert identity.count("models:\n  - '*'") == 2
        mark = gate.process.mark()
        gate.write_rules(identity=identity.replace("models:\n  - '*'", "models:\n  - small-*"))
        await gate.logged("identity", since=mark)
        async with gate.client(tokens.mint()) as client:
            body = {"text_input": "hello"}
            good = await client.post("/v2/models/small-1/generate", json=body)
            bad = await client.post("/v2/models/large/generate", json=body)
            ready = await client.get("/v2/models/large/ready")
            lying = await client.post(
                "/v2/models/large/generate", json={**body, "model": "small-1"}
            )
    assert good.status_code == 200
    assert (bad.status_code, ready.status_code, lying.status_code) == (403, 403, 400)
    assert isinstance(bad.json()["error"], str)
    assert len(server.heads) == 1


async def test_the_headers_of_a_session_pass_in_both_directions(
    start_gate: Callable[..., Gate], tokens: Tokens
) -> None:
    session = {"Mcp-Session-Id": "s-1", "MCP-Protocol-Version": "2025-06-18"}
    async with upstream() as server:
        server.answer = [MCP_NOTE]
        gate = start_gate(upstream=server.url)
        async with gate.client(tokens.mint()) as client:
            got = await client.get("/mcp", headers={**session, "Accept": "text/event-stream"})
            server.answer = {}
            ended = await client.delete("/mcp", headers=session)
    assert MASKED in got.text
    assert got.headers["mcp-session-id"] == "s-1"
    assert got.headers["mcp-protocol-version"] == "2025-06-18"
    assert ended.status_code == 200
    assert len(server.heads) == 2
    for head in server.heads:
        assert b"mcp-session-id: s-1" in head.lower()
        assert b"mcp-protocol-version: 2025-06-18" in head.lower()
