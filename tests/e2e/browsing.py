"""A real browser in front of the console: Debian's Chromium, driven by Playwright.

`Watched` collects what must not happen (dialogs, script errors, requests to others, violations of
the page's own policy); `audit.js` looks for what keeps out who uses a keyboard or a screen reader.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = "/usr/bin/chromium"
SIGNIN = re.compile(r"/signin(\?|$)")
PATIENCE = 10_000  # milliseconds

_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective));
"""

AUDIT = Path(__file__).with_name("audit.js").read_text()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a profile."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page in a context of its own, and what went wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"error {error}"))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    @classmethod
    async def open(cls, browser: Browser, url: str, **settings: Any) -> Watched:
        usual = {"viewport": {"width": 1000, "height": 760}, **settings}
        context = await browser.new_context(**usual)
        context.set_default_timeout(PATIENCE)
        await context.add_init_script(_VIOLATIONS)
        return cls(await context.new_page(), url)

    async def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog {dialog.message}")
        await dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.wrong.append(f"request {request.url}")

    async def problems(self) -> list[str]:
        """All that went wrong, on the page as it is now included."""
        violations: list[str] = await self.page.evaluate("window.violations")
        return self.wrong + violations + await self.page.evaluate(AUDIT)

    async def sign_in(self, token: str, path: str = "/") -> None:
        """With the keyboard alone."""
        await self.page.goto(f"{self.url}{path}")
        await self.page.wait_for_url(SIGNIN)
        await self.page.wait_for_selector("#token:focus")
        await self.page.keyboard.insert_text(token)
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_url(f"{self.url}{path}")

    async def tab_to(self, selector: str, most: int = 30) -> None:
        """Press Tab until the focus is there; whatever gets it on the way shows that it has it."""
        for _ in range(most):
            await self.page.keyboard.press("Tab")
            there, outline = await self.page.evaluate(
                "selector => [document.activeElement.matches(selector),"
                " getComputedStyle(document.activeElement).outlineStyle]",
                selector,
            )
            assert outline != "none", f"the focus cannot be seen before {selector}"
            if there:
                return
        raise AssertionError(f"{selector} cannot be reached with the keyboard")
