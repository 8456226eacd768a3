"""The pages as a browser without scripts sees them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mitmgate.core.holds import Mark, Passage
from mitmgate.core.principal import Principal

XSS = "<img src=x onerror=alert(1)>"


async def test_the_queue_is_oldest_first_with_who_what_why_and_the_time_left(site: Any) -> None:
    first = site.hold("wire 1 EUR")
    second = site.hold("wire 2 EUR")
    page = await (await site.signed_in()).get("/")
    assert page.text.index(first.id) < page.text.index(second.id)
    assert re.search(r"<title>\s*\(2\) Waiting", page.text)
    for expected in ("The Agent", "chat", "stand-in", "Transfer of money", "wire 1 EUR", "9 min"):
        assert expected in page.text
    assert "Nobody waits on the line" in page.text
    site.store.attend(first.id, "x-1", 4e9)
    assert "Caller waits on the line" in (await (await site.signed_in()).get("/")).text


async def test_a_hold_shows_its_prompt_with_what_was_matched_marked(site: Any) -> None:
    hold = site.hold("please wire the money")
    page = (await (await site.signed_in()).get(f"/holds/{hold.id}")).text
    assert (
        'please <mark><span class="unseen">[matched by wire-transfer: </span>wire'
        '<span class="unseen">]</span></mark> the money' in page
    )
    assert "Money needs a second look." in page
    assert "idp:agent-7" in page
    conversation = page.split('<details class="conversation">')[1]
    assert "You are a bank." in conversation
    assert "You are a bank." not in page.split('<details class="conversation">')[0]


async def test_what_is_no_conversation_is_folded_apart(site: Any) -> None:
    passages = [Passage("prompt", "m", "wire"), Passage("headers", "headers.user-agent", "curl")]
    page = (await (await site.signed_in()).get(f"/holds/{site.hold(passages=passages).id}")).text
    first, second = page.split('<details class="conversation">')[1:]
    assert "The whole conversation, 1 text" in first
    assert "curl" not in first
    assert "headers.user-agent" in second


async def test_a_long_prompt_is_folded_around_what_was_matched(site: Any) -> None:
    text = f"{'a' * 5000} wire {'b' * 5000}"
    page = (await (await site.signed_in()).get(f"/holds/{site.hold(text).id}")).text
    shown = page.split("<figure>")[1].split("<details>")[0]
    assert ">wire<" in shown
    assert "a" * 300 not in shown
    assert "Whole text, 10006 characters" in page


async def test_approve_and_deny_with_a_reason(site: Any) -> None:
    first, second = site.hold("wire 1"), site.hold("wire 2")
    browser = await site.signed_in()
    page = await browser.decide(first.id, "approve", "Bob is fine")
    assert page.url.path == "/"
    assert "You approved" in page.text
    page = await browser.decide(second.id, "deny", "not today")
    assert "You denied" in page.text
    assert "Nothing waits for you" in page.text
    decided = [site.store.get(hold.id) for hold in (first, second)]
    assert [hold.state for hold in decided] == ["approved", "denied"]
    (decision,) = decided[0].decisions
    assert (decision.subject, decision.reason, decision.channel) == (
        "ann",
        "Bob is fine",
        "console",
    )
    assert decision.display == "Ann Approver"
    history = (await browser.get("/history")).text
    assert "Approved and not used yet" in history
    assert "not today" in history


@pytest.mark.parametrize("reason", ["", "  \n ", "x" * 2001])
async def test_a_decision_without_a_reason_is_none(site: Any, reason: str) -> None:
    hold = site.hold()
    page = await (await site.signed_in()).decide(hold.id, "approve", reason)
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.text
    assert site.store.get(hold.id).state == "pending"


async def test_quorum_is_counted(site: Any) -> None:
    hold = site.hold(quorum=2)
    ann, ben = await site.signed_in("tok-ann"), await site.signed_in("tok-ben")
    assert "1 of 2 approvals" in (await ann.decide(hold.id, "approve", "one")).text
    again = await ann.decide(hold.id, "approve", "one more")
    assert again.status_code == 409
    assert site.store.get(hold.id).state == "pending"
    await ben.decide(hold.id, "approve", "two")
    assert site.store.get(hold.id).state == "approved"


async def test_ones_own_request_can_be_seen_and_not_decided(site: Any) -> None:
    hold = site.hold(who=site.people["tok-ann"])
    browser = await site.signed_in("tok-ann")
    page = (await browser.get(f"/holds/{hold.id}")).text
    assert "somebody else has to decide" in page
    assert "formaction" not in page
    assert "Your own request" in (await browser.get("/")).text
    for verdict in ("approve", "deny"):
        answer = await browser.submit("/", f"/holds/{hold.id}/{verdict}", reason="mine")
        assert answer.status_code == 403
    assert site.store.get(hold.id).state == "pending"


async def test_whoever_is_no_approver_of_it_does_not_learn_that_it_exists(site: Any) -> None:
    hold = site.hold("wire SECRET")
    eve = await site.signed_in("tok-eve")
    queue = await eve.get("/")
    assert "You are no approver" in queue.text
    assert "idp:eve" in queue.text
    olga = await site.signed_in("tok-olga")  # of another rule
    assert "Nothing waits for you" in (await olga.get("/")).text
    for browser in (eve, olga):
        for path in ("/", "/queue", "/history", f"/holds/{hold.id}", f"/?done={hold.id}"):
            page = await browser.get(path)
            assert "SECRET" not in page.text
            assert hold.id not in page.text.replace(path, "")
        there = await browser.get(f"/holds/{hold.id}")
        nowhere = await browser.get("/holds/h-222222")
        assert there.status_code == nowhere.status_code == 404
        assert there.text.split("<main")[1] == nowhere.text.split("<main")[1]
        answer = await browser.submit("/", f"/holds/{hold.id}/approve", reason="x")
        assert answer.status_code == 404
    assert site.store.get(hold.id).state == "pending"


async def test_the_requester_who_is_no_approver_sees_nothing_either(site: Any) -> None:
    hold = site.hold(who=site.people["tok-eve"])
    page = await (await site.signed_in("tok-eve")).get(f"/holds/{hold.id}")
    assert page.status_code == 404


async def test_what_has_ended_cannot_be_decided(site: Any) -> None:
    denied, expired = site.hold("wire 1"), site.hold("wire 2", ttl=1e-9)
    browser = await site.signed_in()
    await browser.decide(denied.id, "deny", "no")
    for hold in (denied, expired):
        page = (await browser.get(f"/holds/{hold.id}")).text
        assert "<textarea" not in page
        assert "kept only while" in page
        answer = await browser.submit("/", f"/holds/{hold.id}/approve", reason="late")
        assert answer.status_code == 409
        assert 'role="alert"' in answer.text


async def test_an_approval_that_was_not_used_can_be_taken_back(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    await browser.decide(hold.id, "approve", "fine")
    page = (await browser.get(f"/holds/{hold.id}")).text
    assert "Deny after all" in page
    assert f'action="/holds/{hold.id}/deny"' in page
    await browser.decide(hold.id, "deny", "on second thoughts")
    assert site.store.get(hold.id).state == "denied"


async def test_nothing_of_a_request_becomes_markup(site: Any) -> None:
    evil = person_of(XSS)
    hold = site.hold(
        f"wire {XSS}</div></details><script>alert(2)</script>",
        who=evil,
        model=XSS,
        passages=[
            Passage("prompt", f"messages[0].{XSS}", f"wire {XSS}", (Mark(0, 9, "wire-transfer"),)),
        ],
    )
    browser = await site.signed_in()
    await browser.decide(hold.id, "approve", f"fine {XSS}")
    pages = [await browser.get(path) for path in ("/history", f"/holds/{hold.id}")]
    again = site.hold(f"wire 2 {XSS}", who=evil, model=XSS)
    pages.append(await browser.get("/"))
    pages.append(await browser.decide(again.id, "approve", f"{XSS}" * 80))
    for page in pages:
        assert "<img" not in page.text
        assert "<script>" not in page.text
        assert "&lt;img" in page.text


async def test_what_is_invisible_is_named(site: Any) -> None:
    hold = site.hold(
        "wire\u202e txet desrever \u200b\u200b\u200b", who=person_of("a\u202eb"), model="m\u200bm"
    )
    page = (await (await site.signed_in()).get(f"/holds/{hold.id}")).text
    assert not set("\u202e\u200b") & set(page)
    for expected in ("[U+202E]", "[U+200B × 3]", "a[U+202E]b", "m[U+200B]m"):
        assert expected in page


async def test_the_profile_of_the_approvers_masks(site: Any) -> None:
    site.write_rules(approvers={"who": {"groups": ["approvers"]}, "profile": "careful"})
    asked: list[str] = []

    def mask(profile: str, text: str) -> str:
        asked.append(profile)
        return text.replace("bob@example.com", "[EMAIL]")

    site.desk.mask = mask
    hold = site.hold("wire it to bob@example.com")
    browser = await site.signed_in()
    for path in ("/", f"/holds/{hold.id}", f"/api/holds/{hold.id}", "/api/holds"):
        page = (await browser.get(path)).text
        assert "bob@" not in page
        assert "[EMAIL]" in page
        assert "asked" in page.lower()
    assert set(asked) == {"careful"}
    assert "</span>wire<span" in (await browser.get(f"/holds/{hold.id}")).text  # before the address


async def test_a_mark_that_masking_would_put_wrong_is_left_out(site: Any) -> None:
    site.write_rules(approvers={"who": {"groups": ["approvers"]}, "profile": "careful"})
    site.desk.mask = lambda profile, text: text.replace("wire", "[WORD]")
    page = (await (await site.signed_in()).get(f"/holds/{site.hold().id}")).text
    assert "<mark>" not in page
    assert "What was matched is masked." in page


async def test_without_a_masker_a_profile_shows_nothing(site: Any) -> None:
    site.write_rules(approvers={"who": {"groups": ["approvers"]}, "profile": "careful"})
    browser = await site.signed_in()
    hold = site.hold("wire SECRET")
    for path in ("/", f"/holds/{hold.id}"):
        page = await browser.get(path)
        assert page.status_code == 503
        assert "SECRET" not in page.text


async def test_a_masker_that_fails_shows_nothing(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.write_rules(approvers={"who": {"groups": ["approvers"]}, "profile": "gone"})

    def mask(profile: str, text: str) -> str:
        raise KeyError("profile HIDDEN")

    site.desk.mask = mask
    browser = await site.signed_in()
    hold = site.hold("wire SECRET")
    page = await browser.get(f"/holds/{hold.id}")
    assert page.status_code == 500
    assert "SECRET" not in page.text
    assert "HIDDEN" not in page.text
    assert f"GET /holds/{hold.id} failed" in caplog.text


async def test_a_store_that_does_not_answer_is_503(site: Any) -> None:
    browser = await site.signed_in()
    site.store.close()
    page = await browser.get("/")
    assert page.status_code == 503
    assert "does not answer" in page.text
    assert str(site.directory) not in page.text


async def test_pages_are_made_for_screen_readers_and_keyboards(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    out = await site.client().get("/signin")
    for page in (out, await browser.get("/"), await browser.get(f"/holds/{hold.id}")):
        assert '<html lang="en">' in page.text
        assert page.text.count("<h1") == 1
        assert 'href="#main"' in page.text
        assert '<main id="main"' in page.text
        assert 'aria-live="polite"' in page.text
        assert 'tabindex="1' not in page.text
        ids = re.findall(r' id="([^"]+)"', page.text)
        assert len(ids) == len(set(ids))
        for field in re.findall(
            r"<(?:textarea|input)(?![^>]*hidden)[^>]* id=\"([^\"]+)\"", page.text
        ):
            assert f'<label for="{field}"' in page.text
        for label in re.findall(r' aria-(?:labelledby|describedby)="([^"]+)"', page.text):
            assert set(label.split()) <= set(ids)


def person_of(display: str) -> Principal:
    return Principal(issuer="idp", subject="mallory", display=display)
