"""Whole answers: what stands in parts is read as it stands together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import read_answer


def texts(path: str, answer: Any) -> set[str]:
    endpoint = endpoints.find("POST", path)
    assert endpoint is not None
    body = read_answer(endpoint, 200, "application/json", json.dumps(answer).encode())
    return {segment.text for segment in body.readings("answer")}


def parts(kind: str) -> list[dict[str, str]]:
    return [{"type": kind, "text": "rm -"}, {"type": kind, "text": "rf /"}]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/messages", {"type": "message", "content": parts("text")}),
        ("/v1/chat/completions", {"choices": [{"message": {"content": parts("text")}}]}),
        ("/v1/responses", {"output": [{"type": "message", "content": parts("output_text")}]}),
    ],
)
def test_the_parts_of_an_answer_are_read_together(path: str, answer: Any) -> None:
    assert "rm -rf /" in texts(path, answer)


def test_choices_are_not_parts_of_one_answer() -> None:
    said = [{"message": {"content": text}} for text in ("rm -", "rf /")]
    assert texts("/v1/chat/completions", {"choices": said}) == {"content", "rm -", "rf /"}
    said = [{"text": text} for text in ("rm -", "rf /")]
    assert texts("/v1/completions", {"choices": said}) == {"text", "rm -", "rf /"}
