"""What else a text says: the views in which rules look for their patterns.

Raw text alone is easily dodged with a zero-width space, a Cyrillic letter, base64 or ROT13. Each
view turns a text into texts to be searched as well; they are for matching only and are never
forwarded.

Disguises are taken off in this order, so any choice of them that was put on in the opposite order
is seen through: invisible characters, look-alikes and marks; escapes and encodings, twice, each
time with what is invisible; Markdown; letters set apart; leetspeak; then one of punctuation in or
between words, ROT13, reversal, or the last two together. Not seen through: an encoding of which
the digits themselves are rotated, reversed, leet or set apart; leetspeak in ROT13 or inside words
that punctuation divides; accented letters or Markdown beside ROT13 or reversal; words broken over
lines without a hyphen; base64 of fewer than 9 bytes, hex of fewer than 6; three layers of encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import regex

from mitmgate.core.matching.decoding import decoded, escapes, unescaped
from mitmgate.core.matching.letters import Lexicon, rotated, run_together, spread, unmarked
from mitmgate.core.matching.normalising import clean, latinise, squeeze, unaccent, unmark, untag
from mitmgate.core.matching.reading import Edit, Reading, blocks, in_blocks, spans_after
from mitmgate.core.rules.rule import View

ROUNDS = 2  # of decoding: base64 in base64 is read, a third layer is not
ALL: frozenset[View] = frozenset(["decoded", "spaced", "leet", "punctuation", "rot13", "reversed"])
ENTIRE = "entire"  # not a view: all of the decoded text, for rules that look far
NONE = Lexicon(())

type _Pair = tuple[Reading, Reading]  # a text and the same with its white space squeezed
type Kind = Literal["joined", "spread"]  # without punctuation, or with blanks in its place
# Whether a text may break a rule once it is changed so; its `skeleton` stays the same.
type Worth = Callable[[Kind, Reading], bool]

_TAG = regex.compile("[\U000e0020-\U000e007e]")


def always(kind: Kind, reading: Reading) -> bool:
    """Look at everything."""
    return True


def views_of(
    text: str,
    lexicon: Lexicon = NONE,
    margin: int | None = None,
    wanted: Set[str] = ALL,
    worth: Worth = always,
) -> Iterator[tuple[str, Reading]]:
    """Every different text to search for `text`, with the name of its view; the raw text first.

    Of decoded text only what is within `margin` letters and digits of something decoded, or of an
    escape that is left, is given, or all of it if that is None. In the first case all of it comes
    as well, as `ENTIRE`. A text without its punctuation is given where it is `worth` looking at.
    """
    seen: list[str] = []  # few, and comparing costs less than a hash of each
    for name, reading in _Views(lexicon, margin, wanted, worth).of(Reading(text)):
        if reading.text not in seen:
            seen.append(reading.text)
            yield name, reading


@dataclass(frozen=True, slots=True)
class _Views:
    lexicon: Lexicon
    margin: int | None
    wanted: Set[str]
    worth: Worth

    def of(self, raw: Reading) -> Iterator[tuple[str, Reading]]:
        yield "raw", raw
        shown, folded, letters = _normalised(raw)
        yield from self._read("normalised", shown)
        if not raw.text.isascii() and any(map(_TAG.search, blocks(raw.text))):
            shown, folded, letters = _normalised(raw.translated(in_blocks(untag, raw.text)))
            yield from self._read("decoded", shown)
        if "decoded" not in self.wanted:
            yield from self._spelled(letters)
            return
        for i in range(ROUNDS):
            escaped = folded
            if (plain := unescaped(folded)) is not folded:
                yield from self._turned(letters[1])  # in which a backslash may be one
                if not plain.text.isascii():
                    yield "decoded", plain
                shown, folded, letters = _normalised(plain)
                yield from self._read("decoded", shown)
                yield from self._spelled(letters)
            elif i == 0:
                yield from self._spelled(letters)
            plain, spans = decoded(folded)
            if not spans:
                if folded is escaped:
                    return  # another round would see no more
                continue
            if self.margin is not None and i + 1 < ROUNDS:
                spans = sorted([*spans, *escapes(plain.text)])  # of escapes, for the next round
            if self.margin is not None and (cut := plain.around(spans, self.margin)) is not plain:
                for reading in _normalised(plain)[0]:
                    yield ENTIRE, reading
                plain = cut
            if not plain.text.isascii():
                yield "decoded", plain
            shown, folded, letters = _normalised(plain)
            yield from self._read("decoded", shown)
            yield from self._spelled(letters)

    def _read(self, name: str, shown: list[Reading]) -> Iterator[tuple[str, Reading]]:
        """The text as it is shown, and turned round with letters of its own script: elsewhere
        their look-alikes stand in their place; with the marks on them, and without those that are
        loose."""
        for reading in shown:
            yield name, reading
        if "reversed" in self.wanted and not shown[0].text.isascii():
            yield "reversed", shown[0].reversed()
            if (plain := shown[0].changed(unmark)) is not shown[0]:
                yield "reversed", plain.reversed()

    def _spelled(self, letters: _Pair) -> Iterator[tuple[str, Reading]]:
        """The text with its letters read in other ways."""
        folded, squeezed = letters
        yield from self._turned(squeezed)
        if (
            "punctuation" in self.wanted
            and (plain := squeezed.changed(unmarked, alike=True)) is not squeezed
        ):
            folded, squeezed = (
                folded.changed(unmarked, alike=True),
                plain.changed(squeeze, alike=True),
            )
            yield "punctuation", squeezed
        yield from self._letters(folded, squeezed)
        if "spaced" in self.wanted and (edits := self.lexicon.join(folded.text)):
            folded = self._near(folded, edits)
            squeezed = folded.changed(squeeze, alike=True)
            yield "spaced", squeezed
            yield from self._letters(folded, squeezed)
            yield from self._turned(squeezed)

    def _letters(self, folded: Reading, squeezed: Reading) -> Iterator[tuple[str, Reading]]:
        others = [squeezed]
        if "leet" in self.wanted:
            for edits in self.lexicon.unleet(folded.text):
                others.append(self._near(folded, edits).changed(squeeze, alike=True))
                yield "leet", others[-1]
        if "punctuation" in self.wanted:
            for plain in others:
                if self.worth("joined", plain):
                    yield "punctuation", plain.changed(run_together, alike=True)
                if self.worth("spread", plain):
                    yield (
                        "punctuation",
                        plain.changed(spread, alike=True).changed(squeeze, alike=True),
                    )

    def _turned(self, squeezed: Reading) -> Iterator[tuple[str, Reading]]:
        if "rot13" in self.wanted:
            yield "rot13", squeezed.translated(in_blocks(rotated, squeezed.text))
        if "reversed" in self.wanted:
            turned = squeezed.reversed()
            yield "reversed", turned
            if "rot13" in self.wanted:
                yield "rot13", turned.translated(in_blocks(rotated, turned.text))

    def _near(self, reading: Reading, edits: Sequence[Edit]) -> Reading:
        edited = reading.edited(edits)
        if self.margin is None:
            return edited
        return edited.around(spans_after((), edits), self.margin)


def _normalised(plain: Reading) -> tuple[list[Reading], Reading, _Pair]:
    """The text as a reader would see it, whitespace squeezed; if it is not ASCII, then again with
    ASCII for its look-alikes, then again without accents. To go on from: the second of them with
    its white space as it is, and for its letters that without loose marks.
    """
    cleaned = plain.changed(clean, alike=True)
    folded = cleaned.changed(latinise)
    squeezed = folded.changed(squeeze, alike=True)
    shown = [squeezed.trimmed()]
    if folded is not cleaned:
        shown.insert(0, cleaned.changed(squeeze, alike=True).trimmed())
    if not folded.text.isascii():
        shown.append(folded.changed(unaccent).changed(squeeze, alike=True).trimmed())
        plain = folded.changed(unmark)
        return (
            shown,
            folded,
            (plain, squeezed if plain is folded else plain.changed(squeeze, alike=True)),
        )
    return shown, folded, (folded, squeezed)
