"""Tool calls in forms that servers and models write besides the usual one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmgate.core.rules.rule import Rule
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.prompt import read_prompt
from mitmgate.core.wire.stream import EventStream

CHAT = "/v1/chat/completions"


class Ears:
    """Hears what is a call."""

    masks = False
    holds_calls = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def channel(self) -> Any:
        return self

    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""

    def whole(self, text: str) -> str:
        return text

    def call(self, text: str) -> str:
        self.calls.append(text)
        return text


def heard(*choices: Any) -> list[str]:
    """What a stream of chunks says in calls."""
    endpoint = endpoints.find("POST", CHAT)
    assert endpoint
    assert endpoint.stream
    ears = Ears()
    stream = EventStream(endpoint.stream, [ears])
    for choice in (*choices, {"delta": {}, "finish_reason": "tool_calls"}):
        event = json.dumps({"choices": [{"index": 0, **choice}]})
        stream.feed(f"data: {event}\n\n".encode())
    stream.finish()
    return [call for call in ears.calls if call]


def test_arguments_that_stream_as_json_are_one_call() -> None:
    arguments = {"cmd": "rm", "args": ["-rf", "/"]}
    call = {"index": 0, "function": {"name": "sh", "arguments": arguments}}
    calls = heard({"delta": {"tool_calls": [call]}})
    assert json.dumps(arguments) in calls


def test_the_input_of_a_custom_tool_is_a_call() -> None:
    pieces = [{"index": 0, "custom": {"name": "sh", "input": "rm -r"}}]
    pieces.append({"index": 0, "custom": {"input": "f /"}})
    assert heard(*({"delta": {"tool_calls": [each]}} for each in pieces)) == ["sh", "rm -rf /"]


def test_a_stream_may_carry_a_whole_message() -> None:
    call = {"id": "1", "function": {"name": "sh", "arguments": "rm -rf /"}}
    assert "rm -rf /" in heard({"message": {"tool_calls": [call]}})


def test_custom_tools_in_whole_answers_and_in_requests() -> None:
    endpoint = endpoints.find("POST", CHAT)
    assert endpoint
    call = {"id": "1", "type": "custom", "custom": {"name": "wipe", "input": "rm -rf /"}}
    said = {"role": "assistant", "tool_calls": [call]}
    raw = json.dumps({"choices": [{"message": said}]}).encode()
    body = read_answer(endpoint, 200, "application/json", raw)
    texts = {(each.where, each.text) for each in body.readings("answer")}
    assert {("answer.tool_calls", "wipe"), ("answer.tool_calls", "rm -rf /")} <= texts
    prompt = read_prompt(
        endpoint, CHAT, "application/json", json.dumps({"messages": [said]}).encode()
    )
    texts = {(each.where, each.text) for each in prompt.readings()}
    assert {("tool_calls", "wipe"), ("tool_calls", "rm -rf /")} <= texts


NESTED = {"opts": {"path": "/etc/shadow"}}


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps(NESTED),
        json.dumps(json.dumps(NESTED)),
        json.dumps({"opts": json.dumps(NESTED["opts"])}),
        json.dumps({"Opts": {"PATH": "/etc/shadow"}}),
    ],
)
def test_a_rule_on_an_argument_finds_it_however_it_is_nested(arguments: str) -> None:
    rule = Rule.model_validate(
        {
            "id": "shadow",
            "title": "Shadow",
            "action": "deny",
            "where": ["answer.tool_calls"],
            "arguments": ("/opts/path",),
            "match": "/etc/shadow",
            "tests": {"match": ("/etc/shadow",), "pass": ("x",)},
        }
    )
    found = [
        each.text
        for each in unfold("answer.tool_calls", "a", arguments)
        if rule.covers("answer.tool_calls", each.name)
    ]
    assert "/etc/shadow" in found


def test_a_command_spread_over_json_in_a_string_is_read_together() -> None:
    inside = json.dumps({"cmd": "rm", "args": ["-rf", "/"]})
    texts = [each.text for each in unfold("tool_calls", "a", json.dumps({"call": inside}))]
    assert "rm -rf /" in texts


def test_text_that_only_begins_like_json_is_text() -> None:
    (text,) = unfold("tool_calls", "a", json.dumps("{% if x %}"))
    assert (text.text, text.name) == ("{% if x %}", "")


def test_a_text_that_stands_alone_is_there_once_however_deep() -> None:
    texts = [each.text for each in unfold("tool_calls", "a", {"a": {"b": [{"c": "one"}]}})]
    assert texts == ["one"]
