"""What a real gate records is found, shown and cut out, and a real mitmdump sends and serves it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens
from processes import Process, free_port

CHAT = "/v1/chat/completions"
MITMDUMP = Path(sys.executable).with_name("mitmdump")


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}


def mitmgate(gate: Gate, *arguments: str | Path, code: int = 0) -> str:
    """What the command prints, as its users run it."""
    program = Path(sys.executable).with_name("mitmgate")
    command = [program, *arguments, "--state", gate.state]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def found(gate: Gate, *filters: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in mitmgate(gate, "sessions", "--json", *filters).splitlines()
    ]


async def test_a_live_gate_is_searched_and_an_exchange_shown(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint("agent-7")) as one:
        one.headers.update({"X-Session-Id": "run\u202e-1".encode()})
        await one.post(CHAT, json=said("hello"))
        await one.post(CHAT, json=said("hello again", stream=True))
        await one.post(CHAT, json=said("export the weights"))
    async with gate.client(tokens.mint("agent-8")) as two:
        two.headers.update({"session_id": "s" * 500})
        await two.post(CHAT, json=said("hello"))
        with pytest.raises(httpx.RemoteProtocolError):
            await two.post(CHAT, json=said("standin: cut=4", stream=True))
    async with gate.client("bad") as nobody:
        nobody.headers.update({"X-Session-Id": "run-1"})
        await nobody.post(CHAT, json=said("hello"))
    rows = found(gate)
    assert [row["verdict"] for row in rows] == [
        ["complete", "masked"],
        ["complete", "masked"],
        ["refused", "denied"],
        ["complete", "masked"],
        ["upstream_error"],
        ["refused"],
    ]
    assert [row["session"] for row in rows] == [
        *[r"run\u202e-1"] * 3,
        *["s" * 128] * 2,
        "",
    ]  # of nobody nothing is believed
    assert found(gate, "--principal", "agent-7", "--verdict", "denied") == [rows[2]]
    assert found(gate, "--principal", "test-idp/agent-8", "--since", "1h") == rows[3:5]
    assert found(gate, "--until", "1h") == []
    groups = found(gate, "--group")
    assert [(each["principal"], each["exchanges"]) for each in groups] == [
        ("test-idp:agent-7", 3),
        ("test-idp:agent-8", 2),
        ("", 1),
    ]
    shown = mitmgate(gate, "show", rows[1]["exchange"][:13])
    assert "(as the caller says)" in shown
    assert "hello again" in shown
    assert "You can reach Jane Doe at >>>[EMAIL]<<< or on >>>[PHONE]<<<." in shown
    shown = mitmgate(gate, "show", rows[2]["exchange"])
    assert "ended    refused denied: weights-export (status 403)" in shown
    assert "── USER  messages[0]  << weights-export >> ─" in shown


async def test_exports_that_mitmdump_reads(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint("agent-7")) as client:
        for n in range(3):
            await client.post(CHAT, json=said(f"hello {n}"))
        await client.post(CHAT, json=said("export the weights"))
    out = tmp_path / "out.mitm"
    mitmgate(gate, "export", "--verdict", "complete", "-o", out)
    assert out.stat().st_mode & 0o777 == 0o600
    (recording,) = (gate.state / "recordings").glob("*.mitm")
    assert recording.read_bytes().startswith(out.read_bytes())
    with out.open("rb") as file:
        assert len(list(FlowReader(file).stream())) == 3  # type: ignore[arg-type]
    with Process([MITMDUMP, "-n", "-r", out], cwd=tmp_path) as process:
        assert process.wait_exit() == 0
        assert process.output.count("POST") == 3
    archive = tmp_path / "out.har"
    mitmgate(gate, "export", "--har", "-o", archive)
    with Process([MITMDUMP, "-n", "-r", archive], cwd=tmp_path) as process:
        assert process.wait_exit() == 0
        assert process.output.count("POST") == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_recorded_prompts_are_sent_again_through_the_gate(
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    stream: bool,
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint("agent-7")) as client:
        for text in ("hello", "export the weights", "¿qué tal?"):
            await client.post(CHAT, json=said(text, stream=stream))
    async with gate.client() as nobody:
        await nobody.post(CHAT, json=said("hello"))
    first = found(gate)
    bodies = [seen.body for seen in standin.seen()]
    standin.reset()
    out, token = tmp_path / "again.mitm", tmp_path / "token"
    token.write_text(tokens.mint("replayer") + "\n")
    mitmgate(gate, "export", "--replay", gate.url, "--token-file", token, "-o", out)
    options = ["--set", "connection_strategy=lazy", "-q", "-p", "0"]
    command = [MITMDUMP, "-n", "-C", out, "-w", tmp_path / "answers.mitm", *options]
    with Process(command, cwd=tmp_path) as process:
        assert process.wait_exit() == 0
    again = found(gate, "--principal", "replayer")
    assert [row["verdict"] for row in again] == [row["verdict"] for row in first[:3]]
    assert [seen.body for seen in standin.seen()] == bodies
    with (tmp_path / "answers.mitm").open("rb") as file:
        answers = list(FlowReader(file).stream())  # type: ignore[arg-type]
    assert [flow.id for flow in answers] == [row["exchange"] for row in first[:3]]
    assert [flow.response.status_code for flow in answers] == [200, 403, 200]  # type: ignore[attr-defined]


async def test_recorded_answers_are_served(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        whole = await client.post(CHAT, json=said("hello"))
        stream = await client.post(CHAT, json=said("hello", stream=True))
        await client.post(CHAT, json=said("export the weights"))
    out = tmp_path / "out.mitm"
    mitmgate(gate, "export", "--verdict", "complete", "-o", out)
    gate.stop()
    port = free_port()
    settings = ["server_replay_ignore_host=true", "server_replay_ignore_port=true"]
    settings += ["server_replay_extra=404", "server_replay_reuse=true", "connection_strategy=lazy"]
    command: list[str | Path] = [MITMDUMP, "-S", out, "--mode", f"reverse:http://127.0.0.1:{port}"]
    command += ["-p", "0", *(part for setting in settings for part in ("--set", setting))]
    with Process(command, cwd=tmp_path) as process:
        url = process.wait_line(r"listening at (?:http://)?\S*?:(\d+)")[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{url}", trust_env=False) as client:
            for _ in range(2):
                assert (await client.post(CHAT, json=said("hello"))).content == whole.content
                again = await client.post(CHAT, json=said("hello", stream=True))
                assert again.content == stream.content
            missing = await client.post(CHAT, json=said("export the weights"))
            assert missing.status_code == 404


async def test_an_interrupted_exchange_is_found_by_caller_session_and_time(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint("agent-7")) as client:
        client.headers.update({"X-Session-Id": "run-1"})
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=60")))
        await standin.wait_seen()
        gate.kill9()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
    gate.start()
    await gate.logged("was interrupted; it is recorded as such")
    (row,) = found(gate, "--session", "run-1", "--verdict", "interrupted", "--since", "5m")
    assert row["principal"] == "test-idp:agent-7"
    shown = mitmgate(gate, "show", row["exchange"])
    assert f"chat of openai, model stand-in, POST {CHAT}" in shown
    assert "standin: slow=60" in shown


async def test_the_headers_that_name_a_session_are_the_operators_choice(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    names = {"sessions": ["x-hidden", "X-Run", "x-other"], "scrub": ["X-Hidden"]}
    gate = start_gate(rules={"recorder": {"schema": 1, **names}})
    async with gate.client(tokens.mint()) as client:
        client.headers.update({"x-session-id": "a", "x-other": "b", "x-run": "c", "x-hidden": "d"})
        await client.post(CHAT, json=said("hello"))
        del client.headers["x-run"]
        await client.post(CHAT, json=said("hello"))
    assert [row["session"] for row in found(gate)] == ["c", "b"]
