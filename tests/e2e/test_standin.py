"""The stand-in model server, asked by stock SDKs: what other e2e tests may rely on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anthropic
import httpx
import ollama
import openai
import pytest

from harness import UPSTREAM_KEY, StandIn
from standin_dialects.answer import DEFAULT_TEXT, Knobs, script

MODEL = "stand-in"
TEXT = "Exactly this: jane.doe@example.com, naïve ☃ 𝄞"
ASK = [{"role": "user", "content": f"say: {TEXT}"}]
TOOL = {
    "name": "send_mail",
    "description": "Send a message",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
}


@pytest.fixture
async def client(standin: StandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{standin.url}/v1", api_key=UPSTREAM_KEY, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def claude(standin: StandIn) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=standin.url, api_key=UPSTREAM_KEY, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def llama(standin: StandIn) -> AsyncIterator[ollama.AsyncClient]:
    headers = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
    async with ollama.AsyncClient(standin.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
async def http(standin: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
    async with httpx.AsyncClient(base_url=standin.url, headers=headers, trust_env=False) as client:
        yield client


# OpenAI


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=ASK, n=2, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == [TEXT, TEXT]
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == TEXT
    assert answer.usage.total_tokens > 0


async def test_chat_says_personal_data_unless_told_otherwise(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}]
    )
    assert answer.choices[0].message.content == DEFAULT_TEXT


async def test_chat_stream(client: openai.AsyncOpenAI) -> None:
    texts, pieces, last = ["", ""], 0, None
    async for chunk in await client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        n=2,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            pieces += 1
        last = chunk
    assert texts == [TEXT, TEXT]
    assert pieces > len(TEXT) / 2
    assert last.usage.completion_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_tool_call(client: openai.AsyncOpenAI, stream: bool) -> None:
    ask = [{"role": "user", "content": 'call: send_mail {"to": "jane.doe@example.com"}'}]
    tools = [{"type": "function", "function": TOOL}]
    answer = await client.chat.completions.create(
        model=MODEL, messages=ask, tools=tools, stream=stream
    )
    if stream:
        calls = [
            call
            async for chunk in answer
            for choice in chunk.choices
            for call in choice.delta.tool_calls or []
        ]
        assert calls[0].function.name == "send_mail"
        arguments = "".join(call.function.arguments for call in calls)
    else:
        assert answer.choices[0].finish_reason == "tool_calls"
        arguments = answer.choices[0].message.tool_calls[0].function.arguments
    assert json.loads(arguments) == {"to": "jane.doe@example.com"}


async def test_tools_are_called_unasked_until_they_have_answered(
    client: openai.AsyncOpenAI,
) -> None:
    tools = [{"type": "function", "function": TOOL}]
    messages = [{"role": "user", "content": "write to Jane"}]
    first = await client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    call = first.choices[0].message.tool_calls[0]
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sent"},
    ]
    second = await client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    assert second.choices[0].message.content == DEFAULT_TEXT


@pytest.mark.parametrize("stream", [False, True])
async def test_completions(client: openai.AsyncOpenAI, stream: bool) -> None:
    answer = await client.completions.create(
        model=MODEL, prompt=f"say: {TEXT}", logprobs=1, stream=stream
    )
    parts = [part async for part in answer] if stream else [answer]
    assert "".join(part.choices[0].text for part in parts) == TEXT
    assert "".join(t for p in parts if p.choices[0].logprobs for t in p.choices[0].logprobs.tokens)


async def test_responses(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input=f"think: hm\nsay: {TEXT}")
    assert answer.output_text == TEXT
    assert answer.output[0].content[0].text == "hm"


async def test_responses_stream(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input=ASK) as stream:
        events = [event async for event in stream]
        whole = await stream.get_final_response()
    assert whole.output_text == TEXT
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == TEXT
    assert len(deltas) > 5
    types = [event.type for event in events]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_responses_tool_call(client: openai.AsyncOpenAI) -> None:
    events = [
        event
        async for event in await client.responses.create(
            model=MODEL, input="write", tools=[{"type": "function", **TOOL}], stream=True
        )
    ]
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == done.arguments
    assert json.loads(done.arguments)["to"] == "jane.doe@example.com"


async def test_embeddings_and_models(client: openai.AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    assert MODEL in [model.id async for model in client.models.list()]


async def test_key_is_asked_for(standin: StandIn) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{standin.url}/v1", api_key="sk-other", max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


# Anthropic


async def test_messages(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(
        model=MODEL,
        max_tokens=99,
        messages=[{"role": "user", "content": f"think: hm\nsay: {TEXT}"}],
    )
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[1].text == TEXT


async def test_messages_stream(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(model=MODEL, max_tokens=99, messages=ASK) as stream:
        pieces = [piece async for piece in stream.text_stream]
        whole = await stream.get_final_message()
    assert "".join(pieces) == TEXT
    assert len(pieces) > 5
    assert whole.stop_reason == "end_turn"


async def test_messages_tool_use(claude: anthropic.AsyncAnthropic) -> None:
    tool = {"name": TOOL["name"], "input_schema": TOOL["parameters"]}
    ask = [{"role": "user", "content": "write to Jane"}]
    async with claude.messages.stream(
        model=MODEL, max_tokens=99, messages=ask, tools=[tool]
    ) as stream:
        whole = await stream.get_final_message()
    assert whole.stop_reason == "tool_use"
    assert whole.content[0].input["to"] == "jane.doe@example.com"
    counted = await claude.messages.count_tokens(model=MODEL, messages=ask)
    assert counted.input_tokens > 0


# Ollama


async def test_ollama_chat(llama: ollama.AsyncClient) -> None:
    whole = await llama.chat(MODEL, ASK)
    assert whole.message.content == TEXT
    pieces = [piece async for piece in await llama.chat(MODEL, ASK, stream=True)]
    assert "".join(piece.message.content for piece in pieces) == TEXT
    assert pieces[-1].done


async def test_ollama_generate(llama: ollama.AsyncClient) -> None:
    assert (await llama.generate(MODEL, f"say: {TEXT}")).response == TEXT
    pieces = [piece async for piece in await llama.generate(MODEL, f"say: {TEXT}", stream=True)]
    assert "".join(piece.response for piece in pieces) == TEXT


async def test_ollama_tool_call(llama: ollama.AsyncClient) -> None:
    answer = await llama.chat(
        MODEL,
        [{"role": "user", "content": "write"}],
        tools=[{"type": "function", "function": TOOL}],
    )
    assert answer.message.tool_calls[0].function.arguments["to"] == "jane.doe@example.com"


async def test_ollama_embed_and_list(llama: ollama.AsyncClient) -> None:
    assert len((await llama.embed(MODEL, ["a", "b"])).embeddings) == 2
    assert MODEL in [model.model for model in (await llama.list()).models]


async def test_ollama_streams_unless_told_not_to(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/chat", json={"model": MODEL, "messages": ASK})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"] is True


# llama.cpp


async def test_llamacpp_completion(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    answer = await http.post("/completion", json={"prompt": f"say: {TEXT}", "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert "".join(event["content"] for event in events) == TEXT
    assert events[-1]["stop"] is True


# Faults


def _ask(stream: bool = True) -> dict[str, object]:
    return {"model": MODEL, "messages": ASK, "stream": stream}


@pytest.mark.parametrize("stream", [False, True])
async def test_knob_gzip(http: httpx.AsyncClient, stream: bool) -> None:
    plain = await http.post("/v1/chat/completions", json=_ask(stream))
    answer = await http.post(
        "/v1/chat/completions",
        json=_ask(stream),
        headers={"x-standin": "gzip; bytes=7; delay=0", "accept-encoding": "identity"},
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == plain.text


@pytest.mark.parametrize("stream", [False, True])
async def test_knob_cut(http: httpx.AsyncClient, standin: StandIn, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/v1/chat/completions", json=_ask(stream), headers={"x-standin": "cut=3"})
    assert standin.seen()[-1].outcome == "cut"


async def test_knob_error_and_nodone(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/chat/completions", json=_ask(), headers={"x-standin": "error=3"})
    assert '"error"' in answer.text.splitlines()[-2]
    answer = await http.post("/v1/chat/completions", json=_ask(), headers={"x-standin": "nodone"})
    assert "[DONE]" not in answer.text
    assert '"finish_reason": "stop"' in answer.text


async def test_knob_hang_until_the_caller_leaves(http: httpx.AsyncClient, standin: StandIn) -> None:
    async with http.stream(
        "POST", "/v1/chat/completions", json=_ask(), headers={"x-standin": "hang=2"}
    ) as answer:
        assert await anext(answer.aiter_bytes())
        assert standin.seen()[-1].outcome == "answering"
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


async def test_knob_status_and_body(http: httpx.AsyncClient) -> None:
    async def answer(knobs: str) -> httpx.Response:
        return await http.post(
            "/v1/chat/completions", json=_ask(False), headers={"x-standin": knobs}
        )

    assert (await answer("status=500")).status_code == 500
    assert (await answer("body=html")).headers["content-type"].startswith("text/html")
    assert (await answer("body=plain")).text == TEXT
    with pytest.raises(json.JSONDecodeError):
        (await answer("body=broken")).json()
    assert (await answer("no-such-knob")).status_code == 400


async def test_knobs_cut_the_stream_anywhere(http: httpx.AsyncClient) -> None:
    plain = await http.post("/v1/chat/completions", json=_ask())
    async with http.stream(
        "POST", "/v1/chat/completions", json=_ask(), headers={"x-standin": "bytes=5; delay=0"}
    ) as answer:
        pieces = [piece async for piece in answer.aiter_raw()]
    assert b"".join(pieces).decode() == plain.text
    assert len(pieces) > 20


def test_directives_in_the_prompt() -> None:
    prompt = "standin: chunk=2; slow=0.5\nthink: first\nsay: a\nsay: b"
    answer, knobs = script({"prompt": prompt}, "slow=1")
    assert (answer.text, answer.reasoning, answer.chunk) == ("a\nsay: b", "first", 2)
    assert knobs == Knobs(chunk=2, slow=1.0)


# The log of requests


async def test_log_has_the_request_as_it_came(http: httpx.AsyncClient, standin: StandIn) -> None:
    body = b'{"model":"stand-in",  "prompt":"say: \\u00e9","n":1.0e0}'
    await http.post("/v1/completions", content=body, headers={"X-Mine": "1"})
    (seen,) = standin.seen()
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/completions", body)
    assert seen.headers["x-mine"] == "1"
    assert seen.outcome == "complete"
    standin.reset()
    assert standin.seen() == []


async def test_log_is_not_on_the_model_port(http: httpx.AsyncClient) -> None:
    assert (await http.get("/_standin/requests")).status_code == 404
