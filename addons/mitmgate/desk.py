"""Where approvers come in: what the console needs of the other addons, published by them.

Addons never import each other; what belongs to one exchange is on the `Exchange`, and what belongs
to none of them (who a token is, what waits, how a profile masks) is here.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from functools import reduce
from typing import Any

from mitmgate.approvals import Approvals
from mitmgate.core.holds import Hold
from mitmgate.core.principal import Principal
from mitmgate.core.tokens import Presented


class Desk:
    """One for each mitmproxy. A service is None until its addon is running, or without it."""

    def __init__(self) -> None:
        self.verify: Callable[[Presented], Awaitable[Principal]] | None = None
        self.approvals: Approvals | None = None
        self.mask: Callable[[str, str], str] | None = None  # profile, text -> what may be shown

    @staticmethod
    def of(master: Any) -> Desk:
        """The desk of this mitmproxy, made at first use."""
        return _desks.setdefault(master, Desk())

    def masking(self, hold: Hold) -> Callable[[str], str] | None:
        """What the profiles of the hold's approvers do to a text, one after the other; None where
        they have none. Raises `LookupError` where a text cannot be masked as it should be."""
        if self.approvals is None:
            raise LookupError("the approval addon is not loaded")
        named = self.approvals.rules.terms(hold.rules).approvers
        profiles = dict.fromkeys(each.profile for each in named if each.profile)
        if not profiles:
            return None
        if (mask := self.mask) is None:
            raise LookupError("prompts are to be masked, and no masker is loaded")
        return lambda text: reduce(lambda masked, profile: mask(profile, masked), profiles, text)

    def shown(self, hold: Hold, text: str) -> str:
        """What the hold's approvers may read of a text. Raises `LookupError` as `masking` does."""
        mask = self.masking(hold)
        return mask(text) if mask else text


_desks: weakref.WeakKeyDictionary[Any, Desk] = weakref.WeakKeyDictionary()
