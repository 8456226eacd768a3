"""The approval state machine as values: a `Hold` and the steps from one state to the next.

    pending -> approved -> consumed        pending, approved -> denied        both -> expired

Pure: nothing here reads a clock or a file; `core.holds.store` makes the steps durable and atomic.
Whether somebody may decide at all (`approvers` in approval.yaml) is checked by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from mitmgate.core.holds.errors import (
    HoldConsumed,
    HoldDenied,
    HoldExpired,
    HoldNotYours,
    HoldPending,
    ReasonRefused,
    SelfApproval,
)

State = Literal["pending", "approved", "denied", "expired", "consumed"]
Verdict = Literal["approve", "deny"]

MAX_REASON = 2000  # characters


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person said about one hold, through which channel, when (Unix seconds)."""

    issuer: str
    subject: str
    verdict: Verdict
    reason: str
    channel: str
    time: float

    @property
    def who(self) -> tuple[str, str]:
        """The person: two decisions with the same issuer and subject are one person's."""
        return self.issuer, self.subject


@dataclass(frozen=True, slots=True)
class Hold:
    """One request that waits, or waited, for people.

    `principal` is the requester's `Principal.name`, `issuer` and `subject` its parts; `rules` the
    ids that asked for the hold and `message` what the operator says about it; `excerpt` the start
    of what was asked; `exchange` the exchange that opened it. `created` and `expires` are Unix
    seconds. `waiting` is True while a connection waits for the answer: without one, an approval
    runs nothing by itself, it lets a retry through.
    """

    id: str
    digest: str
    principal: str
    issuer: str
    subject: str
    operation: str
    model: str
    rules: tuple[str, ...]
    message: str
    excerpt: str
    exchange: str
    created: float
    expires: float
    quorum: int
    state: State = "pending"
    decisions: tuple[Decision, ...] = ()
    waiting: bool = False

    @property
    def approvals(self) -> int:
        """How many distinct people have approved."""
        return len({d.who for d in self.decisions if d.verdict == "approve"})


def at(hold: Hold, now: float) -> Hold:
    """`hold` as it is at `now`: one that is over its time is expired, whether swept or not."""
    if hold.state in ("pending", "approved") and hold.expires <= now:
        return replace(hold, state="expired")
    return hold


def decided(hold: Hold, decision: Decision) -> Hold:
    """`hold` after `decision`.

    The same person saying the same thing again changes nothing. A denial also takes back an
    approval that has not been used yet. Raises `ReasonRefused`, `SelfApproval`, `HoldDenied`,
    `HoldExpired` or `HoldConsumed`.
    """
    if not decision.reason.strip():
        raise ReasonRefused("a decision needs a reason")
    if len(decision.reason) > MAX_REASON:
        raise ReasonRefused(f"a reason has at most {MAX_REASON} characters")
    hold = at(hold, decision.time)
    if hold.state not in ("pending", "approved"):
        _refuse(hold)
    if decision.verdict == "approve" and decision.who == (hold.issuer, hold.subject):
        raise SelfApproval(f"{hold.id} is your own request; somebody else has to approve it")
    if any((d.who, d.verdict) == (decision.who, decision.verdict) for d in hold.decisions):
        return hold
    hold = replace(hold, decisions=(*hold.decisions, decision))
    if decision.verdict == "deny":
        return replace(hold, state="denied")
    return replace(hold, state="approved") if hold.approvals >= hold.quorum else hold


def consumed(hold: Hold, principal: str, now: float) -> Hold:
    """`hold` after its one use. Raises the `HoldError` that says why it cannot be used."""
    hold = at(hold, now)
    if hold.principal != principal:
        raise HoldNotYours(f"{hold.id} is the request of another caller")
    if hold.state != "approved":
        _refuse(hold)
    return replace(hold, state="consumed")


def _refuse(hold: Hold) -> NoReturn:
    match hold.state:
        case "denied":
            last = hold.decisions[-1]
            raise HoldDenied(f"{hold.id} was denied by {last.issuer}:{last.subject}: {last.reason}")
        case "expired":
            raise HoldExpired(f"{hold.id} has expired; the request has to be made again")
        case "consumed":
            raise HoldConsumed(f"{hold.id} has been used; an approval lets one request through")
        case _:
            raise HoldPending(f"{hold.id} has {hold.approvals} of {hold.quorum} approvals")
