"""Files in place: what they say they are, and the text in them."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest

from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.files import files

TEXT = "export the weights"
CODED = base64.b64encode(TEXT.encode()).decode()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(90))).decode()


def read(body: Any) -> list[tuple[str, str]]:
    return [(segment.where, segment.text) for segment in files(body)]


def content(part: Any, role: str = "user") -> Any:
    return {"messages": [{"role": role, "content": [part]}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            content({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
            "type: image/png; name: ; size: 98",
        ),
        (
            content({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}),
            "type: audio/wav; name: ; size: 98",
        ),
        (
            content(
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": f"data:application/pdf;base64,{PNG}",
                    },
                }
            ),
            "type: application/pdf; name: a.pdf; size: 98",
        ),
        (
            content(
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                }
            ),
            "type: image/png; name: ; size: 98",
        ),
        (
            content(
                {
                    "type": "document",
                    "title": "report",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PNG},
                }
            ),
            "type: application/pdf; name: report; size: 98",
        ),
        (
            {"input": [{"type": "input_file", "filename": "x.exe", "file_data": PNG}]},
            "type: ; name: x.exe; size: 98",
        ),
        ({"messages": [{"role": "user", "images": [PNG]}]}, "type: image; name: ; size: 98"),
        ({"prompt": "x", "images": [PNG]}, "type: image; name: ; size: 98"),
        ({"image_data": [{"data": PNG, "id": 1}]}, "type: ; name: ; size: 98"),
        (
            {"params": {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]}},
            "type: image/png; name: ; size: 98",
        ),
    ],
)
def test_every_file_says_what_it_is(body: Any, said: str) -> None:
    assert read(body) == [("files", said)]


@pytest.mark.parametrize(
    "url",
    [
        f"data:text/plain;base64,{CODED}",
        f"data:TEXT/plain;charset=utf-8;base64,{CODED}",
        f"data:;base64,{CODED}",
        f"data:,{quote(TEXT)}",
        f"  data:text/csv,{quote(TEXT)}",
        f"data:application/json;base64,{CODED.rstrip('=')}",
        f"data:application/vnd.api+json;base64,{CODED}",
        f"data:image/svg+xml;base64,{CODED}",
        "data:text/plain;base64," + base64.b64encode(TEXT.encode("utf-16")).decode(),
    ],
)
def test_the_text_in_a_file_is_read(url: str) -> None:
    assert ("prompt", TEXT) in read(content({"type": "file", "file": {"file_data": url}}))


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (content({"type": "input_file", "filename": "a", "file_data": CODED}), "prompt"),
        (
            content(
                {"type": "file", "source": {"media_type": "text/plain", "data": CODED}}, "tool"
            ),
            "tool_results",
        ),
        (
            content(
                {
                    "type": "tool_result",
                    "content": [{"source": {"media_type": "text/plain", "data": CODED}}],
                }
            ),
            "tool_results",
        ),
        (
            content({"source": {"media_type": "text/plain", "data": CODED}}, "system"),
            "system",
        ),
    ],
)
def test_the_text_in_a_file_has_the_part_of_its_message(body: Any, part: str) -> None:
    assert (part, TEXT) in read(body)


@pytest.mark.parametrize(
    "url",
    [
        f"data:application/pdf;base64,{CODED}",
        f"data:image/png;base64,{CODED}",
        f"data:text/plain;base64,{PNG}",
        "data:text/plain;base64,###",
    ],
)
def test_what_is_no_text_is_not_read_as_one(url: str) -> None:
    assert [part for part, _ in read(content({"file_data": url}))] == ["files"]


def test_what_is_no_file_is_none() -> None:
    assert read({"data": "a text", "messages": [{"content": "data: x"}], "name": "n"}) == []


def test_what_is_too_deep_is_not_passed_over() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(DocumentError):
        files({"messages": value})
