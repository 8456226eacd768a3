"""Whether a token still counts, as its issuer says (RFC 7662). No answer is a refusal, always.

Answers are remembered for a while by the hash of the token; an issuer that does not answer is left
alone for a moment, so that its callers are refused rather than piled up.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import (
    IntrospectionUnavailable,
    KeySetError,
    TokenRevoked,
    shown,
)
from mitmgate.core.tokens.fetch import fetch
from mitmgate.core.tokens.file import Introspection
from mitmgate.core.tokens.strictjson import read_object

TIMEOUT = 3.0  # seconds for one question; as long again may be waited for a turn to ask it
AT_ONCE = 16  # questions
COOL_DOWN = 2.0  # seconds after a failure in which nothing is asked
REMEMBERED = 4096  # answers

Clock = Callable[[], float]
_Refusal = type[TokenRevoked] | type[IntrospectionUnavailable]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a question: None lets the token pass, a class and a detail do not."""

    refusal: _Refusal | None = None
    detail: str = ""
    until: float = -math.inf

    def apply(self) -> None:
        if self.refusal:
            raise self.refusal(self.detail)


class Introspector:
    """Asks one issuer, whose id is `issuer`, about its tokens, by `rules`.

    `authorities` are as in `fetch`; `clock` runs in seconds, `wall` gives Unix seconds.
    """

    def __init__(
        self,
        rules: Introspection,
        *,
        issuer: str,
        authorities: Path | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._rules = rules
        self._issuer = issuer
        self._authorities = authorities
        self._clock = clock
        self._wall = wall
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[_Answer]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._ask_again = -math.inf
        self._failure = ""

    async def check(self, token: str, principal: Principal) -> None:
        """Return if the issuer says that `token`, which is `principal`'s, is active.

        Raises `TokenRevoked` if it says that it is not, and `IntrospectionUnavailable` if it says
        neither, or speaks of another token.
        """
        digest = hashlib.sha256(token.encode()).digest()
        answer = self._answers.get(digest)
        if answer and self._clock() < answer.until:
            self._answers.move_to_end(digest)
            return answer.apply()
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(
                self._learn(digest, token, principal), name=f"introspection of {self._issuer}"
            )
            self._flights[digest] = flight
            flight.add_done_callback(lambda _: self._flights.pop(digest, None))
        # Others may wait for the same answer: who goes away must not take it with them.
        return (await asyncio.shield(flight)).apply()

    async def _learn(self, digest: bytes, token: str, principal: Principal) -> _Answer:
        """The issuer's answer, remembered if it is one. Raises nothing: who asked may be gone."""
        try:
            answer = await self._ask(token, principal)
        except IntrospectionUnavailable as e:
            return _Answer(IntrospectionUnavailable, e.detail)
        except Exception as e:
            # The class alone: of an error that nobody foresaw, the text might hold the token.
            return _Answer(IntrospectionUnavailable, f"{self._issuer}: {type(e).__name__}")
        if answer.until > self._clock():
            self._answers[digest] = answer
            self._answers.move_to_end(digest)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    async def _ask(self, token: str, principal: Principal) -> _Answer:
        try:
            headers = _basic(self._rules.client_id, self._rules.client_secret.resolve())
        except ValueError as e:
            raise self._unavailable(e) from None
        form = {"token": token, "token_type_hint": "access_token"}
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            raise self._unavailable(f"{AT_ONCE} other questions are not answered yet") from None
        try:
            if self._clock() < self._ask_again:  # also for who has waited for a turn meanwhile
                reason = f"{self._failure} (asked less than {COOL_DOWN:g} s ago)"
                raise self._unavailable(reason)
            content = await fetch(
                self._rules.url,
                authorities=self._authorities,
                headers=headers,
                form=form,
                timeout=TIMEOUT,
            )
        except KeySetError as e:
            self._ask_again = self._clock() + COOL_DOWN
            self._failure = str(e)
            raise self._unavailable(e) from None
        finally:
            self._turns.release()
        self._ask_again = -math.inf
        return self._read(content, principal)

    def _read(self, content: bytes, principal: Principal) -> _Answer:
        url = self._rules.url
        try:
            document = read_object(content)
        except ValueError as e:
            raise self._unavailable(f"{url}: is not an answer: {e}") from None
        active = document.get("active")
        for name in ("iss", "sub"):
            own = principal.claims.get(name)  # a lightweight token may leave them to this answer
            if active is True and None not in (own, said := document.get(name)) and said != own:
                reason = f"says {name} {shown(said)}, the token {shown(own)}"
                raise self._unavailable(f"{url}: {reason}")
        left = min(self._rules.cache, principal.expires - self._wall())
        until = self._clock() + left
        if active is True:
            return _Answer(until=until)
        if active is False:
            detail = f"{self._issuer} says that it is not active"
            return _Answer(TokenRevoked, detail, until)
        raise self._unavailable(f"{url}: says active {shown(active)}, neither true nor false")

    def _unavailable(self, reason: object) -> IntrospectionUnavailable:
        return IntrospectionUnavailable(f"{self._issuer}: {reason}")


def _basic(name: str, secret: str) -> dict[str, str]:
    """HTTP Basic as OAuth has it: both are form-urlencoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(name, safe='')}:{quote_plus(secret, safe='')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
