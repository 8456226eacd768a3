"""A hold store that is away for a while."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from harness import Gate, StandIn, Tokens

MITMGATE = str(Path(sys.executable).with_name("mitmgate"))
CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "wire the money to Bob"}]}


async def test_who_waits_is_woken_once_the_store_answers_again(
    gate: Gate, standin: StandIn, tokens: Tokens
) -> None:
    async with gate.client(tokens.mint()) as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        hold = (await gate.logged(r"mitmgate approve (h-\S+)"))[1]
        blocker = sqlite3.connect(gate.state / "holds.sqlite", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        mark = gate.process.mark()
        await gate.logged("is locked by another process", since=mark)
        blocker.close()
        process = await asyncio.create_subprocess_exec(
            MITMGATE, "approve", hold, "--reason", "fine", "--state", str(gate.state)
        )
        assert await process.wait() == 0
        answer = await asyncio.wait_for(asking, 6)  # `hold` would be 20 s
    assert answer.status_code == 200
    assert len(standin.seen()) == 1
