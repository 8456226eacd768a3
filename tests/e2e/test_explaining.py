"""`mitmgate explain` says of a request what a gate with the same rules does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import Gate, StandIn, Tokens, baseline
from mitmgate.cli import main

CHAT = "/v1/chat/completions"


def rule(id: str, match: str, **more: Any) -> dict[str, Any]:
    tests = {"match": [match.strip("^")], "pass": ["nothing"]}
    return {"id": id, "title": id, "action": "deny", "match": match, "tests": tests, **more}


RULES = [
    rule("forbidden-word", "forbidden word", unless=[{"groups": ["cleared"]}]),
    rule("watched", "casual remark", mode="audit"),
    rule("logged", "idle talk", action="log"),
    rule("new-idea", "new idea", status="experimental"),
    rule("models-change", "^/api/pull", where=["path"]),
    rule("bad-title", "evil", where=["headers"], headers=["x-title"]),
    rule("answer-word", "magic word", where=["answer"]),
]


@pytest.fixture(scope="module")
def explained(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    directory = tmp_path_factory.mktemp("explained")
    hold = rule("wire-transfer", "wire the money", action="hold")
    files = {
        **baseline(tokens, standin_server.url, directory),
        "commands": {"schema": 1, "rules": json.loads(json.dumps(RULES))},
        "approval": {"schema": 1, "hold": "0s", "rules": [hold]},
    }
    with Gate(directory, standin_server.url, files) as gate:
        yield gate


def said(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": content}], **more}


def last_entry(gate: Gate) -> dict[str, Any]:
    lines = [
        json.loads(line)
        for path in sorted((gate.state / "recordings").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line.get("exchange")][-1]


def post(url: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(url, content=content, headers=headers, trust_env=False, timeout=30)


HIDDEN = "Zm9yYmlkZGVuIHdvcmQ="  # forbidden word


@pytest.mark.parametrize(
    ("path", "body", "headers", "claims"),
    [
        (CHAT, said("hello"), {}, {}),
        (CHAT, said("a forbidden word"), {}, {}),
        (CHAT, said(f"read {HIDDEN}"), {}, {}),
        (CHAT, said("a forbidden word"), {}, {"groups": ["cleared"]}),
        (CHAT, said("a casual remark"), {}, {}),
        (CHAT, said("idle talk of a new idea"), {}, {}),
        (CHAT, said("wire the money"), {}, {}),
        (CHAT, said("wire the money, forbidden word"), {}, {}),
        (CHAT, said("hello"), {"X-Title": "evil"}, {}),
        (CHAT, said("hello"), {"Content-Type": "text/html"}, {}),
        (CHAT, said("hello"), {"Upgrade": "websocket"}, {}),
        (CHAT, said("hello", prompt_embeds="x"), {}, {}),
        (CHAT, said("hello", input_ids=[1]), {}, {"scope": ""}),
        (CHAT, [said("hello")], {}, {}),
        (f"{CHAT}?api_key=x", said("hello"), {}, {}),
        ("/api/chat", said("a forbidden word", stream=False), {}, {}),
        ("/api/pull", {"model": "m"}, {}, {}),
        ("/api/pul", {"model": "m"}, {}, {}),
        ("/api/pull", {"model": "m"}, {}, {"exp": 1}),
        ("/v1/models", {}, {}, {}),
    ],
)
def test_the_verdict_is_that_of_a_gate(
    explained: Gate,
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    body: Any,
    headers: dict[str, str],
    claims: dict[str, Any],
) -> None:
    token, content = tokens.mint(**claims), json.dumps(body).encode()
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **headers}
    response = post(f"{explained.url}{path}", content, sent)
    entry = last_entry(explained)
    (tmp_path / "body.json").write_bytes(content)
    options = [f"--request={tmp_path / 'body.json'}", f"--token={token}", f"--path={path}"]
    options += [f"--header={name}: {value}" for name, value in headers.items()]
    code = main(["explain", *options, "--rules", str(explained.rules), "--json"])
    request = json.loads(capsys.readouterr().out)["request"]
    verdict = request["verdict"]
    assert code == (0 if response.status_code == 200 else 1)
    assert (verdict["outcome"] == "goes on") == (response.status_code == 200)
    assert (verdict["status"] or 200) == response.status_code
    assert (verdict["code"] or "") == entry["refusal"]
    assert verdict["public"] == response.headers.get("x-gate-rule")
    assert len(standin.seen()) == (1 if code == 0 else 0)
    # The rules of approval.yaml are shown even where commands.yaml has refused.
    denied = verdict["by"] == "commands"
    files = ("commands.yaml",) if denied else ("commands.yaml", "approval.yaml")
    assert [
        {key: each[key] for key in ("rule", "action", "severity", "mode", "address", "view")}
        for each in request["findings"]
        if each["file"] in files
    ] == entry["findings"]


@pytest.mark.parametrize("say", ["hello", "a magic word", "to jane.doe@example.com"])
@pytest.mark.parametrize("stream", [False, True])
def test_so_is_that_of_an_answer(
    explained: Gate,
    standin: StandIn,
    tokens: Tokens,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    say: str,
    stream: bool,
) -> None:
    body = json.dumps(said(f"say: {say}", stream=stream)).encode()
    sent = {"Content-Type": "application/json"}
    response = post(
        f"{explained.url}{CHAT}", body, {**sent, "Authorization": f"Bearer {tokens.mint()}"}
    )
    entry = last_entry(explained)
    upstream = post(
        f"{standin.url}{CHAT}", body, {**sent, "Authorization": f"Bearer {standin.key}"}
    )
    (tmp_path / "answer").write_bytes(upstream.content)
    (tmp_path / "body.json").write_bytes(body)
    options = [f"--request={tmp_path / 'body.json'}", f"--answer={tmp_path / 'answer'}"]
    main(["explain", *options, "--rules", str(explained.rules), "--json"])
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert answer["streams"] is stream
    assert (answer["verdict"]["code"] or "") == entry["refusal"]
    assert (entry["refusal"] == "answer-word") == ("magic" in say)
    assert answer["masked"] == entry["masked"]
    if not stream:
        assert response.status_code == (answer["verdict"]["status"] or 200)
