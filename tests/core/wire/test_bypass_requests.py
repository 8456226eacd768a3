"""Every way around a rule, at every place of every endpoint's requests, streamed or not: refused.

The bodies are those that clients send, one builder for each shape of request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import batched
from typing import Any
from urllib.parse import quote

import pytest

from disguises import DISGUISES, Disguise
from mitmgate.commands import read
from mitmgate.core.ruling import Asked, Ruling
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import ENDPOINTS
from mitmgate.core.wire.prompt import PromptError, read_prompt

RULES = r"""
schema: 1
rules:
  - id: weights-export
    title: Export of model weights
    action: deny
    match: '\bexport\b.{0,40}\bweights\b'
    tests: {match: [export the weights], pass: ["what are weights?"]}
"""
PHRASE = "export all of the model weights"
HARMLESS = "how much do all of the apples weigh"

Body = dict[str, Any]
Shape = Callable[["Hidden"], dict[str, Body]]


@dataclass(frozen=True)
class Hidden:
    """A text in disguise: as a whole, in two pieces, in two halves, and word by word."""

    text: str
    disguise: Disguise

    @property
    def whole(self) -> str:
        return f"Please {self.disguise(self.text)} now."

    @property
    def pieces(self) -> list[str]:
        """What was hidden, cut in two within a word: parts of a message are joined as they are."""
        at = self.whole.index(" ") + 1 + len(self.disguise(self.text)) * 4 // 5
        return [self.whole[:at], self.whole[at:]]

    @property
    def halves(self) -> list[str]:
        """Two texts that were hidden on their own: messages are joined by line breaks."""
        first, _, second = self.text.partition(" the ")
        return [self.disguise(first), self.disguise(second)]

    @property
    def words(self) -> list[str]:
        """A command line, with one disguise for every argument."""
        return [self.disguise(word) for word in self.text.split()]


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

# Requests by their shape: for each place that such a request has, one with the text there.


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def texts(pieces: list[str], kind: str = "text") -> list[Body]:
    return [{"type": kind, "text": piece} for piece in pieces]


def schema(text: str) -> Body:
    return {"type": "object", "properties": {"path": {"type": "string", "description": text}}}


def everywhere(body: Body, hidden: Hidden) -> dict[str, Body]:
    """Places that every request has: fields that nobody knows, and their names."""
    return {
        "extra field": {**body, "x_notes": hidden.whole},
        "deep extra field": {**body, "x_notes": {"a": [{"b": [hidden.whole]}]}},
        "name of a field": {**body, hidden.whole: 1},
        "name of a deep field": {**body, "x_notes": [{hidden.whole: None}]},
    }


def openai_calls(hidden: Hidden, *, as_text: bool) -> Iterator[tuple[str, Any]]:
    dump = json.dumps if as_text else lambda value: value
    yield "call", dump({"a": {"b": [{"c": hidden.whole}]}})
    yield "command line in a call", dump({"cmd": hidden.words[0], "args": hidden.words[1:]})
    yield "command line in a call, backwards", dump({"z": hidden.words[1:], "a": hidden.words[0]})


def chat(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "messages": [user("Hello.")]}

    def tool(description: str, parameters: Body) -> Body:
        function = {"name": "f", "description": description, "parameters": parameters}
        return {**asked, "tools": [{"type": "function", "function": function}]}

    def said(*messages: Body) -> Body:
        return {"model": "m", "messages": [user("Hello."), *messages]}

    def call(name: str, arguments: str) -> Body:
        function = {"name": name, "arguments": arguments}
        called = [{"id": "c", "type": "function", "function": function}]
        return said({"role": "assistant", "content": None, "tool_calls": called})

    answered = {"role": "tool", "tool_call_id": "c"}
    return {
        "prompt": said(user(hidden.whole)),
        "parts of a message": said(user(texts(hidden.pieces))),
        "parts with more fields": said(user([{**p, "x": "y"} for p in texts(hidden.pieces)])),
        "parts beside a picture": said(
            user([texts(hidden.pieces)[0], PICTURE, texts(hidden.pieces)[1]])
        ),
        "two messages": said(*map(user, hidden.halves)),
        "messages of two callers": said(
            user(hidden.halves[0]), {"role": "assistant", "content": ""}, user(hidden.halves[1])
        ),
        "earlier answer": said({"role": "assistant", "content": hidden.whole}),
        "system": said({"role": "system", "content": hidden.whole}),
        "developer": said({"role": "developer", "content": texts(hidden.pieces)}),
        "unknown role": said({"role": hidden.whole, "content": ""}),
        "name of a caller": said({**user("Hello."), "name": hidden.whole}),
        "tool": tool(hidden.whole, {}),
        "schema of a tool": tool("", schema(hidden.whole)),
        "name of a parameter": tool("", {"properties": {hidden.whole: {"type": "string"}}}),
        "schema of the answer": {
            **asked,
            "response_format": {"type": "json_schema", "json_schema": schema(hidden.whole)},
        },
        **{place: call("f", text) for place, text in openai_calls(hidden, as_text=True)},
        "name of a call": call(hidden.whole, "{}"),
        "old call": said(
            {"role": "assistant", "function_call": {"name": "f", "arguments": hidden.whole}}
        ),
        "result": said({**answered, "content": hidden.whole}),
        "parts of a result": said({**answered, "content": texts(hidden.pieces)}),
        "field of a message": said({**user(""), "reasoning_content": hidden.whole}),
        "field of a part": said(user([{"type": "text", "text": "", "x": hidden.whole}])),
        **everywhere(asked, hidden),
    }


def completions(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "prompt": "Hello."}
    return {
        "prompt": {**asked, "prompt": hidden.whole},
        "one of two prompts": {**asked, "prompt": ["Hello.", hidden.whole]},
        "suffix": {**asked, "suffix": hidden.whole},
        "prompt and suffix": dict(zip(("prompt", "suffix"), hidden.pieces, strict=True)),
        "stop": {**asked, "stop": [hidden.whole]},
        **everywhere(asked, hidden),
    }


def embeddings(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "input": "Hello."}
    return {
        "prompt": {**asked, "input": hidden.whole},
        "one of two prompts": {**asked, "input": ["Hello.", hidden.whole]},
        **everywhere(asked, hidden),
    }


def rerank(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "query": "Hello.", "documents": ["Hello."]}
    return {
        "prompt": {**asked, "query": hidden.whole},
        "one of two documents": {**asked, "documents": ["Hello.", hidden.whole]},
        "document as an object": {**asked, "documents": [{"text": hidden.whole}]},
        **everywhere(asked, hidden),
    }


def responses(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "input": "Hello."}
    head = {"type": "function_call", "call_id": "c", "name": "f"}
    result = {"type": "function_call_output", "call_id": "c"}
    tool = {"type": "function", "name": "f", "parameters": {}}

    def said(*items: Body) -> Body:
        return {"model": "m", "input": [user("Hello."), *items]}

    return {
        "prompt": {**asked, "input": hidden.whole},
        "message": said(user(hidden.whole)),
        "parts of a message": said(user(texts(hidden.pieces, "input_text"))),
        "two messages": said(*map(user, hidden.halves)),
        "system": {**asked, "instructions": hidden.whole},
        "developer": said({"role": "developer", "content": hidden.whole}),
        "tool": {**asked, "tools": [{**tool, "description": hidden.whole}]},
        "schema of a tool": {**asked, "tools": [{**tool, "parameters": schema(hidden.whole)}]},
        **{
            place: said({**head, "arguments": text})
            for place, text in openai_calls(hidden, as_text=True)
        },
        "name of a call": said({**head, "name": hidden.whole, "arguments": "{}"}),
        "custom call": said({"type": "custom_tool_call", "call_id": "c", "input": hidden.whole}),
        "command line in a shell call": said(
            {
                "type": "local_shell_call",
                "call_id": "c",
                "action": {"type": "exec", "command": hidden.words},
            }
        ),
        "result": said({**result, "output": hidden.whole}),
        "parts of a result": said({**result, "output": texts(hidden.pieces, "input_text")}),
        "thought": said({"type": "reasoning", "summary": texts([hidden.whole], "summary_text")}),
        "unknown item": said({"type": "x_item", "x": {"y": hidden.whole}}),
        **everywhere(asked, hidden),
    }


def messages(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "max_tokens": 9, "messages": [user("Hello.")]}
    tool = {"name": "f", "input_schema": {"type": "object"}}

    def said(*said: Body) -> Body:
        return {**asked, "messages": [user("Hello."), *said]}

    def block(**fields: Any) -> Body:
        return said({"role": "assistant", "content": [fields]})

    def result(content: Any) -> Body:
        return said(user([{"type": "tool_result", "tool_use_id": "c", "content": content}]))

    return {
        "prompt": said(user(hidden.whole)),
        "parts of a message": said(user(texts(hidden.pieces))),
        "two messages": said(*map(user, hidden.halves)),
        "earlier answer": said({"role": "assistant", "content": hidden.whole}),
        "thought": block(type="thinking", thinking=hidden.whole, signature=""),
        "signature": block(type="thinking", thinking="", signature=hidden.whole),
        "system": {**asked, "system": hidden.whole},
        "parts of the system": {**asked, "system": texts(hidden.pieces)},
        "tool": {**asked, "tools": [{**tool, "description": hidden.whole}]},
        "schema of a tool": {**asked, "tools": [{**tool, "input_schema": schema(hidden.whole)}]},
        **{
            place: block(type="tool_use", id="c", name="f", input=value)
            for place, value in openai_calls(hidden, as_text=False)
        },
        "name of a call": block(type="tool_use", id="c", name=hidden.whole, input={}),
        "result": result(hidden.whole),
        "parts of a result": result(texts(hidden.pieces)),
        "document": said(
            user([{"type": "document", "source": {"type": "text", "data": hidden.whole}}])
        ),
        "title of a document": said(
            user([{"type": "document", "source": {"type": "text"}, "title": hidden.whole}])
        ),
        **everywhere(asked, hidden),
    }


def ollama_chat(hidden: Hidden) -> dict[str, Body]:
    asked = {"model": "m", "messages": [user("Hello.")]}
    tool = {"name": "f", "description": "", "parameters": {}}

    def said(*messages: Body) -> Body:
        return {"model": "m", "messages": [user("Hello."), *messages]}

    def tools(**more: Any) -> Body:
        return {**asked, "tools": [{"type": "function", "function": {**tool, **more}}]}

    def call(name: str, arguments: Any) -> Body:
        called = {"function": {"name": name, "arguments": arguments}}
        return said({"role": "assistant", "content": "", "tool_calls": [called]})

    return {
        "prompt": said(user(hidden.whole)),
        "two messages": said(*map(user, hidden.halves)),
        "thought": said({"role": "assistant", "content": "", "thinking": hidden.whole}),
        "system": said({"role": "system", "content": hidden.whole}),
        "tool": tools(description=hidden.whole),
        "schema of a tool": tools(parameters=schema(hidden.whole)),
        **{place: call("f", value) for place, value in openai_calls(hidden, as_text=False)},
        "name of a call": call(hidden.whole, {}),
        "result": said({"role": "tool", "content": hidden.whole, "tool_name": "f"}),
        "name of a result": said({"role": "tool", "content": "", "tool_name": hidden.whole}),
        "format": {**asked, "format": schema(hidden.whole)},
        "stop": {**asked, "options": {"stop": [hidden.whole]}},
        "unknown option": {**asked, "options": {"x": hidden.whole}},
        "picture": said({**user(""), "images": [hidden.whole]}),
        **everywhere(asked, hidden),
    }


def ollama_generate(hidden: Hidden) -> dict[str, Body]:
    return {**completions(hidden), "system": {"model": "m", "system": hidden.whole}}


def llamacpp(hidden: Hidden) -> dict[str, Body]:
    asked = {"prompt": "Hello."}
    return {
        **completions(hidden),
        "prompt with pictures": {"prompt": {"prompt_string": hidden.whole}},
        "prefix": {**asked, "input_prefix": hidden.whole},
        "prefix and suffix": dict(
            zip(("input_prefix", "input_suffix"), hidden.pieces, strict=True)
        ),
        "other file": {**asked, "input_extra": [{"filename": "a", "text": hidden.whole}]},
        "grammar": {**asked, "grammar": f'root ::= "{hidden.whole}"'},
        "schema": {**asked, "json_schema": schema(hidden.whole)},
        "content": {"content": hidden.whole},
        "picture": {**asked, "image_data": [{"id": 1, "data": hidden.whole}]},
    }


def tgi(hidden: Hidden) -> dict[str, Body]:
    asked = {"inputs": "Hello."}
    return {
        "prompt": {"inputs": hidden.whole},
        "stop": {**asked, "parameters": {"stop": [hidden.whole]}},
        "grammar": {**asked, "parameters": {"grammar": schema(hidden.whole)}},
        "adapter": {**asked, "parameters": {"adapter_id": hidden.whole}},
        "unknown parameter": {**asked, "parameters": {"x": hidden.whole}},
        **everywhere(asked, hidden),
    }


def kserve_infer(hidden: Hidden) -> dict[str, Body]:
    def asked(*data: str, **more: Any) -> Body:
        tensor = {"name": "text_input", "datatype": "BYTES", "shape": [len(data)], "data": data}
        return {"id": "1", "inputs": [{**tensor, **more}], "outputs": [{"name": "text_output"}]}

    return {
        "prompt": asked(hidden.whole),
        "one of two prompts": asked("Hello.", hidden.whole),
        "name of a tensor": asked("Hello.", name=hidden.whole),
        "parameter of a tensor": asked("Hello.", parameters={"x": hidden.whole}),
        **everywhere(asked("Hello."), hidden),
    }


def kserve_generate(hidden: Hidden) -> dict[str, Body]:
    asked = {"text_input": "Hello.", "parameters": {}}
    return {
        "prompt": {**asked, "text_input": hidden.whole},
        "parameter": {**asked, "parameters": {"stop_words": hidden.whole}},
        **everywhere(asked, hidden),
    }


def mcp(hidden: Hidden) -> dict[str, Body]:
    def asked(method: str, **params: Any) -> Body:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

    def answered(**result: Any) -> Body:
        return {"jsonrpc": "2.0", "id": 1, "result": result}

    call = asked("tools/call", name="f", arguments={})
    return {
        **{
            place: asked("tools/call", name="f", arguments=value)
            for place, value in openai_calls(hidden, as_text=False)
        },
        "name of a call": asked("tools/call", name=hidden.whole, arguments={}),
        "prompt": asked("prompts/get", name="p", arguments={"topic": hidden.whole}),
        "name of a prompt": asked("prompts/get", name=hidden.whole),
        "resource": asked("resources/read", uri=f"file:///{hidden.whole}"),
        "completion": asked("completion/complete", argument={"name": "a", "value": hidden.whole}),
        "sampled answer": answered(role="assistant", content=texts([hidden.whole])[0]),
        "parts of a sampled answer": answered(role="assistant", content=texts(hidden.pieces)),
        "elicited answer": answered(action="accept", content={"name": hidden.whole}),
        "structured answer": answered(structuredContent={"a": [hidden.whole]}),
        "method": asked(hidden.whole),
        "error": {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": hidden.whole}},
        **everywhere(call, hidden),
    }


SHAPES: dict[tuple[str, str], Shape] = {
    ("openai", "chat"): chat,
    ("openai", "completions"): completions,
    ("openai", "embeddings"): embeddings,
    ("openai", "rerank"): rerank,
    ("openai", "responses"): responses,
    ("anthropic", "messages"): messages,
    ("anthropic", "tokenize"): messages,
    ("ollama", "chat"): ollama_chat,
    ("ollama", "completions"): ollama_generate,
    ("ollama", "embeddings"): embeddings,
    ("llamacpp", "completions"): llamacpp,
    ("llamacpp", "embeddings"): llamacpp,
    ("llamacpp", "tokenize"): llamacpp,
    ("tgi", "completions"): tgi,
    ("kserve", "infer"): kserve_infer,
    ("kserve", "completions"): kserve_generate,
    ("mcp", "mcp"): mcp,
}
# Not seen through, because each of several texts is in a disguise of its own: turned round one by
# one they stand in the wrong order, and a single short word is not taken for base64 or hex.
_TURNED = {"bidi", "reversed"}
_SHORT = {"base64", "base64-url", "base64-twice"}
MISSED = {
    "two messages": _TURNED,
    "messages of two callers": _TURNED,
    "command line in a call": _TURNED | _SHORT,
    "command line in a shell call": _TURNED | _SHORT,
    "command line in a call, backwards": {"hex"} | _SHORT,
}

_FIRST = {(e.dialect.name, e.operation): e for e in reversed(ENDPOINTS)}


def places(endpoint: Endpoint) -> list[str]:
    """All, but for an endpoint that is another one's by a second name."""
    shape = endpoint.dialect.name, endpoint.operation
    every = SHAPES[shape](Hidden(PHRASE, str))
    first = _FIRST[shape]
    again = endpoint is not first and endpoint.request is first.request
    return [place for place in every if not again or place in ("prompt", "extra field")]


CELLS = [
    pytest.param(
        endpoint,
        place,
        streamed,
        id=f"{endpoint.dialect.name} {endpoint.path}, {place}{', streamed' * streamed}",
    )
    for endpoint in ENDPOINTS
    if endpoint.request is not None
    for place in places(endpoint)
    for streamed in ([False, True] if endpoint.stream else [False])
]


def as_sent(body: Body) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def as_escaped(body: Body) -> bytes:
    r"""Every character of every string as \uXXXX, the names that the protocol has included."""
    return _LITERAL.sub(_escaped, json.dumps(body)).encode()


def _escaped(literal: re.Match[str]) -> str:
    units = json.loads(literal[0]).encode("utf-16-be")
    return '"' + "".join(f"\\u{high:02x}{low:02x}" for high, low in batched(units, 2)) + '"'


_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')


@pytest.fixture(scope="module")
def ruling(tmp_path_factory: pytest.TempPathFactory) -> Ruling:
    path = tmp_path_factory.mktemp("rules") / "commands.yaml"
    path.write_text(RULES)
    return read(path)[0]


CHAT = next(endpoint for endpoint in ENDPOINTS if endpoint.operation == "chat")


def verdict(ruling: Ruling, endpoint: Endpoint, raw: bytes) -> str:
    """The rule that denies a request, the code under which it is unreadable, or nothing."""
    target = endpoint.path.format(model="m", version="1")
    try:
        prompt = read_prompt(endpoint, target, "application/json", raw)
    except PromptError as e:
        return e.code
    assert prompt.body
    asked = Asked("POST", endpoint.operation, prompt.readings(), prompt.body.document.data)
    return " ".join({found.rule.id for found in ruling.asked(asked, None)})


@pytest.mark.parametrize(("endpoint", "place", "streamed"), CELLS)
def test_no_way_around(ruling: Ruling, endpoint: Endpoint, place: str, streamed: bool) -> None:
    """What is marked as missed is missed: else the mark would be wrong."""
    build = SHAPES[endpoint.dialect.name, endpoint.operation]
    missed = set()
    for name, disguise in DISGUISES.items():
        body = {**build(Hidden(PHRASE, disguise))[place], "stream": streamed}
        if verdict(ruling, endpoint, as_sent(body)) != "weights-export":
            missed.add(name)
        if name == "raw" and verdict(ruling, endpoint, as_escaped(body)) != "weights-export":
            missed.add("JSON escapes")
    assert missed == MISSED.get(place, set())


@pytest.mark.parametrize(("endpoint", "place", "streamed"), CELLS)
def test_what_hides_nothing_passes(
    ruling: Ruling, endpoint: Endpoint, place: str, streamed: bool
) -> None:
    """Else the test above would show nothing: the places alone are no reason."""
    build = SHAPES[endpoint.dialect.name, endpoint.operation]
    body = {**build(Hidden(HARMLESS, DISGUISES["raw"]))[place], "stream": streamed}
    assert verdict(ruling, endpoint, as_sent(body)) == ""


@pytest.mark.parametrize("name", DISGUISES)
def test_no_way_around_in_the_query(ruling: Ruling, name: str) -> None:
    hidden = Hidden(PHRASE, DISGUISES[name])
    for query in (quote(hidden.whole), f"a={quote(hidden.whole)}", f"{quote(hidden.whole)}=1"):
        found = read_prompt(CHAT, f"{CHAT.path}?{query}", "application/json", b"{}").readings()
        assert ruling.asked(Asked("POST", "chat", found), None), query
