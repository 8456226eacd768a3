"""A real model's real answers: llama.cpp with SmolLM2 behind the gate.

A grammar makes it say exactly one text, token by token, and a schema with one possible value makes
it call a tool with exactly that, so nothing here rests on what a small model feels like saying.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from harness import UPSTREAM_KEY, Gate, Tokens, baseline
from processes import ModelServer

pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
FORCED = "Write to jane.doe@example.com or pay with 4111 1111 1111 1111 today."
MASKED = "Write to [EMAIL] or pay with [CARD] today."
SECRETS = ("jane.doe", "example.com", "4111 ", " 1111")  # no timing of llama.cpp has a space
GRAMMAR = {"grammar": f'root ::= "{FORCED}"'}
SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "enum": ["jane.doe@example.com"]},
        "card": {"type": "string", "enum": ["4111 1111 1111 1111"]},
    },
    "required": ["to", "card"],
}
PAY: list[Any] = [{"role": "user", "content": "Pay Jane."}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}]
PERSONAL = re.compile(r"[\w.+-]+@[\w-]+\.\w+|4111 1111 1111 1111")


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, llamacpp: ModelServer, tokens: Tokens
) -> Iterator[Gate]:
    """A gate in front of llama.cpp."""
    directory = tmp_path_factory.mktemp("real")
    with Gate(directory, llamacpp.url, baseline(tokens, llamacpp.url, directory)) as gate:
        yield gate
        sys.stdout.write(f"gate printed:\n{gate.output}\n")


@pytest.fixture
def client(real: Gate, tokens: Tokens) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{real.url}/v1", api_key=tokens.mint(), max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def aclient(real: Gate, tokens: Tokens) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{real.url}/v1", api_key=tokens.mint(), max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
def claude(real: Gate, tokens: Tokens) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=real.url, api_key=tokens.mint(), max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def http(real: Gate, tokens: Tokens) -> AsyncIterator[httpx.AsyncClient]:
    async with real.client(tokens.mint(), timeout=60) as client:
        yield client


def assert_clean(*handed_over: Any) -> None:
    for each in handed_over:
        # An SDK's own types may not fit each other, of which pydantic would warn.
        text = each.model_dump_json(warnings=False) if isinstance(each, BaseModel) else str(each)
        assert [secret for secret in SECRETS if secret in text] == []


async def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix("data: "))
        async for line in response.aiter_lines()
        if line.startswith("data: {")
    ]


# What it is made to say comes out masked


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=99, extra_body=GRAMMAR
    )
    assert answer.choices[0].message.content == MASKED
    assert answer.usage.completion_tokens > 20
    assert_clean(answer)


async def test_chat_streamed(aclient: openai.AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await aclient.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=99,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=GRAMMAR,
        )
    ]
    assert_clean(*chunks)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == MASKED
    assert choices[-1].finish_reason == "stop"
    assert len([choice for choice in choices if choice.delta.content]) > 5, "it no longer streams"
    assert chunks[-1].usage.completion_tokens > 20


def test_chat_as_the_sdk_accumulates_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, max_tokens=99, extra_body=GRAMMAR
    ) as stream:
        assert_clean(*stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == MASKED


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=99, stream=stream, extra_body=GRAMMAR
    )
    parts = list(answer) if stream else [answer]
    assert "".join(choice.text for part in parts for choice in part.choices) == MASKED
    assert_clean(*parts)


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL, input="Say hello.", max_output_tokens=99, extra_body=GRAMMAR
    )
    assert answer.output_text == MASKED
    assert_clean(answer)


def test_responses_streamed(client: openai.OpenAI) -> None:
    # Not `responses.stream()`: it wants the `output_index` that llama.cpp leaves out.
    events = list(
        client.responses.create(
            model=MODEL, input="Say hello.", max_output_tokens=99, stream=True, extra_body=GRAMMAR
        )
    )
    assert_clean(*events)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == MASKED
    assert len([delta for delta in deltas if delta]) > 5, "it no longer streams"
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert done.text == MASKED
    (item,) = [event.item for event in events if event.type == "response.output_item.done"]
    assert item.content[0].text == MASKED
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == MASKED


@pytest.mark.parametrize("stream", [False, True])
async def test_raw_completion(http: httpx.AsyncClient, stream: bool) -> None:
    body = {"prompt": "Once", "n_predict": 99, "stream": stream, **GRAMMAR}
    async with http.stream("POST", "/completion", json=body) as answer:
        assert answer.status_code == 200
        if stream:
            events = await events_of(answer)
        else:
            events = [json.loads(await answer.aread())]
    assert "".join(event["content"] for event in events) == MASKED
    assert events[-1]["stop"] is True
    # The last event repeats the settings, the caller's own grammar among them.
    assert_clean(*({**event, "generation_settings": {}} for event in events))
    assert not any(event.get("tokens") for event in events)


@pytest.mark.parametrize("cleared", [False, True])
async def test_every_byte_of_a_stream(real: Gate, tokens: Tokens, cleared: bool) -> None:
    """The cleared group gets what the others do not, so the model did say it."""
    token = tokens.mint(groups=["cleared"] if cleared else [])
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 99, "stream": True, **GRAMMAR}
    async with real.client(token, timeout=60) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    texts = [
        json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        for line in answer.text.splitlines()
        if line.startswith("data: {")
    ]
    assert "".join(texts) == (FORCED if cleared else MASKED)
    assert "data: [DONE]" in answer.text
    if not cleared:
        assert_clean(answer.text)


# JSON and tools


@pytest.mark.parametrize("stream", [False, True])
def test_json_that_a_schema_asks_for(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=200,
        stream=stream,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "payment", "schema": SCHEMA},
        },
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert json.loads(text) == {"to": "[EMAIL]", "card": "[CARD]"}


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: openai.OpenAI, claude: anthropic.Anthropic, stream: bool) -> None:
    """The model's template knows no tools, so whether it calls one is its own affair."""
    answer: Any = client.chat.completions.create(
        model=MODEL, messages=PAY, tools=TOOLS, max_tokens=40, stream=stream
    )
    chunks = list(answer) if stream else [answer]
    assert not PERSONAL.search(str(chunks))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length", "tool_calls")
    answer = client.responses.create(
        model=MODEL,
        input="Pay Jane.",
        tools=[{"type": "function", "name": "pay", "parameters": SCHEMA}],
        max_output_tokens=40,
        stream=stream,
    )
    events = list(answer) if stream else [answer]
    assert not PERSONAL.search(str(events))
    assert (events[-1].response if stream else answer).status in ("completed", "incomplete")
    ask: dict[str, Any] = {
        "model": MODEL,
        "messages": PAY,
        "tools": [{"name": "pay", "input_schema": SCHEMA}],
        "max_tokens": 40,
    }
    if stream:
        with claude.messages.stream(**ask) as messages:
            message = messages.get_final_message()
    else:
        message = claude.messages.create(**ask)
    assert not PERSONAL.search(str(message))
    assert message.stop_reason in ("end_turn", "max_tokens", "tool_use")


# Anthropic: no grammar there


@pytest.mark.parametrize("stream", [False, True])
def test_messages(claude: anthropic.Anthropic, stream: bool) -> None:
    ask: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": f"Repeat this text exactly: {FORCED}"}],
    }
    if stream:
        with claude.messages.stream(**ask) as messages:
            text = "".join(messages.text_stream)
            answer = messages.get_final_message()
        assert answer.content[0].text == text
    else:
        answer = claude.messages.create(**ask)
    assert answer.content[0].text
    assert not PERSONAL.search(answer.content[0].text)
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.output_tokens > 0


def test_count_tokens(claude: anthropic.Anthropic) -> None:
    short = claude.messages.count_tokens(model=MODEL, messages=HELLO)
    long = claude.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "hello " * 50}]
    )
    assert 0 < short.input_tokens < long.input_tokens


# Copies of the text


@pytest.mark.parametrize("stream", [False, True])
async def test_no_logprobs_come_with_masked_text(
    client: openai.OpenAI, http: httpx.AsyncClient, stream: bool
) -> None:
    chat: Any = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=99,
        logprobs=True,
        top_logprobs=2,
        stream=stream,
        extra_body=GRAMMAR,
    )
    parts = list(chat) if stream else [chat]
    assert not any(choice.logprobs for part in parts for choice in part.choices)
    plain: Any = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=99, logprobs=2, stream=stream, extra_body=GRAMMAR
    )
    parts += list(plain) if stream else [plain]
    assert not any(choice.logprobs for part in parts for choice in part.choices)
    assert_clean(*parts)
    body = {
        "prompt": "Once",
        "n_predict": 99,
        "n_probs": 2,
        "return_tokens": True,
        "stream": stream,
        **GRAMMAR,
    }
    async with http.stream("POST", "/completion", json=body) as answer:
        events = await events_of(answer) if stream else [json.loads(await answer.aread())]
    assert "".join(event["content"] for event in events) == MASKED
    assert not any(event.get("completion_probabilities") for event in events)
    assert not any(event.get("tokens") for event in events)


# The small endpoints


async def test_models_and_the_rest(
    client: openai.OpenAI, http: httpx.AsyncClient, llamacpp: ModelServer
) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert (await http.get("/health")).json() == {"status": "ok"}
    tokens = (await http.post("/tokenize", json={"content": "hello"})).json()["tokens"]
    assert tokens
    assert (await http.get("/metrics")).text.startswith("# HELP")
    direct = await http.get(f"{llamacpp.url}/props")
    assert direct.status_code == 401  # the caller's token is not the model's key
    assert (await http.get("/props")).json()["error"]["code"] == "endpoint_unknown"
    assert (await http.get("/slots")).json()["error"]["code"] == "endpoint_unknown"


# Many, and leaving


@pytest.mark.timeout(300)  # llama.cpp spins, and is slow where others want the cores too
@pytest.mark.parametrize("mixed", [False, True])
async def test_100_in_a_row_all_complete(real: Gate, tokens: Tokens, mixed: bool) -> None:
    """llama.cpp closes behind every stream although it announces keep-alive."""
    body = {
        "model": MODEL,
        "messages": HELLO,
        "max_tokens": 9,
        "grammar": 'root ::= "yes"',
    }
    endings = []
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with real.client(tokens.mint(), timeout=60, limits=limits) as http:
        for number in range(100):
            stream = not mixed or number % 2 == 0
            answer = await http.post("/v1/chat/completions", json={**body, "stream": stream})
            if not stream:
                choice = answer.json()["choices"][0]
                endings.append((answer.status_code, choice["message"]["content"], True))
                continue
            texts = [
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in answer.text.splitlines()
                if line.startswith("data: {")
            ]
            done = answer.text.rstrip().endswith("data: [DONE]")
            endings.append((answer.status_code, "".join(texts), done))
    assert endings == [(200, "yes", True)] * 100


async def metric(llamacpp: ModelServer, name: str) -> float:
    """A figure of llama.cpp's own, asked for behind the gate's back."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            f"{llamacpp.url}/metrics", headers={"Authorization": f"Bearer {UPSTREAM_KEY}"}
        )
    found = re.search(rf"^llamacpp:{name} (\S+)", answer.text, re.MULTILINE)
    assert found, answer.text
    return float(found[1])


async def wait_for(llamacpp: ModelServer, name: str, accept: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + 10
    while not accept(value := await metric(llamacpp, name)):
        assert time.monotonic() < deadline, f"llama.cpp's {name} stays at {value:g}"
        await asyncio.sleep(0.05)


LONG: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 1900,
    "extra_body": {"ignore_eos": True},
}


async def test_leaving_stops_the_generation(
    aclient: openai.AsyncOpenAI, llamacpp: ModelServer
) -> None:
    await wait_for(llamacpp, "requests_processing", lambda count: count == 0)
    before = await metric(llamacpp, "n_decode_total")
    stream = await aclient.chat.completions.create(**LONG, stream=True)
    for _ in range(5):
        await anext(stream)
    assert await metric(llamacpp, "requests_processing") == 1
    await stream.close()
    await wait_for(llamacpp, "requests_processing", lambda count: count == 0)
    decoded = await metric(llamacpp, "n_decode_total") - before
    assert decoded < LONG["max_tokens"], "it went on to the end"
