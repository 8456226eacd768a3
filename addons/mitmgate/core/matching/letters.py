"""Words that are spelled oddly: leetspeak, letters set apart, rotated or turned round, punctuation.

What is read depends on the words that the rules look for (`Lexicon`): digits become letters only
where that makes such a word, and letters in a row are cut into such words. So `utf8`, `x86_64`, a
table of numbers or `a, b, c, d` stay what they are.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import accumulate, pairwise

from mitmgate.core.matching import prefilter
from mitmgate.core.matching.reading import Edit, ascii_bytes

SHORTEST = 2  # letters of a word that counts as known
TINY = 3  # letters of a word that is neither cut nor read backwards or rotated
KNOWN = 1 << 12  # tokens that need not be read again
LONGEST = 40  # characters of a token that may be leetspeak

_LEET = str.maketrans("0134578692@$!|+l", "oieastbggzasiiti")
_GUESS = str.maketrans("013457@$!|+", "oieastasiit")
_SYMBOLS = "@$!|+"
_IN_TOKEN = bytes(
    ord("x") if (chr(c).isalnum() and c < 128) or chr(c) in _SYMBOLS else ord(" ")
    for c in range(256)
)
# A letter beside a digit or symbol. Where these are all there is, nothing is leetspeak.
_MIXED = (
    "[A-Za-z][0-9@$!|+][A-Za-z0-9@$!|+]|[0-9@$][0-9@$!|+]{0,3}[A-Za-z]"
    "|(?:^|[^A-Za-z0-9])[!|+][A-Za-z]|[A-Za-z][0-9$]"
)
_APART = "[A-Za-z0-9@$!](?:[^A-Za-z0-9@$!]{1,5}[A-Za-z0-9@$!]){3}"
_SET_APART = f"(?:^|[^A-Za-z0-9@$!]){_APART}(?:$|[^A-Za-z0-9@$!])"
_GAP = r"(?:[^\w@$!]|_)"
_HEAD = re.compile(
    rf"(?<![A-Za-z0-9@$!])[A-Za-z0-9@$!](?:{_GAP}{{1,5}}[A-Za-z0-9@$!]){{3}}(?![A-Za-z0-9@$!])"
)
_RUN = re.compile(rf"[A-Za-z0-9@$!](?:{_GAP}{{1,5}}[A-Za-z0-9@$!](?![A-Za-z0-9@$!])){{3,}}")
_BETWEEN = re.compile(r"[^A-Za-z0-9@$!]+")
_WORD = re.compile(r"[A-Za-z]+(?:\?[A-Za-z]+)*\??")
_ESCAPE = re.compile(r"\\[A-Za-z]|\(\?[a-zA-Z-]*[:>=!<]|\(\?P<\w+>")

# Deleted wherever they stand; deleted except after a blank, where they begin an option or a path;
# read as blanks.
_MARKUP = b"*~`^"
_INSIDE = b"*~`^_'\"\\.,;:-|"
_KEPT = ((b" -", b" \x01"), (b" .", b" \x02"))
_KEPT_AGAIN = bytes.maketrans(b"\x01\x02", b"-.")
_BLANKS = bytes(ord(" ") if c in b"*~`^_.,;:-+|\\'\"" else c for c in range(256))
_ROT13 = bytes(codecs.encode(chr(c), "rot13").encode()[0] if c < 128 else c for c in range(256))


class Lexicon:
    """The words that some rules look for."""

    def __init__(self, texts: Iterable[str]) -> None:
        """From patterns and samples of what they find."""
        self.words: set[str] = set()
        self._by_shape: dict[str, list[str]] = {}
        for text in texts:
            for found in _WORD.findall(_ESCAPE.sub(" ", text)):
                for word in _spellings(found.lower()):
                    self._add(word)
        sizes: dict[str, set[int]] = {}
        for shape in self._by_shape:
            sizes.setdefault(shape[-SHORTEST:], set()).add(len(shape))
        self._sizes = {last: sorted(some) for last, some in sizes.items()}
        self._readings = lru_cache(maxsize=KNOWN)(self._read)

    def _add(self, word: str) -> None:
        if len(word) >= SHORTEST and word not in self.words:
            self.words.add(word)
            self._by_shape.setdefault(word.translate(_LEET), []).append(word)

    def unleet(self, text: str) -> list[list[Edit]]:
        """Leetspeak as words, first as one choice of words, then another if there is one."""
        first: list[Edit] = []
        second: list[Edit] = []
        tokens = ascii_bytes(text).translate(_IN_TOKEN)
        done = 0
        for end in _ends(_MIXED, text):
            if end <= done:
                continue
            start = tokens.rfind(b" ", 0, end) + 1
            stop = tokens.find(b" ", end)
            done = stop = len(tokens) if stop < 0 else stop
            if stop - start > LONGEST:
                continue
            choices = self._readings(text[start:stop])
            if choices:
                first.append((start, stop, choices[0]))
                second.append((start, stop, choices[-1]))
        if first:  # then numbers beside them may be words as well: `1gn0re 411`
            first, second = self._numbers(text, first), self._numbers(text, second)
        return [first, second] if first != second else [first] if first else []

    def _read(self, token: str) -> list[str]:
        for trailing in range(3):
            body = token[: len(token) - trailing]
            if trailing and token[len(body)] not in _SYMBOLS:
                break
            if body.isalpha():
                return []  # a word, then punctuation
            if words := self._by_shape.get(body.lower().translate(_LEET)):
                return [word + token[len(body) :] for word in words]
        odd = len(token) - sum(map(str.isalpha, token))
        if 4 <= len(token) <= 20 and 2 <= odd <= len(token) // 2:
            return [token.translate(_GUESS)]
        return []

    def _numbers(self, text: str, edits: list[Edit]) -> list[Edit]:
        taken = {start for start, _, _ in edits}
        more: list[Edit] = []
        for start, stop, _ in edits:
            for found in _NUMBER.finditer(text, max(0, start - 40), stop + 40):
                words = self._by_shape.get(found[0].lower().translate(_LEET), ())
                if words and found.start() not in taken:
                    taken.add(found.start())
                    more.append((found.start(), found.end(), words[0]))
        return sorted(edits + more)

    def join(self, text: str) -> list[Edit]:
        """Letters that stand apart as the words that they make, if rules know any of these."""
        edits: list[Edit] = []
        done = 0
        for end in _ends(_SET_APART, text):
            head = _HEAD.search(text, max(done, end - 48), end) if end > done else None
            if head and (run := _RUN.match(text, head.start())):
                done = run.end()
                if (new := self._joined(run[0])) is not None:
                    edits.append((run.start(), done, new))
        return edits

    def _joined(self, run: str) -> str | None:
        between = _BETWEEN.findall(run)
        usual = Counter(between).most_common(1)[0][0]
        letters = _BETWEEN.split(run)
        if 2 * sum(map(str.isalpha, letters)) < len(letters):
            return None  # numbers
        pieces = [letters[0]]
        for gap, letter in zip(between, letters[1:], strict=True):
            pieces += "" if gap == usual else _gap(gap, usual), letter
        words = "".join(pieces).split(" ")
        divided = [self._divided(word) for word in words]
        if 2 * sum(known for known, _ in divided) < len(letters):
            return None
        return " ".join(new for _, new in divided)

    def _divided(self, word: str) -> tuple[int, str]:
        """How many letters of `word` belong to words that are known, and it with these apart."""
        if not word.isascii():
            return 0, word
        if len(word) <= TINY:
            return (len(word) if word.lower().translate(_LEET) in self._by_shape else 0), word
        best = 0, word
        most = 0
        plain = word.lower()
        others = (plain[::-1], codecs.encode(plain, "rot13"), _turned(plain))
        for turned in (plain, *others):
            parts = self.divide(turned)
            sizes = [len(part) for part, is_word in parts if is_word]
            if (score := sum(size * size for size in sizes)) > most:  # long words say more
                most, known = score, sum(sizes)
                ends = [len(part) for part, _ in parts]
                if turned != plain and turned in (plain[::-1], _turned(plain)):
                    ends.reverse()
                cuts = pairwise(accumulate(ends, initial=0))
                best = known, " ".join(word[a:b] for a, b in cuts)
        return best

    def divide(self, word: str) -> list[tuple[str, bool]]:
        """`word` in parts, as few letters as possible of which belong to no word that is known."""
        shape = word.translate(_LEET)
        cost = [0] * (len(word) + 1)
        cut = [0] * (len(word) + 1)
        known = [False] * (len(word) + 1)
        for end in range(1, len(word) + 1):
            cost[end], cut[end] = cost[end - 1] + 3, end - 1
            for size in self._sizes.get(shape[end - SHORTEST : end], ()):
                start = end - size
                if start < 0:
                    break
                if cost[start] + 1 < cost[end] and shape[start:end] in self._by_shape:
                    cost[end], cut[end], known[end] = cost[start] + 1, start, True
        parts: list[tuple[str, bool]] = []
        end = len(word)
        while end:
            parts.append((word[cut[end] : end], known[end]))
            end = cut[end]
        return _glued(parts[::-1])


_NUMBER = re.compile(r"(?<![A-Za-z0-9@$!|+])[0-9@$!|+]{2,8}(?![A-Za-z0-9@$!|+])")


def rotated(text: str) -> str:
    """`text` in ROT13."""
    return _bytewise(text, _ROT13)


def unmarked(text: str) -> str:
    """`text` without the marks of Markdown for bold, italic, struck out and code."""
    if "__" not in text and not any(chr(mark) in text for mark in _MARKUP):
        return text
    data = text.encode("utf-8", "surrogatepass").translate(None, _MARKUP).replace(b"__", b"")
    return data.decode("utf-8", "surrogatepass")


def run_together(text: str) -> str:
    """`text` without punctuation, except where it begins a word."""
    data = text.encode("utf-8", "surrogatepass")
    for plain, kept in _KEPT:
        data = data.replace(plain, kept)
    data = data.translate(_KEPT_AGAIN, _INSIDE)
    return data.decode("utf-8", "surrogatepass")


def spread(text: str) -> str:
    """`text` with punctuation as blanks."""
    return _bytewise(text, _BLANKS)


def _bytewise(text: str, table: bytes) -> str:
    return text.encode("utf-8", "surrogatepass").translate(table).decode("utf-8", "surrogatepass")


def _spellings(word: str) -> list[str]:
    """`colou?r` is color and colour."""
    before, optional, after = word.partition("?")
    if not optional:
        return [word]
    return [other for left in (before, before[:-1]) for other in _spellings(left + after)]


def _gap(gap: str, usual: str) -> str:
    if not gap.strip(usual + " \t\r\n"):
        return " "
    return gap.removeprefix(usual).removesuffix(usual)


def _turned(word: str) -> str:
    return codecs.encode(word[::-1], "rot13")


def _glued(parts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Letters that belong to no word, together."""
    glued: list[tuple[str, bool]] = []
    for part, known in parts:
        if glued and not known and not glued[-1][1]:
            glued[-1] = glued[-1][0] + part, False
        else:
            glued.append((part, known))
    return glued


def _ends(pattern: str, text: str) -> list[int]:
    """Where `pattern`, which is of ASCII, ends in `text`, ascending."""
    if not prefilter.hyperscan:
        return [found.end() for found in re.finditer(pattern, text)]
    ends: list[int] = []
    _scanner(pattern).scan(ascii_bytes(text), lambda _, end: ends.append(end))
    return ends


@cache
def _scanner(pattern: str) -> prefilter.Scanner:
    return prefilter.Scanner({0: pattern}, flags=0)
