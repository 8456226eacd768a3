"""The approval state machine as values: a `Hold` and the steps from one state to the next.

    pending -> approved -> consumed        pending, approved -> denied        both -> expired

Pure: nothing here reads a clock or a file; `core.holds.store` makes the steps durable and atomic.
Whether somebody may decide at all is for `core.holds.approvers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from mitmgate.core.holds.errors import (
    AlreadyApproved,
    HoldConsumed,
    HoldDenied,
    HoldExpired,
    HoldNotYours,
    HoldPending,
    ReasonRefused,
    SelfApproval,
)
from mitmgate.core.holds.person import are_one
from mitmgate.core.holds.prompt import Passage

State = Literal["pending", "approved", "denied", "expired", "consumed"]
Verdict = Literal["approve", "deny"]

MAX_REASON = 2000  # characters


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person said about one hold, through which channel, when (Unix seconds).

    `display` is what the person is called where the subject says little; `person` are the words by
    which they are recognised under another subject (`core.holds.person`).
    """

    issuer: str
    subject: str
    verdict: Verdict
    reason: str
    channel: str
    time: float
    display: str = ""
    person: tuple[str, ...] = ()

    @property
    def who(self) -> tuple[str, str]:
        """The issuer and the subject."""
        return self.issuer, self.subject


@dataclass(frozen=True, slots=True)
class Why:
    """One rule that asked for a hold: its id, what it is about, what the operator says of it."""

    rule: str
    title: str
    message: str


@dataclass(frozen=True, slots=True)
class Hold:
    """One request that waits, or waited, for people.

    `principal` is the requester's `Principal.name`, `issuer` and `subject` its parts, `display` the
    name for people, `person` the words by which they are recognised; `rules` the ids that asked for
    the hold, `why` the same with their words, `message` what the caller is told; `excerpt` the
    start of what was found; `exchange` the exchange that opened it. `created` and `expires` are
    Unix seconds. `waiting` is True while a connection waits for the answer: without one, an
    approval runs nothing by itself, it lets a retry through. `prompt` is there while the hold is
    pending or approved, and only where one hold is asked for by its id.
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
    display: str = ""
    person: tuple[str, ...] = ()
    why: tuple[Why, ...] = ()
    decisions: tuple[Decision, ...] = ()
    waiting: bool = False
    prompt: tuple[Passage, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether anything can still become of it."""
        return self.state in ("pending", "approved")

    @property
    def approvals(self) -> int:
        """How many distinct people have approved."""
        people: list[Decision] = []
        for decision in self.decisions:
            if decision.verdict == "approve" and not _is_by_one_of(decision, people):
                people.append(decision)
        return len(people)


def at(hold: Hold, now: float) -> Hold:
    """`hold` as it is at `now`: one that is over its time is expired, whether swept or not."""
    return _ended(hold, "expired") if hold.alive and hold.expires <= now else hold


def decided(hold: Hold, decision: Decision) -> Hold:
    """`hold` after `decision`.

    A denial also takes back an approval that has not been used yet, and a requester may deny.
    Raises `ReasonRefused`, `SelfApproval`, `AlreadyApproved`, `HoldDenied`, `HoldExpired` or
    `HoldConsumed`.
    """
    if not decision.reason.strip():
        raise ReasonRefused("a decision needs a reason")
    if len(decision.reason) > MAX_REASON:
        raise ReasonRefused(f"a reason has at most {MAX_REASON} characters")
    hold = at(hold, decision.time)
    if not hold.alive:
        _refuse(hold)
    with_it = replace(hold, decisions=(*hold.decisions, decision))
    if decision.verdict == "deny":
        return _ended(with_it, "denied")
    if is_of(hold, decision.who, decision.person):
        raise SelfApproval(f"{hold.id} is your own request; somebody else has to approve it")
    if _is_by_one_of(decision, hold.decisions):
        count = f"{hold.approvals} of {hold.quorum} approvals"
        raise AlreadyApproved(f"you have approved {hold.id} before; it has {count}")
    if hold.state == "approved":
        last = hold.decisions[-1]
        raise AlreadyApproved(f"{hold.id} was approved by {last.issuer}:{last.subject} already")
    return replace(with_it, state="approved") if with_it.approvals >= hold.quorum else with_it


def is_of(hold: Hold, who: tuple[str, str], person: Iterable[str]) -> bool:
    """Whether `hold` is the request of `who` (issuer and subject) or of the same `person`."""
    return who == (hold.issuer, hold.subject) or are_one(hold.person, person)


def consumed(hold: Hold, principal: str, now: float) -> Hold:
    """`hold` after its one use. Raises the `HoldError` that says why it cannot be used."""
    hold = at(hold, now)
    if hold.principal != principal:
        raise HoldNotYours(f"{hold.id} is the request of another caller")
    if hold.state != "approved":
        _refuse(hold)
    return _ended(hold, "consumed")


def _ended(hold: Hold, state: State) -> Hold:
    return replace(hold, state=state, prompt=())


def _is_by_one_of(decision: Decision, others: Iterable[Decision]) -> bool:
    return any(
        decision.who == other.who or are_one(decision.person, other.person) for other in others
    )


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
