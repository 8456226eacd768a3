"""Tool calls by argument and as the command that they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmgate.core.rules.rule import ANY
from mitmgate.core.wire.calls import calls, unfold
from mitmgate.core.wire.document import DocumentError


def texts(value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for segment in unfold("tool_calls", "a", value):
        found.setdefault(segment.name, []).append(segment.text)
    return found


ARGUMENTS = {"cmd": "rm", "args": ["-rf", "/"], "times": 3, "force": True, "note": None}


@pytest.mark.parametrize("value", [ARGUMENTS, json.dumps(ARGUMENTS)])
def test_every_argument_alone_and_all_together(value: Any) -> None:
    found = texts(value)
    assert found["/cmd"] == ["rm"]
    assert found["/times"] == ["3"]
    assert found["/args"] == ["-rf /"]
    assert found["/args/1"] == ["/"]
    assert "rm -rf / 3" in found[""]


def test_a_command_stands_before_the_list_of_its_arguments() -> None:
    assert texts({"args": ["-rf", "/"], "n": 1, "cmd": "rm"})[""] == ["-rf / 1 rm", "rm -rf / 1"]


def test_paths_are_json_pointers() -> None:
    assert texts({"a/b": {"c~d": "x"}})["/a~1b/c~0d"] == ["x"]


@pytest.mark.parametrize(
    "text", ["rm -rf /", '{"cmd": "rm', '{"cmd": "ls", "cmd": "rm"}', '{"a": NaN}', ""]
)
def test_what_is_no_strict_json_may_be_any_argument(text: str) -> None:
    assert texts(text) == {ANY: [text]}


def test_what_is_too_deep_is_not_passed_over() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(DocumentError):
        unfold("tool_calls", "a", value)
    with pytest.raises(DocumentError):
        calls({"messages": value})


def test_deep_arguments_do_not_multiply() -> None:
    value: Any = "x" * 100
    for _ in range(200):
        value = {"a": value}
    assert sum(len(segment.text) for segment in unfold("tool_calls", "a", value)) < 1000


OPENAI = {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"cmd": "rm"}'}}]}


@pytest.mark.parametrize(
    ("body", "address"),
    [
        (
            {"messages": [{"role": "assistant", **OPENAI}]},
            "messages[0].tool_calls[0].function.arguments.cmd",
        ),
        (
            {"messages": [{"function_call": {"name": "f", "arguments": '{"cmd": "rm"}'}}]},
            "messages[0].function_call.arguments.cmd",
        ),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": '{"cmd": "rm"}'}]},
            "input[0].arguments.cmd",
        ),
        (
            {"input": [{"type": "local_shell_call", "action": {"cmd": "rm"}}]},
            "input[0].action.cmd",
        ),
        (
            {"messages": [{"content": [{"type": "tool_use", "input": {"cmd": "rm"}}]}]},
            "messages[0].content[0].input.cmd",
        ),
        (
            {"messages": [{"tool_calls": [{"function": {"arguments": {"cmd": "rm"}}}]}]},
            "messages[0].tool_calls[0].function.arguments.cmd",
        ),
        ({"method": "tools/call", "params": {"arguments": {"cmd": "rm"}}}, "params.arguments.cmd"),
    ],
)
def test_the_calls_of_every_dialect(body: Any, address: str) -> None:
    found = {segment.address: segment for segment in calls(body)}
    assert (found[address].text, found[address].name) == ("rm", "/cmd")
    assert {segment.where for segment in found.values()} == {"tool_calls"}


def test_definitions_of_tools_and_prompts_are_no_calls() -> None:
    definition = {"function": {"parameters": {"arguments": "x"}, "arguments": "x"}}
    assert calls({"tools": [definition], "input": "text", "action": "text"}) == []
