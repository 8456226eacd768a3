"""What command rules look at, through a real gate: fields, numbers, addresses, calls, modes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from harness import Gate, StandIn, Tokens, baseline

CHAT = "/v1/chat/completions"
MODEL = "stand-in"
SHELL = r"\brm -rf /"
INSIDE = "http://2130706433:8000/admin"


def rule(name: str, matches: str, passes: str = "nothing", **more: Any) -> dict[str, Any]:
    tests = {"match": [matches], "pass": [passes]}
    head = {"id": name, "title": name, "action": "deny", "severity": "high", "tests": tests}
    return {**head, "message": f"No {name}.", **more}


RULES = [
    rule("query-word", "forbidden word", match="forbidden word", where=["query"]),
    rule("bad-agent", "EvilBot/1", match="evilbot", where=["headers"], headers=["user-agent"]),
    rule("shell-rm", "rm -rf /", match=SHELL, where=["tool_calls"]),
    rule(
        "path-argument",
        '{"path": "/etc/shadow"}',
        '{"note": "/etc/shadow"}',
        match="/etc/shadow",
        where=["tool_calls"],
        arguments=["path"],
    ),
    rule("file-exe", "name: a.exe;", match=r"name: [^;]{1,80}\.exe;", where=["files"]),
    rule("file-text", "open sesame", match="open sesame", where=["prompt"]),
    rule(
        "fetch-inside",
        INSIDE,
        "https://example.com/",
        network=["loopback", "private", "link-local", "metadata", "scheme", "unreadable"],
    ),
    rule(
        "too-many-tokens",
        '{"max_tokens": 100000}',
        '{"max_tokens": 100}',
        parameter=["max_tokens", "max_completion_tokens", "/options/num_predict"],
        min=1,
        max=4096,
        unless=[{"groups": ["cleared"]}],
    ),
    rule("biased", '{"logit_bias": {}}', "{}", parameter="logit_bias", present=True),
    rule(
        "model-admin",
        "/api/pull",
        "/api/chat",
        match=r"^/api/(?:pull|push|create|copy|delete)\b",
        where=["path"],
        methods=["POST", "DELETE"],
        severity="critical",
    ),
    rule(
        "slots-save",
        "/slots/0?action=save",
        "/slots",
        match=r"^/slots\b.{0,40}\baction=save\b",
        where=["path"],
    ),
    rule(
        "seen-reset",
        "/reset_prefix_cache",
        match="^/reset_prefix_cache$",
        where=["path"],
        action="log",
    ),
    rule(
        "seen-sleep",
        "/sleep",
        match="^/sleep$",
        where=["path"],
        mode="audit",
    ),
    rule("embedding-word", "sesame street", match="sesame street", operations=["embeddings"]),
    rule("answer-call", "rm -rf /", match=SHELL, where=["answer.tool_calls"]),
    rule("answer-tool", "wipe_disk", match="wipe_disk", where=["answer.tool_calls"]),
    rule("watched", "casual remark", match="casual remark", mode="audit"),
]


@pytest.fixture(scope="module")
def scoped(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterable[Gate]:
    directory = tmp_path_factory.mktemp("scoped")
    files = {
        **baseline(tokens, standin_server.url, directory),
        "commands": {"schema": 1, "rules": json.loads(json.dumps(RULES))},
    }
    with Gate(directory, standin_server.url, files, console="127.0.0.1:0") as gate:
        yield gate


@pytest.fixture
async def client(scoped: Gate, standin: StandIn, tokens: Tokens) -> Any:
    async with scoped.client(tokens.mint()) as client:
        yield client


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def called(arguments: Any) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "sh", "arguments": arguments}}
    return {"model": MODEL, "messages": [{"role": "assistant", "tool_calls": [call]}]}


def code(response: httpx.Response) -> str:
    if response.status_code == 200:
        return ""
    answer = response.json()
    assert response.status_code == 403, answer
    error = answer["error"]
    return str(answer["code"] if isinstance(error, str) else error["code"])


def last_entry(gate: Gate) -> dict[str, Any]:
    lines = [
        json.loads(line)
        for path in sorted((gate.state / "recordings").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line.get("exchange")][-1]


PICTURE = {"type": "image_url", "image_url": {"url": INSIDE}}
SESAME = "b3BlbiBzZXNhbWU="


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        (CHAT, said("hello"), ""),
        (f"{CHAT}?a=forbidden+word", said("hello"), "query-word"),
        (f"{CHAT}?a=forbidden%20%77ord", said("hello"), "query-word"),
        (CHAT, said("forbidden word"), ""),
        (CHAT, called('{"cmd": "rm", "args": ["-rf", "/"]}'), "shell-rm"),
        (CHAT, called('{"args": ["-rf", "/"], "cmd": "rm"}'), "shell-rm"),
        (CHAT, called('{"cmd": "ls", "args": ["-rf", "/"]}'), ""),
        (CHAT, called('{"path": "/etc/shadow"}'), "path-argument"),
        (CHAT, called('{"path": ["/etc/shadow"]}'), "path-argument"),
        (CHAT, called('{"path": "/etc/shadow", "path": "/tmp"}'), "path-argument"),
        (CHAT, called('{"note": "/etc/shadow"}'), ""),
        (
            CHAT,
            said([{"type": "file", "file": {"filename": "a.exe", "file_data": "QUJD"}}]),
            "file-exe",
        ),
        (
            CHAT,
            said([{"type": "file", "file": {"file_data": f"data:text/plain;base64,{SESAME}"}}]),
            "file-text",
        ),
        (CHAT, said([PICTURE]), "fetch-inside"),
        (CHAT, said([{"type": "image_url", "image_url": {"url": "https://example.com"}}]), ""),
        (CHAT, said(f"look at {INSIDE}"), ""),
        (CHAT, said("a", kv_transfer_params={"remote_host": "10.1.1.1"}), "fetch-inside"),
        (CHAT, said("a", max_tokens=4096), ""),
        (CHAT, said("a", max_tokens=4097), "too-many-tokens"),
        (CHAT, said("a", max_tokens="100000"), "too-many-tokens"),
        (CHAT, said("a", max_tokens=True), "too-many-tokens"),
        (CHAT, said("a", max_tokens=1e9), "too-many-tokens"),
        (CHAT, said("a", max_tokens=-1), "too-many-tokens"),
        (CHAT, said("a", Max_Tokens=100000), "too-many-tokens"),
        (CHAT, said("a", max_completion_tokens=5000), "too-many-tokens"),
        ("/api/chat", said("a", options={"num_predict": -1}, stream=False), "too-many-tokens"),
        ("/api/chat", said("a", options={"num_predict": 9}, stream=False), ""),
        (CHAT, said("a", logit_bias={"1": 1}), "biased"),
        (CHAT, said("sesame street"), ""),
        ("/v1/embeddings", {"model": MODEL, "input": "sesame street"}, "embedding-word"),
        (CHAT, said("a casual remark"), ""),
    ],
)
async def test_what_a_request_is_refused_for(
    client: httpx.AsyncClient, standin: StandIn, path: str, body: Any, refused: str
) -> None:
    response = await client.post(path, json=body)
    assert code(response) == refused
    assert len(standin.seen()) == (0 if refused else 1)


async def test_a_header_is_judged_by_its_name(client: httpx.AsyncClient, standin: StandIn) -> None:
    refused = await client.post(CHAT, json=said("a"), headers={"User-Agent": "EvilBot/2"})
    assert code(refused) == "bad-agent"
    assert not code(await client.post(CHAT, json=said("a"), headers={"X-Title": "EvilBot/2"}))
    assert len(standin.seen()) == 1


async def test_exceptions_hold_for_parameters(scoped: Gate, tokens: Tokens) -> None:
    async with scoped.client(tokens.mint(groups=["cleared"])) as client:
        assert not code(await client.post(CHAT, json=said("a", max_tokens=5000)))


# Endpoints that the gate does not know


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/pull", "model-admin"),
        ("DELETE", "/api/delete", "model-admin"),
        ("POST", "/slots/0?action=save", "slots-save"),
        ("POST", "/slots/0?x=1&action=save", "slots-save"),
    ],
)
async def test_a_rule_names_the_refusal_of_an_unknown_endpoint(
    scoped: Gate, client: httpx.AsyncClient, standin: StandIn, method: str, path: str, name: str
) -> None:
    response = await client.request(method, path, json={"model": "x"})
    assert code(response) == name
    assert response.headers["x-gate-rule"] == name
    assert standin.seen() == []
    entry = last_entry(scoped)
    assert entry["refusal"] == name
    severity = "critical" if name == "model-admin" else "high"
    assert [
        (f["rule"], f["action"], f["mode"], f["severity"], f["address"]) for f in entry["findings"]
    ] == [(name, "deny", "enforce", severity, "path")]


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/api/pull", []),
        ("POST", "/api/pulls", []),
        ("POST", "/slots/0?action=erase", []),
        ("POST", "/reset_prefix_cache", [("seen-reset", "log", "enforce")]),
        ("POST", "/sleep", [("seen-sleep", "deny", "audit")]),
    ],
)
async def test_what_no_rule_in_force_names_stays_unknown(
    scoped: Gate, client: httpx.AsyncClient, standin: StandIn, method: str, path: str, found: Any
) -> None:
    response = await client.request(method, path, json={})
    assert (response.status_code, standin.seen()) == (404, [])
    assert response.headers["x-gate-rule"] == "endpoint_unknown"
    entry = last_entry(scoped)
    assert entry["refusal"] == "endpoint_unknown"
    assert [(f["rule"], f["action"], f["mode"]) for f in entry["findings"]] == found


async def test_nobody_learns_of_rules_without_a_token(scoped: Gate, standin: StandIn) -> None:
    async with scoped.client() as client:
        response = await client.post("/api/pull", json={})
    assert response.status_code == 401
    assert last_entry(scoped)["findings"] == []


# Modes


async def test_audit_changes_nothing_and_says_what_it_would_have_done(
    scoped: Gate, client: httpx.AsyncClient, standin: StandIn
) -> None:
    assert (await client.post(CHAT, json=said("a casual remark"))).status_code == 200
    scoped.wait_log(r"would have been refused: watched at messages\[0\]\.content \(audit\)")
    entry = last_entry(scoped)
    assert (entry["ending"], entry["refusal"]) == ("complete", "")
    (found,) = {(f["rule"], f["action"], f["mode"]) for f in entry["findings"]}
    assert found == ("watched", "deny", "audit")
    async with httpx.AsyncClient(trust_env=False) as console:
        metrics = (await console.get(f"{scoped.console}/metrics")).text
    assert 'mitmgate_findings_total{mode="audit",rule="watched",view="raw"}' in metrics


async def test_a_whole_file_in_audit(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    deny = [rule("word", "bad word", match="bad word")]
    deny.append(rule("strict", "worse word", match="worse word", mode="enforce"))
    hold = [rule("big", '{"n": 9}', "{}", parameter="n", max=2, action="hold")]
    gate = start_gate(
        rules={
            "commands": {"schema": 1, "mode": "audit", "rules": json.loads(json.dumps(deny))},
            "approval": {"schema": 1, "mode": "audit", "rules": json.loads(json.dumps(hold))},
        }
    )
    gate.wait_log(r"commands\.yaml is in audit")
    gate.wait_log(r"approval\.yaml is in audit")
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=said("a bad word", n=9))).status_code == 200
        assert code(await client.post(CHAT, json=said("a worse word"))) == "strict"
        gate.wait_log("would have been refused: word")
        gate.wait_log("would have been held: big")
        seen = gate.output.count("\n")
        gate.write_rules(commands={"schema": 1, "rules": json.loads(json.dumps(deny))})
        await gate.logged(r"commands\.yaml is in force", since=seen)
        assert code(await client.post(CHAT, json=said("a bad word"))) == "word"
        seen = gate.output.count("\n")
        gate.write_rules(commands={"schema": 1, "mode": "audit", "rules": deny[:1]})
        await gate.logged(r"commands\.yaml is in audit", since=seen)
    assert len(standin.seen()) == 1


async def test_a_parameter_is_held(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens
) -> None:
    hold = rule("many", '{"n": 9}', "{}", parameter="n", max=2, action="hold")
    files = {"approval": {"schema": 1, "ttl": "1m", "hold": "0s", "rules": [hold]}}
    gate = start_gate(rules=files)
    async with gate.client(tokens.mint()) as client:
        response = await client.post(CHAT, json=said("a", n=9))
        assert response.status_code == 409
        assert response.headers["x-gate-rule"] == "many"
        assert (await client.post(CHAT, json=said("a", n=2))).status_code == 200
    assert len(standin.seen()) == 1


# Calls in answers

WIPE = 'call: sh {"cmd": "rm", "args": ["-rf", "/"]}'
LIST = 'call: sh {"cmd": "ls", "args": ["-la", "/"]}'
TOOL = {"type": "function", "function": {"name": "sh", "parameters": {"type": "object"}}}


def ask(*lines: str) -> list[Any]:
    return [{"role": "user", "content": "\n".join(lines)}]


def drain(stream: Iterable[Any], events: list[Any]) -> None:
    for each in stream:
        events.append(each)


@pytest.mark.parametrize(
    "prompt",
    [
        (WIPE,),
        ("standin: chunk=1", WIPE),
        ("call: wipe_disk {}",),
        ("standin: mix=true", LIST, WIPE),
        ("standin: mix=true", WIPE, LIST),
        (LIST, WIPE),
    ],
)
def test_a_denied_call_ends_a_chat(
    scoped: Gate, standin: StandIn, tokens: Tokens, prompt: Any
) -> None:
    prompt = (*prompt, "say: I will do it.")
    url, token, chunks = f"{scoped.url}/v1", tokens.mint(), list[Any]()
    with openai.OpenAI(base_url=url, api_key=token, max_retries=0) as sdk:
        with pytest.raises(openai.PermissionDeniedError) as whole:
            sdk.chat.completions.create(model=MODEL, messages=ask(*prompt), tools=[TOOL])
        assert whole.value.code in ("answer-call", "answer-tool")
        stream = sdk.chat.completions.create(
            model=MODEL, messages=ask(*prompt), tools=[TOOL], stream=True
        )
        with pytest.raises(openai.APIError, match=r"No answer-(call|tool)\."):
            drain(stream, chunks)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert not any(delta.tool_calls for delta in deltas)
    said = "".join(delta.content or "" for delta in deltas)
    assert said.startswith("I will do")  # the masker may have held the end of it


@pytest.mark.parametrize("mix", ["false", "true"])
def test_calls_that_pass_come_whole(
    scoped: Gate, standin: StandIn, tokens: Tokens, mix: str
) -> None:
    url, token = f"{scoped.url}/v1", tokens.mint()
    with openai.OpenAI(base_url=url, api_key=token, max_retries=0) as sdk:
        with sdk.chat.completions.stream(
            model=MODEL,
            messages=ask(f"standin: mix={mix}", LIST, LIST.replace("-la", "-l"), "say: Here."),
        ) as stream:
            message = stream.get_final_completion().choices[0].message
    assert message.content == "Here."
    assert [json.loads(call.function.arguments)["args"] for call in message.tool_calls] == [
        ["-la", "/"],
        ["-l", "/"],
    ]


def test_a_denied_call_ends_a_response(scoped: Gate, standin: StandIn, tokens: Tokens) -> None:
    url, token, events = f"{scoped.url}/v1", tokens.mint(), list[Any]()
    tool: Any = {"type": "function", "name": "sh", "parameters": {}, "strict": False}
    with openai.OpenAI(base_url=url, api_key=token, max_retries=0) as sdk:
        with pytest.raises(openai.PermissionDeniedError):
            sdk.responses.create(model=MODEL, input=ask(WIPE, "say: Now."), tools=[tool])
        stream = sdk.responses.create(
            model=MODEL, input=ask(WIPE, "say: Now."), tools=[tool], stream=True
        )
        with pytest.raises(openai.APIError, match=r"No answer-call\."):
            drain(stream, events)
        assert "function_call" not in {
            event.item.type for event in events if event.type == "response.output_item.added"
        }
        assert not any("function_call" in event.type for event in events)
        assert any(event.type == "response.output_text.done" for event in events)
        passed = sdk.responses.create(
            model=MODEL, input=ask(LIST, "say: Now."), tools=[tool], stream=True
        )
        kinds = [event.type for event in passed]
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.delta" in kinds


def test_a_denied_call_ends_messages(scoped: Gate, standin: StandIn, tokens: Tokens) -> None:
    tool: Any = {"name": "sh", "input_schema": {"type": "object"}}
    asked: Any = {"model": MODEL, "max_tokens": 99, "tools": [tool]}
    events: list[Any] = []
    with anthropic.Anthropic(base_url=scoped.url, api_key=tokens.mint(), max_retries=0) as sdk:
        with pytest.raises(anthropic.PermissionDeniedError):
            sdk.messages.create(messages=ask(WIPE, "say: Now."), **asked)
        stream = sdk.messages.create(messages=ask(WIPE, "say: Now."), stream=True, **asked)
        with pytest.raises(anthropic.APIStatusError, match=r"No answer-call\."):
            drain(stream, events)
        begun = [e.content_block.type for e in events if e.type == "content_block_start"]
        assert begun == ["text"]
        with sdk.messages.stream(messages=ask(LIST, "say: Now."), **asked) as passed:
            blocks = passed.get_final_message().content
    assert [block.type for block in blocks] == ["text", "tool_use"]
    assert blocks[1].input == {"cmd": "ls", "args": ["-la", "/"]}


def test_a_denied_call_ends_a_chat_of_ollama(
    scoped: Gate, standin: StandIn, tokens: Tokens
) -> None:
    pieces: list[Any] = []
    headers = {"Authorization": f"Bearer {tokens.mint()}"}
    sdk = ollama.Client(scoped.url, headers=headers, trust_env=False)
    with pytest.raises(ollama.ResponseError, match="No answer-call"):
        sdk.chat(MODEL, ask(WIPE, "say: Now."), stream=False)
    with pytest.raises(ollama.ResponseError, match=r"No answer-call\."):
        drain(sdk.chat(MODEL, ask(WIPE, "say: Now."), stream=True), pieces)
    assert not any(piece.message.tool_calls for piece in pieces)


@pytest.mark.parametrize("knob", ["cut=12", "error=12", "nodone=true; error=12"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
async def test_nothing_of_a_call_that_never_ends_is_delivered(
    client: httpx.AsyncClient, standin: StandIn, path: str, knob: str
) -> None:
    messages = ask(f"standin: {knob}; chunk=1", LIST)
    body = {"model": MODEL, "messages": messages, "input": messages, "stream": True}
    got = b""
    try:
        async with client.stream("POST", path, json=body) as response:
            async for piece in response.aiter_bytes():
                got += piece
    except httpx.RemoteProtocolError:
        pass
    assert got
    assert b'"sh"' not in got
    assert b'"tool_calls"' not in got
    assert b"tool_use" not in got
    assert b"function_call" not in got
