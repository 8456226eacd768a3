from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import regex

from mitmgate.core.masking import Masker, MaskerFile, Masking, compile
from mitmgate.core.masking.folding import fold
from mitmgate.core.masking.recognizer import CompiledRecognizer
from mitmgate.core.rules import load

RULES = Path(__file__).parents[3] / "rules" / "masker.yaml"
Naive = Callable[[Sequence[CompiledRecognizer], str], tuple[str, list[tuple[str, int, int]]]]


@pytest.fixture(scope="session")
def shipped() -> Masking:
    return compile(load(RULES, MaskerFile), key=b"key")


@pytest.fixture(scope="session")
def samples() -> dict[str, tuple[str, ...]]:
    return {one.id: one.tests.match for one in load(RULES, MaskerFile).file.recognizers}


@pytest.fixture
def masking_of(tmp_path: Path) -> Callable[[str], Masking]:
    """Compile the text of a masker.yaml."""

    def build(text: str) -> Masking:
        path = tmp_path / "masker.yaml"
        path.write_text(text, "utf-8")
        return compile(load(path, MaskerFile), key=b"key")

    return build


def recognizers_of(masker: Masker) -> tuple[CompiledRecognizer, ...]:
    return masker._engine.recognizers


# A reading of a text, told again in the plainest way: characters, and where each begins and ends.
Spelled = tuple[str, list[int], list[int]]
UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]")
ESCAPE = regex.compile(r"(?:%(?:25){0,2}|\\{1,4}u00|\\{1,4}x)([2-7][0-9A-Fa-f]|0[9ADad])")


def plain(text: str) -> Spelled:
    return fold(text), list(range(len(text))), list(range(1, len(text) + 1))


def shadow(text: str) -> Spelled:
    seen, run = [], 0
    for at, char in enumerate(text):
        run = run + 1 if UNSEEN.match(char) else 0
        if run == 17:
            seen.append(("\u200b", at, at + 1))
            run = 0
        elif run == 0:
            seen.append((char, at, at + 1))
    folded = fold("".join(char for char, _, _ in seen))
    out, at = [], 0
    while at < len(folded):
        escape = ESCAPE.match(folded, at)
        stop = escape.end() if escape else at + 1
        char = chr(int(escape[1], 16)) if escape else folded[at]
        out.append((char, seen[at][1], seen[stop - 1][2]))
        at = stop
    return fold("".join(char for char, *_ in out)), [b for _, b, _ in out], [e for *_, e in out]


@pytest.fixture(scope="session")
def spelled() -> Callable[[str], Spelled]:
    return shadow


@pytest.fixture(scope="session")
def naive() -> Naive:
    """Masking told again in the plainest way: the whole text, place by place, every recognizer."""

    def mask(
        recognizers: Sequence[CompiledRecognizer], text: str
    ) -> tuple[str, list[tuple[str, int, int]]]:
        readings = [shadow(text), plain(text)]
        out, hits, at = [], [], 0
        while at < len(text):
            best = None
            for one in recognizers:
                for reading in readings:
                    found = match_at(one, reading, at)
                    if found and (best is None or reading[2][found[2] - 1] > best[3]):
                        best = one, reading, found, reading[2][found[2] - 1]
            if best is None:
                out.append(text[at])
                at += 1
                continue
            one, (chars, begins, ends), (value, value_end, end), _ = best
            core = chars[value:value_end]
            if one.tail:
                while end < len(chars) and one.tail.run.fullmatch(chars[end]):
                    end += 1
                if one.tail.marker and (marker := one.tail.marker.match(chars, end)):
                    end = marker.end()
                value_end = end
            start, stop = begins[value], ends[value_end - 1]
            out += text[at:start], one.replace(core), text[stop : ends[end - 1]]
            hits.append((one.id, start, stop))
            at = ends[end - 1]
        return "".join(out), hits

    return mask


def match_at(one: CompiledRecognizer, reading: Spelled, at: int) -> tuple[int, int, int] | None:
    """The value and the end of a match that begins at `at`, as indices into the reading."""
    chars, begins, _ = reading
    index = bisect_left(begins, at)
    if index == len(begins) or begins[index] != at:
        return None
    until = len(chars) if one.window is None else index + one.window
    match = one.pattern.match(chars, index, until)
    if match is None:
        return None
    value, value_end = match.span("value" if one.grouped else 0)
    end = match.end()
    if value == value_end:
        return None
    if one.tail:
        value_end = end
    if one.validator:
        length = one.validator(chars[value:value_end])
        if length == 0:
            return None
        if length < value_end - value:
            value_end = end = value + length
    return value, value_end, end
