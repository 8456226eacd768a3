"""Who is asking: a bearer token (API), the header of a trusted proxy, or a session.

All three end in a token that is verified on each request. Nothing else that a request says about
its sender is believed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mitmgate.core import tokens
from mitmgate.core.principal import Principal
from mitmgate.core.tokens import Presented, TokenError
from mitmgate.web.problem import Problem

if TYPE_CHECKING:
    from mitmgate.web.handler import Handler

logger = logging.getLogger(__name__)

COOKIE = "gate-session"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody verified; `csrf` is what their forms have to carry, empty for a bearer."""

    principal: Principal
    via: Literal["bearer", "assertion", "session"]
    csrf: str = ""

    @property
    def called(self) -> str:
        """As people read it."""
        return self.principal.display or self.principal.subject


async def find(page: Handler) -> Caller | None:
    """Who is asking; None if nothing says so. Raises `Problem` for what is not accepted."""
    name = assertion_header(page)
    headers = page.request.headers
    if name and (values := headers.get_list(name)):
        return await _asserted(page, values)
    # A browser adds no Authorization by itself, but a proxy may, so only the API takes it.
    if page.api and "authorization" in headers:
        return await _bearer(page)
    id = page.get_cookie(page.cookie_name(COOKIE))
    if not id or (session := page.web.sessions.find(id, touch=page.touches)) is None:
        return None
    try:
        principal = await verify(page, Presented(session.token))
    except Problem as e:
        if e.status_code == 401:
            page.web.sessions.end(id)
        raise
    return Caller(principal, "session", session.csrf)


def assertion_header(page: Handler) -> str:
    """The header in which a trusted proxy says who is asking; empty where there is none."""
    approvals = page.web.desk.approvals
    return (approvals.rules.console.assertion_header or "") if approvals else ""


async def verify(page: Handler, presented: Presented) -> Principal:
    """The principal of a token. Raises `Problem`; the log has what exactly was wrong."""
    if page.web.desk.verify is None:
        raise Problem(503, "no_identity", "This gate runs without the identity addon.")
    try:
        return await page.web.desk.verify(presented)
    except TokenError as e:
        logger.info("console: %s", e.diagnostics())
        headers = {"WWW-Authenticate": f'Bearer error="{e.public}"'} if e.status == 401 else {}
        raise Problem(e.status, e.public, e.description, headers) from None


async def attempt(page: Handler, presented: Presented) -> Principal:
    """`verify` for somebody who may be guessing. Raises 429 for too many failures."""
    address = str(page.request.remote_ip)
    if wait := page.web.attempts.wait(address):
        sentence = f"Too many tokens were not accepted: try again in {wait} seconds."
        raise Problem(429, "too_many_attempts", sentence, {"Retry-After": str(wait)})
    try:
        return await verify(page, presented)
    except Problem as e:
        if e.status_code < 500:
            page.web.attempts.failed(address)
        raise


async def _asserted(page: Handler, values: list[str]) -> Caller:
    if len(values) > 1:  # the proxy has added its own to one that it should have taken off
        raise Problem(401, "invalid_token", "More than one assertion about who is asking.")
    scheme, _, token = values[0].rpartition(" ")
    if scheme.lower() not in ("", "bearer"):
        raise Problem(401, "invalid_token", "The assertion about who is asking is no token.")
    principal = await verify(page, Presented(token))
    # A proxy adds it to every request of the browser, as a cookie would be.
    return Caller(principal, "assertion", page.web.signed("assertion", principal.name))


async def _bearer(page: Handler) -> Caller:
    carried = [
        (name, value)
        for name, value in page.request.headers.get_all()
        if name.lower() in ("authorization", "dpop")
    ]
    try:
        presented = tokens.presented(
            carried, method=page.request.method or "", target=page.request.uri or ""
        )
    except TokenError as e:
        raise Problem(e.status, e.public, e.description, {"WWW-Authenticate": "Bearer"}) from None
    return Caller(await attempt(page, presented), "bearer")
