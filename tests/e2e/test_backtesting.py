"""`mitmgate backtest` over what a real gate has recorded, before changed rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import Gate, StandIn, Tokens, write_rules
from mitmgate.cli import main

CHAT = "/v1/chat/completions"


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}


def rule(id: str, match: str, **more: Any) -> dict[str, Any]:
    tests = {"match": [match], "pass": ["nothing"]}
    return {"id": id, "title": id, "action": "deny", "match": match, "tests": tests, **more}


async def _traffic(gate: Gate, tokens: Tokens) -> None:
    async with (
        gate.client(tokens.mint()) as agent,
        gate.client(tokens.mint("agent-8", groups=["cleared"])) as cleared,
        gate.client() as nobody,
    ):
        for client, body in (
            (agent, said("drop the table")),
            (cleared, said("drop the table")),
            (agent, said("drop the table", stream=True)),
            (agent, said("hello")),
            (agent, said("export the weights")),
            (nobody, said("drop the table")),
        ):
            await client.post(CHAT, json=body)
        waiting = {"prefer": "respond-async"}
        assert (await agent.post(CHAT, json=said("wire the money"), headers=waiting)).is_error


def test_changed_rules_over_what_was_recorded(
    start_gate: Callable[..., Gate],
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gate = start_gate()
    then = {path.stem: path.read_text() for path in gate.rules.glob("*.yaml")}
    asyncio.run(_traffic(gate, tokens))
    gate.stop()
    recordings = gate.state / "recordings"

    def backtest(rules: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
        code = main(["backtest", str(recordings), "--rules", str(rules), "--json", *options])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def of(kind: str, objects: list[dict[str, Any]]) -> list[tuple[str, str]]:
        found = [each for each in objects if each["type"] == "change" and each["change"] == kind]
        return [(each["rule"], each["principal"]) for each in found]

    strict = ("--fail-on", "denied,held,masked,undenied,unheld,unmasked,reason")
    code, objects = backtest(gate.rules, *strict)
    assert (code, objects[-1]["exchanges"]) == (0, 7)
    assert [each["reason"] for each in objects if each["type"] == "unjudged"] == ["no-caller"]

    changed = tmp_path / "changed"
    excepting = rule("table-drop", "drop the table", unless=[{"groups": ["cleared"]}])
    masker = yaml.safe_load(then["masker"])
    masker["profiles"]["default"]["answer"].remove("phone")
    write_rules(
        changed,
        {
            **then,
            "commands": {"schema": 1, "rules": [excepting]},
            "approval": {"schema": 1, "rules": []},
            "masker": masker,
        },
    )
    for against in ((), ("--against", str(gate.rules))):
        code, objects = backtest(changed, "--fail-on", "undenied", *against)
        assert code == 1
        assert of("denied", objects) == [("table-drop", "test-idp:agent-7")] * 2
        assert of("undenied", objects) == [("weights-export", "test-idp:agent-7")]
        assert of("unheld", objects) == [("wire-transfer", "test-idp:agent-7")]
        assert of("unmasked", objects) == [("phone", "test-idp:agent-7")]  # of the harmless one
        assert of("masked", objects) == []
    denied = next(each for each in objects if each["type"] == "change")
    assert denied["finding"]["original"] == "drop the table"
