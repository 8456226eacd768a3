"""A console on a port of its own, over a real hold store, with made-up tokens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tornado.httpserver
import tornado.netutil
import yaml

from mitmgate.approvals import Approvals
from mitmgate.console import BODY_LIMIT
from mitmgate.core.holds import ApprovalFile, Hold, HoldStore, Mark, Passage, Why
from mitmgate.core.principal import Principal
from mitmgate.core.rules import load
from mitmgate.core.tokens import Presented, TokenError
from mitmgate.desk import Desk
from mitmgate.web import Web

RULES = {
    "schema": 1,
    "approvers": {"who": {"groups": ["approvers"]}},
    "rules": [
        {"id": "wire-transfer", "title": "Transfer of money", "action": "hold", "match": "wire",
         "tests": {"match": ["wire"], "pass": ["x"]}},
        {"id": "weights", "title": "Weights", "action": "hold", "match": "weights",
         "approvers": {"who": {"groups": ["model-owners"]}},
         "tests": {"match": ["weights"], "pass": ["x"]}},
    ],
}  # fmt: skip
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


def person(subject: str, *groups: str, **more: Any) -> Principal:
    return Principal(
        issuer="idp", subject=subject, groups=frozenset(groups), expires=4e9, claims={}, **more
    )


class Site:
    """The console, and all that its desk knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = HoldStore(directory / "holds.sqlite")
        self.write_rules()
        self.desk = Desk()
        self.desk.approvals = self.approvals = Approvals(self.store, lambda: self.rules)
        self.desk.verify = self._verify
        self.presented: list[Presented] = []
        self.people = {
            "tok-ann": person("ann", "approvers", display="Ann Approver"),
            "tok-ben": person("ben", "approvers"),
            "tok-eve": person("eve", "staff"),
            "tok-olga": person("olga", "model-owners"),
        }
        self.refused: dict[str, TokenError] = {}
        self.web = Web(self.desk)
        self.server = tornado.httpserver.HTTPServer(
            self.web.application([]), max_body_size=BODY_LIMIT
        )
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.clients: list[httpx.AsyncClient] = []

    def write_rules(self, **changes: Any) -> None:
        path = self.directory / "approval.yaml"
        path.write_text(yaml.safe_dump({**RULES, **changes}))
        self.rules = load(path, ApprovalFile).file

    async def _verify(self, presented: Presented) -> Principal:
        self.presented.append(presented)
        if presented.token in self.refused:
            raise self.refused[presented.token]
        if presented.token not in self.people:
            raise TokenError("it is made up")
        return self.people[presented.token]

    def hold(
        self,
        text: str = "please wire the money",
        *,
        who: Principal | None = None,
        rule: str = "wire-transfer",
        passages: list[Passage] | None = None,
        quorum: int = 1,
        ttl: float = 600,
        **more: Any,
    ) -> Hold:
        who = who or person("agent-7", display="The Agent")
        if passages is None:
            at = text.find("wire")
            marks = (Mark(at, at + 4, rule),) if at >= 0 else ()
            passages = [
                Passage("system", "messages[0].content", "You are a bank."),
                Passage("prompt", "messages[1].content", text, marks),
            ]
        values: dict[str, Any] = {
            "operation": "chat",
            "model": "stand-in",
            "rules": [rule],
            "message": "Money needs a second look.",
            "excerpt": f"messages[1].content: {text}",
            "exchange": "x-1",
            "why": [Why(rule, "Transfer of money", "Money needs a second look.")],
            **more,
        }
        number = len(self.store.list(("pending", "approved", "denied", "expired", "consumed")))
        hold, _ = self.store.open(
            f"digest-{number}", who, ttl=ttl, quorum=quorum, prompt=passages, **values
        )
        return hold

    def client(self, token: str = "", **settings: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers.update(settings.pop("headers", {}))
        client = httpx.AsyncClient(
            base_url=self.url, headers=headers, trust_env=False, timeout=10, **settings
        )
        self.clients.append(client)
        return client

    async def signed_in(self, who: str = "tok-ann") -> Browser:
        browser = Browser(self.client(follow_redirects=True))
        answer = await browser.sign_in(who)
        assert answer.status_code == 200, answer.text
        return browser

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()
        self.web.close()
        self.server.stop()
        await self.server.close_all_connections()
        self.approvals.close()


class Browser:
    """What a browser without scripts does: follows forms and keeps cookies."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **settings: Any) -> httpx.Response:
        return await self.client.get(path, **settings)

    async def submit(self, page: str, action: str, **fields: str) -> httpx.Response:
        """Send the form on `page` with its hidden token."""
        found = CSRF.findall((await self.client.get(page)).text)
        return await self.client.post(action, data={"csrf": found[-1], **fields})

    async def sign_in(self, token: str, **fields: str) -> httpx.Response:
        return await self.submit("/signin", "/signin", token=token, **fields)

    async def decide(self, hold: str, verdict: str, reason: str) -> httpx.Response:
        return await self.submit(f"/holds/{hold}", f"/holds/{hold}/{verdict}", reason=reason)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()
