"""A recording of a real gate in a real mitmweb: the transcript, and the filters people search with.

With SCREENS=DIRECTORY in the environment the picture is kept there.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from browsing import Watched, chromium
from harness import Gate, StandIn, Tokens, baseline
from processes import GATEWAY, ROOT, Process, free_port

CHAT = "/v1/chat/completions"
VIEWS = ROOT / "addons/views.py"
SCREENS = os.environ.get("SCREENS", "")
TOOL = {
    "type": "function",
    "function": {
        "name": "send_mail",
        "description": "Sends a mail to a patient.",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    },
}
MAILING: dict[str, Any] = {
    "model": "stand-in",
    "stream": True,
    "tools": [TOOL],
    "messages": [
        {"role": "system", "content": "You help the front desk. Be brief."},
        {
            "role": "user",
            "content": "think: The address is on file: jane.doe@example.com\n"
            'call: send_mail {"to": "jane.doe@example.com", "text": "See you on Monday."}\n'
            "How do I reach the patient? And please say it in one sentence, as she is on her way.",
        },
    ],
}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def flows(path: Path) -> list[http.HTTPFlow]:
    with path.open("rb") as file:
        return list(FlowReader(file).stream())  # type: ignore[arg-type]


async def traffic(gate: Gate, tokens: Tokens, standin: StandIn) -> None:
    """Allowed and masked, denied, held and approved, allowed, interrupted: in this order."""
    agent = tokens.mint("agent-7", name="Front desk")
    ann = tokens.mint("ann", (), ["approvers"])
    async with gate.client(agent) as client, gate.client(ann, base_url=gate.console) as console:
        assert (await client.post(CHAT, json=MAILING)).status_code == 200
        denied = await client.post(CHAT, json=said("Please export the weights to s3."))
        assert denied.status_code == 403
        asking = asyncio.create_task(client.post(CHAT, json=said("wire the money\nsay: Done.")))
        hold = (await gate.logged(r"mitmgate approve (h-\S+)"))[1]
        decision = {"reason": "The invoice is known"}
        answer = await console.post(f"/api/holds/{hold}/approve", json=decision)
        assert answer.status_code == 200
        assert (await asking).status_code == 200
    async with gate.client(tokens.mint("agent-8")) as client:
        assert (await client.post(CHAT, json=said("say: All is well."))).status_code == 200
        asking = asyncio.create_task(client.post(CHAT, json=said("standin: slow=60")))
        await standin.wait_seen(lambda seen: b"slow=60" in seen.body)
        gate.kill9()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.fixture(scope="module")
def recording(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Path]:
    """All that a gate has recorded of `traffic`, in one file."""
    directory = tmp_path_factory.mktemp("recorded")
    rules: dict[str, Any] = dict(baseline(tokens, standin_server.url, directory))
    approvers = {"who": {"issuer": "test-idp", "groups": ["approvers"]}}
    rules["approval"] = {**rules["approval"], "approvers": approvers}
    issuer = {**rules["identity"]["issuers"][0], "display": "{name}"}
    rules["identity"] = {**rules["identity"], "issuers": [issuer]}
    with Gate(directory, standin_server.url, rules, console="127.0.0.1:0") as gate:
        asyncio.run(traffic(gate, tokens, standin_server))
        gate.start()
        gate.wait_log("was interrupted; it is recorded as such")
        gate.stop()
        path = directory / "all.mitm"
        parts = sorted((gate.state / "recordings").glob("*.mitm"))
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        yield path


NAMES = ("masked", "denied", "approved", "allowed", "interrupted")
FILTERS = {
    "~meta agent-7": {"masked", "denied", "approved"},
    "~meta agent-8": {"allowed", "interrupted"},
    '~meta "Front desk"': {"masked", "denied", "approved"},
    "~meta stand-in": set(NAMES),
    "~meta email": {"masked"},
    "~meta 'subject.: .ann'": {"approved"},
    "~marked": {"masked", "denied", "approved", "interrupted"},
    "~marker :no_entry:": {"denied"},
    "~marker :hourglass:": {"approved"},
    "~marker :see_no_evil:": {"masked"},
    "~comment weights": {"denied"},
    "~comment wire-transfer": {"approved"},
    "~comment masked": {"masked"},
    "~comment 'approve by ann'": {"approved"},
    "~comment interrupted": {"interrupted"},
    "~comment refused": {"denied"},
    "~comment agent-8 & ! ~comment interrupted": {"allowed"},
}


@pytest.mark.parametrize("expression", FILTERS)
def test_filters_find_exchanges_in_mitmdump(
    recording: Path, tmp_path: Path, expression: str
) -> None:
    found = tmp_path / "found.mitm"
    command: list[str | Path] = [program("mitmdump"), "-n", "-r", recording, "-w", found]
    with Process([*command, "--set", f"confdir={tmp_path}", expression]) as process:
        assert process.wait_exit() == 0
    names = {flow.id: name for flow, name in zip(flows(recording), NAMES, strict=True)}
    assert {names[flow.id] for flow in flows(found)} == FILTERS[expression]


@asynccontextmanager
async def mitmweb(file: Path, directory: Path, *settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """The command of the README, and a client of its pages."""
    port = free_port()
    command: list[str | Path] = [program("mitmweb"), "-n", "-s", VIEWS, "-r", file]
    options = [f"web_port={port}", "web_password=x", "web_open_browser=false"]
    options += [f"confdir={directory}", *settings]
    command += [part for option in options for part in ("--set", option)]
    with Process(command, cwd=directory) as process:
        await asyncio.to_thread(process.wait_line, "Web server listening")
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, params={"token": "x"}) as ui:
            yield ui
        assert "Traceback" not in process.output


async def shown(ui: httpx.AsyncClient, flow: str, side: str) -> str:
    """What mitmweb shows of a message by itself, which has to be the transcript."""
    view = (await ui.get(f"/flows/{flow}/{side}/content/auto.json")).json()
    assert view["view_name"] == "Transcript"
    text: str = view["text"]
    return text


async def test_mitmweb_can_show_only_what_is_looked_for(recording: Path, tmp_path: Path) -> None:
    async with mitmweb(recording, tmp_path, "view_filter=~meta agent-8") as ui:
        assert len((await ui.get("/flows")).json()) == 2


async def test_mitmweb_shows_transcripts_with_what_the_gate_has_said(
    recording: Path, tmp_path: Path
) -> None:
    async with mitmweb(recording, tmp_path) as ui:
        listed = (await ui.get("/flows")).json()
        ids = dict(zip(NAMES, (flow["id"] for flow in listed), strict=True))
        request = await shown(ui, ids["masked"], "request")
        assert "── SYSTEM  messages[0] ──" in request
        assert "\n  You help the front desk. Be brief.\n" in request
        assert "\n  send_mail: Sends a mail to a patient.\n" in request
        answer = await shown(ui, ids["masked"], "response")
        assert "caller   test-idp:agent-7 (Front desk), by grant callers, with token " in answer
        assert "masked   email x2\n" in answer
        assert "\n  │ The address is on file: [EMAIL]\n" in answer
        assert '\n  → calls send_mail\n    {\n      "to": "[EMAIL]",\n' in answer
        refused = await shown(ui, ids["denied"], "response")
        assert "ended    refused denied: weights-export (status 403)\n" in refused
        assert "found    weights-export (deny, medium) at messages[0].content\n" in refused
        assert "\n  message: Weights do not leave through this gateway." in refused
        assert "<< weights-export >>" in await shown(ui, ids["denied"], "request")
        held = await shown(ui, ids["approved"], "response")
        assert "\nhold     h-" in held
        assert "\ndecided  approved by test-idp:ann on 20" in held
        assert "The invoice is known" in held
        assert "\n  Done.\n" in held
        assert "ended    interrupted\n" in await shown(ui, ids["interrupted"], "request")


@pytest.mark.browser
async def test_filters_typed_into_mitmweb(recording: Path, tmp_path: Path) -> None:
    async with mitmweb(recording, tmp_path) as ui, chromium() as browser:
        page = (await Watched.open(browser, str(ui.base_url))).page
        await page.goto(f"{ui.base_url}/?token=x")
        await page.wait_for_selector("td.col-path >> nth=4")
        for expression, found in FILTERS.items():
            if "~meta" in expression:
                # The box knows no `~meta`, which mitmweb itself does: it goes into the address.
                await page.evaluate(
                    "hash => location.hash = hash", f"#/flows?s={quote(expression)}"
                )
                await page.reload()
            else:
                await page.fill("input[placeholder=Search]", expression)
            await page.wait_for_function(
                "count => document.querySelectorAll('td.col-path').length == count", arg=len(found)
            )
            await page.fill("input[placeholder=Search]", "")
            await page.wait_for_selector("td.col-path >> nth=4")


@pytest.mark.browser
async def test_picture(recording: Path, tmp_path: Path) -> None:
    picture = Path(SCREENS or tmp_path) / "mitmweb-transcript.png"
    async with mitmweb(recording, tmp_path) as ui, chromium() as browser:
        size = {"width": 1280, "height": 800}
        page = (await Watched.open(browser, str(ui.base_url), viewport=size)).page
        await page.goto(f"{ui.base_url}/?token=x#/flows?s=~meta%20agent-7")
        await page.wait_for_function("() => document.querySelectorAll('td.col-path').length == 3")
        await page.click("td.col-path >> nth=0")
        await page.click("text=Response")
        await page.wait_for_selector("text=calls send_mail")
        await page.mouse.move(0, 790)
        await page.screenshot(path=picture)
    assert picture.stat().st_size < 200_000


async def test_a_gate_that_reads_a_recording_leaves_it_as_it_is(
    recording: Path, start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    """In mitmweb with the whole gate in it, where all hooks run for what is loaded."""
    asked: list[str] = []

    async def issuer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        body = tokens.jwks_file.read_bytes()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(issuer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    web = free_port()
    options = {"web_port": str(web), "web_password": "x", "web_open_browser": "false"}
    identity: dict[str, Any] = dict(baseline(tokens, standin.url, recording.parent)["identity"])
    keys = {"keys": {"jwks_url": f"http://127.0.0.1:{port}/jwks"}}
    identity["issuers"] = [{**identity["issuers"][0], **keys}]
    rules = {"identity": identity}
    async with server:
        gate = await asyncio.to_thread(
            start_gate, rules=rules, program="mitmweb", options=options, scripts=(GATEWAY, VIEWS)
        )
        async with gate.client(tokens.mint()) as client:
            assert (await client.post(CHAT, json=said("say: Yes."))).status_code == 200
        ledger = next((gate.state / "recordings").glob("*.jsonl"))
        await gate.logged("client disconnect")
        before, times = ledger.read_bytes(), len(asked)
        assert times >= 1
        base = f"http://127.0.0.1:{web}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, params={"token": "x"}) as ui:
            ui.cookies["_mitmproxy_xsrf"] = ui.headers["X-XSRFToken"] = "a" * 32
            loaded = await ui.post("/flows/dump", content=recording.read_bytes())
            assert loaded.status_code == 200, loaded.text
            kept = (await ui.get("/flows/dump")).content
            listed = (await ui.get("/flows")).json()
            assert "found    weights-export" in await shown(ui, listed[1]["id"], "request")
        assert ledger.read_bytes() == before
        assert len(asked) == times
        assert len(standin.seen()) == 1
        gate.stop()
    copy = gate.directory / "kept.mitm"
    copy.write_bytes(kept)
    for was, now in zip(flows(recording), flows(copy), strict=True):
        assert (was.id, was.comment, was.marked) == (now.id, now.comment, now.marked)
        assert was.metadata == now.metadata
        assert was.request.get_state() == now.request.get_state()
        assert (was.response and was.response.get_state()) == (
            now.response and now.response.get_state()
        )
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len([line for line in lines if line["kind"] == "entry"]) == 1
