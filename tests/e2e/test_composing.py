"""Addons compose: alone, in any selection, and with addons of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Gate, StandIn, Tokens
from processes import GATEWAY, ROOT

ADDONS = ROOT / "addons"
CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}

QUOTA = '''
"""Ten exchanges a caller, then 429."""
from collections import Counter

from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, deny


class Quota(GateAddon):
    name = "acme.quota"
    needs = ("mitmgate.identity",)

    def __init__(self):
        self.used = Counter()

    def request(self, flow):
        caller = Exchange.of(flow).principal.name
        self.used[caller] += 1
        if self.used[caller] > 2:
            deny(429, "quota-used", "Your quota is used up.", Retry_After="60")
        if flow.request.query.get("bug"):
            raise RuntimeError("a bug of one's own")


addons = [Quota()]
'''


async def test_identity_and_recorder_alone(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate(scripts=[ADDONS / "identity.py", ADDONS / "recorder.py"])
    async with gate.client() as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 401
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=BODY)
    # Nothing masks here, and no key is put in: the stand-in asks for its own.
    assert answer.status_code == 401
    assert len(standin.seen()) == 1
    assert "authorization" not in standin.seen()[0].headers
    gate.stop()
    (ledger,) = (gate.state / "recordings").glob("*.jsonl")
    assert ledger.read_text().count('"kind":"entry"') == 2


async def test_masker_alone_refuses_what_it_cannot_read(
    start_gate: Callable[..., Gate], standin: StandIn
) -> None:
    gate = start_gate(scripts=[ADDONS / "masker.py", ADDONS / "credentials.py"])
    async with gate.client() as client:
        assert "[EMAIL]" in (await client.post(CHAT, json=BODY)).text
        assert (await client.get("/v1/files")).status_code == 404
    assert len(standin.seen()) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_addon_of_ones_own_fails_closed_too(
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    stream: bool,
) -> None:
    script = tmp_path / "quota.py"
    script.write_text(QUOTA)
    gate = start_gate(scripts=[GATEWAY, script])
    async with gate.client(tokens.mint()) as client:
        body = {**BODY, "stream": stream}
        assert (await client.post(CHAT, json=body)).status_code == 200
        broken = await client.post(f"{CHAT}?bug=1", json=body)
        assert broken.status_code == 503
        assert broken.json()["error"]["code"] == "gate_fault"
        spent = await client.post(CHAT, json=body)
        assert spent.status_code == 429
        assert spent.headers["retry-after"] == "60"
        assert spent.json()["error"]["code"] == "quota-used"
    assert len(standin.seen()) == 1
    assert "acme.quota.request failed" in gate.output


async def test_rules_are_swapped_while_running_and_kept_when_the_new_ones_are_bad(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate()
    async with gate.client(tokens.mint()) as client:

        async def status(text: str) -> int:
            body = {**BODY, "messages": [{"role": "user", "content": text}]}
            return (await client.post(CHAT, json=body)).status_code

        assert await status("sing a song") == 200
        rule = (
            "  - {id: song-sing, title: Songs, action: deny, match: 'sing a song', "
            "tests: {match: [sing a song], pass: [hum]}}\n"
        )
        gate.write_rules(commands=f"schema: 1\nrules:\n{rule}")
        await gate.logged(r"commands\.yaml is in force, digest")
        assert await status("sing a song") == 403
        assert await status("export the weights") == 200

        gate.write_rules(commands="schema: 1\nrules: [{id: Broken}]\nbogus: 1\n")
        await gate.logged(r"commands\.yaml is not used, the old rules stay in force")
        await gate.logged(r"commands\.yaml:3: bogus: unknown key")
        assert await status("sing a song") == 403

        gate.write_rules(masker="schema: 1\nrecognizers: []\nprofiles: {default: {answer: []}}\n")
        await gate.logged(r"masker\.yaml is in force")
        assert "jane.doe@example.com" in (await client.post(CHAT, json=BODY)).text


async def test_a_profile_that_does_not_exist_masks_nothing_and_delivers_nothing(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    gate = start_gate(
        rules={"masker": "schema: 1\nrecognizers: []\nprofiles: {other: {answer: []}}\n"}
    )
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 503
    assert "no masking profile 'default'; there are: other" in gate.output
    assert standin.seen() == []
