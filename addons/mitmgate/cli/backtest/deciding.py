"""What one rule set decides about a recorded exchange, and what was decided when it was recorded.

`judging` does the judging. Here is what a recording adds: a caller who is known in part only, an
answer that may not be there, and what was found at the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mitmgate.cli.backtest.callers import Admission, Caller, Door
from mitmgate.cli.backtest.recorded import Recorded, Summary
from mitmgate.cli.judgement import Hit, Judged
from mitmgate.cli.judging import Trial
from mitmgate.cli.rulesets import RuleSet
from mitmgate.core.rules.rule import Rule

Side = Literal["request", "answer"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an exchange is denied or held: the rule or rules, or another code of a refusal.

    `hit` is what was found; of what was recorded, only the `address` is known.
    """

    side: Side
    rules: tuple[str, ...]
    hit: Hit | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """What cannot be known of a decision. With the same `about`, it is the same question."""

    side: Side
    reason: str
    detail: str
    about: str = ""


@dataclass(slots=True)
class Decision:
    """`masked` has the sides that were looked at: recognizers, and what they mask if known.

    `read` is False where the request could not be judged at all; a doubt says why.
    """

    denied: Cause | None = None
    held: Cause | None = None
    masked: dict[Side, list[tuple[str, str]]] = field(default_factory=dict)
    profile: str = "default"
    read: bool = True
    doubts: list[Doubt] = field(default_factory=list)

    @property
    def goes_out(self) -> bool:
        """Whether the request gets to the model, perhaps after somebody has approved it."""
        return self.denied is None or self.denied.side == "answer"


def recorded(summary: Summary) -> Decision:
    """What the gate had decided. What it had masked is not known by its side: it is left out."""
    decision = Decision()
    if found := summary.denied_by:
        side: Side = "answer" if summary.admitted else "request"
        decision.denied = Cause(side, (found.rule,), address=found.address)
    holds = [each for each in summary.findings if each.action == "hold" and each.mode != "audit"]
    if summary.hold or summary.refusal == "hold_limit":
        rules = tuple(sorted({each.rule for each in holds}))
        decision.held = Cause("request", rules, address=holds[0].address if holds else None)
    elif summary.refusal and not decision.denied and not summary.admitted:
        decision.denied = Cause("request", (summary.refusal,))
    return decision


class Bench:
    """A rule set, ready to decide. `known` are rule sets by the digest of each of their files:
    what was recorded under one of them shows who was excepted."""

    def __init__(self, rules: RuleSet, known: Mapping[str, RuleSet]) -> None:
        self.rules = rules
        self._known = known
        identities = {each.digests["identity"]: each.identity for each in known.values()}
        self._door = Door(rules.digests["identity"], identities)

    async def decide(self, exchange: Recorded, answered: bool) -> Decision:
        """`answered` is whether the answer that was recorded is one that can be judged."""
        assert exchange.summary is not None
        caller = Caller.of(exchange.summary, self.rules.identity)
        excepted: set[str] = set()
        while True:
            decision, hits = await self._judge(exchange, caller, excepted, answered)
            doubtful: dict[str, Rule] = {}
            found = len(excepted)
            for _, hit in hits:
                rule = hit.finding.rule
                if rule.enforced and any(caller.is_one_of(who) is None for who in rule.unless):
                    known = self._was_excepted(hit.file, rule, exchange.summary)
                    if known:
                        excepted.add(rule.id)
                    elif known is None:
                        doubtful[rule.id] = rule
            if len(excepted) == found:
                break
        self._doubt(decision, hits, doubtful, caller)
        return decision

    async def _judge(
        self, exchange: Recorded, caller: Caller, excepted: set[str], answered: bool
    ) -> tuple[Decision, list[tuple[Side, Hit]]]:
        request, response, summary = exchange.request, exchange.response, exchange.summary
        assert request is not None
        assert summary is not None
        rules = self.rules.rules.excepting(excepted) if excepted else self.rules.rules
        trial = Trial(rules, request.copy(), bare=True)
        wanted = await trial.read()
        admission = self._door.admission(summary, caller, wanted) if wanted else Admission()
        decision = Decision(profile=_profile(admission, summary))
        error = admission.errors[0] if admission.errors and not admission.grants else None
        asked = trial.ask(caller.principal, error, decision.profile)
        hits: list[tuple[Side, Hit]] = [("request", hit) for hit in asked.hits]
        _take_request(decision, asked, summary)
        if not decision.read:
            return decision, hits
        decision.doubts += _unsure(admission)
        if answered and response is not None and decision.denied is None:
            said = await trial.answer(response.copy(), caller.principal, decision.profile)
            hits += [("answer", hit) for hit in said.hits]
            _take_answer(decision, said)
        return decision, hits

    def _was_excepted(self, file: str, rule: Rule, summary: Summary) -> bool | None:
        """Whether the caller was excepted of `rule`, if the very rule was in force then."""
        under = self._known.get(summary.rules.get(file, ""))
        if under is None or under.rule(rule.id) != rule:
            return None
        return rule.id not in {each.rule for each in summary.findings}

    @staticmethod
    def _doubt(
        decision: Decision,
        hits: list[tuple[Side, Hit]],
        doubtful: Mapping[str, Rule],
        caller: Caller,
    ) -> None:
        """Doubts matter only where nothing certain decides as much."""
        for cause in (decision.denied, decision.held):
            if cause is None or not doubtful.keys() & set(cause.rules):
                continue
            action = cause.hit.finding.rule.action if cause.hit else ""
            sure = [
                hit
                for side, hit in hits
                if side == cause.side
                and hit.finding.rule.enforced
                and hit.finding.rule.action == action
                and hit.finding.rule.id not in doubtful
            ]
            if sure and action == "deny":
                decision.denied = Cause(cause.side, (sure[0].finding.rule.id,), sure[0])
            elif sure:
                rules = tuple(sorted({hit.finding.rule.id for hit in sure}))
                decision.held = Cause(cause.side, rules, sure[0])
            else:
                for rule in (doubtful[id] for id in cause.rules):
                    needs = sorted({key for who in rule.unless for key in caller.needs(who)})
                    detail = f"{rule.id} excepts callers by {', '.join(needs)}: not recorded"
                    about = rule.model_dump_json()
                    decision.doubts.append(Doubt(cause.side, "exception", detail, about))


def _profile(admission: Admission, summary: Summary) -> str:
    """The masking profile; where several grants may be the one, that of the recorded one first."""
    ids = {grant.id: grant.masking for grant in reversed(admission.grants)}
    return ids.get(summary.grant) or next(iter(reversed(ids.values())), "default")


def _unsure(admission: Admission) -> Iterator[Doubt]:
    if len(admission.grants) + len(admission.errors) < 2:
        return
    named = ", ".join([grant.id for grant in admission.grants] or ["none"])
    detail = f"which grant applies ({named}) needs {', '.join(admission.needs)}: not recorded"
    if admission.errors and admission.grants:
        yield Doubt("request", "grant", detail, admission.about)
    elif len({grant.masking for grant in admission.grants}) > 1:
        yield Doubt("answer", "profile", detail, admission.about)


def _take_request(decision: Decision, asked: Judged, summary: Summary) -> None:
    outcome = asked.outcome
    if outcome.does == "held":
        hit = next(hit for hit in asked.hits if hit.finding.rule.id in outcome.rules)
        decision.held = Cause("request", outcome.rules, hit)
    elif outcome.does == "refused":
        hits = [hit for hit in asked.hits if hit.finding.rule.id == outcome.code]
        expected = (
            hits
            or outcome.by == "identity"
            or outcome.code == summary.refusal
            or (outcome.by == "endpoint" and not summary.operation)
        )
        if not expected:
            decision.read = False
            reason = "endpoint" if outcome.by == "endpoint" else "request-unreadable"
            detail = f"{outcome.code}: {outcome.detail or outcome.message}"
            decision.doubts.append(Doubt("request", reason, detail))
        decision.denied = Cause("request", (outcome.code,), hits[0] if hits else None)
    if outcome.does != "refused":
        decision.masked["request"] = list(asked.masked)


def _take_answer(decision: Decision, said: Judged) -> None:
    outcome = said.outcome
    if outcome.does != "refused":
        decision.masked["answer"] = list(said.masked)
    elif hits := [hit for hit in said.hits if hit.finding.rule.id == outcome.code]:
        decision.denied = Cause("answer", (outcome.code,), hits[0])
    else:
        detail = f"{outcome.code}: {outcome.detail or outcome.message}"
        decision.doubts.append(Doubt("answer", "answer-unreadable", detail))
