"""The transcript view as mitmproxy calls it: what it shows, and what it leaves to others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy import contentviews, http
from mitmproxy.test import taddons, tflow

from mitmgate.views import STREAM, Transcript, Views

CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SUMMARY: dict[str, Any] = {
    "principal": "idp:agent-7",
    "operation": "chat",
    "dialect": "openai",
    "ending": "complete",
    "status": 200,
    "masked": {"email": 2},
}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    kept = dict(contentviews.registry)
    with taddons.context() as context:
        if "protobuf_definitions" not in context.options:
            context.options.add_option("protobuf_definitions", str, "", "")
        Views().load(None)
        yield
    contentviews.registry._by_name = kept


def exchange(
    answer: bytes | dict[str, Any] = b"",
    kind: str = "application/json",
    *,
    path: str = CHAT,
    asked: Any = ASKED,
    summary: Any = None,
) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    flow.request = http.Request.make(
        "POST", f"http://model{path}", body, {"content-type": "application/json"}
    )
    said = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    flow.response = http.Response.make(200, said, {"content-type": kind})
    if summary is not None:
        flow.metadata["mitmgate"] = summary
    return flow


def shown(flow: http.HTTPFlow, side: str = "response") -> tuple[str | None, str]:
    message = getattr(flow, side)
    result = contentviews.prettify_message(message, flow)
    return result.view_name, result.text


def sse(*texts: str) -> bytes:
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def test_it_is_chosen_for_known_endpoints_and_shows_what_the_gate_has_said() -> None:
    flow = exchange(sse("Hel", "lo"), "text/event-stream", summary=SUMMARY)
    name, text = shown(flow)
    assert name == "Transcript"
    assert text.startswith(
        "caller   idp:agent-7\nasked    chat of openai\nended    complete masked (status 200)\n"
    )
    assert "\nmasked   email x2\n" in text
    assert "\n  Hello" in text
    name, text = shown(flow, "request")
    assert name == "Transcript"
    assert "── USER  messages[0] ─" in text


def test_without_the_gate_it_shows_the_conversation_and_the_comment() -> None:
    flow = exchange(sse("Hello"), "text/event-stream")
    flow.comment = "a note\x1b[2J"
    _, text = shown(flow)
    assert text.startswith("note     a note\\x1b[2J\ntime     ")
    assert "caller" not in text


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b'{"choices": ', "application/json"),
        (b"\x00\x01", "application/octet-stream"),
        (b"data: {broken\n\ndata: {}\n\n", "text/event-stream"),
        (b'{"a": 1, "a": 2}', "application/json"),
    ],
)
def test_what_it_cannot_read_is_left_to_other_views(answer: bytes, kind: str) -> None:
    flow = exchange(answer, kind)
    name, text = shown(flow)
    assert name not in ("Transcript", None)
    assert "Couldn't parse" not in text
    metadata = contentviews.Metadata(flow, kind, http_message=flow.response)
    with pytest.raises(ValueError, match=r"."):
        Transcript().prettify(answer, metadata)


@pytest.mark.parametrize("path", ["/v1/unknown", "/index.html", "/v1/chat/completions/"])
def test_other_paths_are_left_to_other_views(path: str) -> None:
    assert shown(exchange(b'{"a": 1}', path=path, asked={"inputs": 1}))[0] != "Transcript"
    flow = exchange(b'{"a": 1}', path="/nowhere")
    assert Transcript().render_priority(b"{}", contentviews.Metadata(flow)) < 0
    assert Transcript().render_priority(b"{}", contentviews.Metadata()) < 0
    assert Transcript().render_priority(b"", contentviews.Metadata(exchange())) < 0


def test_a_request_that_the_gate_would_not_read_is_left_to_other_views() -> None:
    assert shown(exchange(asked={**ASKED, "prompt_token_ids": [1]}), "request")[0] == "JSON"


def test_a_stream_is_one_whatever_it_calls_itself() -> None:
    name, text = shown(exchange(sse("Hel", "lo"), "text/plain"))
    assert (name, "\n  Hello" in text) == ("Transcript", True)


def test_a_stream_that_breaks_off_is_shown_as_far_as_it_came() -> None:
    name, text = shown(exchange(sse("Hel", "lo")[:-20], "text/event-stream"))
    assert name == "Transcript"
    assert "\n  Hel\n" in text
    assert text.endswith("[the stream breaks off within an event]")


@pytest.mark.parametrize(
    "summary",
    [
        "text",
        {"findings": "none", "approvals": 7, "masked": [], "status": "200", "principal": 3},
        {"findings": [None, {"rule": 1}], "approvals": [{"time": "soon"}, {"time": "1e99"}]},
        {"principal": "a\x1b]0;b\nended    complete", "masked": {"\x07": "\x07"}},
        {},
    ],
)
def test_a_summary_that_somebody_has_edited_does_no_harm(summary: Any) -> None:
    name, text = shown(exchange(sse("Hello"), "text/event-stream", summary=summary))
    assert name == "Transcript"
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\nended    complete" not in text


def test_large_messages_are_cut_and_say_so() -> None:
    """Ten megabytes, as one text, as many, as a stream, as numbers."""
    prose = "All is quiet on the western front. " * 300_000
    many = [{"role": "user", "content": prose[:1_000]}] * 10_000
    stream = sse(*["All is quiet on the western front."] * 100_000)
    vectors = {"data": [{"index": 0, "embedding": [0.123456789] * 800_000}]}
    cases = [
        (exchange({"choices": [{"index": 0, "message": {"content": prose}}]}), "response"),
        (exchange(asked={**ASKED, "messages": many}), "request"),
        (exchange(stream, "text/event-stream"), "response"),
        (exchange(vectors, path="/v1/embeddings"), "response"),
    ]
    for flow, side in cases:
        assert len(getattr(flow, side).content) > 7_000_000
        started = time.process_time()
        name, text = shown(flow, side)
        assert time.process_time() - started < 5
        assert name == "Transcript"
        assert len(text) < 400_000
        assert "left out here" in text or "embeddings: 1 of 800000 numbers" in text
    assert len(stream) > STREAM
