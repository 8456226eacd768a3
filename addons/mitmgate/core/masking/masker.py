"""Masking of whole texts, and the way to a stream masker for texts that arrive in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mitmgate.core.masking.recognizer import CompiledRecognizer
from mitmgate.core.masking.shadow import read
from mitmgate.core.masking.stream import Engine, StreamMasker


@dataclass(frozen=True, slots=True)
class Hit:
    """What was masked: which recognizer, and [start, end) in the text before masking."""

    recognizer: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Masked:
    """A text after masking, and what was masked, from left to right."""

    text: str
    hits: tuple[Hit, ...] = ()


class Masker:
    """A set of recognizers. False when it has none, and then it changes nothing."""

    def __init__(self, recognizers: Sequence[CompiledRecognizer]) -> None:
        self._engine = Engine(recognizers)

    def __bool__(self) -> bool:
        return bool(self._engine.recognizers)

    @property
    def ids(self) -> tuple[str, ...]:
        """The recognizers' ids, in the order in which they compete."""
        return tuple(one.id for one in self._engine.recognizers)

    def mask(self, text: str) -> Masked:
        """Mask a whole text. Raises `TimeoutError` for a recognizer that takes too long."""
        candidates = self._engine.prefilter.candidates
        if not any(candidates(reading.text) for reading in read(text, final=True)):
            return Masked(text)
        trace: list[tuple[str, int, int]] = []
        stream = StreamMasker(self._engine, trace)
        masked = stream.finish(text)
        return Masked(masked, tuple(Hit(*hit) for hit in trace))

    def stream(self) -> StreamMasker:
        """A masker for one text that arrives in pieces."""
        return StreamMasker(self._engine)


@dataclass(frozen=True, slots=True)
class ProfileMaskers:
    """What a profile masks in answers and in prompts."""

    answer: Masker
    prompt: Masker
