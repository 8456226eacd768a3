"""A piece of text in a request or an answer, with its place and its part in the conversation."""

from __future__ import annotations

from dataclasses import dataclass

from mitmgate.core.rules.rule import Where


@dataclass(frozen=True, slots=True)
class Segment:
    """`address` reads like `messages[2].content`; `where` is the word rules use for its part.

    `name` is what a rule may ask for within that part: a header's name, the path (RFC 6901) of
    an argument in a tool call; `ANY` for text of which nobody can tell.
    """

    where: Where
    address: str
    text: str
    name: str = ""


def plain(text: str) -> str:
    """`text` for a log or a terminal: nothing in it that these obey, or that nobody would see."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
