"""The JSON API, with a token of its own or with a session, and the event stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mitmgate.core.holds import NotApprover
from mitmgate.core.tokens import TokenError
from mitmgate.web import events


async def test_who_am_i(site: Any) -> None:
    me = (await site.client("tok-ann").get("/api/me")).json()
    assert me == {
        "name": "idp:ann",
        "display": "Ann Approver",
        "expires": 4e9,
        "approver": True,
        "signed_in_by": "bearer",
        "csrf": None,
    }
    assert (await site.client("tok-eve").get("/api/me")).json()["approver"] is False
    me = (await (await site.signed_in()).get("/api/me")).json()
    assert me["signed_in_by"] == "session"
    assert len(me["csrf"]) > 30


async def test_holds_are_listed_by_state(site: Any) -> None:
    first, second = site.hold("wire 1"), site.hold("wire 2")
    client = site.client("tok-ann")
    listed = (await client.get("/api/holds")).json()["holds"]
    assert [hold["id"] for hold in listed] == [first.id, second.id]
    assert listed[0]["who"] == {"name": "idp:agent-7", "display": "The Agent"}
    assert listed[0]["rules"][0]["title"] == "Transfer of money"
    assert "prompt" not in listed[0]
    await client.post(f"/api/holds/{first.id}/deny", json={"reason": "no"})
    both = (await client.get("/api/holds?state=pending&state=denied")).json()["holds"]
    assert {hold["state"] for hold in both} == {"pending", "denied"}
    answer = await client.get("/api/holds?state=lost")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "state_unknown"


async def test_one_hold_has_its_prompt_and_marks(site: Any) -> None:
    hold = site.hold("please wire it")
    answer = await site.client("tok-ann").get(f"/api/holds/{hold.id}")
    prompt = answer.json()["hold"]["prompt"]
    assert [each["where"] for each in prompt] == ["system", "prompt"]
    (mark,) = prompt[1]["marks"]
    assert prompt[1]["text"][mark["start"] : mark["end"]] == "wire"
    assert mark["rule"] == "wire-transfer"


async def test_a_bearer_decides_without_csrf(site: Any) -> None:
    hold = site.hold()
    answer = await site.client("tok-ann").post(
        f"/api/holds/{hold.id}/approve", json={"reason": "fine"}
    )
    assert answer.status_code == 200
    assert answer.json()["hold"]["state"] == "approved"
    assert answer.json()["hold"]["decisions"][0]["reason"] == "fine"


async def test_a_session_decides_with_its_csrf_header(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    csrf = (await browser.get("/api/me")).json()["csrf"]
    answer = await browser.client.post(
        f"/api/holds/{hold.id}/deny", json={"reason": "no"}, headers={"X-CSRF-Token": csrf}
    )
    assert answer.json()["hold"]["state"] == "denied"


async def test_errors_have_a_code_and_the_right_status(site: Any) -> None:
    pending, own = site.hold("wire 1"), site.hold("wire 2", who=site.people["tok-ann"])
    denied, expired = site.hold("wire 3"), site.hold("wire 4", ttl=1e-9)
    other, used = site.hold("weights", rule="weights"), site.hold("wire 6")
    site.store.decide(denied.id, site.people["tok-ben"], "deny", "no", "test")
    site.store.decide(used.id, site.people["tok-ben"], "approve", "yes", "test")
    site.store.consume(used.digest, used.principal)
    client = site.client("tok-ann")
    reason = {"reason": "x"}
    for id, body, status, code in (
        (pending.id, {"reason": " "}, 422, "hold_reason"),
        (pending.id, {"reason": "x" * 2001}, 422, "hold_reason"),
        (pending.id, {}, 422, "hold_reason"),
        (pending.id, {"reason": 7}, 422, "hold_reason"),
        (pending.id, [], 422, "hold_reason"),
        (own.id, reason, 403, "hold_self_approval"),
        (denied.id, reason, 409, "hold_denied"),
        (expired.id, reason, 409, "hold_expired"),
        (used.id, reason, 409, "hold_consumed"),
        (other.id, reason, 404, "hold_unknown"),
        ("h-222222", reason, 404, "hold_unknown"),
    ):
        answer = await client.post(f"/api/holds/{id}/approve", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["error"]["message"]
    assert site.store.get(pending.id).state == "pending"


async def test_rules_that_change_under_the_approver_hide_the_hold(site: Any) -> None:
    hold = site.hold()

    async def decide(*_: object) -> None:
        raise NotApprover(f"idp:ann is not among the approvers of {hold.id}")

    site.approvals.decide = decide
    answer = await site.client("tok-ann").post(
        f"/api/holds/{hold.id}/approve", json={"reason": "x"}
    )
    assert answer.status_code == 404


async def test_bad_requests(site: Any) -> None:
    path = f"/api/holds/{site.hold().id}/approve"
    client = site.client("tok-ann")
    assert (await client.post(path, data={"reason": "x"})).status_code == 415
    kind = {"Content-Type": "application/json; charset=utf-8"}
    for content in (b"", b"{", b"\xff", b"[" * 50_000):
        answer = await client.post(path, content=content, headers=kind)
        assert answer.status_code == 400
    assert (await client.get(path)).status_code == 405
    assert (await client.delete("/api/holds")).status_code == 405
    assert (await client.get("/api/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer made-up"}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer a b"}, 401),
        ({"x-api-key": "tok-ann"}, 401),
    ],
)
async def test_tokens_that_are_none(site: Any, headers: dict[str, str], status: int) -> None:
    answer = await site.client(headers=headers).get("/api/holds")
    assert answer.status_code == status
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"]


async def test_a_wrong_bearer_is_not_made_good_by_a_session(site: Any) -> None:
    browser = await site.signed_in()
    answer = await browser.get("/api/me", headers={"Authorization": "Bearer made-up"})
    assert answer.status_code == 401


async def test_pages_take_no_bearer(site: Any) -> None:
    assert (await site.client("tok-ann").get("/")).status_code == 303


async def test_whoever_is_no_approver_of_anything_is_told(site: Any) -> None:
    hold = site.hold()
    client = site.client("tok-eve")
    answer = await client.get("/api/holds")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "not_approver"
    assert (await client.get(f"/api/holds/{hold.id}")).status_code == 404


async def test_the_store_does_not_answer(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.store.close()
    answer = await site.client("tok-ann").get("/api/holds")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "hold_store"
    assert "is closed" in caplog.text


async def test_without_the_approval_addon(site: Any) -> None:
    site.desk.approvals = None
    answer = await site.client("tok-ann").get("/api/holds")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_approvals"


async def test_the_proof_of_a_dpop_token_is_handed_on(site: Any) -> None:
    headers = {"Authorization": "DPoP tok-ann", "DPoP": "proof"}
    await site.client(headers=headers).get("/api/holds?state=pending")
    (presented,) = site.presented
    assert (presented.scheme, presented.proofs) == ("DPoP", ("proof",))
    assert (presented.method, presented.path) == ("GET", "/api/holds")


class Stream:
    """An event stream, read line by line."""

    def __init__(self, site: Any, cookie: str) -> None:
        self._client = site.client(cookies={"gate-session": cookie})

    async def __aenter__(self) -> Stream:
        self._context = self._client.stream("GET", "/events")
        self.answer = await self._context.__aenter__()
        self._lines = self.answer.aiter_lines()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.__aexit__(None, None, None)

    async def event(self) -> str:
        async with asyncio.timeout(8):
            async for line in self._lines:
                if line.startswith("event: "):
                    return line.removeprefix("event: ")
        return ""


async def test_an_open_page_hears_of_changes(site: Any) -> None:
    cookie = (await site.signed_in()).client.cookies["gate-session"]
    async with Stream(site, cookie) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert await stream.event() == "holds"  # once at the beginning
        hold = site.hold()
        assert await stream.event() == "holds"
        site.store.decide(hold.id, site.people["tok-ben"], "deny", "no", "test")
        assert await stream.event() == "holds"
    assert hold.id not in json.dumps(dict(stream.answer.headers))


async def test_an_open_page_hears_that_its_token_was_revoked(site: Any) -> None:
    cookie = (await site.signed_in()).client.cookies["gate-session"]
    async with Stream(site, cookie) as stream:
        await stream.event()
        site.refused["tok-ann"] = TokenError("revoked")
        site.hold()
        last = "holds"
        while last == "holds":  # it may have looked just before
            last = await stream.event()
        assert last == "signed-out"
        assert await stream.event() == ""


async def test_there_are_only_so_many_open_streams(site: Any) -> None:
    cookie = (await site.signed_in()).client.cookies["gate-session"]
    streams = [Stream(site, cookie) for _ in range(events.MOST_EACH + 1)]
    for stream in streams:
        await stream.__aenter__()
    assert [stream.answer.status_code for stream in streams] == [200] * events.MOST_EACH + [429]
    for stream in streams:
        await stream.__aexit__()
    async with asyncio.timeout(8):
        while True:  # until the server has noticed
            async with Stream(site, cookie) as again:
                if again.answer.status_code == 200:
                    break


async def test_closing_ends_open_streams(site: Any) -> None:
    cookie = (await site.signed_in()).client.cookies["gate-session"]
    async with Stream(site, cookie) as stream:
        await stream.event()
        site.web.close()
        assert await stream.event() == ""
