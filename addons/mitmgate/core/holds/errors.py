"""Why a hold says no: one class and one stable code per reason, each with a sentence for people.

`HoldError` is an answer to whoever asked; `StoreError` means that the store itself does not answer,
which the gate turns into a refusal of the exchange.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class HoldError(Exception):
    """A step that a hold does not allow. `code` never changes; the text is for people."""

    code: ClassVar[str]


class HoldUnknown(HoldError):
    """No hold has this id or digest."""

    code = "hold_unknown"


class HoldPending(HoldError):
    """It is not approved yet."""

    code = "hold_pending"


class HoldDenied(HoldError):
    """Somebody has denied it; a denial is final."""

    code = "hold_denied"


class HoldExpired(HoldError):
    """Its time is over; expired is denied."""

    code = "hold_expired"


class HoldConsumed(HoldError):
    """Its approval has been used; an approval is used once."""

    code = "hold_consumed"


class HoldNotYours(HoldError):
    """The approval belongs to another principal."""

    code = "hold_not_yours"


class AlreadyApproved(HoldError):
    """The same person has approved it before, or enough people have."""

    code = "hold_already_approved"


class NotApprover(HoldError):
    """Whoever decides is not among those who may."""

    code = "hold_not_approver"


class SelfApproval(HoldError):
    """The requester tried to approve their own request."""

    code = "hold_self_approval"


class ReasonRefused(HoldError):
    """The reason of a decision is missing or too long to be kept whole."""

    code = "hold_reason"


class HoldLimit(HoldError):
    """Too many requests are held already."""

    code = "hold_limit"


class StoreError(Exception):
    """The store at `path` cannot be used: corrupt, locked, full, foreign or not there."""

    code: ClassVar[str] = "hold_store"

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"the hold store {path} {reason}")
