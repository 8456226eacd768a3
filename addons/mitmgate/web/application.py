"""Which address leads where, and what all pages share."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Any

import tornado.web

from mitmgate.desk import Desk
from mitmgate.web import api, events, handler, pages, signin
from mitmgate.web.attempts import Attempts
from mitmgate.web.sessions import Sessions

HERE = Path(__file__).parent
HOLD = "/holds/([^/]+)"


class Web:
    """What the pages share: sessions, attempts, open event streams. Ends with `close`."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.sessions = Sessions()
        self.attempts = Attempts()
        self.streams = events.Streams(desk)
        self._secret = secrets.token_bytes(32)

    def signed(self, purpose: str, *parts: str) -> str:
        """A token that only this process can make, for CSRF where there is no session."""
        # Every part is led by its length: no two lists of parts give the same message.
        message = "".join(f"{len(part)}:{part}" for part in (purpose, *parts))
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()

    def application(self, routes: list[Any]) -> tornado.web.Application:
        """The application; `routes` are more of Tornado's, which go before."""
        shared = {"web": self}
        static = {"path": str(HERE / "static"), **shared}
        return tornado.web.Application(
            [
                *routes,
                ("/", pages.Queue, shared),
                ("/queue", pages.QueueList, shared),
                ("/history", pages.History, shared),
                (HOLD, pages.OneHold, shared),
                (f"{HOLD}/(approve|deny)", pages.Decide, shared),
                ("/signin", signin.SignIn, shared),
                ("/signout", signin.SignOut, shared),
                ("/events", events.Events, shared),
                ("/api/me", api.Me, shared),
                ("/api/holds", api.Holds, shared),
                (f"/api{HOLD}", api.OneHold, shared),
                (f"/api{HOLD}/(approve|deny)", api.Decide, shared),
                ("/static/(.*)", handler.Static, static),
            ],
            default_handler_class=handler.Nowhere,
            default_handler_args=shared,
            template_path=str(HERE / "templates"),
            log_function=lambda handler: None,
        )

    def close(self) -> None:
        """End the open streams and forget everybody who is signed in."""
        self.streams.close()
        self.sessions.clear()
