from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def naive() -> Naive:
    """Masking told again in the plainest way: the whole text, place by place, every recognizer."""

    def mask(
        recognizers: Sequence[CompiledRecognizer], text: str
    ) -> tuple[str, list[tuple[str, int, int]]]:
        folded, out, hits, at = fold(text), [], [], 0
        while at < len(text):
            best = None
            for one in recognizers:
                until = len(text) if one.window is None else at + one.window
                match = one.pattern.match(folded, at, until)
                if match is None:
                    continue
                value, value_end = match.span("value" if one.grouped else 0)
                end = match.end()
                if value == value_end:
                    continue
                if one.tail:
                    value_end = end
                if one.validator:
                    length = one.validator(folded[value:value_end])
                    if length == 0:
                        continue
                    if length < value_end - value:
                        value_end = end = value + length
                if best is None or end > best[3]:
                    best = one, value, value_end, end
            if best is None:
                out.append(text[at])
                at += 1
                continue
            one, value, value_end, end = best
            core = folded[value:value_end]
            if one.tail:
                while end < len(text) and one.tail.run.fullmatch(folded[end]):
                    end += 1
                if one.tail.marker and (marker := one.tail.marker.match(folded, end)):
                    end = marker.end()
                value_end = end
            out += text[at:value], one.replace(core), text[value_end:end]
            hits.append((one.id, value, value_end))
            at = end
        return "".join(out), hits

    return mask
