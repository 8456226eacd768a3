"""A recording plays both parts: the model's, before stock SDKs, and the callers', before a gate.

With nothing but mitmproxy's own options, as README.md gives them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens, baseline
from mitmgate.core import ledger
from processes import READY, Process, wait_for_proxy

MODEL = "stand-in"
CHAT = "/v1/chat/completions"
MASKED = "You can reach Jane Doe at [EMAIL] or on [PHONE]."
MITMDUMP = Path(sys.executable).with_name("mitmdump")
NOWHERE = "reverse:http://127.0.0.1:9"  # nobody answers there
SERVE = (
    "connection_strategy=lazy",
    "server_replay_ignore_host=true",
    "server_replay_ignore_port=true",
    "server_replay_reuse=true",
    "server_replay_extra=404",
)


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def ask(url: str, key: str, prompt: str = "hello") -> dict[str, str]:
    """What each SDK hands over for the same questions, plain and streamed."""
    answers: dict[str, str] = {}
    usual: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": 20}
    chat: dict[str, Any] = {"model": MODEL, "messages": said(prompt)}
    with openai.OpenAI(base_url=f"{url}/v1", **usual) as client:
        whole = client.chat.completions.create(**chat)
        answers["openai"] = whole.choices[0].message.content or ""
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(stream=True, **chat)
            if chunk.choices
        ]
        assert len(pieces) > 5
        answers["openai stream"] = "".join(pieces)
    with anthropic.Anthropic(base_url=url, **usual) as claude:
        message = claude.messages.create(max_tokens=100, **chat)
        answers["anthropic"] = "".join(b.text for b in message.content if b.type == "text")
        with claude.messages.stream(max_tokens=100, **chat) as stream:
            pieces = list(stream.text_stream)
        assert len(pieces) > 5
        answers["anthropic stream"] = "".join(pieces)
    headers = {"Authorization": f"Bearer {key}"}
    llama = ollama.Client(url, headers=headers, trust_env=False, timeout=20)
    answers["ollama"] = llama.chat(**chat).message.content or ""
    pieces = [part.message.content or "" for part in llama.chat(stream=True, **chat)]
    assert len(pieces) > 5
    answers["ollama stream"] = "".join(pieces)
    return answers


def flows(*paths: Path) -> list[http.HTTPFlow]:
    found: list[http.HTTPFlow] = []
    for path in paths:
        with path.open("rb") as file:
            found += FlowReader(file).stream()  # type: ignore[arg-type]
    return found


def recording(gate: Gate) -> Path:
    (path,) = (gate.state / "recordings").glob("*.mitm")
    return path


def entries(gate: Gate) -> list[dict[str, Any]]:
    """Every ledger line that speaks of an exchange."""
    lines: list[dict[str, Any]] = []
    for path in sorted((gate.state / "recordings").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "entry"]


def resend(file: Path, gate: Gate, token: str, directory: Path) -> Process:
    """mitmdump in the callers' place: the recorded requests to the gate, with a token of today."""
    token_file = directory / "token.txt"
    token_file.write_text(f"Bearer {token}")
    command: list[str | Path] = [MITMDUMP, "-n", "-C", file, "--set", f"confdir={directory}"]
    command += ["--map-remote", f"|^https?://[^/]+|{gate.url}"]
    command += ["--modify-headers", f"/~q/Authorization/@{token_file}"]
    return Process(command)


def serve(file: Path, directory: Path, *settings: str, mode: str = NOWHERE) -> Process:
    """mitmdump in the model's place, with no model behind it."""
    options = [f"confdir={directory}", "flow_detail=0", *settings]
    command: list[str | Path] = [MITMDUMP, "-S", file, "-s", READY, "--mode", mode]
    command += ["--listen-host", "127.0.0.1", "--listen-port", "0"]
    return Process([*command, *(part for each in options for part in ("--set", each))])


@pytest.fixture(scope="module")
def talk(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A recording of three SDKs that ask, plain and streamed, and what they were told."""
    directory = tmp_path_factory.mktemp("talk")
    rules = baseline(tokens, standin_server.url, directory)
    with Gate(directory, standin_server.url, rules) as gate:
        told = ask(gate.url, tokens.mint())
        gate.stop()
        yield recording(gate), told


def test_a_recording_serves_stock_sdks_in_the_place_of_the_model(
    talk: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    file, told = talk
    assert MASKED in told["openai stream"]
    with serve(file, tmp_path, *SERVE) as process:
        url = wait_for_proxy(process)
        assert ask(url, "another key") == told
        assert ask(url, "and again") == told
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model=MODEL, messages=said("something else"))
    assert "Traceback" not in process.output


def test_a_stream_is_served_as_the_stream_it_was(
    talk: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    file, _ = talk
    recorded = [flow for flow in flows(file) if b'"stream":true' in (flow.request.content or b"")]
    assert len(recorded) == 3
    with serve(file, tmp_path, *SERVE) as process, httpx.Client(trust_env=False) as client:
        url = wait_for_proxy(process)
        for flow in recorded:
            assert flow.response
            with client.stream(
                "POST", f"{url}{flow.request.path}", content=flow.request.content
            ) as r:
                assert r.headers["content-type"] == flow.response.headers["content-type"]
                assert b"".join(r.iter_raw()) == flow.response.content


async def test_what_was_not_recorded_is_not_answered(
    talk: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """A request that is killed takes its connection along, and nothing else."""
    file, _ = talk
    settings = (*SERVE[:-1], "server_replay_extra=kill")
    with serve(file, tmp_path, *settings) as process:
        url = wait_for_proxy(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
            for _ in range(2):
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await client.post(CHAT, json={"model": "x"})
                known = flows(file)[0].request.content
                assert (await client.post(CHAT, content=known)).status_code == 200


async def test_a_model_server_that_does_not_answer_is_not_waited_for(
    talk: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """mitmproxy would connect to it before it looks at the recording, but for one option."""
    file, _ = talk
    with socket.socket() as deaf, ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # its queue is full, and nobody takes from it
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(deaf.getsockname())
        silent = f"reverse:http://127.0.0.1:{deaf.getsockname()[1]}"
        with serve(file, tmp_path, *SERVE, mode=silent) as process:
            url = await asyncio.to_thread(wait_for_proxy, process)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
                known = flows(file)[0].request.content
                assert (await client.post(CHAT, content=known)).status_code == 200


def test_what_callers_asked_goes_through_a_gate_with_a_token_of_today(
    talk: tuple[Path, dict[str, str]],
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
) -> None:
    """Judged by the rules of now, and recorded as exchanges of their own."""
    file, _ = talk
    before = file.read_bytes()
    gate = start_gate()
    with resend(file, gate, tokens.mint("agent-8"), tmp_path) as process:
        assert process.wait_exit() == 0
    gate.stop()
    was, now = flows(file), flows(recording(gate))
    assert file.read_bytes() == before
    assert [flow.request.path for flow in now] == [flow.request.path for flow in was]
    assert [flow.request.content for flow in now] == [flow.request.content for flow in was]
    assert [flow.response and flow.response.status_code for flow in now] == [200] * 6
    assert not {flow.id for flow in now} & {flow.id for flow in was}
    lines = entries(gate)
    assert [line["exchange"] for line in lines] == [flow.id for flow in now]
    assert {line["principal"] for line in lines} == {"test-idp:agent-8"}
    assert {line["masked"]["email"] for line in lines} == {1}
    assert {seen.headers["authorization"] for seen in standin.seen()} == {f"Bearer {standin.key}"}
    assert tokens.mint("agent-8").split(".")[0].encode() not in recording(gate).read_bytes()
    assert ledger.verify(gate.state / "recordings").ok


def test_new_rules_judge_what_is_sent_again(
    talk: tuple[Path, dict[str, str]],
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
) -> None:
    rules = baseline(tokens, standin.url, tmp_path)["commands"]
    assert isinstance(rules, dict)
    greeting = {**rules["rules"][0], "id": "no-greetings", "match": "hello"}
    greeting["tests"] = {"match": ["hello"], "pass": ["good day"]}
    file, _ = talk
    gate = start_gate(rules={"commands": {**rules, "rules": [greeting]}})
    with resend(file, gate, tokens.mint(), tmp_path) as process:
        assert process.wait_exit() == 0
    gate.stop()
    assert [line["refusal"] for line in entries(gate)] == ["no-greetings"] * 6
    assert standin.seen() == []


async def test_replayed_within_the_gate_without_a_token_it_gets_nowhere(
    talk: tuple[Path, dict[str, str]], start_gate: Callable[..., Gate], standin: StandIn
) -> None:
    """`-C` of the gate's own mitmdump: a recording holds no token, and replaying is no way in."""
    file, _ = talk
    gate = start_gate(options={"client_replay": str(file)})
    sent, mark = flows(file), 0
    ids = {flow.id for flow in sent}
    for _ in sent:
        refused = await gate.logged(r"refused 401 token_missing: .* exchange (\S+)", since=mark)
        mark = gate.process.lines.index(refused.string) + 1
        ids.add(refused[1])
    assert len(ids) == 2 * len(sent)  # each is an exchange of its own, in the ledger too
    gate.stop()
    assert standin.seen() == []
