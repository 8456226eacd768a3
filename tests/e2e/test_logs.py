"""The log says what the gate says: no line, and no colour, comes from a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from harness import Gate, StandIn, Tokens

CHAT = "/v1/chat/completions"
FORGED = "a\x1b[2J\n[00:00:00.000] commands.yaml is in force"
RULE: dict[str, Any] = {
    "id": "watched",
    "title": "Watched",
    "action": "deny",
    "mode": "audit",
    "match": "casual remark",
    "tests": {"match": ["casual remark"], "pass": ["x"]},
}


async def test_keys_and_paths_forge_no_lines(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate(rules={"commands": {"schema": 1, "rules": [RULE]}})
    async with gate.client(tokens.mint()) as client:
        body = {"model": "stand-in", "messages": [], "metadata": {FORGED: "a casual remark"}}
        assert (await client.post(CHAT, json=body)).status_code == 200
    await gate.logged("would have been refused: watched")
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /\x1b[2J\xc2\x9b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    await gate.logged("refused 4")
    assert "\x1b[2J" not in gate.output
    assert "\x9b" not in gate.output
    assert "\n[00:00:00.000]" not in gate.output
    assert len(standin.seen()) == 1
