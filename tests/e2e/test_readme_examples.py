"""The addons in addons/README.md and CONTRIBUTING.md, as they stand there, in a real mitmdump."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Gate, StandIn, Tokens
from processes import GATEWAY, ROOT

CHAT = "/v1/chat/completions"
README = (ROOT / "addons" / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
EXAMPLES = {
    name: code for name, code in re.findall(r"^```\w+\n# ([\w.]+)\n(.*?)^```$", README, re.M | re.S)
}


def body(text: str = "hello", *, stream: bool = False) -> dict[str, Any]:
    content = f"say: {text}"
    return {
        "model": "stand-in",
        "stream": stream,
        "messages": [{"role": "user", "content": content}],
    }


def test_every_example_is_run_here() -> None:
    assert set(EXAMPLES) == {
        "quota.py",
        "redact.py",
        "my_gateway.py",
        "budget.py",
        "budget.yaml",
        "test_quota.py",
    }
    for name in ("quota.py", "redact.py"):
        lines = [line for line in EXAMPLES[name].splitlines() if line.strip()]
        assert len(lines) <= 30, f"{name} is no short example any more"


async def test_the_quota(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    (tmp_path / "quota.py").write_text(EXAMPLES["quota.py"])
    gate = start_gate(scripts=[GATEWAY, tmp_path / "quota.py"])
    async with gate.client(tokens.mint()) as client:
        for _ in range(3):
            assert (await client.post(CHAT, json=body())).status_code == 200
        spent = await client.post(CHAT, json=body())
    assert spent.status_code == 429
    assert spent.headers["retry-after"] == "60"
    assert spent.json()["error"]["code"] == "quota-exceeded"
    async with gate.client(tokens.mint("agent-8")) as client:
        assert (await client.post(CHAT, json=body())).status_code == 200
    assert len(standin.seen()) == 4


async def test_the_quota_in_contributing(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    found = re.search(r"^    # quota\.py\n(.*?addons = .*?\n)", CONTRIBUTING, re.M | re.S)
    assert found
    code = textwrap.dedent(found[1]).replace("Quota()]", "Quota(calls=1)]")
    (tmp_path / "quota.py").write_text(code)
    gate = start_gate(scripts=[GATEWAY, tmp_path / "quota.py"])
    async with gate.client(tokens.mint()) as client:
        statuses = [(await client.post(CHAT, json=body())).status_code for _ in range(2)]
    assert statuses == [200, 429]
    assert len(standin.seen()) == 1


@pytest.fixture
def redacting(start_gate: Callable[..., Gate], tmp_path: Path) -> Gate:
    for name in ("redact.py", "my_gateway.py"):
        (tmp_path / name).write_text(EXAMPLES[name])
    return start_gate(scripts=[tmp_path / "my_gateway.py"])


@pytest.mark.parametrize("stream", [False, True])
async def test_the_redaction(redacting: Gate, tokens: Tokens, stream: bool) -> None:
    text = "Is Bluebird bluer than Blue? BluBluebird it is. Blueb"
    async with redacting.client(tokens.mint()) as client:
        headers = {"x-standin": "chunk=1"}
        answer = await client.post(CHAT, json=body(text, stream=stream), headers=headers)
    assert answer.status_code == 200
    if stream:
        pieces = re.findall(r'"content": ?"([^"]*)"', answer.text)
        assert "".join(pieces) == "Is [PROJECT] bluer than Blue? Blu[PROJECT] it is. Blueb"
    else:
        said = answer.json()["choices"][0]["message"]["content"]
        assert said == "Is [PROJECT] bluer than Blue? Blu[PROJECT] it is. Blueb"
    redacting.stop()
    (recording,) = (redacting.state / "recordings").glob("*.mitm")
    assert b"[PROJECT]" in recording.read_bytes()


@pytest.mark.parametrize(
    "stream",
    [
        False,
        True,
    ],
)
async def test_the_redaction_leaves_the_masks_in_place(
    redacting: Gate, tokens: Tokens, stream: bool
) -> None:
    async with redacting.client(tokens.mint()) as client:
        asked = body("ask jane.doe@example.com about Bluebird", stream=stream)
        answer = await client.post(CHAT, json=asked)
    assert answer.status_code == 200
    assert "jane.doe@example.com" not in answer.text
    assert "Bluebird" not in answer.text


async def test_rules_of_ones_own(
    start_gate: Callable[..., Gate], tokens: Tokens, tmp_path: Path
) -> None:
    (tmp_path / "budget.py").write_text(EXAMPLES["budget.py"])
    rules = {"budget": EXAMPLES["budget.yaml"]}
    gate = start_gate(scripts=[GATEWAY, tmp_path / "budget.py"], rules=rules)
    async with gate.client(tokens.mint()) as client:
        statuses = [(await client.post(CHAT, json=body())).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        gate.write_rules(budget="schema: 1\ncalls: many\n")
        await gate.logged(r"budget\.yaml:2: calls: ")
        assert (await client.post(CHAT, json=body())).status_code == 429
        gate.write_rules(budget="schema: 1\ncalls: 9\n")
        await gate.logged(r"budget\.yaml is in force")
        assert (await client.post(CHAT, json=body())).status_code == 200


def test_the_test_of_the_quota(tmp_path: Path) -> None:
    for name in ("quota.py", "test_quota.py"):
        (tmp_path / name).write_text(EXAMPLES[name])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"]
    done = subprocess.run(
        [*command, "test_quota.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
