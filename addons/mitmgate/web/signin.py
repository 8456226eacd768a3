"""Signing in with one's own token, and out.

The token goes into the session and nowhere else: no log, no page, no file. The form has a CSRF
token of its own, so that nobody can be signed in as somebody else without noticing.
"""

from __future__ import annotations

import re
import secrets

from mitmgate.core.tokens import Presented
from mitmgate.web import caller
from mitmgate.web.pages import Page
from mitmgate.web.problem import Problem

COOKIE = "gate-signin"
_OWN = re.compile(r"/(?:history|holds/h-[a-z0-9]{1,20})?")


class SignIn(Page):
    """The form, and what it sends."""

    open = True

    def get(self) -> None:
        if self.caller:
            self.redirect("/")
        else:
            self.show()

    async def post(self) -> None:
        try:
            self.check_form()
            # A token that was copied from a terminal comes with line breaks.
            token = "".join(self.get_body_argument("token", "").split())
            if not token:
                raise Problem(422, "token_missing", "Paste your token first.")
            if not (token.isascii() and token.isprintable()):
                raise Problem(401, "invalid_token", "This is no token.")
            principal = await caller.attempt(self, Presented(token))
        except Problem as e:
            self.set_status(e.status_code)
            if e.status_code == 429:
                self.set_header("Retry-After", e.headers["Retry-After"])
            self.show(error=e.sentence)
            return
        if old := self.get_cookie(self.cookie_name(caller.COOKIE)):
            self.web.sessions.end(old)
        id, _ = self.web.sessions.begin(token, principal.expires, principal.name)
        self.keep_cookie(caller.COOKIE, id)
        self.drop_cookie(COOKIE)
        self.redirect(_own(self.get_body_argument("next", "/")), status=303)

    def check_form(self) -> None:
        """Whether the form was made for this browser."""
        if not self._nonce():
            raise Problem(403, "csrf", "The browser did not send its cookie: try once more.")
        self.check_csrf(self.web.signed("signin", self._nonce()))

    def show(self, error: str = "", after: str = "") -> None:
        """The form; `after` is the page that was asked for."""
        nonce = self._nonce() or secrets.token_urlsafe(32)
        self.keep_cookie(COOKIE, nonce)
        self.render(
            "signin.html",
            csrf=self.web.signed("signin", nonce),
            error=error,
            after=_own(after or self.get_argument("next", "/")),
        )

    def _nonce(self) -> str:
        return self.get_cookie(self.cookie_name(COOKIE)) or ""


class SignOut(Page):
    """Ends the session."""

    def post(self) -> None:
        if id := self.get_cookie(self.cookie_name(caller.COOKIE)):
            self.web.sessions.end(id)
        self.drop_cookie(caller.COOKIE)
        self.redirect("/signin", status=303)


def _own(path: str) -> str:
    """`path` if it is one of our pages: nobody is led elsewhere by signing in."""
    return path if _OWN.fullmatch(path) else "/"
