"""Holds: requests that wait for a person, from the first ask to the one use of an approval."""

from mitmgate.core.holds.errors import (
    HoldConsumed,
    HoldDenied,
    HoldError,
    HoldExpired,
    HoldLimit,
    HoldNotYours,
    HoldPending,
    HoldUnknown,
    ReasonRefused,
    SelfApproval,
    StoreError,
)
from mitmgate.core.holds.file import ApprovalFile
from mitmgate.core.holds.hold import Decision, Hold, State, Verdict
from mitmgate.core.holds.request import digest
from mitmgate.core.holds.store import HoldStore, Limits

__all__ = [
    "ApprovalFile",
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
    "ReasonRefused",
    "SelfApproval",
    "State",
    "StoreError",
    "Verdict",
    "digest",
]
