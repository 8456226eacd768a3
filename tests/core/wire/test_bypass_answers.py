"""Every way around a rule, at every place of every endpoint's answers, whole or streamed: refused.

The judge is the addon's own. A text that streams may run a little ahead of it, so the stream has to
end; of a tool call nothing may have been delivered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy.test import tflow

from disguises import DISGUISES
from mitmgate.commands import Judge, judge, read
from mitmgate.core.ruling import Ruling
from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import ENDPOINTS
from mitmgate.core.wire.stream import EventStream, TextStream
from mitmgate.exchange import Exchange
from mitmgate.refusal import Refusal

RULES = r"""
schema: 1
rules:
  - id: weights-export
    title: Export of model weights
    action: deny
    where: [{where}]
    match: '\bexport\b.{{0,40}}\bweights\b'
    tests: {{match: [export the weights], pass: ["what are weights?"]}}
"""
PHRASE = "export all of the model weights"
HARMLESS = "Nothing to see."
ARGUMENTS = '{"to": "Jane"}'

Body = dict[str, Any]


@pytest.fixture(scope="module")
def rulings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ruling]:
    """The rule for answers, and the rule for the calls in them alone."""
    made = {}
    for where in ("answer", "answer.tool_calls"):
        path = tmp_path_factory.mktemp("rules") / "commands.yaml"
        path.write_text(RULES.format(where=where))
        made[where] = read(path)[0]
    return made


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(tflow.tflow())


# Whole answers, by their shape: for each place that such an answer has, one with the text there.


def arguments(text: str) -> Iterator[tuple[str, Body]]:
    yield "call", {"a": {"b": [{"c": text}]}}
    if " " in text:
        name, *words = text.split()
        yield "command line in a call", {"cmd": name, "args": words}


def everywhere(body: Body, text: str) -> dict[str, Body]:
    return {
        "extra field": {**body, "x": text},
        "deep extra field": {**body, "x": {"a": [{"b": [text]}]}},
        "name of a field": {**body, text: 1},
    }


def chat(text: str) -> dict[str, Body]:
    def said(**message: Any) -> Body:
        made = {"index": 0, "message": {"role": "assistant", "content": "", **message}}
        return {"id": "c", "object": "chat.completion", "choices": [made]}

    def call(name: str, written: str) -> Body:
        function = {"name": name, "arguments": written}
        return said(tool_calls=[{"id": "c", "type": "function", "function": function}])

    return {
        "text": said(content=text),
        "parts": said(content=[{"type": "text", "text": text}]),
        "thought": said(reasoning_content=text),
        "refusal": said(refusal=text),
        "audio": said(audio={"id": "a", "data": "", "transcript": text}),
        **{place: call("f", json.dumps(value)) for place, value in arguments(text)},
        "name of a call": call(text, "{}"),
        "old call": said(function_call={"name": "f", "arguments": json.dumps({"a": text})}),
        **everywhere(said(), text),
    }


def completions(text: str) -> dict[str, Body]:
    return {
        "text": {"choices": [{"index": 0, "text": text}]},
        "second text": {"choices": [{"index": 0, "text": ""}, {"index": 1, "text": text}]},
        **everywhere({"choices": []}, text),
    }


def responses(text: str) -> dict[str, Body]:
    def said(**item: Any) -> Body:
        return {"id": "r", "object": "response", "output": [{"id": "i", **item}]}

    head = {"type": "function_call", "call_id": "c", "name": "f"}
    shell = {"type": "exec", "command": text.split()}
    return {
        "text": said(type="message", content=[{"type": "output_text", "text": text}]),
        "thought": said(type="reasoning", summary=[{"type": "summary_text", "text": text}]),
        **{place: said(**head, arguments=json.dumps(value)) for place, value in arguments(text)},
        "name of a call": said(**{**head, "name": text}, arguments="{}"),
        "custom call": said(type="custom_tool_call", call_id="c", name="f", input=text),
        "shell call": said(type="local_shell_call", call_id="c", action=shell),
        "result": said(type="image_generation_call", result=text),
        "unknown item": said(type="x_item", x={"y": text}),
        **everywhere({"output": []}, text),
    }


def messages(text: str) -> dict[str, Body]:
    def said(**block: Any) -> Body:
        return {"id": "m", "type": "message", "role": "assistant", "content": [block]}

    head = {"type": "tool_use", "id": "c", "name": "f"}
    return {
        "text": said(type="text", text=text),
        "citation": said(type="text", text="", citations=[{"cited_text": text}]),
        "thought": said(type="thinking", thinking=text, signature=""),
        **{place: said(**head, input=value) for place, value in arguments(text)},
        "name of a call": said(**{**head, "name": text}, input={}),
        "server's call": said(type="server_tool_use", id="c", name="f", input={"q": text}),
        "unknown block": said(type="x_block", x={"y": text}),
        **everywhere(said(type="text", text=""), text),
    }


def ollama_chat(text: str) -> dict[str, Body]:
    def said(**message: Any) -> Body:
        return {"model": "m", "message": {"role": "assistant", "content": "", **message}}

    def call(name: str, value: Any) -> Body:
        return said(tool_calls=[{"function": {"name": name, "arguments": value}}])

    return {
        "text": said(content=text),
        "thought": said(thinking=text),
        **{place: call("f", value) for place, value in arguments(text)},
        "name of a call": call(text, {}),
        **everywhere(said(), text),
    }


def ollama_generate(text: str) -> dict[str, Body]:
    return {
        "text": {"model": "m", "response": text},
        "thought": {"model": "m", "response": "", "thinking": text},
        **everywhere({"model": "m"}, text),
    }


def vectors(text: str) -> dict[str, Body]:
    return everywhere({"data": [{"object": "embedding", "embedding": [0.1]}]}, text)


def rerank(text: str) -> dict[str, Body]:
    ranked = {"results": [{"index": 0, "document": {"text": text}}]}
    return {"document": ranked, **everywhere({}, text)}


def llamacpp(text: str) -> dict[str, Body]:
    return {
        "text": {"index": 0, "content": text},
        "prompt": {"content": "", "prompt": text},
        "stopping word": {"content": "", "stopping_word": text},
        **everywhere({"content": ""}, text),
    }


def tgi(text: str) -> dict[str, Any]:
    best = {"generated_text": text}
    return {
        "text": {"generated_text": text},
        "one of two texts": {"generated_text": "", "details": {"best_of_sequences": [best]}},
        "in a list": [{"generated_text": text}],
        **everywhere({"generated_text": ""}, text),
    }


def kserve_infer(text: str) -> dict[str, Body]:
    tensor = {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": [text]}
    return {
        "text": {"model_name": "m", "outputs": [tensor]},
        **everywhere({"outputs": []}, text),
    }


def kserve_generate(text: str) -> dict[str, Body]:
    return {
        "text": {"model_name": "m", "text_output": text},
        "one of two texts": {"text_output": ["", text]},
        **everywhere({}, text),
    }


def mcp(text: str) -> dict[str, Body]:
    def said(**result: Any) -> Body:
        return {"jsonrpc": "2.0", "id": 1, "result": result}

    resource = {"uri": "file:///a", "text": text}
    return {
        "text": said(content=[{"type": "text", "text": text}]),
        "resource": said(content=[{"type": "resource", "resource": resource}]),
        "contents": said(contents=[resource]),
        "prompt": said(messages=[{"role": "user", "content": {"type": "text", "text": text}}]),
        "tool": said(tools=[{"name": "f", "description": text, "inputSchema": {}}]),
        **{f"structured {place}": said(structuredContent=v) for place, v in arguments(text)},
        "error": {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": text}},
        **everywhere(said(), text),
    }


SHAPES = {
    ("openai", "chat"): chat,
    ("openai", "completions"): completions,
    ("openai", "embeddings"): vectors,
    ("openai", "rerank"): rerank,
    ("openai", "responses"): responses,
    ("anthropic", "messages"): messages,
    ("ollama", "chat"): ollama_chat,
    ("ollama", "completions"): ollama_generate,
    ("ollama", "embeddings"): vectors,
    ("llamacpp", "completions"): llamacpp,
    ("llamacpp", "embeddings"): vectors,
    ("tgi", "completions"): tgi,
    ("kserve", "infer"): kserve_infer,
    ("kserve", "completions"): kserve_generate,
    ("mcp", "mcp"): mcp,
}
WHOLE = [
    pytest.param(endpoint, place, id=f"{endpoint.dialect.name} {endpoint.path}, {place}")
    for endpoint in ENDPOINTS
    if endpoint.method == "POST" and (endpoint.dialect.name, endpoint.operation) in SHAPES
    for place in SHAPES[endpoint.dialect.name, endpoint.operation](PHRASE)
]


def denied(ruling: Ruling, endpoint: Endpoint, exchange: Exchange, raw: bytes) -> bool:
    body = read_answer(endpoint, 200, "application/json", raw)
    found = ruling.answered(body.readings("answer"), None, "POST", endpoint.operation)
    try:
        judge(exchange, found)
    except Refusal as refusal:
        return refusal.status == 403 and refusal.code == "weights-export"
    return False


@pytest.mark.parametrize(("endpoint", "place"), WHOLE)
def test_no_way_around_in_a_whole_answer(
    rulings: dict[str, Ruling], exchange: Exchange, endpoint: Endpoint, place: str
) -> None:
    build = SHAPES[endpoint.dialect.name, endpoint.operation]
    missed = set()
    for name, disguise in DISGUISES.items():
        made = build(f"Now {disguise(PHRASE)} at once.").get(place)
        raw = json.dumps(made, ensure_ascii=name == "raw").encode()
        wheres = ("answer", "answer.tool_calls") if "call" in place else ("answer",)
        for where in wheres:
            if not denied(rulings[where], endpoint, exchange, raw):
                missed.add((where, name))
    assert missed == set()


@pytest.mark.parametrize(("endpoint", "place"), WHOLE)
def test_a_whole_answer_that_hides_nothing_passes(
    rulings: dict[str, Ruling], exchange: Exchange, endpoint: Endpoint, place: str
) -> None:
    made = SHAPES[endpoint.dialect.name, endpoint.operation](HARMLESS).get(place, {})
    assert not denied(rulings["answer"], endpoint, exchange, json.dumps(made).encode())


# Streams: those of conftest.py, one channel of which says what it should not.

BEFORE, AFTER = "All is quiet here. " * 6, "And so on, and on. " * 22 + "The end."
CALLED = (b'"tool_calls"', b"function_call", b"tool_use", b"structuredContent")
CHANNELS = [
    pytest.param(name, channel, id=f"{name}, {channel}")
    for name, channels in {
        "chat": ("0.content", "0.reasoning", "1.content", "0.call.0", "0.call.1"),
        "completions": ("0", "1"),
        "responses": ("summary", "text", "call"),
        "messages": ("thinking", "text", "call"),
        "ollama-chat": ("thinking", "content", "call"),
        "ollama-generate": ("response",),
        "llamacpp": ("0", "1"),
        "tgi": ("text",),
        "tgi-compatible": ("text",),
        "kserve": ("text",),
        "mcp": ("note", "text", "call"),
    }.items()
    for channel in channels
]


def pieces(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def delivered(
    ruling: Ruling, exchange: Exchange, sample: Any, channel: str, text: str, size: int
) -> tuple[bytes, bool]:
    """What goes on of a stream that comes `size` bytes at a time, and whether it was ended."""
    texts = {each: ARGUMENTS if each in sample.json else HARMLESS for each in sample.channels}
    raw = sample.make({**texts, channel: text}, pieces)
    stream = EventStream(sample.stream, [Judge(exchange, ruling)])
    out: list[bytes] = []
    try:
        for at in range(0, len(raw), size):
            out += stream.feed(raw[at : at + size])
        out += stream.finish()
    except Refusal as refusal:
        return b"".join(out), refusal.code == "weights-export"
    return b"".join(out), False


def test_all_channels_are_listed(kit: Any) -> None:
    listed = [param.values for param in CHANNELS]
    assert listed == [(n, c) for n, sample in kit.samples.items() for c in sample.channels]


@pytest.mark.parametrize(("name", "channel"), CHANNELS)
def test_no_way_around_in_a_stream(
    kit: Any, rulings: dict[str, Ruling], name: str, channel: str
) -> None:
    sample, missed = kit.samples[name], []
    for disguise, hide in DISGUISES.items():
        for size in (1, 7, 1 << 20) if disguise in ("raw", "base64") else (97,):
            exchange = Exchange(tflow.tflow())
            if channel in sample.json:
                ruling, text = rulings["answer.tool_calls"], json.dumps({"a": [hide(PHRASE)]})
            else:
                ruling, text = rulings["answer"], f"{BEFORE}{hide(PHRASE)} now. {AFTER}"
            out, ended = delivered(ruling, exchange, sample, channel, text, size)
            leaked = [word for word in CALLED if word in out] if channel in sample.json else []
            if not ended or b"The end." in out or leaked:
                missed.append((disguise, size, *leaked))
    assert missed == []


@pytest.mark.parametrize(("name", "channel"), [p for p in CHANNELS if "call" in str(p.values[1])])
def test_no_way_around_in_the_arguments_of_a_call_that_streams(
    kit: Any, rulings: dict[str, Ruling], exchange: Exchange, name: str, channel: str
) -> None:
    for _, value in arguments(PHRASE):
        text = json.dumps(value)
        sample = kit.samples[name]
        out, ended = delivered(rulings["answer.tool_calls"], exchange, sample, channel, text, 7)
        assert ended
        assert not [word for word in CALLED if word in out]


@pytest.mark.parametrize("where", ["answer", "answer.tool_calls"])
@pytest.mark.parametrize(("name", "channel"), CHANNELS)
def test_a_stream_that_hides_nothing_passes(
    kit: Any, rulings: dict[str, Ruling], exchange: Exchange, name: str, channel: str, where: str
) -> None:
    sample = kit.samples[name]
    text = ARGUMENTS if channel in sample.json else BEFORE + AFTER
    out, ended = delivered(rulings[where], exchange, sample, channel, text, 7)
    assert not ended
    assert sample.read(out)[channel] == text


@pytest.mark.parametrize("name", DISGUISES)
def test_no_way_around_in_plain_text_that_streams(
    rulings: dict[str, Ruling], exchange: Exchange, name: str
) -> None:
    raw = f"{BEFORE}{DISGUISES[name](PHRASE)} now. {AFTER}".encode()
    stream = TextStream([Judge(exchange, rulings["answer"])])
    with pytest.raises(Refusal, match="Refused by policy"):
        for at in range(0, len(raw), 7):
            stream.feed(raw[at : at + 7])
