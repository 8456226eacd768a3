"""`mitmgate explain --request` and `--answer`: files to messages, and those before the rules.

Identity comes first, as in the gate, where a token is given. What only a running gate can know is
left out, and named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mitmproxy import http

from mitmgate.cli import explaining, messages, showing
from mitmgate.cli.judgement import Does, Judged
from mitmgate.cli.judging import Trial
from mitmgate.cli.rulesets import Rules
from mitmgate.core.tokens import TokenError, Wanted, presented
from mitmgate.core.tokens.explain import Check, Explanation

PATH = "/v1/chat/completions"
_WORSE: tuple[Does, ...] = ("goes on", "held", "refused")


@dataclass(frozen=True, slots=True)
class Examination:
    """What was examined; None for what was not given."""

    explanation: Explanation | None
    request: Judged | None
    answer: Judged | None
    profile: str
    rules: Rules

    @property
    def outcome(self) -> Does:
        """The worst of all that was examined."""
        found = [each.outcome.does for each in (self.request, self.answer) if each]
        if self.explanation and self.explanation.error:
            found.append("refused")
        return max(found, key=_WORSE.index)

    @property
    def left_out(self) -> list[str]:
        """What was not looked at, a sentence each."""
        found = []
        explanation = self.explanation
        if explanation is None:
            found.append("identity was not looked at, and no exception (unless) applied: no token")
        elif explanation.grant and explanation.grant.limits:
            found.append("the limits of the grant were not looked at: only a running gate counts")
        if self.answer and self.answer.endpoint and self.answer.endpoint.lists:
            found.append("the list of models was not cut down to those of the caller")
        if self.request and self.answer and self.request.outcome.does == "refused":
            found.append("the request is refused, so no such answer would come")
        return found


async def examine(options: argparse.Namespace) -> Examination:
    """Raises `RuleError`, `OSError`, or `ValueError` for files in which no message is."""
    request = _request(options)
    response = messages.response_of(_read(options.answer)) if options.answer else None
    rules = Rules.read(options.rules)
    target = request.path
    trial = Trial(rules, request)
    wanted = await trial.read()
    explanation = await _explanation(options, wanted, request.method, target)
    principal = explanation.principal if explanation else None
    grant = explanation.grant if explanation else None
    profile = options.profile or (grant.masking if grant else "default")
    asked = answered = None
    if options.request:
        error = explanation.error if explanation else None
        asked = trial.ask(principal, error, profile)
    if response is not None:
        answered = await trial.answer(response, principal, profile)
    return Examination(explanation, asked, answered, profile, rules)


def text(found: Examination) -> Iterator[str]:
    """Lines for people, the verdicts among them, and what was left out last."""
    if found.explanation:
        yield "identity"
        _, *lines = explaining.text(found.explanation)
        yield from lines
    for side, judged in (("request", found.request), ("answer", found.answer)):
        if judged:
            yield from showing.lines(judged, found.rules.views, side)
    yield from (f"note: {sentence}" for sentence in found.left_out)


def document(found: Examination) -> dict[str, Any]:
    """The same as an object for programs; its keys stay."""
    views, explanation = found.rules.views, found.explanation
    return {
        "outcome": found.outcome,
        "identity": explaining.document(explanation) if explanation else None,
        "profile": found.profile,
        "request": showing.document(found.request, views) if found.request else None,
        "answer": showing.document(found.answer, views) if found.answer else None,
        "left_out": found.left_out,
    }


def _request(options: argparse.Namespace) -> http.Request:
    data = _read(options.request) if options.request else b""
    if messages.is_request(data) and (options.path or options.method):
        raise ValueError(f"{options.request} has its own method and path: leave out the options")
    target = options.path or PATH
    if not target.startswith("/"):
        raise ValueError(f"{target} should begin with a slash")
    headers: Sequence[tuple[str, str]] = options.header
    return messages.request_of(data, options.method or "POST", target, headers)


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


async def _explanation(
    options: argparse.Namespace, wanted: Wanted | None, method: str, target: str
) -> Explanation | None:
    """What identity says, where there is a token; of an unknown endpoint, to the token alone."""
    if not options.token:
        return None
    asked = wanted or Wanted("", None, method)
    try:
        presented([("Authorization", "Bearer token")], method=method, target=target)
    except TokenError as e:
        return Explanation(asked, (Check("form", "failed", e.detail),), error=e)
    found = await explaining.explanation(options, asked)
    if wanted is None and found.principal:
        return replace(found, fits=(), grant=None, error=None)
    return found
