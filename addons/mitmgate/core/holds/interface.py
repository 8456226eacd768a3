"""What the gate asks of a store of holds; `HoldStore` keeps it in SQLite.

Each call is one step of the state machine (`core.holds.hold`), made whole or not at all, and it
lasts once it has returned. Calls block: an event loop makes them in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from mitmgate.core.holds.file import Limits
from mitmgate.core.holds.hold import Hold, State, Verdict, Why
from mitmgate.core.holds.prompt import Passage
from mitmgate.core.principal import Principal


class Store(Protocol):
    """The holds of one or more gates, shared with the commands that decide about them.

    Every method raises `StoreError` when the store does not answer, and `HoldError`s as
    documented. Times are Unix seconds, ids are taken in any case.
    """

    def open(
        self,
        digest: str,
        principal: Principal,
        *,
        operation: str,
        model: str,
        rules: Iterable[str],
        message: str,
        excerpt: str,
        exchange: str,
        ttl: float,
        quorum: int = 1,
        why: Iterable[Why] = (),
        prompt: Iterable[Passage] = (),
        person: Iterable[str] | None = None,
        limits: Limits = ...,
        until: float | None = None,
    ) -> tuple[Hold, bool]:
        """The hold of this request, and whether it is new.

        A retry attaches to the hold that is pending or approved, as it was opened. A denial stands
        until the denied hold's time is over: asking again meanwhile returns it rather than asking
        people again. `ttl` is seconds; `person` are the words by which the requester is recognised,
        by default the subject. `until` is the lease (see `attend_all`) of a connection that is
        going to wait if the hold is pending. Raises `HoldLimit` for more holds that are pending, or
        more connections that wait, than `limits` allow.
        """

    def decide(
        self,
        hold_id: str,
        who: Principal,
        verdict: Verdict,
        reason: str,
        channel: str,
        person: Iterable[str] | None = None,
    ) -> Hold:
        """Record what `who` says through `channel` (console, cli, command, mitmweb).

        `person` are the words by which `who` is recognised, by default the subject. Whether they
        are an approver is `may_decide`'s to say. Returns the hold after it. Raises `HoldUnknown`
        and what `hold.decided` raises.
        """

    def consume(self, digest: str, principal: str) -> Hold:
        """Use the approval of the request `digest` by the principal of that name, once.

        Of all callers in all processes one gets the hold back; the others get `HoldConsumed`.
        Also raises `HoldUnknown`, `HoldPending`, `HoldDenied`, `HoldExpired`, `HoldNotYours`.
        """

    def expire(self, now: float | None = None) -> tuple[Hold, ...]:
        """Write down which holds are over their time, and return those that were not before."""

    def prune(self, before: float) -> int:
        """Forget the holds that have ended and whose time was over before that. How many it were.

        It never counts on a hold being swept: one that is overdue is left for `expire`.
        """

    def get(self, hold_id: str) -> Hold:
        """One hold with its prompt, overdue ones as expired. Raises `HoldUnknown`."""

    def list(self, states: Iterable[State] = ("pending",), *, limit: int = 500) -> tuple[Hold, ...]:
        """At most `limit` holds that are in one of `states` now, without their prompts.

        First those that are alive, the oldest first, then those that have ended, the newest first.
        """

    def states(self, hold_ids: Iterable[str]) -> dict[str, State]:
        """The states of these holds now; those that do not exist are not in it."""

    def attend_all(self, waiting: Mapping[str, tuple[str, float]]) -> None:
        """Say which connections wait: exchange id -> hold id, and until when it is believed.

        That time is a lease: of a gate that dies nobody waits once it is over. Raises
        `HoldUnknown`, and then nothing is said.
        """

    def leave(self, exchange: str) -> None:
        """The connection of `exchange` waits no longer; no error if it did not."""

    def abandon(self) -> None:
        """Nobody waits: for a gate that starts, whose earlier connections are gone.

        Another gate on the same store has its waiters back when it renews their leases.
        """

    def version(self) -> int:
        """A mark that differs after any decision, new hold or connection come or gone, cheap to
        poll. Leases that are renewed, or that run out, and time that passes do not change it.
        """

    def close(self) -> None:
        """Let go of the store; later calls raise `StoreError`. Holds stay as they are."""
