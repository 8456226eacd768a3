"""The pages that approvers see: what waits, one request and the decision about it, history.

All of it works without a script; `static/console.js` only keeps an open page up to date.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote

from mitmgate.core.holds import Hold, HoldError, Verdict
from mitmgate.core.holds.hold import MAX_REASON
from mitmgate.web import caller, showing
from mitmgate.web.handler import Handler
from mitmgate.web.problem import Problem, from_error
from mitmgate.web.text import LONG, visible


class Page(Handler):
    """An HTML page. Whoever is not signed in is led to the form."""

    section: ClassVar[str] = ""  # which entry of the navigation is this one

    def get_template_namespace(self) -> dict[str, Any]:
        return {
            **super().get_template_namespace(),
            "caller": self.caller,
            "section": self.section,
            "now": time.time(),
            "by_proxy": self.caller is not None and self.caller.via == "assertion",
            "csrf": self.caller.csrf if self.caller else "",
            "visible": visible,
            "left": left,
            "moment": moment,
            "MAX_REASON": MAX_REASON,
            "LONG": LONG,
            "SHOWN": showing.SHOWN,
        }

    def write_problem(self, problem: Problem) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        if problem.status_code != 401 or self.request.method != "GET":
            self.render("problem.html", problem=problem)
        elif self.request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link in a message: the browser keeps a Strict cookie back until we ask ourselves.
            self.set_status(200)
            self.render("continue.html", here=self.request.path)
        elif caller.assertion_header(self) in self.request.headers:
            self.render("problem.html", problem=problem)  # the form would not help
        else:
            self.redirect(f"/signin?next={quote(self.request.path)}", status=303)


class Queue(Page):
    """What waits for the approver, oldest first."""

    section = "queue"

    async def get(self) -> None:
        shown = await showing.listed(self.web.desk, self.me.principal, ("pending",))
        self.render(
            "queue.html",
            shown=shown,
            approver=showing.decides_anything(self.approvals, self.me.principal),
            done=await self._done(),
        )

    async def _done(self) -> Hold | None:
        """The hold that the approver has just decided."""
        try:
            shown = await showing.one(
                self.web.desk, self.get_query_argument("done", ""), self.me.principal
            )
        except (HoldError, Problem):
            return None
        last = shown.hold.decisions[-1] if shown.hold.decisions else None
        me = (self.me.principal.issuer, self.me.principal.subject)
        return shown.hold if last and last.who == me else None


class QueueList(Page):
    """The list alone, for the script."""

    touches = False

    async def get(self) -> None:
        shown = await showing.listed(self.web.desk, self.me.principal, ("pending",))
        approver = showing.decides_anything(self.approvals, self.me.principal)
        self.render("queue_list.html", shown=shown, approver=approver)

    def write_problem(self, problem: Problem) -> None:
        Handler.write_problem(self, problem)


class History(Page):
    """What was decided, newest first, and what ended without a decision."""

    section = "history"

    async def get(self) -> None:
        approved = await showing.listed(self.web.desk, self.me.principal, ("approved",))
        ended = await showing.listed(self.web.desk, self.me.principal, showing.ENDED)
        self.render("history.html", approved=approved, ended=ended)


class OneHold(Page):
    """One request with all that is known of it."""

    async def get(self, id: str) -> None:
        await self.show(id)

    async def show(self, id: str, error: str = "", reason: str = "") -> None:
        """The page; `error` is what was wrong with the form and `reason` what stood in it."""
        shown = await showing.one(self.web.desk, id, self.me.principal)
        self.render("hold.html", shown=shown, hold=shown.hold, error=error, reason=reason)


class Decide(OneHold):
    """What the form of a hold's page sends."""

    def get(self, id: str, verdict: str) -> None:  # type: ignore[override]
        self.redirect(f"/holds/{id}", status=303)

    async def post(self, id: str, verdict: Verdict) -> None:
        reason = self.get_body_argument("reason", "")
        # First of all whether they may know of it.
        shown = await showing.one(self.web.desk, id, self.me.principal)
        try:
            await self.approvals.decide(
                shown.hold.id, self.me.principal, verdict, reason, "console"
            )
        except HoldError as e:
            problem = from_error(e)
            assert problem is not None  # it is for every HoldError
            self.set_status(problem.status_code)
            await self.show(id, problem.sentence, reason)
        else:
            self.redirect(f"/?done={quote(shown.hold.id)}", status=303)


def left(hold: Hold, now: float) -> str:
    """How much time there is to decide, for people."""
    seconds = max(0, int(hold.expires - now))
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


def moment(seconds: float) -> str:
    """A time of Unix seconds, as HTML's `datetime` has it and people can read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
