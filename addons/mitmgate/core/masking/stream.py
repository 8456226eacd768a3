"""Masking of a text that arrives in pieces, exactly as if it had arrived whole.

A place in the text is decided when nothing that may still arrive can change what happens there:
when the text from there on is no beginning of anything a recognizer matches. Places are handled
from left to right up to the first undecided one, and the text is held back from there. At each
place the recognizers compete, in both readings of the text (`shadow`): the leftmost match wins,
then the longest, then the first in the file. What is masked leaves no trace in what
was released before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mitmgate.core.masking.hold import Hold
from mitmgate.core.masking.prefilter import Prefilter
from mitmgate.core.masking.recognizer import CompiledRecognizer, CompiledTail
from mitmgate.core.masking.shadow import Reading, read

PIECE = 16384  # characters handled at once, so that few recognizers are candidates in each


@dataclass(frozen=True, slots=True)
class Found:
    """A match by its places in the text as it was written, and its value as it was read."""

    start: int
    value: int
    value_end: int
    end: int
    core: str


class Engine:
    """What all streams of one set of recognizers share."""

    def __init__(self, recognizers: Sequence[CompiledRecognizer]) -> None:
        self.recognizers = tuple(recognizers)
        self.prefilter = Prefilter([one.closure.relaxed for one in recognizers])
        self.behind = 1 + max([1, *(one.behind for one in recognizers)])  # `fold` looks back, too
        self.hold = Hold((one.closure, one.span) for one in recognizers)

    def find(self, order: int, reading: Reading, at: int, limit: int) -> Found | None:
        """The first match of recognizer `order` that begins in [at, limit)."""
        match = self.recognizers[order].find(reading.text, reading.index(at), reading.index(limit))
        if match is None:
            return None
        return Found(
            reading.place(match.start),
            reading.place(match.value),
            reading.limit(match.value_end),
            reading.limit(match.end),
            reading.text[match.value : match.value_end],
        )


class StreamMasker:
    """One channel of text. Not for two threads at once.

    After an exception it is broken: it releases nothing any more and raises `RuntimeError`.
    """

    def __init__(self, engine: Engine, trace: list[tuple[str, int, int]] | None = None) -> None:
        """`trace`, when given, receives (recognizer id, start, end) of everything masked."""
        self.hits: Counter[str] = Counter()
        self._engine = engine
        self._trace = trace
        self._text = ""  # left context, then what is held
        self._at = 0  # where the held part begins
        self._gone = 0  # how many characters stood before self._text
        self._swallowing: CompiledTail | None = None
        self._shadowed = False  # the tail is read in the shadow, when there is one
        self._ended = False
        self._broken = False

    @property
    def held(self) -> int:
        """How many characters wait for a decision."""
        return len(self._text) - self._at

    def feed(self, text: str) -> str:
        """Take the next piece; returns what is decided, masked.

        Raises `TimeoutError` for a recognizer that takes too long, `ValueError` after `finish`.
        """
        if self._ended and text:
            raise ValueError("the stream has been finished")
        return "".join(
            self._run(text[i : i + PIECE], final=False) for i in range(0, len(text), PIECE)
        )

    def finish(self, text: str = "") -> str:
        """The text ends here, perhaps after one more piece: returns the rest.

        Called again, it returns nothing, and raises `ValueError` for more text.
        """
        released = self.feed(text[:-PIECE])
        if self._ended:
            return self.feed(text)
        rest = self._run(text[-PIECE:], final=True)
        self._ended = True
        return released + rest

    def _run(self, piece: str, *, final: bool) -> str:
        if self._broken:
            raise RuntimeError("masking failed earlier in this stream")
        self._broken = True
        released = self._release(piece, final=final)
        self._broken = False
        return released

    def _release(self, piece: str, *, final: bool) -> str:
        text = self._text + piece
        readings = read(text, final=final)
        at = self._at
        if self._swallowing:
            at = self._swallow(readings, at, final=final)
        out: list[str] = []
        if not self._swallowing:
            limit = self._limit(text, readings, at, final=final)
            if at < limit:
                at = self._mask(text, readings, at, limit, final, out)
        self._keep(text, readings, at)
        return "".join(out)

    def _limit(self, text: str, readings: Sequence[Reading], at: int, *, final: bool) -> int:
        """The first place from `at` on that is undecided in some reading."""
        if final:
            return len(text)
        hold = self._engine.hold.place
        return min([one.place(hold(one.text, one.index(at))) for one in readings])

    def _mask(
        self,
        text: str,
        readings: Sequence[Reading],
        at: int,
        limit: int,
        final: bool,
        out: list[str],
    ) -> int:
        """Handle the decided places from `at` on. Returns where the undecided part begins."""
        engine = self._engine
        found = {
            (order, rank): engine.find(order, reading, at, limit)
            for rank, reading in enumerate(reversed(readings))
            for order in engine.prefilter.candidates(reading.text)
        }
        while matches := [(m.start, -m.end, key, m) for key, m in found.items() if m]:
            *_, (order, rank), match = min(matches)
            one = engine.recognizers[order]
            out += (
                text[at : match.value],
                one.replace(match.core),
                text[match.value_end : match.end],
            )
            self.hits[one.id] += 1
            if self._trace is not None:
                self._trace.append((one.id, self._gone + match.value, self._gone + match.value_end))
            at = match.end
            if one.tail:
                self._swallowing, self._shadowed = one.tail, rank == 0
                at = self._swallow(readings, at, final=final)
                if self._swallowing:
                    return at
            extended = at > limit
            if extended:
                limit = self._limit(text, readings, at, final=final)
            for (order, rank), m in found.items():
                if m.start < at if m else extended:
                    reading = readings[len(readings) - 1 - rank]
                    found[order, rank] = engine.find(order, reading, at, limit)
        if at < limit:
            out.append(text[at:limit])
        return max(at, limit)

    def _swallow(self, readings: Sequence[Reading], at: int, *, final: bool) -> int:
        """Go on with the tail of the last match. Returns where it stopped."""
        if self._swallowing is None:
            return at
        reading = readings[-1 if self._shadowed else 0]
        start = reading.index(at)
        end, ended = self._swallowing.consume(reading.text, start, final=final)
        if end > start:
            at = reading.limit(end)
        if self._trace is not None:
            id_, begun, _ = self._trace[-1]
            self._trace[-1] = (id_, begun, self._gone + at)
        if ended:
            self._swallowing = None
        return at

    def _keep(self, text: str, readings: Sequence[Reading], at: int) -> None:
        """Forget what no reading needs any more; the cut goes through no escape, no run."""
        last = readings[-1]
        spare = last.index(at) - self._engine.behind
        cut = last.limit(spare) if spare > 0 else 0
        self._text, self._at = text[cut:], at - cut
        self._gone += cut
