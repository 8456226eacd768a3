"""The pages in a real browser: live, by keyboard alone, on a small screen, without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser

from browsing import SIGNIN, Watched, chromium
from mitmgate.core.holds import Mark, Passage
from mitmgate.core.principal import Principal
from mitmgate.core.tokens import TokenError

pytestmark = pytest.mark.browser

XSS = "<img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_a_new_request_appears_by_itself_and_is_announced(
    site: Any, browser: Browser
) -> None:
    first = site.hold("wire 1")
    watched = await Watched.open(browser, site.url)
    page = watched.page
    await watched.sign_in("tok-ann")
    await page.evaluate("window.same = true")
    await watched.tab_to(f"#{first.id} a")
    second = site.hold("wire 2")
    await page.wait_for_selector(f"#{second.id}")
    assert await page.locator("#queue li").evaluate_all("all => all.map(item => item.id)") == [
        first.id,
        second.id,
    ]
    assert "New: Transfer of money" in (await page.text_content("#announce") or "")
    assert (await page.title()).startswith("(2) ")
    # The focus stays where it was.
    assert await page.evaluate(f"document.activeElement.matches('#{first.id} a')")
    site.store.decide(second.id, site.people["tok-ben"], "deny", "no", "test")
    await page.wait_for_selector(f"#{second.id}", state="detached")
    assert "One request has gone" in (await page.text_content("#announce") or "")
    site.store.decide(first.id, site.people["tok-ben"], "deny", "no", "test")
    await page.wait_for_selector("text=Nothing waits for you")
    assert await page.evaluate("document.activeElement.id") == "main"
    assert await page.evaluate("window.same")  # nothing was loaded again
    assert await watched.problems() == []


async def test_the_keyboard_alone_decides(site: Any, browser: Browser) -> None:
    hold = site.hold()
    watched = await Watched.open(browser, site.url)
    page = watched.page
    await watched.sign_in("tok-ann")
    await watched.tab_to("h2 a")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/holds/{hold.id}")
    await watched.tab_to("summary")
    await page.keyboard.press("Space")
    assert await page.is_visible("text=You are a bank.")
    await watched.tab_to("button.approve")
    await page.keyboard.press("Enter")  # without a reason the browser says so
    assert await page.evaluate("document.activeElement.id") == "reason"
    await page.keyboard.type("Bob is fine")
    await watched.tab_to("button.approve")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=You approved")
    assert await page.evaluate("document.activeElement.id") == "done"
    assert site.store.get(hold.id).decisions[0].reason == "Bob is fine"
    assert await watched.problems() == []


async def test_what_is_written_stays_when_somebody_else_decides(
    site: Any, browser: Browser
) -> None:
    hold = site.hold()
    watched = await Watched.open(browser, site.url)
    page = watched.page
    await watched.sign_in("tok-ann", f"/holds/{hold.id}")
    await page.fill("#reason", "half a sent")
    site.store.decide(hold.id, site.people["tok-ben"], "deny", "no", "test")
    await page.wait_for_selector("text=This request is denied now")
    assert await page.input_value("#reason") == "half a sent"
    await page.click("button.approve")
    await page.wait_for_selector("[role=alert]")
    assert await watched.problems() == []


async def test_a_revoked_token_shows_the_form(site: Any, browser: Browser) -> None:
    site.hold()
    watched = await Watched.open(browser, site.url)
    await watched.sign_in("tok-ann")
    site.refused["tok-ann"] = TokenError("revoked")
    await watched.page.wait_for_url(SIGNIN)
    assert "Transfer of money" not in await watched.page.content()


async def test_nothing_of_a_request_is_run(site: Any, browser: Browser) -> None:
    evil = Principal(issuer="idp", subject="m", display=XSS)
    long = f"wire {XSS}{'x' * 2000}"
    hold = site.hold(
        f"wire {XSS}",
        who=evil,
        model=XSS,
        passages=[
            Passage("prompt", f"messages[0].{XSS}", long, (Mark(0, 9, "wire-transfer"),)),
            Passage("prompt", "messages[1]", f"</div></details>{XSS}"),
        ],
    )
    watched = await Watched.open(browser, site.url)
    page = watched.page
    await watched.sign_in("tok-ann")
    another = site.hold(f"wire 2 {XSS}", who=evil, model=XSS)  # this one through the script
    await page.wait_for_selector(f"#{another.id}")
    assert await watched.problems() == []
    await page.goto(f"{site.url}/holds/{hold.id}")
    for summary in await page.query_selector_all("summary"):
        await summary.click()
    await page.fill("#reason", XSS)
    await page.click("button.deny")
    await page.wait_for_selector("text=You denied")
    await page.goto(f"{site.url}/history")
    assert await page.locator("main img, main script, main svg").count() == 0
    assert await watched.problems() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
async def test_every_page_can_be_read_by_everybody(
    site: Any, browser: Browser, scheme: Any, width: int
) -> None:
    wide = "W" * 300
    hold = site.hold(f"wire {wide}\u202e{wide}", model=wide, quorum=2)
    own = site.hold("wire", who=site.people["tok-ann"])
    denied = site.hold("wire 3")
    site.store.decide(denied.id, site.people["tok-ben"], "deny", wide, "test")
    watched = await Watched.open(
        browser, site.url, color_scheme=scheme, viewport={"width": width, "height": 740}
    )
    page = watched.page
    await page.goto(f"{site.url}/signin")
    assert await watched.problems() == []
    await page.fill("#token", "wrong")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("[role=alert]")
    assert await watched.problems() == []
    await watched.sign_in("tok-ann")
    shown = [f"/holds/{id}" for id in (hold.id, own.id, denied.id, "h-222222")]
    for path in ("/", "/history", *shown):
        await page.goto(f"{site.url}{path}")
        for summary in await page.query_selector_all("summary"):
            await summary.click()
        assert await watched.problems() == [], path
    site.people["tok-ann"] = Principal(issuer="idp", subject=wide, expires=4e9)
    await page.goto(f"{site.url}/")
    assert await page.is_visible("text=You are no approver")
    assert await watched.problems() == []


async def test_without_scripts_everything_works(site: Any, browser: Browser) -> None:
    hold = site.hold()
    watched = await Watched.open(browser, site.url, java_script_enabled=False)
    page = watched.page
    await page.goto(f"{site.url}/holds/{hold.id}")
    await page.fill("#token", "tok-ann")
    await page.click("button")
    await page.fill("#reason", "fine")
    await page.click("button.approve")
    await page.wait_for_selector("text=You approved")
    assert site.store.get(hold.id).state == "approved"
    await page.click("text=Sign out")
    await page.wait_for_url(SIGNIN)


async def test_a_link_in_a_message_finds_the_session(site: Any, browser: Browser) -> None:
    hold = site.hold()
    watched = await Watched.open(browser, site.url)
    await watched.sign_in("tok-ann")
    elsewhere = await watched.page.context.new_page()
    other = site.url.replace("127.0.0.1", "localhost")  # another site, to a browser
    await elsewhere.goto(f"{other}/signin")
    await elsewhere.evaluate(
        "url => { document.querySelector('.brand').href = url; }",
        f"{site.url}/holds/{hold.id}",
    )
    await elsewhere.click(".brand")
    await elsewhere.wait_for_selector("#reason")
