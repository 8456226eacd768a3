"""Who may decide about a hold: its approvers, and never the person who asked."""

from __future__ import annotations

from mitmgate.core.holds.errors import NotApprover, SelfApproval
from mitmgate.core.holds.file import ApprovalFile
from mitmgate.core.holds.hold import Hold, Verdict, is_of
from mitmgate.core.holds.interface import Store
from mitmgate.core.holds.person import of_the_system
from mitmgate.core.principal import Principal


def may_decide(file: ApprovalFile, hold: Hold, principal: Principal) -> None:
    """Raises `NotApprover` or `SelfApproval` if `principal` has no say about `hold`.

    Where nobody is named, the operators decide: users of the operating system. What counts is
    `file` as it is now; a rule that is no longer in it leaves the word to the file's approvers.
    """
    if is_of(hold, (principal.issuer, principal.subject), file.person(principal)):
        raise SelfApproval(f"{hold.id} is your own request; somebody else has to decide about it")
    named = file.terms(hold.rules).approvers
    if not named and not of_the_system(principal):
        raise NotApprover(f"no approvers are named for {hold.id}, so its operators decide")
    if not all(approvers.include(principal) for approvers in named):
        raise NotApprover(f"{principal.name} is not among the approvers of {hold.id}")


def decide(
    store: Store,
    file: ApprovalFile,
    hold: str,
    who: Principal,
    verdict: Verdict,
    reason: str,
    channel: str,
) -> Hold:
    """Record what `who` says about the hold with that id, if they may. Returns it afterwards.

    Raises what `may_decide` and `Store.decide` raise.
    """
    may_decide(file, store.get(hold), who)
    return store.decide(hold, who, verdict, reason, channel, file.person(who))
