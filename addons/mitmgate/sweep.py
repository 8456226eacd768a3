"""Ends exchanges whose token has been revoked since they began.

The list of the revoked is looked at every second; issuers that are asked about tokens may be slow,
and are asked beside. Nothing here lets anybody in: that is decided when a request comes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable

from mitmgate.core.principal import Principal
from mitmgate.core.tokens import TokenError, TokenRevoked, Verifier
from mitmgate.exchange import Exchange
from mitmgate.refusal import Refusal

INTERVAL = 1.0  # seconds between two looks at the tokens of exchanges that are under way

# In memory alone and for as long as their exchange is under way, which outlives an addon that is
# loaded again.
_tokens: weakref.WeakKeyDictionary[Exchange, str] = weakref.WeakKeyDictionary()

type _Look = Callable[[str, Principal], Awaitable[TokenRevoked | None]]


class Sweep:
    """Looks by the verifier that `verifier` gives each time; `refusal` words what it finds."""

    def __init__(
        self,
        verifier: Callable[[], Verifier],
        refusal: Callable[[Exchange, TokenError], Refusal],
    ) -> None:
        self._verifier = verifier
        self._refusal = refusal
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def follow(exchange: Exchange, token: str) -> None:
        """From now on `exchange` ends with its token."""
        _tokens[exchange] = token

    def start(self) -> None:
        for repeated in (self._look_up(), self._ask()):
            self._tasks.append(asyncio.create_task(repeated, name="revoked tokens"))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _look_up(self) -> None:
        """In the list, which is at hand."""
        while True:
            await asyncio.sleep(INTERVAL)
            for exchange in Exchange.under_way():
                await self._check(exchange, self._listed)

    async def _ask(self) -> None:
        """The issuers that want to be asked, about several at once."""
        while True:
            await asyncio.sleep(INTERVAL)
            asked = self._verifier().asks_about
            doubtful = (each for each in Exchange.under_way() if asked(each.principal))
            await asyncio.gather(*(self._check(each, self._inactive) for each in doubtful))

    async def _listed(self, token: str, principal: Principal) -> TokenRevoked | None:
        return self._verifier().listed(principal)

    async def _inactive(self, token: str, principal: Principal) -> TokenRevoked | None:
        return await self._verifier().inactive(token, principal)

    async def _check(self, exchange: Exchange, look: _Look) -> None:
        """End an exchange if `look` finds its token, or fails."""
        token, principal = _tokens.get(exchange), exchange.principal
        if token is None or principal is None or exchange.refusal is not None:
            return
        try:
            if revoked := await look(token, principal):
                exchange.cut(self._refusal(exchange, revoked))
        except Exception as e:
            exchange.cut(exchange.fault("the search for revoked tokens", e))
