"""Tool calls in streams, held whole until they are judged; text goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmgate.core.wire import holdback
from mitmgate.core.wire.stream import EventStream, StreamError


class Judge:
    """Objects to a word, in calls and nowhere else; hears what is a call and what is not."""

    masks = False
    holds_calls = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.texts: list[str] = []

    def channel(self) -> Any:
        return self

    def feed(self, text: str) -> str:
        self.texts.append(text)
        return text

    def finish(self) -> str:
        return ""

    def whole(self, text: str) -> str:
        self.texts.append(text)
        return text

    def call(self, text: str) -> str:
        self.calls.append(text)
        if "rm -rf" in text or text == "bad_tool":
            raise PermissionError(text)
        return text


def feed(kit: Any, name: str, *events: Any, filters: Any = None) -> list[bytes]:
    """What goes on after each event; one more for the end of the stream if there is an end."""
    encode = kit.ndjson if name.startswith("ollama") else kit.sse
    way = EventStream(kit.samples[name].stream, filters or [Judge()])
    out = []
    for each in events:
        if each is None:
            out.append(b"".join(way.finish()))
        else:
            out.append(b"".join(way.feed(each if isinstance(each, bytes) else encode(each))))
    return out


def chat(delta: Any, finish: Any = None, index: int = 0) -> Any:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def call(arguments: str, index: int = 0, name: str = "") -> Any:
    head = {"id": f"call_{index}", "type": "function"} if name else {}
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def part(kind: str, **more: Any) -> Any:
    return {"type": kind, **more}


ITEM = {"type": "function_call", "id": "fc", "call_id": "c", "name": "shell", "arguments": ""}
AT = {"item_id": "fc", "output_index": 1}


def responses(arguments: str) -> list[Any]:
    delta = "response.function_call_arguments.delta"
    done = {**ITEM, "arguments": arguments}
    return [
        part("response.output_item.added", output_index=1, item=ITEM),
        part(delta, **AT, delta=arguments[:4]),
        part(delta, **AT, delta=arguments[4:]),
        part("response.function_call_arguments.done", **AT, arguments=arguments),
        part("response.output_item.done", output_index=1, item=done),
    ]


def custom(text: str) -> list[Any]:
    item = {"type": "custom_tool_call", "id": "fc", "call_id": "c", "name": "shell", "input": ""}
    delta = "response.custom_tool_call_input.delta"
    return [
        part("response.output_item.added", output_index=1, item=item),
        part(delta, **AT, delta=text[:4]),
        part(delta, **AT, delta=text[4:]),
        part("response.custom_tool_call_input.done", **AT, input=text),
        part("response.output_item.done", output_index=1, item={**item, "input": text}),
    ]


def llamacpp(arguments: str) -> list[Any]:
    """llama.cpp gives no output_index, and the item has only the id of the call."""
    item = {"type": "function_call", "call_id": "fc", "name": "shell", "arguments": ""}
    return [
        part("response.output_item.added", item=item),
        part("response.function_call_arguments.delta", item_id="fc", delta=arguments[:4]),
        part("response.function_call_arguments.delta", item_id="fc", delta=arguments[4:]),
        part("response.output_item.done", item={**item, "arguments": arguments}),
    ]


def anthropic(arguments: str) -> list[Any]:
    block = {"type": "tool_use", "id": "t", "name": "shell", "input": {}}
    return [
        part("content_block_start", index=1, content_block=block),
        part("content_block_delta", index=1, delta=part("input_json_delta", partial_json="")),
        part(
            "content_block_delta",
            index=1,
            delta=part("input_json_delta", partial_json=arguments[:4]),
        ),
        part(
            "content_block_delta",
            index=1,
            delta=part("input_json_delta", partial_json=arguments[4:]),
        ),
        part("content_block_stop", index=1),
    ]


def openai(arguments: str) -> list[Any]:
    return [
        chat(call("", name="shell")),
        chat(call(arguments[:4])),
        chat(call(arguments[4:])),
        chat({}, "tool_calls"),
    ]


def without_head(arguments: str) -> list[Any]:
    head = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "shell"}}]}
    return [chat(head), *openai(arguments)[1:]]


def legacy(arguments: str) -> list[Any]:
    return [
        chat({"function_call": {"name": "shell", "arguments": ""}}),
        chat({"function_call": {"arguments": arguments[:4]}}),
        chat({"function_call": {"arguments": arguments[4:]}}),
        chat({}, "function_call"),
    ]


CALLS = {
    "openai": ("chat", openai),
    "openai without arguments in its head": ("chat", without_head),
    "openai legacy": ("chat", legacy),
    "responses": ("responses", responses),
    "responses, a custom tool": ("responses", custom),
    "responses of llama.cpp": ("responses", llamacpp),
    "anthropic": ("messages", anthropic),
}
BAD, GOOD = json.dumps({"cmd": "rm -rf /"}), json.dumps({"cmd": "ls -la /"})


@pytest.mark.parametrize("dialect", CALLS)
def test_a_call_that_is_denied_is_not_delivered_in_any_part(kit: Any, dialect: str) -> None:
    name, make = CALLS[dialect]
    events = make(BAD)
    way = EventStream(kit.samples[name].stream, [Judge()])
    out = b""
    with pytest.raises(PermissionError):
        for each in events:
            out += b"".join(way.feed(kit.sse(each)))
    assert out == b""


@pytest.mark.parametrize("dialect", CALLS)
def test_a_call_that_passes_comes_whole_when_it_is_complete(kit: Any, dialect: str) -> None:
    name, make = CALLS[dialect]
    events = make(GOOD)
    *before, last = feed(kit, name, *events)
    assert not any(before)
    made = list(kit.events_of(last))
    assert (made[0], made[-1]) == (events[0], events[-1])
    assert "ls -la" in json.dumps(made)


def test_a_tool_that_the_server_runs_is_held_with_its_progress(kit: Any) -> None:
    item = {"type": "code_interpreter_call", "id": "ci", "code": ""}
    events = [
        part("response.output_item.added", output_index=1, item=item),
        part("response.code_interpreter_call_code.delta", output_index=1, delta="pri"),
        part("response.code_interpreter_call_code.delta", output_index=1, delta="nt()"),
        part("response.code_interpreter_call.interpreting", output_index=1),
        part("response.output_item.done", output_index=1, item={**item, "code": "print()"}),
    ]
    *held, last = feed(kit, "responses", *events)
    assert not any(held)
    assert list(kit.events_of(last)) == events


@pytest.mark.parametrize("dialect", CALLS)
def test_a_call_that_never_ends_is_not_delivered(kit: Any, dialect: str) -> None:
    name, make = CALLS[dialect]
    events = make(GOOD)[:-1]
    assert not any(feed(kit, name, *events))
    with pytest.raises(StreamError, match="ended within a tool call"):
        feed(kit, name, *events, None)


@pytest.mark.parametrize("dialect", CALLS)
def test_a_call_within_which_the_model_fails_is_not_delivered(kit: Any, dialect: str) -> None:
    name, make = CALLS[dialect]
    error = {"type": "error", "error": {"message": "out of memory"}}
    out = feed(kit, name, *make(GOOD)[:-1], error, None)
    assert list(kit.events_of(b"".join(out))) == [error]


@pytest.mark.parametrize("dialect", CALLS)
def test_a_tool_is_denied_by_its_name(kit: Any, dialect: str) -> None:
    name, make = CALLS[dialect]
    events = [json.loads(json.dumps(each).replace("shell", "bad_tool")) for each in make(GOOD)]
    with pytest.raises(PermissionError):
        feed(kit, name, events[0])


def test_text_goes_on_while_a_call_is_held(kit: Any) -> None:
    out = feed(
        kit,
        "chat",
        chat({"content": "I "}),
        chat(call("", name="shell")),
        chat({"content": "will "}),
        chat(call('{"a": ')),
        chat({"content": "run it"}),
        chat(call("1}")),
        chat({}, "tool_calls"),
    )
    assert [b"".join(out[i : i + 1]).count(b"data:") for i in range(7)] == [1, 0, 1, 0, 1, 0, 5]


def test_text_in_the_event_of_a_call_goes_on_too(kit: Any) -> None:
    events = [
        chat({"content": "I ", **call("", name="shell")}),
        chat({"content": "run", **call("{}")}),
        chat({"content": " it"}, "tool_calls"),
    ]
    out = feed(kit, "chat", *events)
    said = [
        "".join(e["choices"][0]["delta"].get("content", "") for e in kit.events_of(each))
        for each in out
    ]
    assert said == ["I ", "run", " it"]
    called = [bool(b"tool_calls" in each) for each in out]
    assert called == [False, False, True]


def test_other_choices_go_on(kit: Any) -> None:
    head = chat(call("", name="shell"))
    out = feed(kit, "chat", head, chat({"content": "x"}, index=1), chat({}, "stop", 1))
    assert [bool(each) for each in out] == [False, True, True]


def test_calls_side_by_side_are_judged_each_as_a_whole(kit: Any) -> None:
    bad = [
        chat(call("", 0, "shell")),
        chat(call("", 1, "shell")),
        chat(call('{"cmd": "ls', 0)),
        chat(call('{"cmd": "rm -', 1)),
        chat(call(' -la"}', 0)),
        chat(call('rf /"}', 1)),
    ]
    judge = Judge()
    out = feed(kit, "chat", *bad, filters=[judge])
    assert not any(out)
    with pytest.raises(PermissionError):
        feed(kit, "chat", *bad, chat({}, "tool_calls"))
    judge = Judge()
    good = [json.loads(json.dumps(each).replace("rm -", "ls -")) for each in bad]
    (*_, last) = feed(kit, "chat", *good, chat({}, "tool_calls"), filters=[judge])
    assert judge.calls == ["shell", "shell", '{"cmd": "ls -la"}', '{"cmd": "ls -rf /"}']
    whole = {0: "", 1: ""}
    for event in kit.events_of(last):
        for each in event["choices"][0]["delta"].get("tool_calls", []):
            whole[each["index"]] += each["function"]["arguments"]
    assert whole == {0: '{"cmd": "ls -la"}', 1: '{"cmd": "ls -rf /"}'}


def test_blocks_side_by_side_end_each_for_itself(kit: Any) -> None:
    first = [json.loads(json.dumps(each)) for each in anthropic(GOOD)]
    second = [{**each, "index": 2} for each in anthropic(GOOD)]
    out = feed(kit, "messages", *first[:4], *second[:4], second[4], first[4])
    assert [bool(each) for each in out] == [False] * 8 + [True, True]
    assert {event["index"] for event in kit.events_of(out[8])} == {2}
    assert {event["index"] for event in kit.events_of(out[9])} == {1}


def test_a_text_block_passes_a_block_that_calls(kit: Any) -> None:
    said = part("content_block_delta", index=0, delta=part("text_delta", text="x"))
    assert feed(kit, "messages", anthropic(GOOD)[0], said) == [b"", kit.sse(said)]


def test_a_stream_of_ollama_has_its_calls_whole(kit: Any) -> None:
    def line(cmd: str) -> Any:
        called = [{"function": {"name": "shell", "arguments": {"cmd": cmd}}}]
        message = {"role": "assistant", "content": "", "tool_calls": called}
        return {"model": "m", "message": message, "done": False}

    assert feed(kit, "ollama-chat", line("ls")) == [kit.ndjson(line("ls"))]
    with pytest.raises(PermissionError):
        feed(kit, "ollama-chat", line("rm -rf /"))


def test_a_call_in_one_event_with_its_end(kit: Any) -> None:
    event = chat(call(GOOD, name="shell"), "tool_calls")
    assert feed(kit, "chat", event, None) == [kit.sse(event), b""]
    with pytest.raises(PermissionError):
        feed(kit, "chat", chat(call(BAD, name="shell"), "tool_calls"))


def test_done_ends_what_has_no_other_end(kit: Any) -> None:
    *held, last = feed(kit, "chat", *openai(GOOD)[:-1], b"data: [DONE]\n\n")
    assert not any(held)
    assert b"ls -la" in last
    assert last.endswith(b"data: [DONE]\n\n")


def test_masked_and_judged_at_once(kit: Any) -> None:
    arguments = json.dumps({"to": "jane@x.y"})
    judge = Judge()
    *held, last = feed(kit, "chat", *openai(arguments), filters=[judge, kit.WordMask()])
    assert not any(held)
    assert b"[EMAIL]" in last
    assert b"jane" not in last
    assert judge.calls == ["shell", arguments]


def test_without_rules_on_calls_their_events_are_not_held(kit: Any) -> None:
    judge = Judge()
    judge.holds_calls = False
    out = feed(kit, "chat", *openai(GOOD), filters=[judge])
    assert all(out)


def test_what_is_held_has_a_limit(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdback, "MAX_HELD", 1000)
    with pytest.raises(StreamError, match="events of tool calls"):
        feed(kit, "chat", chat(call("", name="shell")), *[chat(call("a"))] * 20)


def test_arguments_of_a_call_that_goes_on_after_its_end(kit: Any) -> None:
    with pytest.raises(StreamError, match=r"goes on after its end"):
        feed(kit, "chat", *openai(GOOD), chat(call("more")))
