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

from collections.abc import Iterator, Sequence, Set

import regex

from mitmgate.core.matching.decoding import decoded, unescaped
from mitmgate.core.matching.letters import Lexicon, rotated, run_together, spread, unmarked
from mitmgate.core.matching.normalising import clean, latinise, squeeze, unaccent, unmark, untag
from mitmgate.core.matching.reading import Edit, Reading, blocks, in_blocks, spans_after
from mitmgate.core.rules.rule import View

ROUNDS = 2  # of decoding: base64 in base64 is read, a third layer is not
ALL: frozenset[View] = frozenset(["decoded", "spaced", "leet", "punctuation", "rot13", "reversed"])
ENTIRE = "entire"  # not a view: all of the decoded text, for rules that look far
NONE = Lexicon(())

type _Pair = tuple[Reading, Reading]  # a text and the same with its white space squeezed

_TAG = regex.compile("[\U000e0020-\U000e007e]")


def views_of(
    text: str, lexicon: Lexicon = NONE, margin: int | None = None, wanted: Set[str] = ALL
) -> Iterator[tuple[str, Reading]]:
    """Every different text to search for `text`, with the name of its view; the raw text first.

    Of decoded text only what is within `margin` letters and digits of something decoded is given,
    or all of it if that is None. In the first case all of it comes as well, as `ENTIRE`.
    """
    seen: list[str] = []  # few, and comparing costs less than a hash of each
    for name, reading in _all(Reading(text), lexicon, margin, wanted):
        if reading.text not in seen:
            seen.append(reading.text)
            yield name, reading


def _all(
    raw: Reading, lexicon: Lexicon, margin: int | None, wanted: Set[str]
) -> Iterator[tuple[str, Reading]]:
    yield "raw", raw
    shown, folded, letters = _normalised(raw)
    yield from _read("normalised", shown, wanted)
    if not raw.text.isascii() and any(map(_TAG.search, blocks(raw.text))):
        shown, folded, letters = _normalised(raw.translated(in_blocks(untag, raw.text)))
        yield from _read("decoded", shown, wanted)
    if "decoded" not in wanted:
        yield from _spelled(letters, lexicon, margin, wanted)
        return
    for i in range(ROUNDS):
        escaped = folded
        if (plain := unescaped(folded)) is not folded:
            yield from _turned(letters[1], wanted)  # in which a backslash may be one
            if not plain.text.isascii():
                yield "decoded", plain
            shown, folded, letters = _normalised(plain)
            yield from _read("decoded", shown, wanted)
            yield from _spelled(letters, lexicon, margin, wanted)
        elif i == 0:
            yield from _spelled(letters, lexicon, margin, wanted)
        plain, spans = decoded(folded)
        if not spans:
            if folded is escaped:
                return  # another round would see no more
            continue
        if margin is not None and (cut := plain.around(spans, margin)) is not plain:
            for reading in _normalised(plain)[0]:
                yield ENTIRE, reading
            plain = cut
        if not plain.text.isascii():
            yield "decoded", plain
        shown, folded, letters = _normalised(plain)
        yield from _read("decoded", shown, wanted)
        yield from _spelled(letters, lexicon, margin, wanted)


def _read(name: str, shown: list[Reading], wanted: Set[str]) -> Iterator[tuple[str, Reading]]:
    """The text as it is shown, and turned round with letters of its own script: elsewhere their
    look-alikes stand in their place; with the marks on them, and without those that are loose."""
    for reading in shown:
        yield name, reading
    if "reversed" in wanted and not shown[0].text.isascii():
        yield "reversed", shown[0].reversed()
        if (plain := shown[0].changed(unmark)) is not shown[0]:
            yield "reversed", plain.reversed()


def _normalised(plain: Reading) -> tuple[list[Reading], Reading, _Pair]:
    """The text as a reader would see it, whitespace squeezed; if it is not ASCII, then again with
    ASCII for its look-alikes, then again without accents. To go on from: the second of them with
    its white space as it is, and for its letters that without loose marks.
    """
    cleaned = plain.changed(clean)
    folded = cleaned.changed(latinise)
    squeezed = folded.changed(squeeze)
    shown = [squeezed.trimmed()]
    if folded is not cleaned:
        shown.insert(0, cleaned.changed(squeeze).trimmed())
    if not folded.text.isascii():
        shown.append(folded.changed(unaccent).changed(squeeze).trimmed())
        plain = folded.changed(unmark)
        return shown, folded, (plain, squeezed if plain is folded else plain.changed(squeeze))
    return shown, folded, (folded, squeezed)


def _spelled(
    letters: _Pair,
    lexicon: Lexicon,
    margin: int | None,
    wanted: Set[str],
) -> Iterator[tuple[str, Reading]]:
    """The text with its letters read in other ways."""
    folded, squeezed = letters
    yield from _turned(squeezed, wanted)
    if "punctuation" in wanted and (plain := squeezed.changed(unmarked)) is not squeezed:
        folded, squeezed = folded.changed(unmarked), plain.changed(squeeze)
        yield "punctuation", squeezed
    yield from _letters(folded, squeezed, lexicon, margin, wanted)
    if "spaced" in wanted and (edits := lexicon.join(folded.text)):
        folded = _near(folded, edits, margin)
        squeezed = folded.changed(squeeze)
        yield "spaced", squeezed
        yield from _letters(folded, squeezed, lexicon, margin, wanted)
        yield from _turned(squeezed, wanted)


def _letters(
    folded: Reading,
    squeezed: Reading,
    lexicon: Lexicon,
    margin: int | None,
    wanted: Set[str],
) -> Iterator[tuple[str, Reading]]:
    others = [squeezed]
    if "leet" in wanted:
        for edits in lexicon.unleet(folded.text):
            others.append(_near(folded, edits, margin).changed(squeeze))
            yield "leet", others[-1]
    if "punctuation" in wanted:
        for plain in others:
            yield "punctuation", plain.changed(run_together)
            yield "punctuation", plain.changed(spread).changed(squeeze)


def _turned(squeezed: Reading, wanted: Set[str]) -> Iterator[tuple[str, Reading]]:
    if "rot13" in wanted:
        yield "rot13", squeezed.translated(in_blocks(rotated, squeezed.text))
    if "reversed" in wanted:
        turned = squeezed.reversed()
        yield "reversed", turned
        if "rot13" in wanted:
            yield "rot13", turned.translated(in_blocks(rotated, turned.text))


def _near(reading: Reading, edits: Sequence[Edit], margin: int | None) -> Reading:
    edited = reading.edited(edits)
    return edited if margin is None else edited.around(spans_after((), edits), margin)
