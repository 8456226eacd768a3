import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.principal import Who
from mitmgate.core.rules import (
    Duration,
    Id,
    Listed,
    Model,
    RuleError,
    RuleFile,
    Size,
    digest_of,
    load,
)
from mitmgate.core.rules.loader import line_of
from mitmgate.core.rules.rule import Rule


class Item(Model):
    id: Id
    size: Size = 0
    ttl: Duration = 0.0
    tags: Listed[str] = ()
    who: Who | None = None


class Sample(RuleFile):
    name: Annotated[str, pydantic.Field(min_length=1)] = "x"
    count: int = 0
    on: bool = False
    items: Listed[Item] = ()
    rules: Listed[Rule] = ()


def write(directory: Path, text: str | bytes) -> Path:
    path = directory / "sample.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(directory: Path, text: str | bytes) -> list[str]:
    """Every problem as it is told, without the directory."""
    path = write(directory, text)
    with pytest.raises(RuleError) as caught:
        load(path, Sample)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


def test_a_file_is_loaded_with_its_digest_and_lines(tmp_path: Path) -> None:
    text = "schema: 1\nname: a\nitems:\n  - id: one\n    size: 2k\n  - {id: two, ttl: 1h}\n"
    loaded = load(write(tmp_path, text), Sample)
    assert loaded.file.name == "a"
    assert [(i.id, i.size, i.ttl) for i in loaded.file.items] == [
        ("one", 2048, 0),
        ("two", 0, 3600),
    ]
    assert loaded.digest == hashlib.sha256(text.encode()).hexdigest()
    assert line_of(loaded, ("items", 0, "size")) == 5
    assert line_of(loaded, ("items", 1, "ttl")) == 6
    assert line_of(loaded, ("items", 1, "tags")) == 6  # not there: where it would be
    problem = loaded.problem(("items", 0, "size", 3), "too small")
    assert str(problem) == f"{tmp_path}/sample.yaml:5: items[0].size[3]: too small"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "sample.yaml:1: should be a mapping of keys to values"),
        ("# only a comment\n", "sample.yaml:1: should be a mapping of keys to values"),
        ("- a\n", "sample.yaml:1: should be a mapping of keys to values"),
        ("text", "sample.yaml:1: should be a mapping of keys to values"),
        ("null", "sample.yaml:1: should be a mapping of keys to values"),
        ("name: x\n", "sample.yaml:1: schema: is missing"),
        ("\n\nschema: 2\n", "sample.yaml:3: schema: Input should be 1"),
        ("schema: '1'\n", "sample.yaml:1: schema: Input should be 1"),
        ("schema: true\n", "sample.yaml:1: schema: Input should be 1"),
        ("schema: 1.0\n", "sample.yaml:1: schema: Input should be 1"),
        ("version: 1\n", "sample.yaml:1: schema: is missing"),
        ("schema: 1\n\nnmae: x\n", "sample.yaml:3: nmae: unknown key"),
        (
            "schema: 1\nitems:\n- id: a\n  color: red\n",
            "sample.yaml:4: items[0].color: unknown key",
        ),
        ("schema: 1\nitems:\n- size: 1k\n", "sample.yaml:3: items[0].id: is missing"),
        (
            "schema: 1\nitems:\n- id: a\n- b\n",
            "sample.yaml:4: items[1]: should be a mapping of keys",
        ),
        ("schema: 1\nitems: {id: a}\n", "sample.yaml:2: items: should be a list"),
        ("schema: 1\nitems: a\n", "sample.yaml:2: items: should be a list"),
        (
            "schema: 1\nname: 5\n",
            "sample.yaml:2: name: should be text; numbers and dates need quotes",
        ),
        ("schema: 1\nname: ''\n", "sample.yaml:2: name: String should have at least 1 character"),
        (
            "schema: 1\nname:\n",
            "sample.yaml:2: name: should be text; numbers and dates need quotes",
        ),
        (
            "schema: 1\nname: 2026-11-24\n",
            "sample.yaml:2: name: should be text; numbers and dates need quotes",
        ),
        (
            "schema: 1\nname: yes\n",
            "sample.yaml:2: name: should be text; numbers and dates need quotes",
        ),
        (
            "schema: 1\ncount: '5'\n",
            "sample.yaml:2: count: should be a whole number, without quotes",
        ),
        (
            "schema: 1\ncount: 5.0\n",
            "sample.yaml:2: count: should be a whole number, without quotes",
        ),
        ("schema: 1\non: 1\n", "sample.yaml:2: on: should be true or false, without quotes"),
        ("schema: 1\nitems:\n- id: A b\n", "sample.yaml:3: items[0].id: an id is kebab case"),
        ("schema: 1\nitems:\n- id: a\n  ttl: 5\n", "sample.yaml:4: items[0].ttl: a duration is"),
        ("schema: 1\nitems:\n- id: a\n  size: 5kb\n", "sample.yaml:4: items[0].size: a size is"),
        (
            "schema: 1\nitems:\n- id: a\n  tags: x\n",
            "sample.yaml:4: items[0].tags: should be a list",
        ),
        (
            "schema: 1\nitems:\n- id: a\n  tags: [x, 5]\n",
            "sample.yaml:4: items[0].tags[1]: should be text",
        ),
        ("schema: 1\nitems:\n- id: a\n  who: {}\n", "sample.yaml:4: items[0].who: names nobody"),
        ("schema: 1\nitems:\n- id: a\n  who: {groups: []}\n", "items[0].who.groups: an empty list"),
        ("schema: 1\nitems:\n- id: a\n  who: {group: x}\n", "items[0].who.group: unknown key"),
    ],
)
def test_what_does_not_fit_the_model_is_told_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert any(expected in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schema: 1\nname: a\nname: b\n", "sample.yaml:3: name: stands twice; first at line 2"),
        ("schema: 1\nname: a\n'name': b\n", "sample.yaml:3: name: stands twice; first at line 2"),
        ("schema: 1\nitems:\n- id: a\n  id: b\n", "sample.yaml:4: items[0].id: stands twice"),
        ("schema: 1\n? [a, b]\n: c\n", "sample.yaml:2: a key is one word"),
        ("schema: 1\n? {a: b}\n: c\n", "sample.yaml:2: a key is one word"),
        ("schema: 1\n1: x\n", "sample.yaml:2: 1: unknown key"),
        ("schema: 1\n<<: {name: x}\n", "sample.yaml:2: <<: unknown key"),
        ("schema: 1\nname: &a x\nitems: [*a]\n", "sample.yaml:3: anchors and aliases are not used"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "sample.yaml:2: anchors and aliases"),
        ("schema: 1\nname: [a\nb: c\n", "sample.yaml:3: not YAML: expected ',' or ']'"),
        ("schema: 1\n name: a\n", "sample.yaml:2: not YAML: "),
        ("schema: 1\n\tname: a\n", "sample.yaml:2: not YAML: "),
        ("schema: 1\nname: 'a\n", "not YAML: "),
        ("schema: 1\n---\nschema: 1\n", "sample.yaml:2: not YAML: but found another document"),
        ("schema: 1\nname: !!python/object:os.system x\n", "sample.yaml:2: not YAML: could not"),
        ("schema: 1\nname: !secret x\n", "sample.yaml:2: not YAML: could not determine"),
        ("schema: 1\ncount: !!int x\n", "not YAML: "),
        ("schema: 1\nname: 2026-13-45\n", "not YAML: "),
        ("schema: 1\nname: *a\n", "sample.yaml:2: anchors and aliases"),
        (b"schema: 1\nname: \xff\n", "sample.yaml: not YAML: "),
        ("schema: 1\nname: \u00fc\n".encode("latin-1"), "sample.yaml: not YAML: "),
        ("schema: 1\nname: \0\n", "not YAML: "),
        ("schema: 1\nname: " + "[" * 1_000_000, "sample.yaml:2: is nested deeper than 50"),
        ("schema: 1\nname: " + "{a: " * 51 + "}" * 51, "sample.yaml:2: is nested deeper than 50"),
        ("- " * 100_000, "sample.yaml:1: is nested deeper than 50"),
    ],
)
def test_what_is_not_plain_yaml_is_refused(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    assert any(expected in problem for problem in problems(tmp_path, text))


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = "items:\n- id: B\n  size: x\n- {}\nname: 5\nnmae: a\nschema: 3\ncount: x\n"
    assert [problem.split(": ")[0] for problem in problems(tmp_path, text)] == [
        "sample.yaml:2",
        "sample.yaml:3",
        "sample.yaml:4",
        "sample.yaml:5",
        "sample.yaml:6",
        "sample.yaml:7",
        "sample.yaml:8",
    ]
    twice = problems(tmp_path, "a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n")
    assert [problem.split(": ")[0] for problem in twice] == [
        "sample.yaml:2",
        "sample.yaml:3",
        "sample.yaml:4",
    ]
    aliases = problems(tmp_path, "a: &a 1\nb: *a\nc: *a\n")
    assert [problem.split(": ")[0] for problem in aliases] == ["sample.yaml:2", "sample.yaml:3"]


def test_a_file_that_cannot_be_read_is_a_problem_without_a_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RuleError, match="cannot be read: ") as caught:
            load(path, Sample)
        assert str(caught.value).startswith(f"{path}: cannot be read: ")
        assert caught.value.problems[0].line == 0


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    assert problems(tmp_path, "#" * (4 << 20) + "\n") == ["sample.yaml: is larger than 4 MB"]


def test_yaml_in_another_unicode_encoding_says_so_itself(tmp_path: Path) -> None:
    assert (
        load(write(tmp_path, "schema: 1\nname: \u00fc\n".encode("utf-16")), Sample).file.name == "ü"
    )
    assert load(write(tmp_path, "\ufeffschema: 1\n".encode()), Sample).file.name == "x"


def test_one_digest_for_several_files() -> None:
    assert digest_of(["a", "b"]) == digest_of(iter(["a", "b"]))
    assert digest_of(["a", "b"]) != digest_of(["b", "a"]) != digest_of(["ab"])


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@settings(max_examples=150)
def test_no_bytes_break_the_loader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp(), b"schema: 1\n" + raw)
    with suppress(RuleError):
        load(path, Sample)
