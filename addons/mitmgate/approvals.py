"""What waits for people, and what they decide: the hold store off the event loop, and the rules
about who may decide. The approval addon makes it; it, the console and mitmproxy's commands use it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate

from mitmgate.core import holds
from mitmgate.core.holds import ApprovalFile, Hold, HoldStore, State, Verdict
from mitmgate.core.principal import Principal

POLL = 0.2  # seconds until what another process has done is noticed


class Approvals:
    """The holds in `store`; `rules` gives approval.yaml as it is in force.

    Every method may raise `HoldError` and `StoreError`, as those of `HoldStore` do.
    """

    def __init__(self, store: HoldStore, rules: Callable[[], ApprovalFile]) -> None:
        self.store = store
        self._rules = rules
        # One thread: SQLite calls never stand on the event loop, nor in each other's way.
        self._thread = ThreadPoolExecutor(1, "holds")

    @property
    def rules(self) -> ApprovalFile:
        return self._rules()

    async def list(self, states: Iterable[State] = ("pending",), limit: int = 500) -> list[Hold]:
        """Holds in one of `states`: the living oldest first, the ended newest first."""
        return list(await self.call(HoldStore.list, tuple(states), limit=limit))

    async def get(self, hold: str) -> Hold:
        return await self.call(HoldStore.get, hold)

    def may_decide(self, hold: Hold, who: Principal) -> None:
        """Raises `NotApprover` or `SelfApproval` with a sentence for `who`."""
        holds.may_decide(self.rules, hold, who)

    async def decide(
        self, hold: str, who: Principal, verdict: Verdict, reason: str, channel: str
    ) -> Hold:
        """Record what `who` says, if they may. Returns the hold after it."""
        person = self.rules.person(who)
        self.may_decide(await self.get(hold), who)
        return await self.call(HoldStore.decide, hold, who, verdict, reason, channel, person)

    async def call[**P, T](
        self, method: Callable[Concatenate[HoldStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a method of the store in its thread. One that does not answer raises."""
        call = functools.partial(method, self.store, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
        self.store.close()
