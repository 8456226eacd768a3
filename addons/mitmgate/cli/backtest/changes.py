"""What differs between two decisions about one exchange, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mitmgate.cli.backtest.deciding import Cause, Decision, Side
from mitmgate.cli.judgement import Hit

Kind = Literal["denied", "held", "masked", "undenied", "unheld", "unmasked", "reason"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would be otherwise; `rule` is a recognizer's id where masking changes.

    `was` is the rule in whose place it stands (`reason`). `hit` is what was found, by the new rules
    or by the old ones; `texts` are what is masked, as far as it is known, `count` how many.
    """

    kind: Kind
    side: Side
    rule: str
    was: str = ""
    hit: Hit | None = None
    address: str | None = None
    texts: tuple[str, ...] = ()
    count: int = 1


def fates(old: Decision, new: Decision) -> Iterator[Change]:
    """Whether it is refused or held, and by what."""
    if new.denied and not old.denied:
        yield _change("denied", new.denied)
    elif old.denied and not new.denied:
        yield _change("undenied", old.denied)
    elif old.denied and new.denied and old.denied.rules != new.denied.rules:
        yield _change("reason", new.denied, old.denied)
    yield from waits(old, new)


def waits(old: Decision, new: Decision) -> Iterator[Change]:
    """Whether it is held, and by what."""
    if new.held and not old.held:
        yield _change("held", new.held)
    elif old.held and not new.held and new.goes_out:
        yield _change("unheld", old.held)
    elif old.held and new.held and new.held.rules != old.held.rules:
        # Of what was recorded, rules that only found something stand among those that held.
        if old.held.hit or set(new.held.rules) - set(old.held.rules):
            yield _change("reason", new.held, old.held)


def _change(kind: Kind, cause: Cause, before: Cause | None = None) -> Change:
    was = ", ".join(before.rules) if before else ""
    return Change(kind, cause.side, ", ".join(cause.rules), was, cause.hit, cause.address)


def less(one: Iterable[tuple[str, str]], other: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is in `one` and not in `other`: by value, or by recognizer where that is not known."""
    left = Counter(text or (id,) for id, text in other)
    rest = []
    for id, text in one:
        if left[text or (id,)] > 0:
            left[text or (id,)] -= 1
        else:
            rest.append((id, text))
    return rest


def masks(kind: Kind, side: Side, found: Sequence[tuple[str, str]]) -> Iterator[Change]:
    for id, count in Counter(id for id, _ in found).items():
        texts = dict.fromkeys(text for each, text in found if each == id and text)
        yield Change(kind, side, id, texts=tuple(texts), count=count)
