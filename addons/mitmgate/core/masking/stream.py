"""Masking of a text that arrives in pieces, exactly as if it had arrived whole.

A place in the text is decided when nothing that may still arrive can change what happens there:
when the text from there on is no beginning of anything a recognizer matches. Places are handled
from left to right up to the first undecided one, and the text is held back from there. At each
place the recognizers compete: the leftmost match wins, then the longest, then the first in the
file. What is masked leaves no trace in what was released before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mitmgate.core.masking.closure import undecided
from mitmgate.core.masking.folding import fold
from mitmgate.core.masking.prefilter import Prefilter
from mitmgate.core.masking.recognizer import CompiledRecognizer, CompiledTail, Match

PIECE = 16384  # characters handled at once, so that few recognizers are candidates in each
NARROW = 50  # characters; most recognizers never need to hold more


class Engine:
    """What all streams of one set of recognizers share."""

    def __init__(self, recognizers: Sequence[CompiledRecognizer]) -> None:
        self.recognizers = tuple(recognizers)
        self.prefilter = Prefilter([one.closure.relaxed for one in recognizers])
        self.behind = max([1, *(one.behind for one in recognizers)])
        self._span = max((one.span for one in recognizers), default=0)
        self._undecided = undecided(one.closure for one in recognizers)
        self._undecided_wide = undecided(one.closure for one in recognizers if one.span > NARROW)

    def hold(self, text: str, start: int) -> int:
        """The first undecided place in `text` from `start` on; its length when there is none."""
        near = len(text) - NARROW + 1
        if start < near:  # further from the end only the wide recognizers can be undecided
            far = max(start, len(text) - self._span + 1)
            found = self._undecided_wide.search(text, far)
            if found and found.start() < near:
                return found.start()
            start = near
        found = self._undecided.search(text, start)
        return found.start() if found else len(text)


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

    def finish(self) -> str:
        """The text ends here: returns the rest. Called again, it returns nothing."""
        if self._ended:
            return ""
        rest = self._run("", final=True)
        self._ended = True
        return rest

    def _run(self, piece: str, *, final: bool) -> str:
        if self._broken:
            raise RuntimeError("masking failed earlier in this stream")
        self._broken = True
        released = self._release(piece, final=final)
        self._broken = False
        return released

    def _release(self, piece: str, *, final: bool) -> str:
        text = self._text + piece
        folded = fold(text)
        at = self._at
        if self._swallowing:
            at = self._swallow(folded, at, final=final)
            if self._swallowing:
                self._keep(text, at)
                return ""
        limit = len(text) if final else self._engine.hold(folded, at)
        out: list[str] = []
        if at < limit:
            at = self._mask(text, folded, at, limit, final, out)
        self._keep(text, at)
        return "".join(out)

    def _mask(
        self, text: str, folded: str, at: int, limit: int, final: bool, out: list[str]
    ) -> int:
        """Handle the decided places from `at` on. Returns where the undecided part begins."""
        recognizers = self._engine.recognizers
        chosen = sorted(self._engine.prefilter.candidates(folded))
        found: dict[int, Match | None] = {i: recognizers[i].find(folded, at, limit) for i in chosen}
        while matches := [(m.start, -m.end, i, m) for i, m in found.items() if m]:
            *_, order, match = min(matches)
            one = recognizers[order]
            out += (
                text[at : match.value],
                one.replace(folded[match.value : match.value_end]),
                text[match.value_end : match.end],
            )
            self.hits[one.id] += 1
            if self._trace is not None:
                self._trace.append((one.id, self._gone + match.value, self._gone + match.value_end))
            at = match.end
            if one.tail:
                self._swallowing = one.tail
                at = self._swallow(folded, at, final=final)
                if self._swallowing:
                    return at
            extended = at > limit
            if extended:
                limit = len(text) if final else self._engine.hold(folded, at)
            for i, m in found.items():
                if m.start < at if m else extended:
                    found[i] = recognizers[i].find(folded, at, limit)
        if at < limit:
            out.append(text[at:limit])
        return max(at, limit)

    def _swallow(self, folded: str, at: int, *, final: bool) -> int:
        """Go on with the tail of the last match. Returns where it stopped."""
        if self._swallowing is None:
            return at
        end, ended = self._swallowing.consume(folded, at, final=final)
        if self._trace is not None:
            id_, start, _ = self._trace[-1]
            self._trace[-1] = (id_, start, self._gone + end)
        if ended:
            self._swallowing = None
        return end

    def _keep(self, text: str, at: int) -> None:
        cut = max(0, at - self._engine.behind)
        self._text, self._at = text[cut:], at - cut
        self._gone += cut
