"""Whose words a text is, and what it is in the conversation: told by its place in the document.

Works on any dialect: the nearest object around a text that says `role`, or a `type` that stands for
one, is what counts. It is for people who read; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire.dialect import step
from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.schema import Path

# What a text is: said, thought, the name, id or arguments of a call, what a tool gave back, a tool
# that is offered, a field beside all that, or something that is no text.
type Part = Literal[
    "text", "reasoning", "call", "id", "arguments", "result", "tool", "field", "media"
]
type Objects = Mapping[Path, dict[str, Any]]

_IDS = ("id", "call_id", "tool_call_id", "tool_use_id")
_NAMES = ("name", "tool_name")
_THOUGHT = ("thinking", "reasoning", "summary_text", "reasoning_text")
_MESSAGES = ("messages", "choices", "input")
_SYSTEM = ("system", "instructions")


def objects(data: Any) -> Objects:
    """Every object of a document by its path, as `schema.leaves` counts the steps.

    Raises `DocumentError` for a document nested too deeply.
    """
    found: dict[Path, dict[str, Any]] = {}

    def walk(value: Any, path: Path) -> None:
        if isinstance(value, dict):
            found[path] = value
            for key, item in value.items():
                if isinstance(item, dict | list):
                    walk(item, (*path, key))
        else:
            for at, item in enumerate(value):
                if isinstance(item, dict | list):
                    walk(item, (*path, step(item, at)))

    try:
        if isinstance(data, dict | list):
            walk(data, ())
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    return found


def role(path: Path, known: Objects, where: Where) -> str:
    """Who says what stands at `path`: as the document calls them, else what fits its place."""
    if "result" in path[:2]:
        return "tool"  # of MCP
    for length in range(len(path), -1, -1):
        around = known.get(path[:length], {})
        kind, said = str(around.get("type", "")), around.get("role")
        if kind == "tool_result" or kind.endswith("_output"):
            return "tool"
        if isinstance(said, str) and said:
            return said
        if kind == "reasoning" or kind.endswith(("_call", "tool_use")):
            return "assistant"
    if where == "tool_results":
        return "tool"
    if where == "system" and path[:1] and path[0] in _SYSTEM:
        return "system"
    return "assistant" if where.startswith("answer") or where == "tool_calls" else "user"


def part(path: Path, known: Objects, where: Where) -> Part:
    """What stands at `path` is in the conversation."""
    last = path[-1] if path else ""
    if "structuredContent" in path:
        return "result"
    if where in ("tool_calls", "answer.tool_calls"):
        return "call" if last in _NAMES else "id" if last in _IDS else "arguments"
    if where == "tool_results":
        return "id" if last in _IDS else "call" if last in _NAMES else "result"
    around = known.get(path[:-1], {})
    named = any(isinstance(each, str) and _is_thought(each) for each in path)
    return "reasoning" if named or around.get("type") in _THOUGHT else "text"


def _is_thought(name: str) -> bool:
    return name in _THOUGHT or "reasoning" in name


def message(path: Path) -> Path:
    """The message or choice that a text belongs to; `()` where there is but one."""
    if path and isinstance(path[0], int):
        return path[:1]
    if len(path) > 1 and path[0] in _MESSAGES and isinstance(path[1], int):
        return path[:2]
    return ()


def call(path: Path) -> Path:
    """What holds the name and the arguments of one call."""
    numbers = [at for at, each in enumerate(path) if isinstance(each, int)]
    return path[: numbers[-1] + 1] if numbers else path[:1]
