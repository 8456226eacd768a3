"""Events of a stream that belong to a tool call, held until the call is complete.

Other events pass them. What is held comes in its order, before the event that ends the call.
"""

from __future__ import annotations

from collections.abc import Iterable

from mitmgate.core.wire.dialect import Key

MAX_HELD = 32 << 20  # bytes of events; what they carry of arguments is bounded more narrowly


class HeldTooMuch(Exception):
    """Tool calls whose events are more than anybody sends."""


class Holdback:
    """The calls that are under way, by prefixes of keys, and the events that wait for them."""

    def __init__(self) -> None:
        self.open: set[Key] = set()
        self._waiting: list[tuple[frozenset[Key], bytes]] = []
        self._size = 0

    def of(self, key: Key) -> frozenset[Key]:
        """The call that a channel belongs to, if it does and that is under way."""
        return frozenset(call for call in self.open if key[: len(call)] == call)

    def end(self, ends: Iterable[Key]) -> None:
        """These channels, or prefixes of them, are complete."""
        for end in ends:
            self.open = {call for call in self.open if call[: len(end)] != end}

    def hold(self, calls: frozenset[Key], event: bytes) -> list[bytes]:
        """Take an event of `calls`; what of it may go on now. Raises `HeldTooMuch`."""
        behind = any(calls & waiting for waiting, _ in self._waiting)
        if not behind and not calls & self.open:
            return [event]
        self._waiting.append((calls, event))
        self._size += len(event)
        if self._size > MAX_HELD:
            raise HeldTooMuch(f"events of tool calls of more than {MAX_HELD >> 20} MB at once")
        return []

    def release(self) -> list[bytes]:
        """The events that wait for nothing any more, in order."""
        out: list[bytes] = []
        still: list[tuple[frozenset[Key], bytes]] = []
        blocked = set(self.open)
        for calls, event in self._waiting:
            if calls & blocked:
                still.append((calls, event))
                blocked |= calls
            else:
                out.append(event)
                self._size -= len(event)
        self._waiting = still
        return out

    def drop(self) -> set[Key]:
        """Forget every call that is under way, and its events. Returns the calls."""
        dropped, self.open, self._waiting, self._size = self.open, set(), [], 0
        return dropped
