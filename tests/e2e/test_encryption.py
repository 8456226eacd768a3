"""Recordings that are encrypted, of real gates: nothing is on disk, and those who may read it all.

What is looked for on disk are words of the prompt and of the stand-in's answer.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens, start_error
from mitmgate.core import ledger
from processes import GATEWAY

pyrage = pytest.importorskip(
    "pyrage", reason="needs pyrage, of the extra `encryption` (scripts/test installs it)"
)

CHAT = "/v1/chat/completions"
OWNER = pyrage.x25519.Identity.generate()
ENCRYPT = {"schema": 1, "encrypt": {"recipients": [str(OWNER.to_public())]}}
WORDS = (b"zebra-4711", b"You can reach")
BIN = Path(sys.executable).parent


def said(text: str, **more: Any) -> dict[str, Any]:
    content = f"{text}\nzebra-4711"
    return {"model": "stand-in", "messages": [{"role": "user", "content": content}], **more}


def holding(gate: Gate) -> list[str]:
    """The files of the state directory that have some of the words in them."""
    files = [path for path in gate.state.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(word in path.read_bytes() for word in WORDS)]


def mitmgate(gate: Gate, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "mitmgate", *arguments, "--state", gate.state]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def entries(gate: Gate) -> list[ledger.Entry]:
    def tell(fault: object) -> None:
        pytest.fail(str(fault))

    return list(ledger.entries(gate.state / "recordings", ledger.Query(), tell))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(f"# created: 2026-03-02T09:00:00Z\n{OWNER}\n")
    return path


async def test_no_word_of_a_prompt_or_an_answer_is_on_disk(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, key: Path, tmp_path: Path
) -> None:
    gate = start_gate(rules={"recorder": ENCRYPT})
    async with gate.client(tokens.mint()) as client:
        client.headers.update({"X-Session-Id": "run-1"})
        assert "You can reach" in (await client.post(CHAT, json=said("hello"))).text
        assert (await client.post(CHAT, json=said("hello", stream=True))).status_code == 200
        assert (await client.post(CHAT, json=said("export the weights"))).status_code == 403
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=60")))
        await standin.wait_seen(lambda seen: b"slow=60" in seen.body)
        assert len(list((gate.state / "journal").rglob("*.flow"))) >= 1
        assert holding(gate) == []
        gate.kill9()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
    assert holding(gate) == []
    gate.start()
    await gate.logged("was interrupted; it is recorded as such")
    gate.stop()
    assert holding(gate) == []
    report = ledger.verify(gate.state / "recordings")
    assert report.ok, report.findings
    assert not list((gate.state / "journal").rglob("*.flow"))

    # the ledger alone says who did what
    rows = entries(gate)
    assert [row["ending"] for row in rows] == ["complete", "complete", "refused", "interrupted"]
    assert {(row["session"], row["principal"]) for row in rows} == {("run-1", "test-idp:agent-7")}
    assert {row["encrypted"] for row in rows} == {"age"}

    # who has the key reads all of it
    shown = mitmgate(gate, "show", rows[0]["exchange"])
    assert shown.returncode == 1
    assert "is encrypted: give the identity" in shown.stderr
    shown = mitmgate(gate, "show", rows[0]["exchange"], "--identity", key)
    assert "  hello\n  zebra-4711\n" in shown.stdout
    assert "  You can reach" in shown.stdout
    plain = tmp_path / "plain.mitm"
    assert mitmgate(gate, "export", "-o", plain, "--identity", key).returncode == 0
    with plain.open("rb") as file:
        flows = list(FlowReader(file).stream())  # type: ignore[arg-type]
    assert [flow.metadata["mitmgate"]["ending"] for flow in flows] == [
        row["ending"] for row in rows
    ]
    for flow in flows:
        assert isinstance(flow, http.HTTPFlow)
        assert b"zebra-4711" in (flow.request.raw_content or b"")
        assert "authorization" not in flow.request.headers
    assert (flows[-1].marked, flows[-1].comment.split()[-1]) == (":boom:", "interrupted")

    # mitmproxy reads what was exported, and says of the other what to do
    for path, fails in ((plain, False), (rows[0].flows, True)):
        command = [BIN / "mitmdump", "-n", "-r", path, "--set", "flow_detail=3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ("zebra-4711" in done.stdout) is not fails
        assert ("mitmgate export --identity FILE" in done.stdout + done.stderr) is fails


async def test_an_edit_takes_effect_at_once_and_an_unfit_one_never(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=said("in the clear"))).status_code == 200
        (before,) = (gate.state / "recordings").glob("*.mitm")
        gate.write_rules(recorder=ENCRYPT)
        await gate.logged(r"recorder\.yaml is in force")
        assert (await client.post(CHAT, json=said("hello"))).status_code == 200
        assert set(holding(gate)) <= {before.name}
        gate.write_rules(recorder={"schema": 1, "encrypt": {"recipients": [str(OWNER)]}})
        await gate.logged(r"recorder\.yaml:\d+: encrypt\.recipients\[0\]: is a secret key")
        assert (await client.post(CHAT, json=said("hello"))).status_code == 200
    gate.stop()
    assert str(OWNER) not in gate.output
    assert set(holding(gate)) == {before.name}
    assert [row["encrypted"] for row in entries(gate)] == ["", "age", "age"]
    assert ledger.verify(gate.state / "recordings").ok


def test_a_gate_does_not_start_with_recipients_that_are_none(
    start_gate: Callable[..., Gate], tmp_path: Path
) -> None:
    gate = start_gate()
    gate.stop()
    gate.write_rules(recorder={"schema": 1, "encrypt": {"recipients": ["age1nonsense"]}})
    output = start_error(gate.command, tmp_path)
    assert "recorder.yaml:" in output
    assert "encrypt.recipients[0]: is no recipient" in output


FAILING = """
import pyrage
from pathlib import Path

encrypt = pyrage.encrypt


def failing(data, recipients):
    if Path("fail").exists():
        raise pyrage.EncryptError("no entropy")
    return encrypt(data, recipients)


pyrage.encrypt = failing
"""


async def test_what_cannot_be_encrypted_is_refused(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    gate = start_gate(rules={"recorder": ENCRYPT}, scripts=[GATEWAY, script])
    fault = gate.directory / "fail"
    async with gate.client(tokens.mint()) as client:
        fault.touch()
        answer = await client.post(CHAT, json=said("hello"))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "recording_failed"
        assert standin.seen() == []
        fault.unlink()
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=1")))
        await standin.wait_seen(lambda seen: b"slow=1" in seen.body)
        fault.touch()
        assert (await asking).json()["error"]["code"] == "recording_failed"
        fault.unlink()
        assert (await client.post(CHAT, json=said("hello"))).status_code == 200
    gate.stop()
    assert "cannot be encrypted: no entropy" in gate.output
    assert holding(gate) == []
    gate.start()  # what was under way meanwhile is still in the journal
    await gate.logged("was interrupted; it is recorded as such")
    gate.stop()
    assert holding(gate) == []
    assert sorted(row["ending"] for row in entries(gate)) == ["complete", "interrupted"]
    assert ledger.verify(gate.state / "recordings").ok
