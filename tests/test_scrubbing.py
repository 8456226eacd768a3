"""A copy for the recording: without credentials, and out of reach of what happens to the flow."""

from __future__ import annotations

import pytest
from mitmproxy import http
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow

from mitmgate import scrubbing
from mitmgate.core.ledger import RecorderFile
from mitmgate.core.wire.prompt import Prompt
from mitmgate.exchange import Exchange
from mitmgate.guard import Refusal

RULES = RecorderFile.model_validate({"schema": 1, "scrub": ["x-more"], "scrub_query": ["ticket"]})


def made() -> tuple[http.HTTPFlow, Exchange]:
    flow = tflow.tflow(resp=True)
    flow.request.path = "/v1/models?key=hush&ticket=hush&a=1"
    flow.request.headers["authorization"] = "hush"
    flow.request.headers["x-more"] = "hush"
    flow.request.headers["referer"] = "https://x.example/?access_token=hush"
    assert flow.response
    flow.response.headers["set-cookie"] = "hush"
    return flow, Exchange.begin(flow)


def test_credentials_are_left_out_of_the_copy_alone() -> None:
    flow, exchange = made()
    before = flow.get_state()
    data = tnetstring.dumps(scrubbing.copy(flow, exchange, flow.request.headers, RULES))
    assert b"hush" not in data
    assert b"/v1/models?key=removed&ticket=removed&a=1" in data
    assert flow.get_state() == before


def test_what_happens_to_the_flow_later_is_not_in_the_copy() -> None:
    flow, exchange = made()
    exchange.publish()
    state = scrubbing.copy(flow, exchange, flow.request.headers, RULES)
    before = tnetstring.dumps(state)
    assert flow.response
    flow.request.content = flow.response.content = b"later"
    flow.request.headers["x-later"] = flow.response.headers["x-later"] = "later"
    flow.metadata["mitmgate"]["rules"]["later"] = "later"
    flow.client_conn.peername = ("later", 1)
    flow.comment = "later"
    assert tnetstring.dumps(state) == before


def test_the_length_is_that_of_the_body_that_is_kept() -> None:
    flow, exchange = made()
    flow.request.content = b"masked"  # which sets the length
    flow.request.headers["Content-Length"] = "6"
    exchange.prompt = Prompt(exchange.endpoint, exchange.target, None, None, False)
    exchange.sent = b"what the caller sent"
    for prompts, content, length in (
        ("exact", exchange.sent, b"20"),
        ("masked", b"masked", b"6"),
    ):
        rules = RecorderFile.model_validate({"schema": 1, "prompts": prompts})
        kept = scrubbing.copy(flow, exchange, flow.request.headers, rules)["request"]
        assert kept["content"] == content
        assert [v for k, v in kept["headers"] if k.lower() == b"content-length"] == [length]
    assert flow.request.headers["content-length"] == "6"


def test_a_replay_of_a_flow_is_an_exchange_of_its_own() -> None:
    flow, exchange = made()
    assert exchange.id == flow.id
    flow.is_replay = "request"
    ids = {exchange.id}
    for _ in range(2):
        again = Exchange.begin(flow)
        assert scrubbing.copy(flow, again, flow.request.headers, RULES)["id"] == again.id
        ids.add(again.id)
    assert len(ids) == 3


def test_little_is_kept_of_somebody_without_a_token() -> None:
    flow, exchange = made()
    exchange.refuse(Refusal(401, "token_missing", "Who are you?"))
    flow.request.path = "/" + "p" * 5000
    flow.request.data.method = b"M" * 5000
    flow.request.data.authority = b"a" * 5000
    assert len(tnetstring.dumps(scrubbing.copy(flow, exchange, http.Headers(), RULES))) < 4000


@pytest.mark.parametrize("data", [b"3:abc,", b"2:[]]"[1:], b"0:}", b"5:1:1#}", b"8:8:metadata}"])
def test_what_is_no_flow_is_not_interrupted(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        scrubbing.interrupted(data)
