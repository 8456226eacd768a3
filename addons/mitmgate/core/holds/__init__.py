"""Holds: requests that wait for a person, from the first ask to the one use of an approval."""

from mitmgate.core.holds.approvers import decide, may_decide
from mitmgate.core.holds.errors import (
    AlreadyApproved,
    HoldConsumed,
    HoldDenied,
    HoldError,
    HoldExpired,
    HoldLimit,
    HoldNotYours,
    HoldPending,
    HoldUnknown,
    NotApprover,
    ReasonRefused,
    SelfApproval,
    StoreError,
)
from mitmgate.core.holds.file import (
    IN_FORCE,
    ApprovalFile,
    Approvers,
    ConsoleAccess,
    Limits,
    Terms,
)
from mitmgate.core.holds.hold import Decision, Hold, State, Verdict, Why
from mitmgate.core.holds.interface import Store
from mitmgate.core.holds.notify import Notice
from mitmgate.core.holds.person import account
from mitmgate.core.holds.prompt import Mark, Passage
from mitmgate.core.holds.request import digest
from mitmgate.core.holds.store import HoldStore

__all__ = [
    "IN_FORCE",
    "AlreadyApproved",
    "ApprovalFile",
    "Approvers",
    "ConsoleAccess",
    "Decision",
    "Hold",
    "HoldConsumed",
    "HoldDenied",
    "HoldError",
    "HoldExpired",
    "HoldLimit",
    "HoldNotYours",
    "HoldPending",
    "HoldStore",
    "HoldUnknown",
    "Limits",
    "Mark",
    "NotApprover",
    "Notice",
    "Passage",
    "ReasonRefused",
    "SelfApproval",
    "State",
    "Store",
    "StoreError",
    "Terms",
    "Verdict",
    "Why",
    "account",
    "decide",
    "digest",
    "may_decide",
]
