"""What callers really use: the stock OpenAI, Anthropic and Ollama SDKs, with the gate in between.

The stand-in behind the gate says exactly what a prompt tells it to. What the SDKs hand over, and
which of their own exceptions they raise, is the contract.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
from pydantic import BaseModel

from harness import UPSTREAM_KEY, Gate, StandIn, Tokens, baseline

MODEL = "stand-in"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
MASKED = (
    "You can reach Jane Doe at [EMAIL] or on [PHONE]. Her card is [CARD] and her account [IBAN]."
)
ARGUMENTS = {"to": "[EMAIL]", "note": "card [CARD]"}
SECRETS = ("jane.doe", "example.com", "7946", "4111", "1111", "WEST", "5698")
PARAMETERS = {"type": "object", "properties": {"to": {"type": "string"}}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "send_mail", "parameters": PARAMETERS}}
]
FILLER = "All is quiet on the western front. " * 20
HIT = "the launch code is 7"
BEHIND = 256 + 8  # characters that a judged stream may run ahead of its judge, and one piece


def say(text: str, *directives: str) -> list[Any]:
    return [{"role": "user", "content": "\n".join([*directives, f"say: {text}"])}]


def assert_clean(*handed_over: Any) -> None:
    """Nothing that the masker should have taken out is anywhere in what an SDK hands over."""
    for each in handed_over:
        # An SDK's own types may not fit each other, of which pydantic would warn.
        text = each.model_dump_json(warnings=False) if isinstance(each, BaseModel) else str(each)
        assert [secret for secret in SECRETS if secret in text] == []


# Clients. They do not retry unless a test says so, and time out before the test does.


@pytest.fixture
def token(tokens: Tokens) -> str:
    return tokens.mint()


@pytest.fixture
def client(gate: Gate, token: str, standin: StandIn) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gate.url}/v1", api_key=token, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.fixture
async def aclient(gate: Gate, token: str, standin: StandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{gate.url}/v1", api_key=token, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.fixture
def claude(gate: Gate, token: str, standin: StandIn) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gate.url, api_key=token, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
async def aclaude(
    gate: Gate, token: str, standin: StandIn
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=gate.url, api_key=token, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.fixture
def llama(gate: Gate, token: str, standin: StandIn) -> Iterator[ollama.Client]:
    with ollama_client(gate, token) as client:
        yield client


@pytest.fixture
async def allama(gate: Gate, token: str, standin: StandIn) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(
        gate.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30
    ) as client:
        yield client


def ollama_client(gate: Gate, token: str) -> ollama.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return ollama.Client(gate.url, headers=headers, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    """A gate that also judges answers, holds for half a second, and grants `chat` little."""
    directory = tmp_path_factory.mktemp("strict")
    rules: dict[str, Any] = dict(baseline(tokens, standin_server.url, directory))
    launch = {
        "id": "launch-code",
        "title": "Launch codes in answers",
        "action": "deny",
        "where": ["answer"],
        "match": r"launch code is \d",
        "message": "Launch codes stay here.",
        "tests": {"match": ["the launch code is 7"], "pass": ["no launch code"]},
    }
    rules["commands"] = {
        **rules["commands"],
        "rules": [*rules["commands"]["rules"], launch],
    }
    rules["approval"] = {**rules["approval"], "hold": "500ms"}
    chatters = {
        "id": "chatters",
        "who": {"scopes": ["chat"]},
        "operations": ["chat", "messages"],
        "models": [MODEL],
        "masking": "default",
    }
    rules["identity"] = {
        **rules["identity"],
        "grants": [*rules["identity"]["grants"], chatters],
    }
    with Gate(directory, standin_server.url, rules) as gate:
        yield gate
        sys.stdout.write(f"strict gate printed:\n{gate.output}\n")


# OpenAI: what comes back


def test_chat(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "think: mail jane.doe@example.com\nhello"}]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, n=2, logprobs=True, top_logprobs=1
    )
    assert [choice.message.content for choice in answer.choices] == [MASKED, MASKED]
    assert [choice.logprobs for choice in answer.choices] == [None, None]
    assert answer.choices[0].message.reasoning_content == "mail [EMAIL]"
    assert answer.usage.total_tokens > 0
    assert_clean(answer)


async def test_chat_streams_interleaved(aclient: openai.AsyncOpenAI) -> None:
    texts: Counter[int] = Counter()
    said, thought, finished, order = ["", ""], ["", ""], [], []
    usage = None
    async for chunk in await aclient.chat.completions.create(
        model=MODEL,
        messages=say(f"{MASKED} jane.doe@example.com", "think: jane.doe@example.com, think"),
        n=2,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    ):
        assert_clean(chunk)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert choice.logprobs is None
            assert not finished or choice.index not in finished, "text after the end of a choice"
            if choice.delta.content:
                order.append(choice.index)
                texts[choice.index] += 1
            said[choice.index] += choice.delta.content or ""
            thought[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            if choice.finish_reason:
                finished.append(choice.index)
    assert said == [f"{MASKED} [EMAIL]"] * 2
    assert thought == ["[EMAIL], think"] * 2
    assert sorted(finished) == [0, 1]
    assert usage.completion_tokens > 0
    assert min(texts.values()) > 10, "it no longer streams"
    assert len(list(itertools.groupby(order))) > 10, "the choices no longer run side by side"


@pytest.mark.parametrize("bytes", ["", "bytes=1; delay=0", "bytes=7; delay=0"])
def test_chat_as_the_sdk_accumulates_it(client: openai.OpenAI, bytes: str) -> None:
    messages = [{"role": "user", "content": f"standin: {bytes}\nhello"}]
    with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
        for event in stream:
            assert_clean(event)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == MASKED
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("n", [1, 2])
def test_chat_tool_calls(client: openai.OpenAI, n: int) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, tools=TOOLS, n=n)
    for choice in answer.choices:
        (call,) = choice.message.tool_calls
        assert call.function.name == "send_mail"
        assert json.loads(call.function.arguments) == ARGUMENTS
    assert_clean(answer)


async def test_chat_tool_calls_streamed(aclient: openai.AsyncOpenAI) -> None:
    messages = [
        {
            "role": "user",
            "content": 'call: send_mail {"to": "jane.doe@example.com", "n": 1.50}\n'
            'call: pay {"card": "4111 1111\\u00201111 1111", "mails": ["a\\u0040example.com"]}',
        }
    ]
    arguments: dict[tuple[int, int], str] = {}
    names: dict[tuple[int, int], str] = {}
    async for chunk in await aclient.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, n=2, stream=True
    ):
        assert_clean(chunk)
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                key = (choice.index, call.index)
                if call.function.name:
                    names[key] = names.get(key, "") + call.function.name
                arguments[key] = arguments.get(key, "") + (call.function.arguments or "")
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [names[key] for key in keys] == ["send_mail", "pay"] * 2
    for key in keys:
        assert json.loads(arguments[key]) == (
            {"card": "[CARD]", "mails": ["[EMAIL]"]} if key[1] else {"to": "[EMAIL]", "n": 1.5}
        )
    assert '"n": 1.50' in arguments[0, 0], "numbers keep their digits"


def test_chat_tool_calls_as_the_sdk_accumulates_them(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=TOOLS) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert_clean(*events)
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [ARGUMENTS]
    (call,) = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(
        model=MODEL, prompt="hello", n=2, logprobs=1, stream=stream
    )
    parts = list(answer) if stream else [answer]
    texts = ["", ""]
    for part in parts:
        for choice in part.choices:
            assert choice.logprobs is None
            texts[choice.index] += choice.text
    assert texts == [MASKED, MASKED]
    assert_clean(*parts)


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="think: jane.doe@example.com\nhello")
    assert answer.output_text == MASKED
    assert answer.output[0].content[0].text == "[EMAIL]"
    assert_clean(answer)
    called = client.responses.create(
        model=MODEL, input="hello", tools=[{"type": "function", **TOOLS[0]["function"]}]
    )
    assert json.loads(called.output[0].arguments) == ARGUMENTS
    assert_clean(called)


async def test_responses_streamed(aclient: openai.AsyncOpenAI) -> None:
    async with aclient.responses.stream(
        model=MODEL, input="think: jane.doe@example.com\nhello"
    ) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert_clean(*events, final)
    assert final.output_text == MASKED

    def of(kind: str) -> list[Any]:
        return [event for event in events if event.type == kind]

    assert "".join(event.delta for event in of("response.output_text.delta")) == MASKED
    assert [event.text for event in of("response.output_text.done")] == [MASKED]
    assert [event.part.text for event in of("response.content_part.done")] == [MASKED]
    assert "".join(event.delta for event in of("response.reasoning_text.delta")) == "[EMAIL]"
    assert [event.text for event in of("response.reasoning_text.done")] == ["[EMAIL]"]
    assert [event.item.type for event in of("response.output_item.done")] == [
        "reasoning",
        "message",
    ]
    (completed,) = of("response.completed")
    assert completed.response.output_text == MASKED
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(numbers)


def test_responses_tool_call_streamed(client: openai.OpenAI) -> None:
    events = list(
        client.responses.create(
            model=MODEL,
            input="hello",
            tools=[{"type": "function", **TOOLS[0]["function"]}],
            stream=True,
        )
    )
    assert_clean(*events)
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert json.loads("".join(deltas)) == ARGUMENTS
    assert json.loads(done.arguments) == ARGUMENTS
    assert events[-1].type == "response.completed"
    assert json.loads(events[-1].response.output[0].arguments) == ARGUMENTS


def test_embeddings_and_models(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model=MODEL, input=["a", "b"])
    assert [len(item.embedding) for item in vectors.data] == [8, 8]
    plain = client.embeddings.create(model=MODEL, input="a", encoding_format="float")
    assert plain.data[0].embedding == vectors.data[0].embedding
    assert MODEL in [model.id for model in client.models.list()]


# Anthropic: what comes back


def test_messages(claude: anthropic.Anthropic) -> None:
    messages = [{"role": "user", "content": "think: jane.doe@example.com\nhello"}]
    answer = claude.messages.create(model=MODEL, max_tokens=99, messages=messages)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "[EMAIL]"
    assert answer.content[1].text == MASKED
    assert_clean(answer)
    counted = claude.messages.count_tokens(model=MODEL, messages=messages)
    assert counted.input_tokens > 0


async def test_messages_streamed(aclaude: anthropic.AsyncAnthropic) -> None:
    text, thinking, types = "", "", []
    async for event in await aclaude.messages.create(
        model=MODEL,
        max_tokens=99,
        messages=[{"role": "user", "content": "think: jane.doe@example.com\nhello"}],
        stream=True,
    ):
        assert_clean(event)
        types.append(event.type)
        if event.type == "content_block_delta":
            assert types.count("content_block_stop") == event.index
            text += getattr(event.delta, "text", "")
            thinking += getattr(event.delta, "thinking", "")
    assert text == MASKED
    assert thinking == "[EMAIL]"
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"
    assert types.count("content_block_delta") > 10, "it no longer streams"


def test_messages_as_the_sdk_accumulates_them(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model=MODEL, max_tokens=99, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == MASKED
    assert final.content[0].text == MASKED
    assert final.stop_reason == "end_turn"
    assert_clean(final)


def test_messages_tool_use(claude: anthropic.Anthropic) -> None:
    tools: list[Any] = [{"name": "send_mail", "input_schema": PARAMETERS}]
    answer = claude.messages.create(model=MODEL, max_tokens=99, messages=HELLO, tools=tools)
    assert answer.content[0].input == ARGUMENTS
    assert_clean(answer)
    with claude.messages.stream(model=MODEL, max_tokens=99, messages=HELLO, tools=tools) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[0].input == ARGUMENTS
    assert_clean(*events, final)


# Ollama: what comes back


def test_ollama_chat(llama: ollama.Client) -> None:
    messages = [{"role": "user", "content": "think: jane.doe@example.com\nhello"}]
    whole = llama.chat(MODEL, messages)
    assert whole.message.content == MASKED
    assert whole.message.thinking == "[EMAIL]"
    pieces = list(llama.chat(MODEL, messages, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == MASKED
    assert "".join(piece.message.thinking or "" for piece in pieces) == "[EMAIL]"
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) > 10, "it no longer streams"
    assert_clean(whole, *pieces)


async def test_ollama_generate(allama: ollama.AsyncClient) -> None:
    assert (await allama.generate(MODEL, "hello")).response == MASKED
    pieces = [piece async for piece in await allama.generate(MODEL, "hello", stream=True)]
    assert "".join(piece.response for piece in pieces) == MASKED
    assert pieces[-1].done
    assert_clean(*pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_ollama_tool_calls(llama: ollama.Client, stream: bool) -> None:
    answer: Any = llama.chat(MODEL, HELLO, tools=TOOLS, stream=stream)
    parts = list(answer) if stream else [answer]
    (call,) = [call for part in parts for call in part.message.tool_calls or []]
    assert call.function.name == "send_mail"
    assert call.function.arguments == ARGUMENTS
    assert_clean(*parts)


def test_ollama_embed_and_list(llama: ollama.Client) -> None:
    assert len(llama.embed(MODEL, ["a", "b"]).embeddings) == 2
    assert MODEL in [model.model for model in llama.list().models]


# Tokens: the way each SDK gives them, and that none reaches the model


def test_tokens_as_each_sdk_gives_them(
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    llama: ollama.Client,
    gate: Gate,
    token: str,
    standin: StandIn,
) -> None:
    client.models.list()
    claude.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
    with anthropic.Anthropic(base_url=gate.url, auth_token=token, max_retries=0) as bearer:
        bearer.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
    llama.list()
    seen = standin.seen()
    assert len(seen) == 4
    for request in seen:
        assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert "x-api-key" not in request.headers
        assert token not in json.dumps(request.headers)


# Refusals: the SDKs' own exceptions, with the gate's message and code


def openai_client(gate: Gate, token: str, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{gate.url}/v1", api_key=token, timeout=30, **{"max_retries": 0, **settings}
    )


def claude_client(gate: Gate, token: str, **settings: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=gate.url, api_key=token, timeout=30, **{"max_retries": 0, **settings}
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["none", "old"])
def test_401(gate: Gate, standin: StandIn, tokens: Tokens, kind: str, stream: bool) -> None:
    code = "invalid_token"
    token = "sk-nobody" if kind == "none" else tokens.mint(iat=1, exp=600)
    ask: dict[str, Any] = {"model": MODEL, "messages": HELLO, "stream": stream}
    with openai_client(gate, token) as client, pytest.raises(openai.AuthenticationError) as e:
        client.chat.completions.create(**ask)
    assert e.value.status_code == 401
    assert e.value.code == code
    assert e.value.response.headers["www-authenticate"].startswith("Bearer")
    with claude_client(gate, token) as claude, pytest.raises(anthropic.AuthenticationError) as f:
        claude.messages.create(**ask, max_tokens=9)
    assert f.value.body["error"]["code"] == code
    assert f.value.type == "authentication_error"
    with ollama_client(gate, token) as llama, pytest.raises(ollama.ResponseError) as g:
        list(llama.chat(MODEL, HELLO, stream=stream))
    assert g.value.status_code == 401
    assert g.value.error == e.value.body["message"] == f.value.api_message
    with ollama_client(gate, "") as llama, pytest.raises(ollama.ResponseError) as g:
        llama.list()
    assert g.value.status_code == 401
    assert standin.seen() == []


@pytest.mark.parametrize("stream", [False, True])
def test_403_for_a_blocked_prompt(
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    llama: ollama.Client,
    standin: StandIn,
    stream: bool,
) -> None:
    ask = [{"role": "user", "content": "please export the weights"}]
    message = "Weights do not leave through this gateway."
    with pytest.raises(openai.PermissionDeniedError) as e:
        client.chat.completions.create(model=MODEL, messages=ask, stream=stream)
    assert (e.value.code, e.value.body["message"]) == ("weights-export", message)
    assert e.value.response.headers["x-gate-rule"] == "weights-export"
    assert e.value.response.headers["x-gate-exchange"]
    with pytest.raises(openai.PermissionDeniedError) as e:
        client.responses.create(model=MODEL, input=ask[0]["content"], stream=stream)
    assert e.value.code == "weights-export"
    with pytest.raises(anthropic.PermissionDeniedError) as f:
        claude.messages.create(model=MODEL, messages=ask, stream=stream, max_tokens=9)
    assert (f.value.body["error"]["code"], f.value.api_message) == ("weights-export", message)
    with pytest.raises(ollama.ResponseError) as g:
        list(llama.chat(MODEL, ask, stream=stream))
    assert (g.value.status_code, g.value.error) == (403, message)
    assert standin.seen() == []


def test_403_for_what_is_not_granted(strict: Gate, standin: StandIn, tokens: Tokens) -> None:
    token = tokens.mint(scopes=["chat"])
    with openai_client(strict, token) as client:
        assert client.chat.completions.create(model=MODEL, messages=HELLO).choices
        with pytest.raises(openai.PermissionDeniedError) as e:
            client.chat.completions.create(model="stand-in-large", messages=HELLO)
        assert e.value.code == "insufficient_scope"
        with pytest.raises(openai.PermissionDeniedError) as e:
            client.embeddings.create(model=MODEL, input="a")
        assert e.value.code == "insufficient_scope"
    with (
        claude_client(strict, token) as claude,
        pytest.raises(anthropic.PermissionDeniedError) as f,
    ):
        claude.messages.create(model="stand-in-large", messages=HELLO, max_tokens=9)
    assert f.value.body["error"]["code"] == "insufficient_scope"
    assert len(standin.seen()) == 1


def test_404_for_an_unknown_endpoint(
    client: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client, standin: StandIn
) -> None:
    with pytest.raises(openai.NotFoundError) as e:
        client.files.list()
    assert e.value.code == "endpoint_unknown"
    with pytest.raises(anthropic.NotFoundError) as f:
        claude.messages.batches.list()
    assert f.value.body["error"]["code"] == "endpoint_unknown"
    with pytest.raises(ollama.ResponseError) as g:
        llama.pull("anything")
    assert g.value.status_code == 404
    assert "/api/pull" in g.value.error
    assert standin.seen() == []


def test_404_of_the_model_server_is_passed_on(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("no-such-model")
    assert e.value.code == "not_found"


def test_400_for_token_ids(client: openai.OpenAI, llama: ollama.Client, standin: StandIn) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model=MODEL, prompt=[1, 2, 3])
    assert e.value.code == "prompt_opaque"
    with pytest.raises(openai.BadRequestError) as e:
        client.embeddings.create(model=MODEL, input=[[1, 2], [3]])
    assert e.value.code == "prompt_opaque"
    with pytest.raises(ollama.ResponseError) as g:
        llama.generate(MODEL, "hello", context=[1, 2])
    assert g.value.status_code == 400
    assert standin.seen() == []


# Holds


def approve(gate: Gate, hold: str) -> None:
    command = Path(sys.executable).with_name("mitmgate")
    subprocess.run(
        [command, "approve", hold, "--reason", "four eyes", "--state", gate.state],
        check=True,
        capture_output=True,
    )


async def approve_next(gate: Gate, pattern: str, since: int) -> None:
    """Wait for a line about a hold, and approve that one."""
    found = await gate.logged(pattern, since=since)
    await asyncio.to_thread(approve, gate, found[1])


async def test_held_until_approved_on_one_connection(
    gate: Gate, allama: ollama.AsyncClient, standin: StandIn
) -> None:
    since = gate.process.mark()
    messages = say("done", "wire the money")
    asking = asyncio.create_task(allama.chat(MODEL, messages))
    await approve_next(gate, r"waits: mitmgate approve (\S+)", since)
    assert (await asking).message.content == "done"
    assert len(standin.seen()) == 1


async def test_the_sdks_retry_a_hold_by_themselves(
    strict: Gate, standin: StandIn, tokens: Tokens
) -> None:
    """409 with X-Should-Retry, and the approval comes while nobody is on the line."""

    async def with_openai() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{strict.url}/v1", api_key=tokens.mint("asks-openai"), timeout=30
        ) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=say("done", "wire the money")
            )
            return answer.choices[0].message.content

    async def with_anthropic() -> str:
        async with anthropic.AsyncAnthropic(
            base_url=strict.url, api_key=tokens.mint("asks-anthropic"), timeout=30
        ) as client:
            async with client.messages.stream(
                model=MODEL, max_tokens=9, messages=say("done", "wire the money")
            ) as stream:
                return await stream.get_final_text()

    async def approved(subject: str) -> None:
        refused = await strict.logged(rf"refused 409 wire-transfer: .* {subject}, exchange (\S+)")
        hold = await strict.logged(rf"{refused[1]} waits: mitmgate approve (\S+)")
        await asyncio.to_thread(approve, strict, hold[1])

    said = await asyncio.gather(
        with_openai(),
        with_anthropic(),
        approved(".*asks-openai"),
        approved(".*asks-anthropic"),
    )
    assert said[:2] == ["done", "done"]
    assert sorted(seen.path for seen in standin.seen()) == [
        "/v1/chat/completions",
        "/v1/messages",
    ]


async def test_409_when_nobody_decides(strict: Gate, standin: StandIn, tokens: Tokens) -> None:
    token = tokens.mint("impatient")
    ask = [{"role": "user", "content": "wire the money"}]
    with openai_client(strict, token) as client, pytest.raises(openai.ConflictError) as e:
        client.chat.completions.create(model=MODEL, messages=ask)
    assert e.value.code == "wire-transfer"
    assert e.value.response.headers["x-should-retry"] == "true"
    with claude_client(strict, token) as claude, pytest.raises(anthropic.ConflictError) as f:
        claude.messages.create(model=MODEL, messages=ask, max_tokens=9)
    assert f.value.body["error"]["code"] == "wire-transfer"
    with ollama_client(strict, token) as llama:
        with pytest.raises(ollama.ResponseError, match="waits for approval") as g:
            llama.chat(MODEL, ask)
        assert g.value.status_code == 409
        assert standin.seen() == []
        found = strict.wait_log(r"/api/chat for \S*impatient, exchange (\S+)")
        hold = strict.wait_log(rf"{found[1]} waits: mitmgate approve (\S+)")
        approve(strict, hold[1])
        assert llama.chat(MODEL, ask).message.content == MASKED


# A stream that the gate ends


SAID = f"{FILLER}{HIT}. {FILLER}{FILLER}"
SHORT = f"As you wish: {HIT}."


def drain(stream: Iterable[Any], events: list[Any]) -> None:
    """Keep what came, also when the stream raises."""
    for event in stream:
        events.append(event)


async def adrain(stream: AsyncIterable[Any], events: list[Any]) -> None:
    async for event in stream:
        events.append(event)


def assert_judged(delivered: str, said: str) -> None:
    """Text that runs up to the hit and little further, unchanged."""
    assert said.startswith(delivered)
    assert len(delivered) <= said.index(HIT) + len(HIT) + BEHIND
    assert delivered != said


@pytest.mark.parametrize("said", [SAID, SHORT])
def test_a_denied_answer_ends_a_chat_stream(
    strict: Gate, standin: StandIn, tokens: Tokens, said: str
) -> None:
    chunks: list[Any] = []
    with openai_client(strict, tokens.mint()) as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=say(said, "standin: delay=0"), stream=True, n=2
        )
        with pytest.raises(openai.APIError, match=r"Launch codes stay here\.") as e:
            drain(stream, chunks)
    assert e.value.code == "launch-code"
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert not any(choice.finish_reason for choice in choices)
    for index in (0, 1):
        texts = [choice.delta.content or "" for choice in choices if choice.index == index]
        assert_judged("".join(texts), said)


@pytest.mark.parametrize("said", [SAID, SHORT])
async def test_a_denied_answer_ends_a_responses_stream(
    strict: Gate, standin: StandIn, tokens: Tokens, said: str
) -> None:
    events: list[Any] = []
    async with openai.AsyncOpenAI(
        base_url=f"{strict.url}/v1", api_key=tokens.mint(), max_retries=0
    ) as client:
        stream = await client.responses.create(
            model=MODEL, input=say(said, "standin: delay=0"), stream=True
        )
        with pytest.raises(openai.APIError, match=r"Launch codes stay here\.") as e:
            await adrain(stream, events)
    assert e.value.code == "launch-code"
    types = {event.type for event in events}
    assert types.isdisjoint({"response.output_text.done", "response.completed"})
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert_judged("".join(deltas), said)


@pytest.mark.parametrize("said", [SAID, SHORT])
def test_a_denied_answer_ends_a_messages_stream(
    strict: Gate, standin: StandIn, tokens: Tokens, said: str
) -> None:
    events: list[Any] = []
    with claude_client(strict, tokens.mint()) as claude:
        stream = claude.messages.create(
            model=MODEL, messages=say(said, "standin: delay=0"), stream=True, max_tokens=9
        )
        with pytest.raises(anthropic.APIStatusError, match=r"Launch codes stay here\.") as e:
            drain(stream, events)
    assert e.value.body["error"]["code"] == "launch-code"
    assert e.value.type == "permission_error"
    assert {event.type for event in events}.isdisjoint({"content_block_stop", "message_stop"})
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert_judged("".join(deltas), said)


@pytest.mark.parametrize("said", [SAID, SHORT])
def test_a_denied_answer_ends_an_ollama_stream(
    strict: Gate, standin: StandIn, tokens: Tokens, said: str
) -> None:
    pieces: list[Any] = []
    with ollama_client(strict, tokens.mint()) as llama:
        stream = llama.chat(MODEL, say(said, "standin: delay=0"), stream=True)
        with pytest.raises(ollama.ResponseError, match=r"Launch codes stay here\."):
            drain(stream, pieces)
    assert not any(piece.done for piece in pieces)
    assert_judged("".join(piece.message.content or "" for piece in pieces), said)


def test_a_denied_answer_that_came_whole(strict: Gate, standin: StandIn, tokens: Tokens) -> None:
    token = tokens.mint()
    with openai_client(strict, token) as client, pytest.raises(openai.PermissionDeniedError) as e:
        client.chat.completions.create(model=MODEL, messages=say(SAID))
    assert e.value.code == "launch-code"
    assert HIT not in e.value.response.text
    with (
        claude_client(strict, token) as claude,
        pytest.raises(anthropic.PermissionDeniedError) as f,
    ):
        claude.messages.create(model=MODEL, messages=say(SAID), max_tokens=9)
    assert HIT not in f.value.response.text
    with ollama_client(strict, token) as llama, pytest.raises(ollama.ResponseError) as g:
        llama.generate(MODEL, f"say: {SAID}")
    assert (g.value.status_code, g.value.error) == (403, "Launch codes stay here.")


def test_a_denied_tool_call_is_never_delivered(
    strict: Gate, standin: StandIn, tokens: Tokens
) -> None:
    ask: Any = [{"role": "user", "content": f'call: tell {{"whom": "all", "what": "{HIT}"}}'}]
    token, events = tokens.mint(), list[Any]()
    with openai_client(strict, token) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=ask, tools=TOOLS, stream=True)
        with pytest.raises(openai.APIError, match="Launch codes"):
            drain(chunks, events)
        calls = [call for event in events for call in event.choices[0].delta.tool_calls or []]
        assert not any(call.function.arguments for call in calls)
    events.clear()
    with claude_client(strict, token) as claude:
        blocks = claude.messages.create(
            model=MODEL,
            messages=ask,
            tools=[{"name": "tell", "input_schema": PARAMETERS}],
            max_tokens=9,
            stream=True,
        )
        with pytest.raises(anthropic.APIStatusError, match="Launch codes"):
            drain(blocks, events)
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        assert not any(delta.partial_json for delta in deltas)
    events.clear()
    with ollama_client(strict, token) as llama:
        lines = llama.chat(MODEL, ask, tools=TOOLS, stream=True)
        with pytest.raises(ollama.ResponseError, match="Launch codes"):
            drain(lines, events)
        assert not any(event.message.tool_calls for event in events)


# A model server that fails


async def test_a_stream_cut_by_the_model_server(
    aclient: openai.AsyncOpenAI, claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    ask: Any = [{"role": "user", "content": "standin: cut=20\nhello"}]
    chunks: list[Any] = []
    chat = await aclient.chat.completions.create(model=MODEL, messages=ask, stream=True)
    with pytest.raises(openai.APIConnectionError):
        await adrain(chat, chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text
    assert MASKED.startswith(text)
    responses = await aclient.responses.create(model=MODEL, input=ask, stream=True)
    with pytest.raises(openai.APIConnectionError):
        await adrain(responses, [])
    # These two hand on what their HTTP library raises while they read a stream.
    with claude.messages.stream(model=MODEL, max_tokens=99, messages=ask) as messages:
        with pytest.raises(httpx2.RemoteProtocolError):
            messages.get_final_message()
    with pytest.raises(httpx.RemoteProtocolError):
        drain(llama.chat(MODEL, ask, stream=True), [])


def test_a_whole_answer_cut_by_the_model_server(
    client: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    ask = [{"role": "user", "content": "standin: cut=1\nhello"}]
    with pytest.raises((openai.InternalServerError, openai.APIConnectionError)) as e:
        client.chat.completions.create(model=MODEL, messages=ask)
    assert_clean(e.value)
    with pytest.raises((anthropic.InternalServerError, anthropic.APIConnectionError)):
        claude.messages.create(model=MODEL, messages=ask, max_tokens=9)
    with pytest.raises(ollama.ResponseError) as g:
        llama.chat(MODEL, ask)
    assert g.value.status_code == 502


def test_an_error_frame_of_the_model_server(client: openai.OpenAI) -> None:
    said, chunks = "It is jane.doe@example.com", list[Any]()
    ask = say(said, "standin: chunk=3; error=8")
    stream = client.chat.completions.create(model=MODEL, messages=ask, stream=True)
    with pytest.raises(openai.APIError, match="told to fail"):
        drain(stream, chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said.startswith(text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_error_status_of_the_model_server(
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    llama: ollama.Client,
    status: int,
    stream: bool,
) -> None:
    ask = [{"role": "user", "content": f"standin: status={status}\nhello"}]
    with pytest.raises(openai.APIStatusError, match="told to fail") as e:
        client.chat.completions.create(model=MODEL, messages=ask, stream=stream)
    assert (e.value.status_code, e.value.code) == (status, "standin_error")
    with pytest.raises(anthropic.APIStatusError, match="told to fail") as f:
        claude.messages.create(model=MODEL, messages=ask, max_tokens=9, stream=stream)
    assert f.value.status_code == status
    with pytest.raises(ollama.ResponseError) as g:
        list(llama.chat(MODEL, ask, stream=stream))
    assert g.value.status_code == status


def test_a_stream_without_its_last_frame_is_delivered_whole(
    client: openai.OpenAI, llama: ollama.Client
) -> None:
    """What is held back for the masker is let go when the model server ends in good order."""
    ask = say("to jane.doe@example.com", "standin: nodone")
    stream = client.chat.completions.create(model=MODEL, messages=ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "to [EMAIL]"
    pieces = list(llama.chat(MODEL, ask, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == "to [EMAIL]"


def test_502_for_an_answer_that_is_no_json(
    client: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    ask = [{"role": "user", "content": "standin: body=broken\nhello"}]
    with pytest.raises(openai.InternalServerError) as e:
        client.chat.completions.create(model=MODEL, messages=ask)
    assert (e.value.status_code, e.value.code) == (502, "answer_unreadable")
    assert_clean(e.value.response.text)
    with pytest.raises(anthropic.InternalServerError) as f:
        claude.messages.create(model=MODEL, messages=ask, max_tokens=9)
    assert f.value.body["error"]["code"] == "answer_unreadable"
    with pytest.raises(ollama.ResponseError) as g:
        llama.chat(MODEL, ask)
    assert g.value.status_code == 502


@pytest.mark.parametrize("body", ["html", "plain"])
def test_an_answer_that_is_text_is_masked_as_text(client: openai.OpenAI, body: str) -> None:
    ask: Any = [{"role": "user", "content": f"standin: body={body}\nhello"}]
    answer: Any = client.chat.completions.create(model=MODEL, messages=ask)
    assert MASKED in str(answer)
    assert_clean(answer)


@pytest.mark.parametrize("pieces", ["", "; bytes=9; delay=0"])
def test_an_answer_that_is_compressed_unasked(
    client: openai.OpenAI,
    claude: anthropic.Anthropic,
    llama: ollama.Client,
    standin: StandIn,
    pieces: str,
) -> None:
    ask: Any = [{"role": "user", "content": f"standin: gzip{pieces}\nhello"}]
    whole = client.chat.completions.create(model=MODEL, messages=ask)
    assert whole.choices[0].message.content == MASKED
    stream = client.chat.completions.create(model=MODEL, messages=ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == MASKED
    with claude.messages.stream(model=MODEL, max_tokens=99, messages=ask) as messages:
        assert messages.get_final_text() == MASKED
    said = [piece.message.content or "" for piece in llama.chat(MODEL, ask, stream=True)]
    assert "".join(said) == MASKED
    assert {seen.headers["accept-encoding"] for seen in standin.seen()} == {"identity"}


# Time to first token, and leaving


HANGING = say("Text comes at once. " * 9, "standin: chunk=4; hang=12")


async def test_text_arrives_while_the_model_still_speaks(
    aclient: openai.AsyncOpenAI, standin: StandIn
) -> None:
    """The answer never ends, so whoever gets text gets it before the end."""
    async with asyncio.timeout(20):
        stream = await aclient.chat.completions.create(model=MODEL, messages=HANGING, stream=True)
        text = ""
        while "Text comes at once." not in text:
            chunk = await anext(stream)
            text += chunk.choices[0].delta.content or ""
    assert standin.seen()[-1].outcome == "answering"
    await stream.close()
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


async def test_leaving_reaches_the_model_responses(
    aclient: openai.AsyncOpenAI, standin: StandIn
) -> None:
    async with asyncio.timeout(20):
        stream = await aclient.responses.create(model=MODEL, input=HANGING, stream=True)
        while (await anext(stream)).type != "response.output_text.delta":
            pass
    assert standin.seen()[-1].outcome == "answering"
    await stream.close()
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


async def test_leaving_reaches_the_model_messages(
    aclaude: anthropic.AsyncAnthropic, standin: StandIn
) -> None:
    async with asyncio.timeout(20):
        async with aclaude.messages.stream(model=MODEL, max_tokens=99, messages=HANGING) as stream:
            while not await anext(stream.text_stream):
                pass
            assert standin.seen()[-1].outcome == "answering"
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


async def test_leaving_reaches_the_model_ollama(
    allama: ollama.AsyncClient, standin: StandIn
) -> None:
    async with asyncio.timeout(20):
        stream: Any = await allama.chat(MODEL, HANGING, stream=True)
        while not (await anext(stream)).message.content:
            pass
        assert standin.seen()[-1].outcome == "answering"
    await stream.aclose()
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


async def test_leaving_a_whole_answer_reaches_the_model(
    aclient: openai.AsyncOpenAI, standin: StandIn
) -> None:
    ask: Any = [{"role": "user", "content": "standin: slow=60\nhello"}]
    asking = asyncio.create_task(aclient.chat.completions.create(model=MODEL, messages=ask))
    await standin.wait_seen()
    asking.cancel()
    await standin.wait_seen(lambda seen: seen.outcome == "client gone")


# Many on one client


def test_100_streams_on_one_client(client: openai.OpenAI) -> None:
    ask: Any = [{"role": "user", "content": "standin: chunk=9; delay=0\nhello"}]
    for _ in range(100):
        text, finish = "", None
        for chunk in client.chat.completions.create(model=MODEL, messages=ask, stream=True):
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        assert (text, finish) == (MASKED, "stop")


def test_100_whole_answers_on_one_client(client: openai.OpenAI) -> None:
    for _ in range(100):
        answer = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert answer.choices[0].message.content == MASKED


async def test_20_streams_at_a_time(aclient: openai.AsyncOpenAI) -> None:
    async def one(number: int) -> str:
        text = ""
        async for chunk in await aclient.chat.completions.create(
            model=MODEL, messages=say(f"{number} jane.doe@example.com"), stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        return text

    said = await asyncio.gather(*(one(number) for number in range(20)))
    assert said == [f"{number} [EMAIL]" for number in range(20)]
