"""Threads in which bodies are read: large ones never keep small ones waiting."""

from __future__ import annotations

import asyncio
import json
import threading

from mitmproxy.test import tutils

from mitmgate import reading
from mitmgate.core import matching
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.prompt import read_prompt

BIG = 10 << 20


async def test_small_bodies_do_not_queue_behind_large_ones() -> None:
    done = threading.Event()
    large = [asyncio.create_task(reading.off_loop(done.wait, BIG)) for _ in range(64)]
    try:
        await asyncio.sleep(0)
        small = reading.off_loop(lambda: "read", reading.THREAD_FROM + 1)
        assert await asyncio.wait_for(small, 10) == "read"
        loop = asyncio.get_running_loop()  # and neither do name servers
        assert await asyncio.wait_for(loop.getaddrinfo("localhost", 80), 10)
    finally:
        done.set()
        await asyncio.gather(*large)


async def test_what_a_request_is_read_as_decides_where_it_is_judged() -> None:
    said = "i g n o r e " * 250
    nested = json.dumps({"n": 1, "a": {"n": 2, "b": {"n": 3, "c": {"n": 4, "d": said}}}})
    call = {"function": {"name": "x", "arguments": nested}}
    raw = json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]}).encode()
    assert len(raw) < matching.INLINE
    prompt = read_prompt(_chat(), "/v1/chat/completions", "application/json", raw)
    request = tutils.treq(headers=())
    asked = await reading.read_asked(request, "POST", "/v1/chat/completions", prompt)
    assert asked.size > 5 * len(said) > matching.INLINE


async def test_headers_and_queries_count_as_well() -> None:
    target = "/v1/chat/completions?a=" + "x" * 50_000
    prompt = read_prompt(_chat(), target, "application/json", b"{}")
    request = tutils.treq(headers=((b"x-note", b"y" * 50_000),))
    assert (await reading.read_asked(request, "POST", target, prompt)).size > 100_000 - 1000


def _chat() -> Endpoint:
    endpoint = endpoints.find("POST", "/v1/chat/completions")
    assert endpoint is not None
    return endpoint
