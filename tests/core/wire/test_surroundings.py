"""Queries, headers, and addresses that a model server would fetch from."""

from __future__ import annotations

from typing import Any

import pytest

from mitmgate.core.wire.document import DocumentError
from mitmgate.core.wire.surroundings import fetches, headers, numbers, query


def test_a_query_is_decoded_as_servers_do() -> None:
    found = query("/x?q=export+the%20weights&a=1&a=2&empty=&%E2%82%AC")
    assert [(s.address, s.text) for s in found] == [
        ("query.q", "export the weights"),
        ("query.q", "q"),
        ("query.a", "1"),
        ("query.a", "a"),
        ("query.a", "2"),
        ("query.a", "a"),
        ("query.empty", "empty"),
        ("query.\u20ac", "\u20ac"),
        ("query.*", "export the weights 1 2  "),
    ]
    assert {segment.where for segment in found} == {"query"}
    assert query("/x") == query("/x?") == []


def test_headers_by_name_and_as_lists() -> None:
    found = headers([("X-Title", "a"), ("User-Agent", "b"), ("x-title", "c"), ("Y", "\udcff")])
    assert [(s.name, s.text) for s in found] == [
        ("x-title", "a"),
        ("x-title", "c"),
        ("x-title", "a, c"),
        ("user-agent", "b"),
        ("y", "\ufffd"),
    ]
    assert {segment.where for segment in found} == {"headers"}


URL = "http://10.0.0.1/x"


def content(part: Any) -> Any:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("body", "address"),
    [
        (
            content({"type": "image_url", "image_url": {"url": URL}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            content({"type": "image_url", "image_url": URL}),
            "messages[0].content[0].image_url",
        ),
        (
            content({"type": "audio_url", "audio_url": {"url": URL}}),
            "messages[0].content[0].audio_url.url",
        ),
        (
            content({"type": "video_url", "video_url": {"url": URL}}),
            "messages[0].content[0].video_url.url",
        ),
        (
            content({"type": "image", "source": {"type": "url", "url": URL}}),
            "messages[0].content[0].source.url",
        ),
        (content({"type": "image", "image": URL}), "messages[0].content[0].image"),
        ({"input": [{"type": "input_file", "file_url": URL}]}, "input[0].file_url"),
        ({"input": [{"type": "input_image", "image_url": URL}]}, "input[0].image_url"),
        ({"tools": [{"type": "mcp", "server_url": URL}]}, "tools[0].server_url"),
        ({"imageUrl": URL}, "imageUrl"),
        ({"URLs": [URL]}, "URLs[0]"),
        ({"callback-uri": URL}, "callback-uri"),
        ({"images": ["file:/etc/passwd"]}, "images[0]"),
        ({"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params.remote_host"),
        (
            {"kv_transfer_params": {"peers": [{"ip": "10.0.0.1"}]}},
            "kv_transfer_params.peers[0].ip",
        ),
        ({"x": {"kv_transfer_params": {"addrs": [URL]}}}, "x.kv_transfer_params.addrs[0]"),
    ],
)
def test_what_a_server_would_fetch(body: Any, address: str) -> None:
    (found,) = fetches(body)
    assert (found.where, found.address) == ("fetches", address)


@pytest.mark.parametrize(
    "body",
    [
        content({"type": "text", "text": f"look at {URL}"}),
        content({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        content({"type": "image_url", "image_url": {"url": ""}}),
        content({"type": "tool_use", "input": {"url": URL}}),
        {"messages": [{"tool_calls": [{"function": {"arguments": {"url": URL}}}]}]},
        {"tools": [{"function": {"parameters": {"properties": {"url": {"type": "string"}}}}}]},
        {"images": ["iVBORw0KGgo="]},
        {"source": "a text"},
        {"curl": "x", "kv_transfer_params": {"do_remote_decode": True, "engine": "e"}},
        {"prompt": f"![x]({URL})"},
    ],
)
def test_what_no_server_would_fetch(body: Any) -> None:
    assert fetches(body) == []


def test_pictures_in_markdown_where_a_server_fetches_them() -> None:
    found = fetches({"inputs": f"what is ![ ]({URL}) and ![a](https://b.c/d)?"}, in_text=True)
    assert [segment.text for segment in found] == [URL, "https://b.c/d"]


def test_numbers_where_a_text_may_be() -> None:
    body = {"messages": [{"content": 4111111111111111}], "n": 2, "stream": False, "data": [1.5]}
    assert [(s.address, s.text) for s in numbers(body)] == [
        ("messages[0].content", "4111111111111111")
    ]


def test_what_is_too_deep_is_not_passed_over() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(DocumentError):
        fetches({"messages": value})
    with pytest.raises(DocumentError):
        numbers({"messages": value})
