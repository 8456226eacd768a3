"""YAML to a checked, typed rule file, with a file and a line for everything that is wrong.

All problems of a file are reported at once. YAML is composed to nodes first, since only nodes know
their lines; duplicate keys, which YAML libraries let pass, are refused there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from mitmgate.core.rules.model import RuleFile, relative_to

MAX_BYTES = 4 << 20
MAX_DEPTH = 50
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file. `line` counts from 1; 0 when the file could not be read."""

    path: Path
    line: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return (
            f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"
        )


class RuleError(Exception):
    """A rule file does not load. `problems` has all of them, in the order of their lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (str(p.path), p.line)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Loaded[F]:
    """A rule file as loaded: its typed content, the sha256 of its bytes, and where things stand."""

    path: Path
    file: F
    digest: str
    lines: dict[Location, int]

    def problem(self, location: Location, message: str) -> Problem:
        """A problem found after typing (a failing self-test, say) at the line it belongs to."""
        return Problem(self.path, _line(self.lines, location), _dotted(location), message)


def load[F: RuleFile](path: Path, model: type[F]) -> Loaded[F]:
    """Read `path` as a `model`. Raises `RuleError` with every problem found."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise RuleError([Problem(path, 0, "", f"cannot be read: {e.strerror}")]) from None
    if len(content) > MAX_BYTES:
        raise RuleError([Problem(path, 0, "", f"is larger than {MAX_BYTES >> 20} MB")])
    data, lines = _parse(path, content)
    try:
        with relative_to(path.parent):
            file = model.model_validate(data)
    except pydantic.ValidationError as e:
        raise RuleError(_problems(path, lines, e)) from None
    return Loaded(path, file, hashlib.sha256(content).hexdigest(), lines)


def _parse(path: Path, content: bytes) -> tuple[object, dict[Location, int]]:
    lines: dict[Location, int] = {}
    found: list[Problem] = []

    def build(node: yaml.Node, location: Location) -> object:
        lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*location, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for key_node, value in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    found.append(Problem(path, line, _dotted(location), "a key is one word"))
                    continue
                key = str(key_node.value)
                here = (*location, key)
                if key in mapping:
                    message = f"stands twice; first at line {lines[here]}"
                    found.append(Problem(path, line, _dotted(here), message))
                    continue
                lines[here] = line
                mapping[key] = build(value, here)
            return mapping
        return loader.construct_object(node)

    try:
        loader = yaml.SafeLoader(content)
        try:
            if unwanted := _unwanted(path, content):
                raise RuleError(unwanted)
            node = loader.get_single_node()
            data = build(node, ()) if node else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 0
        raise RuleError([Problem(path, line, "", f"not YAML: {e.problem or e.context}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise RuleError([Problem(path, 0, "", f"not YAML: {str(e).splitlines()[0]}")]) from None
    if found:
        raise RuleError(found)
    return data, lines


def _unwanted(path: Path, content: bytes) -> list[Problem]:
    """Uses of YAML that can make a small file large, or slow; found before anything is built."""
    found: list[Problem] = []
    depth = 0
    for event in yaml.parse(content):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            found.append(Problem(path, line, "", "anchors and aliases are not used in rule files"))
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return [*found, Problem(path, line, "", f"is nested deeper than {MAX_DEPTH}")]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return found


# What pydantic says of these is about Python.
_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list",
    "frozen_set_type": "should be a list",
    "string_type": "should be text; numbers and dates need quotes",
    "int_type": "should be a whole number, without quotes",
    "bool_type": "should be true or false, without quotes",
    "too_short": "should have one entry at least",
}


def _problems(
    path: Path, lines: dict[Location, int], error: pydantic.ValidationError
) -> list[Problem]:
    found = []
    for item in error.errors(include_url=False):
        location = _present(item["loc"], lines) if item["type"] != "missing" else item["loc"]
        message = _WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        found.append(Problem(path, _line(lines, item["loc"]), _dotted(location), message))
    return found


def _present(location: Location, lines: dict[Location, int]) -> Location:
    """`location` without the steps that pydantic adds for unions and validators."""
    while location and location not in lines:
        location = location[:-1]
    return location


def _line(lines: dict[Location, int], location: Location) -> int:
    return lines.get(_present(location, lines), 1)


def _dotted(location: Location) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def digest_of(digests: Iterable[str]) -> str:
    """One digest for a set of rule files, from theirs in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def line_of(loaded: Loaded[Any], location: Location) -> int:
    """The line of `location` in a loaded file, counted from 1."""
    return _line(loaded.lines, location)
