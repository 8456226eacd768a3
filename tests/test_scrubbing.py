"""A copy for the recording: without credentials, and out of reach of what happens to the flow."""

from __future__ import annotations

import pytest
from mitmproxy import http
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow

from mitmgate import scrubbing
from mitmgate.core.ledger import RecorderFile
from mitmgate.exchange import Exchange

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


@pytest.mark.parametrize("data", [b"3:abc,", b"2:[]]"[1:], b"0:}", b"5:1:1#}", b"8:8:metadata}"])
def test_what_is_no_flow_is_not_interrupted(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        scrubbing.interrupted(data)
