"""Filters of streams to test with, and streams of every dialect with the client that reads them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mitmgate.core import masking
from mitmgate.core.rules import load
from mitmgate.core.wire.dialect import Stream
from mitmgate.core.wire.endpoints import find
from mitmgate.core.wire.stream import Channel, EventStream, Filter

RULES = Path(__file__).parents[3] / "rules"


class WordMask:
    """An exact filter, as simple as can be: one word is replaced, its beginnings are held."""

    masks = True
    word = "jane@x.y"

    def channel(self) -> Channel:
        return _WordChannel(self.word)

    def whole(self, text: str) -> str:
        return text.replace(self.word, "[EMAIL]")


class _WordChannel:
    def __init__(self, word: str) -> None:
        self._word = word
        self._held = ""

    def feed(self, text: str) -> str:
        text = (self._held + text).replace(self._word, "[EMAIL]")
        longest = min(len(text), len(self._word) - 1)
        keep = next(n for n in range(longest, -1, -1) if text.endswith(self._word[:n]))
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held


class Listener:
    """A filter that only judges: it keeps what it hears, and objects to a word."""

    masks = False

    def __init__(self, objects_to: str = "\0never") -> None:
        self.objects_to = objects_to
        self.heard: list[str] = []

    def channel(self) -> Channel:
        return _ListenerChannel(self)

    def whole(self, text: str) -> str:
        self.heard.append(text)
        if self.objects_to in text:
            raise PermissionError(self.objects_to)
        return text


class _ListenerChannel:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._text = ""

    def feed(self, text: str) -> str:
        self._text += text
        if self._listener.objects_to in self._text:
            raise PermissionError(self._listener.objects_to)
        return text

    def finish(self) -> str:
        self._listener.whole(self._text)
        return ""


class RealMask:
    """The masker as the addon uses it."""

    masks = True

    def __init__(self, masker: masking.Masker) -> None:
        self._masker = masker

    def channel(self) -> Channel:
        return self._masker.stream()

    def whole(self, text: str) -> str:
        return self._masker.mask(text).text


@pytest.fixture(scope="session")
def real_mask() -> RealMask:
    """The recognizers of rules/masker.yaml, all that the profile `default` has for answers."""
    loaded = load(RULES / "masker.yaml", masking.MaskerFile)
    return RealMask(masking.compile(loaded, key=b"k" * 32).profile("default").answer)


# Streams.


@dataclass(frozen=True)
class Sample:
    """A stream of one dialect: made from texts, and read back into texts as a client would.

    `make` gets the text of every channel and a function that cuts one into pieces. `json` names
    the channels that are tool-call arguments.
    """

    path: str
    channels: tuple[str, ...]
    make: Callable[[dict[str, str], Cut], bytes]
    read: Callable[[bytes], dict[str, str]]
    json: tuple[str, ...] = ()
    copies: Callable[[bytes], list[tuple[str, str]]] = field(default=lambda stream: [])

    @property
    def stream(self) -> Stream:
        endpoint = find("POST", self.path.replace("{model}", "m"))
        assert endpoint is not None
        assert endpoint.stream is not None
        return endpoint.stream


type Cut = Callable[[str], list[str]]


def sse(*events: dict[str, Any], named: bool = False, done: bool = False) -> bytes:
    out = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        out.append(f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
    return b"".join(out) + (b"data: [DONE]\n\n" if done else b"")


def ndjson(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


def events_of(stream: bytes) -> Iterator[dict[str, Any]]:
    """What a client parses out of a stream, SSE or NDJSON, with nothing of the code under test."""
    text = stream.decode()
    if not text.startswith(("{", "\n")):
        blocks = re.split(r"\n\n|\r\n\r\n", text)
        lines = ["\n".join(re.findall(r"(?m)^data: ?(.*?)\r?$", block)) for block in blocks]
    else:
        lines = text.split("\n")
    for line in lines:
        if line.startswith("{"):
            yield json.loads(line)


def interleave(*columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each in turn, in an order that is always the same."""
    shuffle = random.Random(7)
    left = [list(column) for column in columns if column]
    out = []
    while left:
        column = shuffle.choice(left)
        out.append(column.pop(0))
        left = [each for each in left if each]
    return out


# OpenAI chat, two choices at once, text and tool calls and reasoning mixed.


def chat_make(texts: dict[str, str], cut: Cut) -> bytes:
    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}

    def call(index: int, arguments: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}

    begun = [chunk(i, {"role": "assistant", "content": ""}) for i in (0, 1)]
    named = [
        {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "send_mail"}}
        for i in (0, 1)
    ]
    columns = [
        [chunk(0, {"content": piece}) for piece in cut(texts["0.content"])],
        [chunk(0, {"reasoning_content": piece}) for piece in cut(texts["0.reasoning"])],
        [chunk(1, {"content": piece}) for piece in cut(texts["1.content"])],
        [
            chunk(0, {"tool_calls": [named[0]]}),
            *(chunk(0, call(0, piece)) for piece in cut(texts["0.call.0"])),
        ],
        [
            chunk(0, {"tool_calls": [named[1]]}),
            *(chunk(0, call(1, piece)) for piece in cut(texts["0.call.1"])),
        ],
    ]
    ended = [chunk(0, {}, "tool_calls"), chunk(1, {}, "stop")]
    usage = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": {"total": 1}}
    return sse(*begun, *interleave(*columns), *ended, usage, done=True)


def chat_read(stream: bytes) -> dict[str, str]:
    texts = dict.fromkeys(CHAT.channels, "")
    over = set()
    for event in events_of(stream):
        for choice in event.get("choices", []):
            at, delta = choice["index"], choice["delta"]
            assert at not in over
            texts[f"{at}.content"] += delta.get("content") or ""
            if "reasoning_content" in delta:
                texts[f"{at}.reasoning"] += delta["reasoning_content"]
            for call in delta.get("tool_calls", []):
                texts[f"{at}.call.{call['index']}"] += call["function"].get("arguments", "")
            if choice["finish_reason"]:
                over.add(at)
    assert stream.endswith(b"data: [DONE]\n\n")
    return texts


CHAT = Sample(
    "/v1/chat/completions",
    ("0.content", "0.reasoning", "1.content", "0.call.0", "0.call.1"),
    chat_make,
    chat_read,
    json=("0.call.0", "0.call.1"),
)


# OpenAI completions: the piece comes with the finish reason.


def completions_make(texts: dict[str, str], cut: Cut) -> bytes:
    def chunk(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"id": "c", "choices": [{"index": index, "text": text, "finish_reason": finish}]}

    columns = []
    for index in (0, 1):
        *pieces, last = cut(texts[str(index)])
        columns.append([*(chunk(index, p) for p in pieces), chunk(index, last, "length")])
    return sse(*interleave(*columns), done=True)


def completions_read(stream: bytes) -> dict[str, str]:
    texts = {"0": "", "1": ""}
    for event in events_of(stream):
        texts[str(event["choices"][0]["index"])] += event["choices"][0]["text"]
    return texts


COMPLETIONS = Sample("/v1/completions", ("0", "1"), completions_make, completions_read)


# OpenAI Responses.


def responses_make(texts: dict[str, str], cut: Cut) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "text": texts["text"], "annotations": [], "logprobs": []}
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "send_mail"}
    thought = {"id": "rs_1", "type": "reasoning", "summary": []}
    summary = {"type": "summary_text", "text": texts["summary"]}
    in_thought = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    in_message = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    in_call = {"item_id": "fc_1", "output_index": 2}
    whole = [
        {**thought, "summary": [summary]},
        {**message, "content": [part]},
        {**call, "arguments": texts["call"]},
    ]
    on, text = "response.reasoning_summary_text", "response.output_text"
    arguments = "response.function_call_arguments"
    events = [
        {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": thought},
        *({"type": f"{on}.delta", **in_thought, "delta": p} for p in cut(texts["summary"])),
        {"type": f"{on}.done", **in_thought, "text": texts["summary"]},
        {"type": "response.output_item.done", "output_index": 0, "item": whole[0]},
        {"type": "response.output_item.added", "output_index": 1, "item": {**message}},
        {"type": "response.content_part.added", **in_message, "part": {**part, "text": ""}},
        *({"type": f"{text}.delta", **in_message, "delta": p} for p in cut(texts["text"])),
        {"type": f"{text}.done", **in_message, "text": texts["text"], "logprobs": []},
        {"type": "response.content_part.done", **in_message, "part": part},
        {"type": "response.output_item.done", "output_index": 1, "item": whole[1]},
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {**call, "arguments": ""},
        },
        *({"type": f"{arguments}.delta", **in_call, "delta": p} for p in cut(texts["call"])),
        {"type": f"{arguments}.done", **in_call, "arguments": texts["call"]},
        {"type": "response.output_item.done", "output_index": 2, "item": whole[2]},
        {
            "type": "response.completed",
            "response": {"id": "r", "status": "completed", "output": whole},
        },
    ]
    return sse(*({**e, "sequence_number": i} for i, e in enumerate(events)), named=True)


_RESPONSES = {
    "response.reasoning_summary_text": "summary",
    "response.output_text": "text",
    "response.function_call_arguments": "call",
}


def responses_read(stream: bytes) -> dict[str, str]:
    texts = dict.fromkeys(RESPONSES.channels, "")
    over = set()
    for event in events_of(stream):
        base, _, kind = event["type"].rpartition(".")
        if kind == "delta":
            assert base not in over
            texts[_RESPONSES[base]] += event["delta"]
        elif kind == "done" and base in _RESPONSES:
            over.add(base)
        if kind == "added" and event.get("item", {}).get("type") == "function_call":
            assert event["item"]["name"] == "send_mail"
    return texts


def responses_copies(stream: bytes) -> list[tuple[str, str]]:
    found = []
    for event in events_of(stream):
        base, _, kind = event["type"].rpartition(".")
        if kind == "done" and base in _RESPONSES:
            found.append((_RESPONSES[base], event.get("text", event.get("arguments"))))
        if event["type"] == "response.content_part.done":
            found.append(("text", event["part"]["text"]))
        items = [event["item"]] if event["type"] == "response.output_item.done" else []
        for item in items or event.get("response", {}).get("output", []):
            if item["type"] == "message":
                found.append(("text", item["content"][0]["text"]))
            elif item["type"] == "reasoning":
                found.append(("summary", item["summary"][0]["text"]))
            else:
                found.append(("call", item["arguments"]))
    assert len(found) == 10
    return found


RESPONSES = Sample(
    "/v1/responses",
    ("summary", "text", "call"),
    responses_make,
    responses_read,
    json=("call",),
    copies=responses_copies,
)


# Anthropic messages.


def messages_make(texts: dict[str, str], cut: Cut) -> bytes:
    def block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> list[Any]:
        return [
            {"type": "content_block_start", "index": index, "content_block": start},
            *({"type": "content_block_delta", "index": index, "delta": d} for d in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    *thoughts, _ = [*cut(texts["thinking"]), ""]
    first, *rest = cut(texts["text"])
    tool = {"type": "tool_use", "id": "tu_1", "name": "send_mail", "input": {}}
    start = {"id": "msg", "type": "message", "role": "assistant", "content": [], "model": "m"}
    return sse(
        {"type": "message_start", "message": start},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                *({"type": "thinking_delta", "thinking": p} for p in thoughts),
                {"type": "signature_delta", "signature": "EqQB"},
            ],
        ),
        {"type": "ping"},
        *block(
            1,
            {"type": "text", "text": first},
            [{"type": "text_delta", "text": p} for p in rest],
        ),
        *block(
            2, tool, [{"type": "input_json_delta", "partial_json": p} for p in cut(texts["call"])]
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}},
        {"type": "message_stop"},
        named=True,
    )


def messages_read(stream: bytes) -> dict[str, str]:
    texts = dict.fromkeys(MESSAGES.channels, "")
    names = {0: "thinking", 1: "text", 2: "call"}
    fields = {
        "thinking_delta": "thinking",
        "text_delta": "text",
        "input_json_delta": "partial_json",
    }
    open_block = None
    for event in events_of(stream):
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
                texts[names[open_block]] += event["content_block"].get("text", "")
                assert event["content_block"].get("name", "send_mail") == "send_mail"
            case "content_block_delta":
                assert event["index"] == open_block
                if event["delta"]["type"] != "signature_delta":
                    name = fields[event["delta"]["type"]]
                    texts[names[open_block]] += event["delta"][name]
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
    assert stream.count(b"event: ping") == 1
    return texts


MESSAGES = Sample(
    "/v1/messages", ("thinking", "text", "call"), messages_make, messages_read, json=("call",)
)


# Ollama.


def ollama_chat_make(texts: dict[str, str], cut: Cut) -> bytes:
    def line(**message: Any) -> dict[str, Any]:
        return {"model": "m", "created_at": "2026", "message": message, "done": False}

    call = {"function": {"name": "send_mail", "arguments": json.loads(texts["call"])}}
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True}
    return ndjson(
        *(line(role="assistant", content="", thinking=p) for p in cut(texts["thinking"])),
        *(line(role="assistant", content=p) for p in cut(texts["content"])),
        line(role="assistant", content="", tool_calls=[call]),
        {**end, "done_reason": "stop", "eval_count": 5},
    )


def ollama_chat_read(stream: bytes) -> dict[str, str]:
    texts = {"thinking": "", "content": "", "call": ""}
    events = list(events_of(stream))
    for event in events:
        assert not event["done"] or event is events[-1]
        texts["thinking"] += event["message"].get("thinking", "")
        texts["content"] += event["message"]["content"]
        for call in event["message"].get("tool_calls", []):
            assert call["function"]["name"] == "send_mail"
            texts["call"] += json.dumps(call["function"]["arguments"])
    assert events[-1]["done"]
    return texts


OLLAMA_CHAT = Sample(
    "/api/chat", ("thinking", "content", "call"), ollama_chat_make, ollama_chat_read, json=("call",)
)


def ollama_generate_make(texts: dict[str, str], cut: Cut) -> bytes:
    *pieces, last = cut(texts["response"])
    return ndjson(
        *({"model": "m", "response": p, "done": False} for p in pieces),
        {"model": "m", "response": last, "done": True, "context": [1, 2, 3]},
    )


def ollama_generate_read(stream: bytes) -> dict[str, str]:
    return {"response": "".join(event["response"] for event in events_of(stream))}


OLLAMA_GENERATE = Sample("/api/generate", ("response",), ollama_generate_make, ollama_generate_read)


# llama.cpp.


def llamacpp_make(texts: dict[str, str], cut: Cut) -> bytes:
    columns = []
    for index in (0, 1):
        pieces = [
            {"index": index, "content": p, "tokens": [1], "stop": False}
            for p in cut(texts[str(index)])
        ]
        end = {"index": index, "content": "", "stop": True, "stop_type": "eos", "prompt": "Hi"}
        columns.append([*pieces, end])
    return sse(*interleave(*columns))


def llamacpp_read(stream: bytes) -> dict[str, str]:
    texts = {"0": "", "1": ""}
    over = set()
    for event in events_of(stream):
        assert event["index"] not in over
        texts[str(event["index"])] += event["content"]
        if event["stop"]:
            over.add(event["index"])
    assert over == {0, 1}
    return texts


LLAMACPP = Sample("/completion", ("0", "1"), llamacpp_make, llamacpp_read)

# TGI: the last token is a special one, or a piece of the text.


def tgi_make(texts: dict[str, str], cut: Cut, *, special: bool = True) -> bytes:
    def event(index: int, text: str, **more: Any) -> dict[str, Any]:
        token = {"id": 7 + index, "text": text, "logprob": -0.5, "special": False}
        end: dict[str, Any] = {"generated_text": None, "details": None, **more}
        return {"index": index, "token": token, "top_tokens": [token], **end}

    *pieces, last = [event(i, piece) for i, piece in enumerate(cut(texts["text"]), 1)]
    if special:
        pieces.append(last)
        last = event(len(pieces) + 1, "</s>")
        last["token"]["special"] = True
    last |= {"generated_text": texts["text"], "details": {"finish_reason": "length", "seed": 1}}
    return sse(*pieces, last).replace(b"data: ", b"data:")


def tgi_read(stream: bytes) -> dict[str, str]:
    said, over = "", False
    for event in events_of(stream):
        assert not over
        assert isinstance(event["index"], int)
        token = event["token"]
        assert isinstance(token["id"], int)
        assert isinstance(token["logprob"], float)
        if not token["special"]:
            said += token["text"]
        over = event["generated_text"] is not None
    return {"text": said}


def tgi_copies(stream: bytes) -> list[tuple[str, str]]:
    *_, last = events_of(stream)
    return [("text", last["generated_text"])]


TGI = Sample("/generate_stream", ("text",), tgi_make, tgi_read, copies=tgi_copies)
TGI_COMPATIBLE = Sample(
    "/", ("text",), partial(tgi_make, special=False), tgi_read, copies=tgi_copies
)


# Triton.


def kserve_make(texts: dict[str, str], cut: Cut) -> bytes:
    head = {"model_name": "m", "model_version": "1", "sequence_end": False}
    return sse(*({**head, "text_output": piece} for piece in cut(texts["text"])))


def kserve_read(stream: bytes) -> dict[str, str]:
    return {"text": "".join(event["text_output"] for event in events_of(stream))}


KSERVE = Sample("/v2/models/{model}/generate_stream", ("text",), kserve_make, kserve_read)


# MCP: every event is a message, and nothing is in pieces.


def mcp_make(texts: dict[str, str], cut: Cut) -> bytes:
    note = {"progressToken": "p-1", "progress": 1, "message": texts["note"]}
    result = {
        "content": [{"type": "text", "text": texts["text"]}],
        "structuredContent": json.loads(texts["call"]),
        "isError": False,
    }
    messages: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": note},
        {"jsonrpc": "2.0", "id": 1, "result": result},
    ]
    return sse(*messages).replace(b"data: ", b"event: message\ndata: ")


def mcp_read(stream: bytes) -> dict[str, str]:
    note, answer = events_of(stream)
    assert note["method"] == "notifications/progress"
    assert answer["id"] == 1
    (block,) = answer["result"]["content"]
    return {
        "note": note["params"]["message"],
        "text": block["text"],
        "call": json.dumps(answer["result"]["structuredContent"]),
    }


MCP = Sample("/mcp", ("note", "text", "call"), mcp_make, mcp_read, json=("call",))

SAMPLES = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "responses": RESPONSES,
    "messages": MESSAGES,
    "ollama-chat": OLLAMA_CHAT,
    "ollama-generate": OLLAMA_GENERATE,
    "llamacpp": LLAMACPP,
    "tgi": TGI,
    "tgi-compatible": TGI_COMPATIBLE,
    "kserve": KSERVE,
    "mcp": MCP,
}


@pytest.fixture(params=SAMPLES.values(), ids=SAMPLES.keys())
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param


def run(stream: Stream, filters: list[Filter], *pieces: bytes) -> bytes:
    """What comes out for these pieces, all of it."""
    events = EventStream(stream, filters)
    out = [part for piece in pieces for part in events.feed(piece)]
    return b"".join([*out, *events.finish()])


class Kit:
    """The functions and classes above, for tests that cannot import this file."""

    WordMask = WordMask
    Listener = Listener
    samples = SAMPLES
    sse = staticmethod(sse)
    ndjson = staticmethod(ndjson)
    events_of = staticmethod(events_of)
    run = staticmethod(run)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
