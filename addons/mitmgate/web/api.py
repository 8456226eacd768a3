"""The JSON API behind the pages, for scripts and bots of one's own.

It takes `Authorization: Bearer TOKEN`, or a session with its CSRF token in X-CSRF-Token. Errors are
{"error": {"code": ..., "message": ...}}; addons/README.md has the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, get_args

from mitmgate.core.holds import State, Verdict
from mitmgate.web import showing
from mitmgate.web.handler import Handler
from mitmgate.web.problem import Problem
from mitmgate.web.showing import ShownHold, ShownPassage


class Endpoint(Handler):
    """JSON in, JSON out."""

    api = True

    def answer(self, value: dict[str, Any]) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(value))

    def write_problem(self, problem: Problem) -> None:
        self.answer({"error": {"code": problem.code, "message": problem.sentence}})

    def approvers_only(self) -> None:
        if not showing.decides_anything(self.approvals, self.me.principal):
            raise Problem(403, "not_approver", "You are no approver of anything here.")


class Me(Endpoint):
    """GET /api/me: who is asking, and the CSRF token of their session."""

    def get(self) -> None:
        principal = self.me.principal
        self.answer(
            {
                "name": principal.name,
                "display": self.me.called,
                "expires": principal.expires,
                "approver": showing.decides_anything(self.approvals, principal),
                "signed_in_by": self.me.via,
                "csrf": self.me.csrf or None,
            }
        )


class Holds(Endpoint):
    """GET /api/holds?state=pending&state=approved: the living oldest first, the ended newest."""

    touches = False  # a page may poll it

    async def get(self) -> None:
        self.approvers_only()
        states = self.get_query_arguments("state") or ["pending"]
        if unknown := set(states) - set(get_args(State)):
            sentence = f"There is no state {sorted(unknown)[0][:40]!r}."
            raise Problem(400, "state_unknown", sentence)
        found = await showing.listed(self.web.desk, self.me.principal, states)  # type: ignore[arg-type]
        self.answer({"holds": [hold_as_json(shown) for shown in found]})


class OneHold(Endpoint):
    """GET /api/holds/ID: one hold with its prompt."""

    touches = False

    async def get(self, id: str) -> None:
        shown = await showing.one(self.web.desk, id, self.me.principal)
        self.answer({"hold": hold_as_json(shown, prompt=True)})


class Decide(Endpoint):
    """POST /api/holds/ID/approve or /deny with {"reason": "..."}."""

    async def post(self, id: str, verdict: Verdict) -> None:
        reason = self._given()
        before = await showing.one(self.web.desk, id, self.me.principal)
        await self.approvals.decide(before.hold.id, self.me.principal, verdict, reason, "console")
        after = await showing.one(self.web.desk, id, self.me.principal)
        self.answer({"hold": hold_as_json(after)})

    def _given(self) -> str:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "not_json", "Send Content-Type: application/json.")
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise Problem(400, "not_json", "The body is not JSON.") from None
        reason = body.get("reason") if isinstance(body, dict) else None
        if not isinstance(reason, str):
            raise Problem(422, "hold_reason", 'A decision needs a reason: {"reason": "..."}.')
        return reason


def hold_as_json(shown: ShownHold, *, prompt: bool = False) -> dict[str, Any]:
    """A hold as the API gives it; texts are masked as on the page. Times are Unix seconds."""
    hold = shown.hold
    value: dict[str, Any] = {
        "id": hold.id,
        "state": hold.state,
        "own": shown.standing == "own",
        "who": {"name": hold.principal, "display": hold.display or hold.subject},
        "operation": hold.operation,
        "model": hold.model,
        "rules": [{"id": why.rule, "title": why.title, "message": why.message} for why in hold.why],
        "excerpt": "".join(piece.text for piece in shown.excerpt),
        "masked": shown.masked,
        "exchange": hold.exchange,
        "created": hold.created,
        "expires": hold.expires,
        "waiting": hold.waiting,
        "quorum": hold.quorum,
        "approvals": hold.approvals,
        "decisions": [
            {
                "who": {
                    "name": f"{decision.issuer}:{decision.subject}",
                    "display": decision.display or decision.subject,
                },
                "verdict": decision.verdict,
                "reason": decision.reason,
                "channel": decision.channel,
                "time": decision.time,
            }
            for decision in hold.decisions
        ],
    }
    if prompt:
        value["prompt"] = [_passage(passage) for passage in shown.passages]
    return value


def _passage(passage: ShownPassage) -> dict[str, Any]:
    return {
        "where": passage.where,
        "address": passage.address,
        "text": passage.text,
        "marks": [asdict(mark) for mark in passage.marks],
        "masked": passage.masked,
    }
