"""The recorder on a disk that is full, on a directory that is wrong, and under retention.

The disk is full for real: a small tmpfs where this user may mount one, else a limit of the kernel
on the size of any file.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from harness import Gate, StandIn, Tokens, baseline
from mitmgate.core import ledger

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
AGAIN = r"(\d+) exchanges that could not be recorded at once are recorded now"


def said(text: str, **more: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}], **more}


def entries(directory: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "entry"]


def flows(directory: Path) -> list[http.HTTPFlow]:
    found: list[http.HTTPFlow] = []
    for path in sorted(directory.glob("*.mitm")):
        with path.open("rb") as file:
            found += FlowReader(file).stream()  # type: ignore[arg-type]
    return found


class Limit:
    """No file of the gate's grows while `full`."""

    def __init__(self, gate: Gate) -> None:
        self._pid = gate.process.pid

    def fill(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, unlimited)


class OnTmpfs(Gate):
    """A gate whose state is on a tmpfs of its own, in a mount namespace of its own."""

    def start(self) -> None:
        self.state.mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size=2m tmpfs {self.state} && exec "$@"'
        self.command = ["unshare", "-m", "sh", "-c", mount, "sh", *self.command]
        super().start()

    @property
    def disk(self) -> Path:
        """Its state, as the gate sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.state}")


def may_mount(directory: Path) -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def on_tmpfs(tmp_path: Path, standin: StandIn, tokens: Tokens) -> Iterator[OnTmpfs]:
    if not may_mount(tmp_path):
        pytest.skip("this user may not mount a tmpfs")
    with OnTmpfs(tmp_path, standin.url, baseline(tokens, standin.url, tmp_path)) as gate:
        yield gate


async def test_a_disk_that_is_full_refuses_until_there_is_space(
    on_tmpfs: OnTmpfs, standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    filler = on_tmpfs.disk / "filler"
    async with on_tmpfs.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        refused = [await client.post(CHAT, json=said("no space")) for _ in range(3)]
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.json()["error"]["code"] for answer in refused} == {"recording_failed"}
        assert len(standin.seen()) == 1
        assert "No space left" in on_tmpfs.output
        report = ledger.verify(on_tmpfs.disk / "recordings")
        assert report.ok, report.findings
        assert report.entries == 1
        mark = on_tmpfs.process.mark()
        filler.unlink()
        assert (await client.post(CHAT, json=said("space again"))).status_code == 200
        await on_tmpfs.logged(AGAIN, since=mark)
    copy = tmp_path / "copy"
    shutil.copytree(on_tmpfs.disk / "recordings", copy)
    report = ledger.verify(on_tmpfs.disk / "recordings")
    assert report.ok, report.findings
    # what was refused for want of space is recorded, too: who asked, what, and that it was refused
    refusals = [line["refusal"] for line in entries(copy)]
    assert sorted(refusals) == ["", "", *3 * ["recording_failed"]]


async def test_what_was_delivered_while_the_disk_was_full_is_recorded_later(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    limit = Limit(gate)
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        asking = [
            asyncio.create_task(
                client.post(CHAT, json=said("standin: slow=2", user=user, stream=user != "whole"))
            )
            for user in ("ann", "ben", "whole")
        ]
        for user in (b"ann", b"ben", b"whole"):
            await standin.wait_seen(lambda seen, user=user: user in seen.body)  # type: ignore[misc]
        limit.fill()
        *streams, answer = [await each for each in asking]
        assert {stream.status_code for stream in streams} == {200}
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "recording_failed"
        mark = gate.process.mark()
        limit.free()
        assert (await gate.logged(AGAIN, since=mark))[1] == "3"
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    gate.stop()
    report = ledger.verify(gate.state / "recordings")
    assert report.ok, report.findings
    lines = entries(gate.state / "recordings")
    ended = [(line["ending"], line["refusal"]) for line in lines]
    assert sorted(ended) == [*4 * [("complete", "")], ("refused", "recording_failed")]
    recorded = [flow.response.content for flow in flows(gate.state / "recordings") if flow.response]
    for got in (*streams, answer):
        assert got.content in recorded
    assert not list((gate.state / "journal").rglob("*.flow"))
    assert not list((gate.state / "journal").rglob("*.over"))


async def test_a_wrong_directory_refuses_until_it_can_be_written(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    (gate.state / "bad").write_text("in the way")
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        gate.write_rules(recorder="schema: 1\ndirectory: bad\n")
        await gate.logged("nothing passes until it can record")
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "recording_failed"
        await gate.logged("tried again every second")
        (gate.state / "bad").unlink()
        await gate.logged("recording again")
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    gate.stop()
    assert gate.output.count("tried again every second") == 1
    assert sorted(line["status"] for line in entries(gate.state / "bad")) == [200, 503]


async def test_retention_in_a_running_gate(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    rules: dict[str, Any] = dict(baseline(tokens, standin.url, tmp_path))
    gate = start_gate(rules={"recorder": {**rules["recorder"], "rotate": {"size": "4k"}}})
    recordings = gate.state / "recordings"
    async with gate.client(tokens.mint()) as client:
        for _ in range(6):
            assert (await client.post(CHAT, json=BODY)).status_code == 200
    before = sorted(recordings.glob("*.mitm"))
    gate.stop()
    size = sum(path.stat().st_size for path in recordings.iterdir()) // 2
    retained = {**rules["recorder"], "retain": {"size": f"{size}", "age": "1d"}}
    gate.write_rules(recorder=retained)
    gate.start()
    await gate.logged(r"is removed under retention \(size\)")
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    while sum(path.stat().st_size for path in recordings.iterdir()) > size:
        await asyncio.sleep(0.05)
    gate.stop()
    assert not before[0].exists()
    report = ledger.verify(recordings)
    assert report.ok, report.findings
    assert report.removed


async def test_credentials_in_a_query_are_in_no_file(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> None:
    rules: dict[str, Any] = dict(baseline(tokens, standin.url, tmp_path))
    gate = start_gate(rules={"recorder": {**rules["recorder"], "scrub_query": ["ticket"]}})
    referer = {"referer": "https://x.example/?access_token=hush-3"}
    async with gate.client(tokens.mint()) as client:
        client.headers.update(referer)
        answer = await client.get("/v1/models?client_secret=hush-1&a=1&Ticket=hush-2")
        assert answer.status_code == 200
        assert (await client.get("/v1/models?access_token=hush-4")).status_code == 400
        assert (await client.get("/no/such?sig=hush-5")).status_code == 404
    assert "client_secret=hush-1" in standin.seen()[0].path  # what is sent is not changed
    gate.stop()
    for path in gate.state.rglob("*"):
        if path.is_file():
            assert b"hush" not in path.read_bytes(), path
    first = flows(gate.state / "recordings")[0]
    assert first.request.path == "/v1/models?client_secret=removed&a=1&Ticket=removed"


async def test_a_torn_journal_file_is_told(start_gate: Callable[..., Gate], tokens: Tokens) -> None:
    gate = start_gate()
    gate.stop()
    torn = gate.state / "journal" / "w1" / "0f5c.flow"
    torn.write_bytes(b"9999:half a flow")
    (torn.parent / "0f5d.flow").write_bytes(b"3:abc,")  # whole, and no flow
    (torn.parent / "0f5e.over").write_bytes(b"20:{}")  # of one that was never admitted
    gate.start()
    await gate.logged("the journal of exchange 0f5c is torn")
    await gate.logged("the journal of exchange 0f5d is torn")
    await gate.logged("the end of exchange 0f5e is torn")
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    assert (gate.state / "recordings" / "0f5c.flow.torn").read_bytes() == b"9999:half a flow"
    assert not torn.exists()
