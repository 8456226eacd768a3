"""The whole way: a stock SDK waits, an approver decides in a real browser, the SDK goes on.

With SCREENS=DIRECTORY in the environment the pictures are kept there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from playwright.async_api import Browser

from browsing import Watched, chromium
from harness import Gate, StandIn, Tokens, baseline

pytestmark = pytest.mark.browser

PROMPT = "Please wire the money for invoice 4711 to Bob. He sent the account by mail."
MESSAGE = "Money is moved after a second look."
XSS = "wire the money <img src=x onerror=alert(1)><script>alert(2)</script>"
SCREENS = os.environ.get("SCREENS", "")
APPROVERS = {"who": {"issuer": "test-idp", "groups": ["approvers"]}}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
def guarded(
    start_gate: Callable[..., Gate], standin: StandIn, tokens: Tokens, tmp_path: Path
) -> Callable[..., Gate]:
    """Starts a gate with approvers and a console; keywords go to approval.yaml."""

    def start(**approval: Any) -> Gate:
        rules = baseline(tokens, standin.url, tmp_path)["approval"]
        assert isinstance(rules, dict)
        held = [{**rule, "message": MESSAGE} for rule in rules["rules"]]
        files = {"approval": {**rules, "rules": held, "approvers": APPROVERS, **approval}}
        return start_gate(rules=files, console="127.0.0.1:0")

    return start


def sdk(gate: Gate, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=token, max_retries=0, timeout=30)


async def ask(client: openai.AsyncOpenAI, text: str = PROMPT) -> str:
    answer = await client.chat.completions.create(
        model="stand-in", messages=[{"role": "user", "content": text}]
    )
    return answer.choices[0].message.content or ""


async def test_approved_by_keyboard_the_call_returns(
    guarded: Callable[..., Gate], standin: StandIn, tokens: Tokens, browser: Browser
) -> None:
    gate = guarded()
    watched = await Watched.open(browser, gate.console)
    page = watched.page
    await watched.sign_in(tokens.mint("ann", (), ["approvers"], name="Ann Approver"))
    await page.wait_for_selector("text=Nothing waits for you")
    async with sdk(gate, tokens.mint()) as client:
        asking = asyncio.create_task(ask(client))
        await page.wait_for_selector("h2 a")  # by itself
        assert standin.seen() == []
        await watched.tab_to("h2 a")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("mark")
        assert "wire the money" in (await page.text_content("mark") or "")
        assert await page.is_visible("text=waits on the line")
        await watched.tab_to("#reason")
        await page.keyboard.type("The invoice is known")
        await watched.tab_to("button.approve")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=You approved")
        assert await asking
    assert len(standin.seen()) == 1
    assert await watched.problems() == []
    await page.goto(f"{gate.console}/history")
    assert await page.is_visible("text=The invoice is known")
    assert "Traceback" not in gate.output


async def test_denied_the_call_raises_with_the_reason(
    guarded: Callable[..., Gate], standin: StandIn, tokens: Tokens, browser: Browser
) -> None:
    gate = guarded()
    watched = await Watched.open(browser, gate.console)
    await watched.sign_in(tokens.mint("ann", (), ["approvers"]))
    async with sdk(gate, tokens.mint()) as client:
        asking = asyncio.create_task(ask(client))
        await watched.page.click("h2 a")
        await watched.page.fill("#reason", "Bob has left")
        await watched.page.click("button.deny")
        await watched.page.wait_for_selector("text=You denied")
        with pytest.raises(openai.PermissionDeniedError, match="Bob has left"):
            await asking
    assert standin.seen() == []
    assert await watched.problems() == []


async def test_expired_it_leaves_the_queue(
    guarded: Callable[..., Gate], standin: StandIn, tokens: Tokens, browser: Browser
) -> None:
    gate = guarded(ttl="3s", hold="3s")
    watched = await Watched.open(browser, gate.console)
    await watched.sign_in(tokens.mint("ann", (), ["approvers"]))
    async with sdk(gate, tokens.mint()) as client:
        asking = asyncio.create_task(ask(client))
        await watched.page.wait_for_selector("h2 a")
        with pytest.raises(openai.APIStatusError):
            await asking
    await watched.page.wait_for_selector("text=Nothing waits for you")
    await watched.page.goto(f"{gate.console}/history")
    assert await watched.page.is_visible("text=expired")
    assert standin.seen() == []


async def test_nobody_approves_their_own_request_and_others_see_nothing(
    guarded: Callable[..., Gate], standin: StandIn, tokens: Tokens, browser: Browser
) -> None:
    gate = guarded()
    both = tokens.mint("ann", ("inference",), ["approvers"])
    watched = await Watched.open(browser, gate.console)
    await watched.sign_in(both)
    stranger = await Watched.open(browser, gate.console)
    await stranger.sign_in(tokens.mint("eve", ("inference",), ["staff"]))
    async with sdk(gate, both) as client:
        asking = asyncio.create_task(ask(client))
        await watched.page.click("h2 a")
        await watched.page.wait_for_selector("text=somebody else has to decide")
        assert await watched.page.locator("textarea").count() == 0
        hold = watched.page.url.rsplit("/", 1)[1]
        async with gate.client(both, base_url=gate.console) as api:
            answer = await api.post(f"/api/holds/{hold}/approve", json={"reason": "mine"})
            assert answer.status_code == 403
            answer = await api.post("/v1/chat/completions", json={})
            assert answer.status_code == 404  # the console is no gate
        await stranger.page.reload()
        assert await stranger.page.is_visible("text=You are no approver")
        await stranger.page.goto(watched.page.url)
        assert "4711" not in await stranger.page.content()
        other = tokens.mint("ben", (), ["approvers"])
        async with gate.client(other, base_url=gate.console) as api:
            answer = await api.post(f"/api/holds/{hold}/deny", json={"reason": "no"})
            assert answer.json()["hold"]["state"] == "denied"
        with pytest.raises(openai.PermissionDeniedError):
            await asking
    assert standin.seen() == []
    assert await watched.problems() + await stranger.problems() == []


async def test_a_prompt_cannot_act_on_the_page(
    guarded: Callable[..., Gate], tokens: Tokens, browser: Browser
) -> None:
    gate = guarded()
    watched = await Watched.open(browser, gate.console)
    await watched.sign_in(tokens.mint("ann", (), ["approvers"]))
    async with sdk(gate, tokens.mint("<b>mallory", name=XSS)) as client:
        asking = asyncio.create_task(ask(client, f"{XSS}\u202e{XSS}"))
        await watched.page.click("h2 a")
        await watched.page.click("summary")
        assert await watched.page.is_visible("text=onerror=alert(1) >> nth=0")
        assert await watched.page.is_visible("text=[U+202E] >> nth=0")
        assert await watched.problems() == []
        await watched.page.fill("#reason", XSS)
        await watched.page.click("button.deny")
        await watched.page.wait_for_selector("text=You denied")
        with pytest.raises(openai.PermissionDeniedError):
            await asking
    assert await watched.problems() == []


async def test_an_open_page_does_not_keep_the_gate_from_ending(
    guarded: Callable[..., Gate], tokens: Tokens, browser: Browser
) -> None:
    gate = guarded()
    watched = await Watched.open(browser, gate.console)
    async with watched.page.expect_request("**/events"):
        await watched.sign_in(tokens.mint("ann", (), ["approvers"]))
    await watched.page.wait_for_selector("text=Nothing waits for you")
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(gate.stop) == 0
    for word in ("Traceback", "never awaited", "was destroyed"):
        assert word not in gate.output


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pictures(
    guarded: Callable[..., Gate], tokens: Tokens, browser: Browser, tmp_path: Path, scheme: Any
) -> None:
    gate = guarded()
    directory = Path(SCREENS or tmp_path)
    async with (
        sdk(gate, tokens.mint("invoice-agent")) as one,
        sdk(gate, tokens.mint("desk-agent")) as two,
    ):
        asking = [asyncio.create_task(ask(client)) for client in (one, two)]
        ann = tokens.mint("ann", (), ["approvers"])
        for width, height in ((1000, 640), (360, 740)):
            size = {"width": width, "height": height}
            watched = await Watched.open(browser, gate.console, viewport=size, color_scheme=scheme)
            await watched.sign_in(ann)
            await watched.page.wait_for_selector("li:nth-child(2) h2 a")
            queue = directory / f"console-queue-{scheme}-{width}.png"
            await watched.page.screenshot(path=queue)
            await watched.page.click("h2 a")
            await watched.page.wait_for_selector("mark")
            assert await watched.problems() == []
            hold = directory / f"console-hold-{scheme}-{width}.png"
            await watched.page.screenshot(path=hold, full_page=True)
            assert max(path.stat().st_size for path in (queue, hold)) < 200_000
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
