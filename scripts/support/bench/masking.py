"""Masking of whole texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import regex

from bench import corpus
from bench.figures import KB, Effort, Figure, Section, medians
from mitmgate.core import masking
from mitmgate.core.rules import load

RULES = Path(__file__).parents[3] / "rules"
PROFILE = "default"
BODY = 4 * KB
LIMIT = 8.0  # us/KB for texts in which there is nothing to mask

# A pattern around three letters, and texts that it finds and does not.
_FORMS: tuple[tuple[str, str, str], ...] = (
    (r"(?<![A-Za-z0-9]){0}-\d{{6}}(?![A-Za-z0-9])", "{0}-123456", "{0}-12345"),
    (r"(?<![A-Za-z0-9]){0}_[A-Za-z0-9]{{24}}(?!\w)", "{0}_" + "a1" * 12, "{0}_a1a1"),
    (r"(?<![\w-])\d{{2}}-{0}-\d{{4}}(?![\w-])", "12-{0}-3456", "12-{0}-345"),
    (r"(?i)(?<![A-Za-z0-9]){0}[ #:]{{1,3}}\d{{5,9}}(?!\d)", "{0}: 12345", "{0} 12"),
)


@dataclass(frozen=True, slots=True)
class Recognizers:
    """A profile's masker, and its patterns for a simple loop."""

    masker: masking.Masker
    patterns: tuple[regex.Pattern[str], ...]
    made: str  # what it consists of

    @property
    def count(self) -> int:
        return len(self.patterns)

    def loop(self, text: str) -> None:
        """What a simple loop does: search for everything that there is."""
        for pattern in self.patterns:
            for _ in pattern.finditer(text):
                pass


def measure(effort: Effort) -> Section:
    used, shipped = recognizers(effort.recognizers)
    figures = []
    for name, text in (("prose", corpus.prose()), ("code", corpus.code())):
        cut = (text, BODY, effort.bodies, effort.rounds)
        clean = corpus.cuts(*cut, keep=lambda piece: _is_clean(piece, used, shipped))
        figures += _figures(f"clean bodies, {name}", used, shipped, clean, LIMIT)
        figures += _figures(f"bodies as they come, {name}", used, shipped, corpus.cuts(*cut), None)
    return Section(
        f"Masking of whole texts ({used.count} recognizers)",
        tuple(figures),
        (
            f"{used.made}; texts of 4 KB, clean ones have nothing in them to mask",
            "naive: `regex.finditer` of every recognizer, without validators",
        ),
    )


@cache
def recognizers(count: int) -> tuple[Recognizers, Recognizers]:
    """`count` recognizers, shipped ones first and then made-up ones, and the profile as shipped."""
    loaded = load(RULES / "masker.yaml", masking.MaskerFile)
    chosen = loaded.file.profiles[PROFILE].answer
    shipped = [one for one in loaded.file.recognizers if one.id in chosen]
    made = _made_up(count - len(shipped))
    used = [*shipped, *made][:count]
    profiles = {
        name: masking.Profile(answer=tuple(one.id for one in ones))
        for name, ones in (("used", used), ("shipped", shipped))
    }
    update = {"recognizers": (*shipped, *made), "profiles": profiles}
    filled = replace(loaded, file=loaded.file.model_copy(update=update))
    compiled = masking.compile(filled, key=b"benchmark")
    whole = f"the profile `{PROFILE}`, which ships {len(shipped)} recognizers"
    if made:
        remark = f"{whole}, and {len(made)} made up"
    else:
        remark = f"the first {count} recognizers of {whole}"
    return (
        Recognizers(compiled.profile("used").answer, _patterns(used), remark),
        Recognizers(compiled.profile("shipped").answer, _patterns(shipped), whole),
    )


def _patterns(ones: Sequence[masking.Recognizer]) -> tuple[regex.Pattern[str], ...]:
    return tuple(regex.compile(one.match, regex.VERSION0) for one in ones)


def _is_clean(text: str, *sets: Recognizers) -> bool:
    return not any(one.masker.mask(text).hits for one in sets)


def _made_up(count: int) -> list[masking.Recognizer]:
    chance = random.Random(5)  # noqa: S311  (the same recognizers in every run)
    made = []
    for i in range(count):
        letters = "".join(chance.sample("ABCDEFGHIJKLMNOPRSTUVWXYZ", 3))
        match, found, passed = (part.format(letters) for part in _FORMS[i % len(_FORMS)])
        tests = {"match": [found], "pass": [passed]}
        one = {"id": f"made-up-{i}", "match": match, "replace": "[ID]", "tests": tests}
        made.append(masking.Recognizer.model_validate(one))
    return made


def _figures(
    name: str,
    used: Recognizers,
    shipped: Recognizers,
    bodies: list[list[str]],
    limit: float | None,
) -> list[Figure]:
    def through(masker: masking.Masker) -> Callable[[list[str]], None]:
        def run(texts: list[str]) -> None:
            for text in texts:
                masker.mask(text)

        return run

    def naive(texts: list[str]) -> None:
        for text in texts:
            used.loop(text)

    contenders = {
        "gate": through(used.masker),
        "shipped": through(shipped.masker),
        "naive": naive,
    }
    kilobytes = len(bodies[0]) * BODY / KB
    each = {who: s * 1e6 / kilobytes for who, s in medians(contenders, bodies).items()}
    return [
        Figure(name, "us/KB", each["gate"], each["naive"], limit),
        Figure(f"  the {shipped.count} that ship", "us/KB", each["shipped"]),
    ]
