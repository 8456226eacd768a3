"""What a rule set changes for one recorded exchange, and what of it cannot be told.

The baseline is what was recorded, or another rule set that judges the same bytes. Where both go by
the same rules, what a recording does not show makes no difference, and nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mitmgate.cli.backtest.callers import GRANT_CODES
from mitmgate.cli.backtest.changes import Change, fates, less, masks, waits
from mitmgate.cli.backtest.deciding import Bench, Decision, Doubt, Side, recorded
from mitmgate.cli.backtest.recorded import Recorded, Summary
from mitmgate.cli.rulesets import RuleSet


@dataclass(frozen=True, slots=True)
class Compared:
    """An exchange with its changes, and what was not judged."""

    exchange: Recorded
    changes: tuple[Change, ...]
    doubts: tuple[Doubt, ...]


class Comparison:
    """Rule sets held against recordings: `new`, and `old` if that is the baseline."""

    def __init__(self, new: RuleSet, old: RuleSet | None = None) -> None:
        sets = [new, old] if old else [new]
        known = {digest: each for each in sets for digest in each.digests.values()}
        self._new, self._old = Bench(new, known), Bench(old, known) if old else None
        self._known = known
        # Where nothing about answers differs, a good half of the work is saved.
        self._answers = old is None or not (
            old.answer_rules == new.answer_rules
            and all(old.digests[file] == new.digests[file] for file in ("identity", "masker"))
        )

    async def compare(self, exchange: Recorded) -> Compared:
        """Judge one exchange. What fails is said to be not judged, and others go on."""
        try:
            changes, doubts = await self._compare(exchange)
        except Exception as e:
            reason = Doubt("request", "failed", f"{type(e).__name__}: {e}")
            return Compared(exchange, (), (reason,))
        return Compared(exchange, tuple(changes), tuple(doubts))

    async def _compare(self, exchange: Recorded) -> tuple[list[Change], list[Doubt]]:
        summary = exchange.summary
        if reason := _unfit(exchange):
            return [], [reason]
        assert summary is not None
        missing = _missing(exchange, summary)
        answered = self._answers and not missing
        new = await self._new.decide(exchange, answered)
        if self._old:
            old = await self._old.decide(exchange, answered)
        else:
            old = recorded(summary)
        if not new.read or not old.read:
            return [], list(dict.fromkeys([*new.doubts, *old.doubts]))
        doubts = [doubt for doubt in new.doubts if doubt not in old.doubts]
        doubts += [doubt for doubt in old.doubts if doubt not in new.doubts]
        if any(doubt.side == "request" for doubt in doubts):
            return [], doubts
        if not self._old and _is_foreign(old, new, summary):
            detail = f"it was refused with {summary.refusal}, about which these rules say nothing"
            return [], [*doubts, Doubt("request", "refused-otherwise", detail)]
        return self._weigh(_Case(exchange, summary, old, new, missing), doubts)

    def _weigh(self, case: _Case, doubts: list[Doubt]) -> tuple[list[Change], list[Doubt]]:
        open_ = {doubt.reason for doubt in doubts}
        found: list[Change | Doubt] = [*doubts, *self._about_prompt(case)]
        if case.lost or "exception" in open_:
            found += waits(case.old, case.new)
        else:
            found += fates(case.old, case.new)
        found += self._about_answer(case)
        if "profile" not in open_:
            found += self._masking(case)
        changes = [each for each in found if isinstance(each, Change)]
        return changes, [each for each in found if isinstance(each, Doubt)]

    # What is the same on both sides

    def _same(self, case: _Case, file: str) -> bool:
        new = self._new.rules.digests[file]
        if self._old:
            return self._old.rules.digests[file] == new
        return case.summary.rules.get(file) == new

    def _same_answer_rules(self, case: _Case) -> bool:
        old = self._old and self._old.rules.answer_rules
        return self._same(case, "commands") or old == self._new.rules.answer_rules

    def _same_masks(self, case: _Case) -> bool:
        if not self._same(case, "masker"):
            return False
        if self._old:
            return case.old.profile == case.new.profile
        return self._same(case, "identity")

    # What is not in the recording

    def _about_answer(self, case: _Case) -> Iterator[Change | Doubt]:
        """An answer that is not there, or no longer as the model gave it."""
        if not case.new.goes_out:
            return
        if case.old.held and case.new.held and not case.summary.admitted:
            return  # nobody approved it, and somebody would still have to
        same_rules, same_masks = self._same_answer_rules(case), self._same_masks(case)
        if case.missing is None:
            if case.summary.masked and not same_rules and case.new.denied is None:
                detail = "it was masked before it was recorded: rules did not see what was masked"
                yield Doubt("answer", "answer-masked", detail)
        elif case.lost:
            yield from self._about_lost(case, same_rules)
        elif not case.old.goes_out or not (same_rules and same_masks):
            if self._reads_answers(case):
                yield case.missing

    def _about_lost(self, case: _Case, same_rules: bool) -> Iterator[Change | Doubt]:
        """An answer that a rule has refused: the recording has the refusal in its place."""
        found, missing = case.summary.denied_by, case.missing
        assert found is not None
        assert missing is not None
        rule = self._new.rules.rule(found.rule)
        before = self._old.rules.rule(found.rule) if self._old else None
        if same_rules or (before is not None and before == rule and before.enforced):
            return
        denied = self._old is None or (before is not None and before.enforced)
        if denied and (rule is None or not rule.enforced):
            yield Change("undenied", "answer", found.rule, address=found.address)
        else:
            yield missing

    def _reads_answers(self, case: _Case) -> bool:
        benches = [(self._new, case.new)] + ([(self._old, case.old)] if self._old else [])
        return any(
            bench.rules.answer_rules or bench.rules.rules.masking.profile(decision.profile).answer
            for bench, decision in benches
        )

    def _about_prompt(self, case: _Case) -> Iterator[Doubt]:
        """Prompts may be recorded as they were masked for the model."""
        rules = case.summary.rules
        recorder = self._known.get(rules.get("recorder", ""))
        masker = self._known.get(rules.get("masker", ""))
        exact = recorder is not None and recorder.prompts == "exact"
        if masker is not None:
            exact |= not any(profile.prompt for profile in masker.rules.masking.profiles.values())
        same = all(self._same(case, file) for file in ("commands", "approval", "masker"))
        if case.summary.masked and not exact and not same:
            detail = "its prompt may be recorded masked: rules did not see what was masked"
            yield Doubt("request", "prompt-masked", detail)

    # Masking

    def _masking(self, case: _Case) -> Iterator[Change | Doubt]:
        if case.old.denied or case.new.denied:
            return
        if self._old:
            for side in case.new.masked.keys() & case.old.masked.keys():
                new, old = case.new.masked[side], case.old.masked[side]
                yield from masks("masked", side, less(new, old))
                yield from masks("unmasked", side, less(old, new))
        elif not self._same_masks(case):
            for side, found in case.new.masked.items():
                # What a recognizer masked in a prompt is there again where prompts are exact.
                known = case.summary.masked if side == "request" else {}
                yield from masks("masked", side, [each for each in found if each[0] not in known])
        if case.missing is None and not self._same_masks(case):
            for id, count in case.summary.masked.items():
                yield from self._masked_then(case, id, count)

    def _masked_then(self, case: _Case, id: str, count: int) -> Iterator[Change | Doubt]:
        """What a recognizer masked at the time is not in the recording: only its id is."""
        now = _sides(self._new.rules, case.new.profile, id)
        before = _sides(self._old.rules, case.old.profile, id) if self._old else now or {"answer"}
        side: Side = "answer" if "answer" in before or not before else "request"
        if before - now:
            yield Change("unmasked", side, id, count=count)
        elif now and not before:
            yield Change("masked", "answer" if "answer" in now else "request", id, count=count)
        else:
            kept = self._old and self._old.rules.recognizers.get(id)
            same = self._same(case, "masker") or kept == self._new.rules.recognizers.get(id)
            if not now or not same:
                detail = f"{count} values that {id} masked are not recorded"
                yield Doubt(side, "masked-then", f"{detail}: rules did not see them")


@dataclass(frozen=True, slots=True)
class _Case:
    exchange: Recorded
    summary: Summary
    old: Decision
    new: Decision
    missing: Doubt | None  # why there is no answer to judge

    @property
    def lost(self) -> bool:
        """Whether a rule has refused the answer, and both sides let the request go on to it."""
        found = self.summary.admitted and self.summary.denied_by
        return bool(found) and self.old.goes_out and self.new.goes_out


def _unfit(exchange: Recorded) -> Doubt | None:
    """Why there is nothing to judge."""
    request, summary = exchange.request, exchange.summary
    if request is None:
        return Doubt("request", "not-http", "it is no HTTP exchange")
    if summary is None:
        return Doubt("request", "no-verdict", "no gate has recorded what it decided")
    if not summary.principal:
        return Doubt("request", "no-caller", f"refused with {summary.refusal}: nothing is kept")
    expects = request.headers.get("content-length", "0") not in ("", "0")
    if request.raw_content is None or (expects and not request.raw_content):
        return Doubt("request", "no-body", "the request's body is not in the recording")
    return None


def _missing(exchange: Recorded, summary: Summary) -> Doubt | None:
    """Why there is no answer of a model to judge."""
    response = exchange.response
    if summary.ending == "complete" and response is not None and response.raw_content is not None:
        return None
    if not summary.admitted:
        return Doubt("answer", "no-answer", f"refused with {summary.refusal}: no model answered")
    if summary.refusal:
        detail = f"refused with {summary.refusal}: what the model said is not in the recording"
        return Doubt("answer", "answer-refused", detail)
    return Doubt("answer", "answer-incomplete", f"the answer is not whole: {summary.ending}")


def _is_foreign(old: Decision, new: Decision, summary: Summary) -> bool:
    """Whether something refused it that no rule decides about: a limit, a token, a fault."""
    if old.denied is None or summary.denied_by:
        return False
    decided = summary.refusal in {*GRANT_CODES, "endpoint_unknown"}
    return not decided and (new.denied is None or new.denied.rules != old.denied.rules)


def _sides(rules: RuleSet, profile: str, id: str) -> set[Side]:
    masks = rules.rules.masking.profile(profile)
    sides: set[Side] = set()
    if id in masks.answer.ids:
        sides.add("answer")
    if id in masks.prompt.ids:
        sides.add("request")
    return sides
