"""What of a hold its approvers are shown: only theirs, through their masking profiles.

Whoever does not decide about a hold does not learn that it exists. Masking and cutting a prompt
take time, so they run in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from mitmgate.approvals import Approvals
from mitmgate.core.holds import Hold, HoldError, Mark, Passage, SelfApproval, State
from mitmgate.core.principal import Principal
from mitmgate.desk import Desk
from mitmgate.web.problem import Problem, unknown
from mitmgate.web.text import LONG, Piece, excerpt, moved, pieces

ENDED: tuple[State, ...] = ("denied", "expired", "consumed")
BESIDE = ("path", "query", "headers", "fetches")
SHOWN = 100  # holds in one list; the next come up when these are decided

type Mask = Callable[[str], str]
type Standing = Literal["decides", "own"]


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """A text of the prompt as the approver may see it; marks count characters of `text`."""

    where: str
    address: str
    text: str
    marks: tuple[Mark, ...]
    masked: bool
    matched: bool  # whether a rule found something here, shown or masked
    whole: tuple[Piece, ...]
    excerpt: tuple[Piece, ...]  # of a long text what was matched; empty where `whole` is short


@dataclass(frozen=True, slots=True)
class ShownHold:
    """A hold as the approver may see it; `hold` itself has texts that are not masked."""

    hold: Hold
    standing: Standing
    excerpt: tuple[Piece, ...]
    passages: tuple[ShownPassage, ...]
    masked: bool

    @property
    def matched(self) -> list[ShownPassage]:
        return [passage for passage in self.passages if passage.matched]

    @property
    def conversation(self) -> list[ShownPassage]:
        return [passage for passage in self.passages if passage.where not in BESIDE]

    @property
    def beside(self) -> list[ShownPassage]:
        """What was read along with the conversation, and is none of it."""
        return [passage for passage in self.passages if passage.where in BESIDE]

    @property
    def titles(self) -> list[str]:
        """What it is about, in the operator's words."""
        return [why.title for why in self.hold.why] or list(self.hold.rules)


def standing(approvals: Approvals, hold: Hold, who: Principal) -> Standing | None:
    """What `who` has to do with the hold: None for somebody who must not know of it."""
    try:
        approvals.may_decide(hold, who)
    except SelfApproval:
        named = approvals.rules.terms(hold.rules).approvers
        return "own" if named and all(each.include(who) for each in named) else None
    except HoldError:
        return None
    return "decides"


def decides_anything(approvals: Approvals, who: Principal) -> bool:
    """Whether the rules name `who` anywhere."""
    named = [approvals.rules.approvers, *(rule.approvers for rule in approvals.rules.rules)]
    return any(each.include(who) for each in named if each)


async def listed(desk: Desk, who: Principal, states: Iterable[State]) -> list[ShownHold]:
    """The holds in `states` that `who` may see, in the store's order. Without their prompts."""
    approvals = _approvals(desk)
    found = [
        (hold, how)
        for hold in await approvals.list(states)
        if (how := standing(approvals, hold, who))
    ]
    masks = [_mask(desk, hold) for hold, _ in found[:SHOWN]]

    def work() -> list[ShownHold]:
        return [_shown(*each, mask) for each, mask in zip(found, masks, strict=False)]

    return await asyncio.to_thread(work)


async def one(desk: Desk, id: str, who: Principal) -> ShownHold:
    """One hold with its prompt. Raises `Problem`."""
    approvals = _approvals(desk)
    hold = await approvals.get(id)
    if (how := standing(approvals, hold, who)) is None:
        raise unknown()
    mask = _mask(desk, hold)
    return await asyncio.to_thread(_shown, hold, how, mask)


async def state(approvals: Approvals, who: Principal) -> object:
    """Differs when anything differs that `who` sees of what waits."""
    return [
        (hold.id, hold.state, hold.approvals, hold.waiting)
        for hold in await approvals.list(("pending", "approved"))
        if standing(approvals, hold, who)
    ]


def _approvals(desk: Desk) -> Approvals:
    if desk.approvals is None:
        raise Problem(503, "no_approvals", "This gate runs without the approval addon.")
    return desk.approvals


def _mask(desk: Desk, hold: Hold) -> Mask | None:
    """What the profiles of the hold's approvers do to a text, one after the other."""
    approvers = _approvals(desk).rules.terms(hold.rules).approvers
    profiles = dict.fromkeys(each.profile for each in approvers if each.profile)
    if not profiles:
        return None
    if (mask := desk.mask) is None:
        raise Problem(503, "no_masker", "Prompts are to be masked, and no masker is loaded.")
    return lambda text: reduce(lambda masked, profile: mask(profile, masked), profiles, text)


def _shown(hold: Hold, how: Standing, mask: Mask | None) -> ShownHold:
    passages = tuple(_passage(passage, mask) for passage in hold.prompt)
    start = mask(hold.excerpt) if mask else hold.excerpt
    masked = start != hold.excerpt or any(passage.masked for passage in passages)
    return ShownHold(hold, how, tuple(pieces(start)), passages, masked)


def _passage(passage: Passage, mask: Mask | None) -> ShownPassage:
    text = mask(passage.text) if mask else passage.text
    marks = moved(passage.text, text, passage.marks)
    found = [mark for mark in marks if mark.rule]
    return ShownPassage(
        passage.where,
        mask(passage.address) if mask else passage.address,  # the keys in it are the caller's
        text,
        tuple(marks),
        text != passage.text,
        any(mark.rule for mark in passage.marks),
        tuple(pieces(text, marks)),
        tuple(excerpt(text, found)) if len(text) > LONG else (),
    )
