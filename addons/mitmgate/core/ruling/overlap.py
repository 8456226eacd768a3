"""What rules do to each other: the same texts found twice, and rules that another makes idle.

Rules are compared by their own samples: what all of a rule's match samples say is what the rule is
for. So nothing here is proof about a pattern, and nothing judges: it is for whoever writes rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mitmgate.core.rules.rule import ANY, CALLS, Rule, Where, path
from mitmgate.core.ruling.ruling import Asked, Ruling, sample
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.segment import Segment


@dataclass(frozen=True, slots=True)
class Overlap:
    """`other`, which is in force, finds `found` of the `samples` of `rule`, too.

    `shadowed` says that it leaves `rule` nothing to do: it finds all of them, is about all that
    `rule` is about, does as much about a hit, and excepts nobody whom `rule` does not.
    """

    rule: Rule
    other: Rule
    found: int
    samples: int
    shadowed: bool


def overlaps(rulings: Sequence[Ruling]) -> list[Overlap]:
    """Every pair of rules of `rulings` that meet, in their order; each sample is scanned once.

    Of two rules that shadow each other, the later one is the one that is shadowed.
    """
    met: dict[tuple[str, str], Overlap] = {}
    for rule in (rule for ruling in rulings for rule in ruling.rules):
        counts: dict[str, int] = {}
        others: dict[str, Rule] = {}
        for text in rule.tests.match:
            found = {hit.id: hit for hit in _found(rulings, rule, text) if hit.id != rule.id}
            for id, other in found.items():
                others[id] = other
                counts[id] = counts.get(id, 0) + 1
        samples = len(rule.tests.match)
        for id, count in counts.items():
            other = others[id]
            shadowed = count == samples and _leaves_nothing(other, rule)
            mutual = met.get((id, rule.id))
            if shadowed and mutual and mutual.shadowed:
                met[id, rule.id] = replace(mutual, shadowed=False)
            met[rule.id, id] = Overlap(rule, other, count, samples, shadowed)
    return list(met.values())


def _found(rulings: Iterable[Ruling], rule: Rule, text: str) -> Iterator[Rule]:
    """The rules in force that find one sample of `rule`, wherever that looks."""
    asked = sample(rule, text) if rule.match is None else Asked("", "", _everywhere(rule, text))
    for ruling in rulings:
        for finding in ruling.anywhere(asked, None):
            other = finding.rule
            # That a parameter is missing shows in any text.
            absent = other.present is False and rule.present is not False
            if other.enforced and not absent and _meet(other, rule):
                yield other


def _everywhere(rule: Rule, text: str) -> list[Segment]:
    found: list[Segment] = []
    for where in sorted(rule.where):
        names = rule.headers if where == "headers" else _arguments(rule, where)
        found += [Segment(where, where, text, name) for name in names]
        if where in CALLS and not rule.arguments:
            found += unfold(where, where, text)
    return found


def _arguments(rule: Rule, where: Where) -> tuple[str, ...]:
    if where not in CALLS:
        return ("",)
    return tuple(map(path, rule.arguments)) or (ANY,)


def _meet(one: Rule, other: Rule) -> bool:
    """Whether there are requests that both are about."""
    return all(
        not a or not b or not set(a).isdisjoint(b)
        for a, b in ((one.operations, other.operations), (one.methods, other.methods))
    )


def _leaves_nothing(other: Rule, rule: Rule) -> bool:
    return (
        _strength(other) >= _strength(rule)
        and all(who in rule.unless for who in other.unless)
        and _all_of(other.operations, rule.operations)
        and _all_of(other.methods, rule.methods)
        and _looks_at_all(other, rule)
    )


def _strength(rule: Rule) -> int:
    return ("log", "hold", "deny").index(rule.action) if rule.enforced else 0


def _all_of(wider: Iterable[str], narrower: Iterable[str]) -> bool:
    """Whether a scope takes in another; an empty one is everything."""
    wider, narrower = set(wider), set(narrower)
    return not wider or (bool(narrower) and narrower <= wider)


def _looks_at_all(other: Rule, rule: Rule) -> bool:
    if rule.parameter:
        return _bounds_all(other, rule)
    if rule.network:
        return set(rule.network) <= set(other.network) or "fetches" in other.where
    if other.match is None:
        return rule.where <= {"fetches"}
    return (
        rule.where <= other.where
        and set(rule.headers) <= set(other.headers)
        and set(rule.views) <= set(other.views)
        and (not CALLS & rule.where or _all_arguments(other, rule))
    )


def _all_arguments(other: Rule, rule: Rule) -> bool:
    if not other.arguments:
        return True
    return bool(rule.arguments) and all(
        any(f"{path(name)}/".startswith(f"{path(wider)}/") for wider in other.arguments)
        for name in rule.arguments
    )


def _bounds_all(other: Rule, rule: Rule) -> bool:
    """Whether whatever breaks a bound of `rule` breaks one of `other`."""
    if not {path(name).casefold() for name in rule.parameter} <= {
        path(name).casefold() for name in other.parameter
    }:
        return False
    if rule.present is False or other.present is False:
        return rule.present == other.present and len(other.parameter) == len(rule.parameter)
    if other.present:
        return True
    return (
        not rule.present
        and _at_most(other.max, rule.max)
        and _at_most(other.max_entries, rule.max_entries)
        and (rule.min is None or (other.min is not None and other.min >= rule.min))
    )


def _at_most(limit: float | None, wider: float | None) -> bool:
    return wider is None or (limit is not None and limit <= wider)
