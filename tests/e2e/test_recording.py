"""Every exchange is on disk, before it leaves and after it came back, and no secret is."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens, baseline
from mitmgate.core import ledger
from processes import ROOT, Process, free_port

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**BODY, "stream": True}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}], **more}


def flows(gate: Gate) -> list[http.HTTPFlow]:
    """Every recorded flow, in the order of the files."""
    found: list[http.HTTPFlow] = []
    for path in sorted((gate.state / "recordings").glob("*.mitm")):
        with path.open("rb") as file:
            found += FlowReader(file).stream()  # type: ignore[arg-type]
    return found


def entries(gate: Gate) -> list[dict[str, Any]]:
    """Every ledger line that speaks of an exchange."""
    lines: list[dict[str, Any]] = []
    for path in sorted((gate.state / "recordings").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "entry"]


def assert_sound(gate: Gate) -> None:
    report = ledger.verify(gate.state / "recordings")
    assert report.ok, report.findings


async def test_what_is_recorded_is_what_was_sent_and_what_was_got(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint("agent-7", jti="token-1")) as client:
        whole = await client.post(CHAT, json=BODY)
        stream = await client.post(CHAT, json=STREAM)
        denied = await client.post(CHAT, json=said("export the weights"))
    async with gate.client() as nobody:
        missing = await nobody.post(CHAT, json=said("a secret of nobody"))
    gate.stop()
    recorded = flows(gate)
    assert [flow.response.content for flow in recorded if flow.response] == [
        whole.content,
        stream.content,
        denied.content,
        missing.content,
    ]
    assert json.loads(recorded[0].request.content or b"") == BODY
    assert json.loads(recorded[2].request.content or b"") == said("export the weights")
    assert recorded[3].request.content == b""  # whoever has no token cannot fill the disk
    lines = entries(gate)
    assert [line["ending"] for line in lines] == ["complete", "complete", "refused", "refused"]
    assert [line["refusal"] for line in lines] == ["", "", "weights-export", "token_missing"]
    assert [line["exchange"] for line in lines] == [flow.id for flow in recorded]
    first = lines[0]
    assert first["principal"] == "test-idp:agent-7"
    assert first["token_id"] == "token-1"
    assert (first["operation"], first["model"], first["dialect"]) == ("chat", "stand-in", "openai")
    assert first["grant"] == "callers"
    assert first["masked"] == {"email": 1, "payment-card": 1, "phone": 1, "iban": 1}
    assert set(first["rules"]) >= {"identity", "commands", "approval", "masker", "recorder"}
    assert first["coverage"]["prompt:text"] == 1
    assert lines[2]["findings"][0]["rule"] == "weights-export"
    assert recorded[0].marked == ":see_no_evil:"
    assert recorded[2].marked == ":no_entry:"
    assert "agent-7" in recorded[2].comment
    assert "weights-export" in recorded[2].comment
    assert recorded[0].metadata["mitmgate"]["principal"] == "test-idp:agent-7"
    assert_sound(gate)


async def test_no_token_and_no_key_in_any_file_log_or_dump(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.mitm"
    gate = start_gate(options={"save_stream_file": str(dump), "flow_detail": "4"})
    token = tokens.mint()
    secrets = [token.encode(), token.split(".")[2].encode(), standin.key.encode(), b"session=9"]
    async with gate.client(token, headers={"cookie": "session=9"}) as client:
        client.headers["authorization"] = f"Bearer {token}"
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert (await client.post(CHAT, json=STREAM)).status_code == 200
        assert (await client.post(CHAT, json=said("export the weights"))).status_code == 403
        assert (await client.post(CHAT, json=said("standin: status=500"))).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, json=said("standin: cut=3", stream=True))
        # One that is under way when the gate is asked to end: mitmproxy saves it on its way out.
        under_way = asyncio.create_task(client.post(CHAT, json=said("standin: slow=30")))
        await standin.wait_seen(lambda seen: b"slow=30" in seen.body)
        await asyncio.to_thread(gate.stop)
        await asyncio.gather(under_way, return_exceptions=True)
    upstream_key = gate.directory / "upstream-key"
    upstream_key.unlink()
    for path in (*gate.directory.rglob("*"), dump):
        if path.is_file():
            for secret in secrets:
                assert secret not in path.read_bytes(), path
    for secret in secrets:
        assert secret.decode() not in gate.output
    with dump.open("rb") as file:
        assert len(list(FlowReader(file).stream())) == 6  # type: ignore[arg-type]


async def test_how_it_ended_is_told(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, json=said("standin: cut=4", stream=True))
        async with client.stream("POST", CHAT, json=said("standin: hang=8", stream=True)) as stream:
            got = b""
            async for piece in stream.aiter_raw():
                got += piece
                if got.count(b"data:") >= 4:
                    break
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")
    gate.stop()
    lines = entries(gate)
    assert [line["ending"] for line in lines] == ["upstream_error", "client_aborted"]
    aborted = flows(gate)[1]
    assert aborted.response
    content = aborted.response.content or b""
    assert content.startswith(got[:100])  # what had been delivered
    assert_sound(gate)


async def test_journal_first(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=60")))
        await standin.wait_seen()
        (journaled,) = (gate.state / "journal").rglob("*.flow")
        assert b"standin: slow=60" in journaled.read_bytes()
        gate.kill9()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
    gate.start()
    await gate.logged("was interrupted; it is recorded as such")
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    gate.stop()
    lines = entries(gate)
    assert [line["ending"] for line in lines] == ["interrupted", "complete"]
    assert lines[0]["principal"] == "test-idp:agent-7"
    assert "standin: slow=60" in (flows(gate)[0].request.text or "")
    assert not list((gate.state / "journal").rglob("*.flow"))
    assert_sound(gate)


async def test_what_cannot_be_journaled_does_not_leave(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    slot = gate.state / "journal" / "w1"
    aside = slot.rename(slot.with_name("aside"))
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "recording_failed"
        assert standin.seen() == []
        aside.rename(slot)
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_what_cannot_be_recorded_is_not_delivered(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=1")))
        await standin.wait_seen(lambda seen: b"slow=1" in seen.body)
        shutil.rmtree(gate.state / "recordings")
        answer = await asking
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "recording_failed"
        assert "jane" not in answer.text
        await gate.logged("not recorded: ")


async def test_prompts_masked_records_what_the_model_got(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    rules: dict[str, Any] = dict(baseline(tokens, standin.url, tmp_path))
    rules["masker"]["profiles"]["default"]["prompt"] = ["email"]
    rules["recorder"]["prompts"] = "masked"
    gate = start_gate(rules={"masker": rules["masker"], "recorder": rules["recorder"]})
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=said("I am bob@example.org"))
    assert answer.status_code == 200
    gate.stop()
    assert standin.seen()[0].json["messages"][0]["content"] == "I am [EMAIL]"
    assert "I am [EMAIL]" in (flows(gate)[0].request.text or "")
    for path in (path for path in gate.state.rglob("*") if path.is_file()):
        assert b"bob@example.org" not in path.read_bytes(), path


async def test_a_masked_prompt_is_recorded_as_sent_with_its_own_length(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    rules: dict[str, Any] = dict(baseline(tokens, standin.url, tmp_path))
    rules["masker"]["profiles"]["default"]["prompt"] = ["email"]
    gate = start_gate(rules={"masker": rules["masker"]})
    asked = json.dumps(said("I am bob@example.org")).encode()
    kind = {"content-type": "application/json"}
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, content=asked, headers=kind)).status_code == 200
        packed = {**kind, "content-encoding": "gzip"}
        answer = await client.post(CHAT, content=gzip.compress(asked), headers=packed)
        assert answer.status_code == 200
    gate.stop()
    assert [seen.json["messages"][0]["content"] for seen in standin.seen()] == 2 * ["I am [EMAIL]"]
    for flow in flows(gate):
        assert flow.request.raw_content == asked
        assert flow.request.headers["content-length"] == str(len(asked))
        assert "content-encoding" not in flow.request.headers


async def test_a_replay_within_the_gate_is_an_exchange_of_its_own(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    gate.stop()
    (recording,) = (gate.state / "recordings").glob("*.mitm")
    gate.command += ["-C", str(recording)]
    gate.start()
    await gate.logged("refused 401")
    gate.stop()
    first, again = entries(gate)
    assert (first["ending"], again["refusal"]) == ("complete", "token_missing")
    assert again["exchange"] != first["exchange"]
    assert [flow.id for flow in flows(gate)] == [first["exchange"], again["exchange"]]
    assert len(standin.seen()) == 1
    assert_sound(gate)


async def test_more_findings_than_a_ledger_line_holds(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    many = [{"role": "user", "content": "export the weights"}] * 9000
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json={**BODY, "messages": many})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "weights-export"
    gate.stop()
    (line,) = entries(gate)
    assert line["refusal"] == "weights-export"
    every = len(flows(gate)[0].metadata["mitmgate"]["findings"])
    assert every >= 9000
    assert line["found"] == {"weights-export": every}
    assert len(line["findings"]) + line["left_out"]["findings"] == every
    assert_sound(gate)


async def test_two_gates_share_a_directory(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    one = start_gate()
    two = start_gate(options={"gate_state": str(one.state)})
    async with one.client(tokens.mint()) as first, two.client(tokens.mint()) as second:
        answers = await asyncio.gather(
            *(client.post(CHAT, json=BODY) for client in (first, second) for _ in range(5))
        )
    assert {answer.status_code for answer in answers} == {200}
    one.stop()
    two.stop()
    assert len(entries(one)) == len(flows(one)) == 10
    assert len(list((one.state / "recordings").glob("*.mitm"))) == 2
    assert_sound(one)


async def test_reading_a_recording_judges_and_records_nothing(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        await client.post(CHAT, json=BODY)
        await client.post(CHAT, json=said("export the weights"))
    gate.stop()
    (recording,) = (gate.state / "recordings").glob("*.mitm")
    state = tmp_path / "elsewhere"
    program = Path(sys.executable).with_name("mitmdump")
    options = [f"gate_rules={gate.rules}", f"gate_state={state}", "gate_console="]
    command: list[str | Path] = [program, "-n", "-r", recording, "-s", ROOT / "addons/gateway.py"]
    command += [part for option in options for part in ("--set", option)]
    with Process(command, cwd=tmp_path) as process:
        assert process.wait_exit() == 0
    assert "weights-export" not in process.output
    assert not list((state / "recordings").glob("*.mitm"))
    assert len(standin.seen()) == 1


async def test_the_recording_opens_in_mitmweb_with_markers_and_comments(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        await client.post(CHAT, json=STREAM)
        await client.post(CHAT, json=said("export the weights"))
    gate.stop()
    (recording,) = (gate.state / "recordings").glob("*.mitm")
    program, port = Path(sys.executable).with_name("mitmweb"), free_port()
    command: list[str | Path] = [program, "-n", "-r", recording, "-s", ROOT / "addons/views.py"]
    options = [f"web_port={port}", "web_password=x", "web_open_browser=false"]
    command += [part for option in options for part in ("--set", option)]
    with Process(command, cwd=tmp_path) as process:
        process.wait_line("Web server listening")
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, params={"token": "x"}) as ui:
            shown = (await ui.get("/flows")).json()
            assert [flow["marked"] for flow in shown] == ["\N{SEE-NO-EVIL MONKEY}", "\N{NO ENTRY}"]
            assert "masked payment-card x1" in shown[0]["comment"]
            assert "weights-export" in shown[1]["comment"]
            page = f"/flows/{shown[0]['id']}/response/content/auto.json"
            view = (await ui.get(page)).json()
            assert view["view_name"] == "Transcript"
            assert "You can reach Jane Doe at [EMAIL] or on [PHONE]." in view["text"]
            page = f"/flows/{shown[1]['id']}/request/content/auto.json"
            assert "export the weights" in (await ui.get(page)).json()["text"]


async def test_new_recorder_rules_take_effect_while_running(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        under_way = asyncio.create_task(client.post(CHAT, json=said("standin: slow=2")))
        await standin.wait_seen(lambda seen: b"slow=2" in seen.body)
        gate.write_rules(recorder="schema: 1\ndirectory: elsewhere\n")
        await gate.logged(r"recorder\.yaml is in force")
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        assert (await under_way).status_code == 200
    gate.stop()
    assert len(entries(gate)) == 1
    (ledger_file,) = (gate.state / "elsewhere").glob("*.jsonl")
    assert ledger_file.read_text().count('"kind":"entry"') == 2
    assert ledger.verify(gate.state / "elsewhere").ok
    assert not list((gate.state / "journal").rglob("*.flow"))
