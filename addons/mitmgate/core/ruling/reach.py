"""Rules that can never find anything, whatever is asked: every endpoint there is, tried.

A rule may be about an operation that has no such method, or look where those operations have no
text. What a schema decides by its data is taken to be possible, so a rule named here is idle.
"""

from __future__ import annotations

from collections.abc import Collection

from mitmgate.core.principal import Principal, Who
from mitmgate.core.rules.rule import ANSWERS, Rule, Where
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.endpoints import ENDPOINTS
from mitmgate.core.wire.schema import Kind, Schema

# What every request has, those to endpoints that nobody knows among them.
_AROUND: frozenset[Where] = frozenset(["path", "query", "headers"])
# What any JSON body may have: fields that a schema does not name are read by what they look like.
_IN_A_BODY: frozenset[Where] = frozenset(["prompt", "tool_calls", "files", "fetches"])
_OF_KIND: dict[Kind, Where] = {
    Kind.SYSTEM: "system",
    Kind.TOOLS: "tools",
    Kind.TOOL_RESULTS: "tool_results",
}
_CALLS = (Kind.ARGUMENTS, Kind.FRAGMENT, Kind.CALLED)


def idle(rule: Rule, issuers: Collection[str] = ()) -> str:
    """Why `rule` can never find anything; "" if it can.

    `issuers` are the ids of all issuers, where they are known.
    """
    if any(_is_everybody(who, issuers) for who in rule.unless):
        return "`unless` excepts everybody"
    fitting = [each for each in ENDPOINTS if rule.applies(each.method, each.operation)]
    scope = f"{', '.join(rule.operations) or 'any operation'}"
    if rule.methods:
        scope += f" by {', '.join(rule.methods)}"
    if rule.operations and not fitting:
        return f"no endpoint has {scope}"
    places: set[Where] = set() if rule.operations else set(_AROUND)
    for endpoint in fitting:
        places |= _places(endpoint)
    if rule.parameter:
        if rule.present is not False and not any(each.request is not None for each in fitting):
            return f"no endpoint with {scope} takes a body"
        return ""
    looks: frozenset[Where] = frozenset(["fetches"]) if rule.network else rule.where
    if looks.isdisjoint(places):
        return f"no endpoint with {scope} has {', '.join(sorted(looks))}"
    return ""


def _places(endpoint: Endpoint) -> set[Where]:
    """Where an endpoint may have text."""
    places: set[Where] = {*_AROUND, "answer"}
    answers = _kinds(endpoint.answer)
    if endpoint.stream is not None or not answers.isdisjoint(_CALLS):
        places |= ANSWERS
    if endpoint.request is not None:
        kinds = _kinds(endpoint.request)
        places |= _IN_A_BODY | {_OF_KIND[kind] for kind in kinds if kind in _OF_KIND}
    return places


def _kinds(schema: Schema) -> frozenset[Kind]:
    if isinstance(schema, Kind):
        return frozenset([schema])
    if isinstance(schema, dict):
        return frozenset().union(*map(_kinds, schema.values()))
    if isinstance(schema, list):
        return _kinds(schema[0])
    return frozenset(Kind)  # it depends on the data


def _is_everybody(who: Who, issuers: Collection[str]) -> bool:
    if who.spiffe or who.scopes or who.groups or who.claims:
        return False
    if who.subject and "*" not in who.subject:
        return False
    if not who.issuer or "*" in who.issuer:
        return True
    anybody = [Principal(issuer, "") for issuer in issuers]
    return bool(anybody) and all(Who(issuer=who.issuer).matches(each) for each in anybody)
