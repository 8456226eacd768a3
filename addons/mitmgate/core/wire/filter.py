"""What an addon does to the texts of a stream: judges them, masks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Channel(Protocol):
    """One filter's state for one text that runs through a stream."""

    def feed(self, text: str) -> str:
        """The next piece; returns what may go on now."""

    def finish(self) -> str:
        """The text is complete; returns what was held back."""


class Filter(Protocol):
    """What an addon does to a stream: judge it (raise), mask it (return other text).

    `masks` says that the text may change, so that copies of it (logprobs) must not go on. A filter
    to which tool calls are more than texts is a `CallFilter`.
    """

    masks: bool

    def channel(self) -> Channel:
        """A fresh state for a channel that begins."""

    def whole(self, text: str) -> str:
        """A text that stands in one event as a whole."""


@runtime_checkable
class CallFilter(Protocol):
    """A filter that judges tool calls by themselves.

    `holds_calls` says that nothing of a call may go on before all of it has been judged.
    """

    @property
    def holds_calls(self) -> bool: ...

    def call(self, text: str) -> str:
        """The name of a tool that is called, or all arguments of a call as they are written."""


def finish_all(channels: Sequence[Channel]) -> str:
    """End a chain of filters: what one releases still runs through those behind it."""
    text = ""
    for channel in channels:
        text = (channel.feed(text) if text else "") + channel.finish()
    return text
