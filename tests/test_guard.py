"""The kit alone: what the base class does to hooks, what the tripwire remembers.

That mitmproxy's real dispatcher cannot open it is proved in tests/e2e/test_faults.py.
"""

from __future__ import annotations

import asyncio

import pytest
from mitmproxy import exceptions, http
from mitmproxy.addons.mapremote import MapRemote
from mitmproxy.addons.modifybody import ModifyBody
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons, tflow

from mitmgate.exchange import Exchange
from mitmgate.guard import GateAddon, Refusal, deny
from mitmgate.tripwire import Tripwire


class Denying(GateAddon):
    name = "test.denying"

    def request(self, flow: http.HTTPFlow) -> None:
        deny(403, "test-rule", "No.", Retry_After="7")


class Raising(GateAddon):
    name = "test.raising"

    async def request(self, flow: http.HTTPFlow) -> None:
        raise ValueError("broken")


class Cancelled(GateAddon):
    name = "test.cancelled"

    async def request(self, flow: http.HTTPFlow) -> None:
        raise asyncio.CancelledError


class Counting(GateAddon):
    name = "test.counting"

    def __init__(self) -> None:
        self.seen = 0

    def request(self, flow: http.HTTPFlow) -> None:
        self.seen += 1


class Watching(Counting):
    name = "test.watching"
    sees_refusals = True


def live_flow(path: bytes = b"/v1/chat/completions") -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.live = True
    flow.request.data.path = path
    flow.request.data.method = b"POST"
    return flow


async def test_deny_answers_in_the_dialect() -> None:
    flow = live_flow(b"/v1/messages")
    with taddons.context(addon := Denying()):
        addon.request(flow)
    assert flow.response
    assert flow.response.status_code == 403
    assert flow.response.headers["retry-after"] == "7"
    assert flow.response.headers["x-gate-rule"] == "test-rule"
    assert flow.response.headers["x-gate-exchange"] == flow.id
    assert flow.response.json()["error"]["code"] == "test-rule"


async def test_an_exception_is_a_503_without_its_text() -> None:
    flow = live_flow()
    with taddons.context(addon := Raising()):
        await addon.request(flow)
    assert flow.response
    assert flow.response.status_code == 503
    assert b"broken" not in flow.response.content


async def test_cancellation_passes_and_leaves_no_mark() -> None:
    flow = live_flow()
    with taddons.context(addon := Cancelled()):
        with pytest.raises(asyncio.CancelledError):
            await addon.request(flow)
    assert flow.response is None
    assert not Exchange.of(flow).marks  # so the tripwire refuses it


async def test_hooks_are_skipped_after_a_refusal_unless_they_want_to_see_it() -> None:
    flow = live_flow()
    with taddons.context(denying := Denying()):
        denying.request(flow)
        (counting := Counting()).request(flow)
        (watching := Watching()).request(flow)
    assert counting.seen == 0
    assert watching.seen == 1


async def test_the_first_refusal_counts() -> None:
    exchange = Exchange.begin(live_flow())
    exchange.refuse(Refusal(403, "first", "x"))
    exchange.refuse(Refusal(503, "second", "y"))
    assert exchange.refusal
    assert exchange.refusal.code == "first"


async def test_a_flow_from_a_file_is_left_alone() -> None:
    flow = tflow.tflow(resp=True)
    flow.live = False
    with taddons.context(addon := Counting()):
        addon.request(flow)
    assert addon.seen == 0
    with pytest.raises(KeyError):
        Exchange.of(flow)


async def test_a_replayed_flow_starts_afresh() -> None:
    class Authenticating(GateAddon):
        name = "test.authenticating"

        def requestheaders(self, flow: http.HTTPFlow) -> None:
            pass

    flow = live_flow()
    with taddons.context(addon := Authenticating()):
        addon.requestheaders(flow)
        first = Exchange.of(flow)
        first.grant = "granted once"
        addon.requestheaders(flow)
    assert Exchange.of(flow) is not first
    assert Exchange.of(flow).grant == ""


async def test_an_addon_without_a_name_is_no_addon() -> None:
    with pytest.raises(TypeError, match="needs a `name`"):
        type("Nameless", (GateAddon,), {})


async def test_a_lifecycle_hook_must_be_plain() -> None:
    async def running(self: GateAddon) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        type("Waiting", (GateAddon,), {"name": "test.waiting", "running": running})


async def test_an_unloaded_addon_closes_the_gate_until_it_is_loaded_again() -> None:
    with taddons.context(addon := Counting()) as tctx:
        wire = Tripwire.of(tctx.master)
        assert wire.closed == ""
        addon.done()
        assert wire.closed == "test.counting is unloaded"
        flow = live_flow()
        wire.requestheaders(flow)
        assert flow.response
        assert flow.response.status_code == 503
        wire.arm(addon)
        assert wire.closed == ""


async def test_an_addon_that_did_not_run_is_no_pass() -> None:
    with taddons.context(addon := Counting()) as tctx:
        wire = Tripwire.of(tctx.master)
        passed, skipped = live_flow(), live_flow()
        addon.request(passed)
        wire.request(passed)
        assert passed.response is None
        wire.request(skipped)
        assert skipped.response
        assert skipped.response.status_code == 503


async def test_a_failing_configure_closes_the_gate(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(GateAddon):
        name = "test.failing"

        def configure(self, updated: set[str]) -> None:
            raise exceptions.OptionsError("rules.yaml:7: one\nrules.yaml:9: two")

    with taddons.context(failing := Failing()) as tctx:
        tctx.configure(tctx.master.addons.get("test.failing"), ssl_insecure=True)
        assert Tripwire.of(tctx.master).closed == "test.failing did not configure"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"][-2:] == [
        "rules.yaml:7: one",
        "rules.yaml:9: two",
    ]
    with taddons.context(failing) as tctx:
        wire = Tripwire.of(tctx.master)
        wire.close("test.failing", "configure")
        wire.reopen("test.failing", "running")
        assert wire.closed == "test.failing did not configure"
        wire.reopen("test.failing", "configure")
        assert wire.closed == ""


@pytest.mark.parametrize("option", ["ignore_hosts", "tcp_hosts", "map_remote", "modify_body"])
async def test_an_option_that_opens_the_gate_is_refused_while_it_runs(option: str) -> None:
    with taddons.context(Proxyserver(), MapRemote(), ModifyBody(), Counting()) as tctx:
        value = {"map_remote": "|a|http://b/", "modify_body": "/~q/a/b"}.get(option, "a")
        with pytest.raises(exceptions.OptionsError, match=option):
            tctx.options.update(**{option: [value]})
