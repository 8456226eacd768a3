"""Stock SDKs wait for an approval with their own retries: no code on the client knows of holds."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import anthropic
import openai
import pytest

from harness import Gate, StandIn, Tokens, baseline
from liveissuer import MODULES
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal

ANN = Principal(issuer="os", subject="ann")
SCRIPT = Path(__file__).with_name("sdks.mjs")
PROMPT = "wire the money to Bob\nsay: The money is on its way, and Bob has been told of it."
SAID = "The money is on its way, and Bob has been told of it."
MESSAGES = [{"role": "user", "content": PROMPT}]
CALLS = ("openai-whole", "openai-stream", "anthropic-whole", "anthropic-stream")
STATES = ("pending", "approved", "consumed", "denied", "expired")

Call = Callable[[str, str, str], Awaitable[list[str]]]  # call, URL, token -> the pieces of text


async def with_python(call: str, url: str, token: str) -> list[str]:
    stream = call.endswith("stream")
    if call.startswith("openai"):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token) as client:
            answer = await client.chat.completions.create(
                model="stand-in", messages=MESSAGES, stream=stream
            )
            if not stream:
                return [answer.choices[0].message.content]
            return [chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices]
    async with anthropic.AsyncAnthropic(base_url=url, api_key=token) as claude:
        answer = await claude.messages.create(
            model="stand-in", max_tokens=99, messages=MESSAGES, stream=stream
        )
        if not stream:
            return [answer.content[0].text]
        return [event.delta.text async for event in answer if event.type == "content_block_delta"]


async def with_node(call: str, url: str, token: str) -> list[str]:
    node = shutil.which("node")
    assert node is not None, "Node.js is missing: see scripts/test --help"
    asked = (*call.split("-"), url, token, PROMPT)
    process = await asyncio.create_subprocess_exec(
        node,
        SCRIPT,
        MODULES,
        *asked,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    told = json.loads(output)
    return [told["text"], *[""] * (told["pieces"] - 1)]


@pytest.mark.parametrize(
    "call", [with_python, pytest.param(with_node, marks=pytest.mark.issuer)], ids=["python", "node"]
)
async def test_one_approval_and_the_call_returns(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path, call: Call
) -> None:
    rules = baseline(tokens, standin.url, tmp_path)["approval"]
    assert isinstance(rules, dict)
    gate = start_gate(rules={"approval": {**rules, "hold": "300ms", "ttl": "10m"}})

    async def approve(subject: str) -> None:
        """Once the caller was told to come again and nobody is on the line."""
        await gate.logged(rf"refused 409 wire-transfer: .*:{subject}, ", 30)
        (hold,) = (each for each in await asyncio.to_thread(store.list) if each.subject == subject)
        await asyncio.to_thread(store.decide, hold.id, ANN, "approve", "fine", "cli")

    with closing(HoldStore(gate.state / "holds.sqlite", create=False)) as store:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            asking = {
                name: group.create_task(call(name, gate.url, tokens.mint(name))) for name in CALLS
            }
            for name in CALLS:
                group.create_task(approve(name))
        ended = store.list(STATES)
    for name, task in asking.items():
        pieces = task.result()
        assert "".join(pieces) == SAID
        assert (len(pieces) > 1) is name.endswith("stream")
    assert Counter(seen.path for seen in standin.seen()) == {
        "/v1/chat/completions": 2,
        "/v1/messages": 2,
    }
    assert sorted(hold.subject for hold in ended) == sorted(CALLS)  # a retry has attached
    assert {hold.state for hold in ended} == {"consumed"}
    # They came back after 5 s, as Retry-After says, and no sooner.
    assert gate.output.count("refused 409") == len(CALLS)
