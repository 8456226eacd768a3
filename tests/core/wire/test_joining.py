"""Texts that are read together are judged together."""

from __future__ import annotations

import pytest

from mitmgate.core.rules.rule import Where
from mitmgate.core.wire.joining import joined
from mitmgate.core.wire.segment import Segment


def prompt(address: str, text: str, where: Where = "prompt") -> Segment:
    return Segment(where, address, text)


def test_the_parts_of_a_message_are_one_text() -> None:
    made = joined(
        [prompt("messages[0].content[0].text", "exp"), prompt("messages[0].content[1].text", "ort")]
    )
    assert made == [
        prompt("messages[0].content[*].text", "export"),
        prompt("*", "exp\nort"),
    ]


def test_what_stands_between_parts_does_not_part_them() -> None:
    made = joined(
        [
            prompt("messages[0].content[0].text", "exp"),
            prompt("messages[0].content[0].x", "between"),
            prompt("messages[0].content[1].text", "ort"),
        ]
    )
    assert prompt("messages[0].content[*].text", "export") in made


def test_messages_are_one_text_of_many_lines() -> None:
    made = joined([prompt("messages[0].content", "export"), prompt("messages[1].content", "it")])
    assert prompt("*", "export\nit") in made


def test_fields_of_the_request_are_one_text() -> None:
    made = joined([prompt("input_prefix", "exp"), prompt("prompt", "ort")])
    assert prompt("$", "export") in made


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [prompt("prompt", "alone")],
        [prompt("prompt", "alone"), prompt("suffix", "")],
        [prompt("prompt", "one"), prompt("system", "two", "system")],
    ],
)
def test_what_stands_alone_is_not_repeated(segments: list[Segment]) -> None:
    assert joined(segments) == []
