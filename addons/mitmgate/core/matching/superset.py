"""A pattern for Hyperscan that matches wherever a rule's own pattern does, and sometimes elsewhere.

Handing over the rule as it stands is not enough, even with Hyperscan's PREFILTER flag: it reads
`{,5}` as literal text, `\\w` without combining marks, case pairs and letters as in an old Unicode,
and each such difference would be a rule that never fires. So the tree is spelled out anew, for the
bytes of UTF-8: classes do not tell characters beyond ASCII apart, and what consumes no text is
dropped. Bytes, because bounded repeats of UTF-8 characters take Hyperscan seconds to compile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import regex

from mitmgate.core.matching.reading import BLOCK
from mitmgate.core.matching.syntax import ASCII, REPEATS, TWINS, codes, members

# The text is scanned without `TWINS`, so a class that takes characters beyond ASCII takes the ASCII
# letters too.
_BEYOND = r"iks\x80-\xff"
MOST = 1000  # times that a repeat is counted exactly; Hyperscan has a limit, and counting costs
_ONE_CHARACTER = (codes.NOT_LITERAL, codes.IN, codes.ANY)
_NO_TEXT = (codes.AT, codes.ASSERT, codes.ASSERT_NOT, codes.FAILURE)


def scannable(text: str) -> bytes:
    """`text` as the supersets expect it, in UTF-8; a lone surrogate is three bytes."""
    if not text.isascii():
        for letter, twin in TWINS.items():
            if letter in text:
                text = text.replace(letter, twin)
    if len(text) <= BLOCK:
        return text.encode("utf-8", "surrogatepass")
    pieces = (text[i : i + BLOCK] for i in range(0, len(text), BLOCK))
    return b"".join([piece.encode("utf-8", "surrogatepass") for piece in pieces])


class Impossible(ValueError):
    """A pattern that cannot match where some characters never are."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The ASCII characters of a kind of text: those `kept` in it, and those its original never has.

    What is neither has been taken out of the text. It has others as well if it goes `beyond`.
    """

    kept: frozenset[str] = frozenset(ASCII)
    absent: frozenset[str] = frozenset()
    beyond: bool = True


def superset(tree: Any, alphabet: Alphabet = Alphabet()) -> str:
    """The pattern for Hyperscan, of ASCII characters only, to be compiled with CASELESS.

    It matches in what is left of a text in `alphabet` wherever the pattern does in the text; empty
    if it would anywhere. Raises `Impossible` if the pattern cannot match in such a text.
    """
    return "".join(_spell(operator, argument, alphabet) for operator, argument in tree)


def _spell(operator: Any, argument: Any, alphabet: Alphabet) -> str:
    if operator is codes.LITERAL:
        return _literal(chr(argument), alphabet)
    if operator in _ONE_CHARACTER:
        return _repeated(operator, argument, 1, 1, alphabet)
    if operator in REPEATS:
        low, high, body = argument
        if len(body) == 1 and body[0][0] in _ONE_CHARACTER:
            of, what = body[0]
            return _repeated(of, what, low, high, alphabet)
        try:
            repeated = superset(body, alphabet)
        except Impossible:
            if low:
                raise
            return ""
        return f"(?:{repeated}){_times(low, high)}" if repeated else ""
    if operator is codes.SUBPATTERN:
        return f"(?:{superset(argument[3], alphabet)})"
    if operator is codes.ATOMIC_GROUP:
        return f"(?:{superset(argument, alphabet)})"
    if operator is codes.BRANCH:
        return _either(argument[1], alphabet)
    if operator is codes.GROUPREF_EXISTS:
        _, yes, no = argument
        return _either((yes, no or ()), alphabet)
    if operator is codes.GROUPREF:
        return r"[\x00-\xff]*"
    if operator in _NO_TEXT:
        return ""
    raise ValueError(f"{operator} is not supported")


def _either(branches: Iterable[Any], alphabet: Alphabet) -> str:
    spelled: list[str] = []
    for branch in branches:
        with suppress(Impossible):
            spelled.append(superset(branch, alphabet))
    if not spelled:
        raise Impossible
    return f"(?:{'|'.join(spelled)})"


def _literal(character: str, alphabet: Alphabet) -> str:
    if character in alphabet.absent:
        raise Impossible
    if character.isascii():
        if character not in alphabet.kept:
            return ""
        return character if character.isalnum() else _bytes(character)
    cases = {character, *regex.findall(regex.escape(character), _cased(), regex.IGNORECASE)}
    spelled = {TWINS.get(c, c) for c in cases}
    if not alphabet.beyond and not (spelled := set(filter(str.isascii, spelled))):
        raise Impossible
    return f"(?:{'|'.join(sorted(map(_bytes, spelled)))})"


@cache
def _cased() -> str:
    """All characters with another case, some 3,000, in the Unicode version of `regex`."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    with_cases = r"[\p{Changes_When_Casemapped}\p{Changes_When_Casefolded}]"
    return "".join(regex.findall(with_cases, everything))


def _repeated(operator: Any, argument: Any, low: int, high: Any, alphabet: Alphabet) -> str:
    """A class, some characters of it, in bytes: up to four for one beyond ASCII."""
    inside, beyond = members(operator, argument)
    beyond &= alphabet.beyond
    inside -= alphabet.absent
    if not inside and not beyond:
        if low:
            raise Impossible
        return ""
    kept = inside & alphabet.kept
    if len(kept) < len(inside):
        low = 0
    if not beyond:
        return f"[{_ranges(kept)}]{_times(low, high)}" if kept else ""
    return f"[{_ranges(kept)}{_BEYOND}]{_times(low, high, width=4)}"


def _ranges(characters: frozenset[str]) -> str:
    spelled = ""
    for c in sorted(characters):
        if chr(ord(c) - 1 & 127) not in characters or c == "\0":
            last = next(n for n in range(ord(c), 129) if chr(n) not in characters) - 1
            spelled += f"\\x{ord(c):02x}-\\x{last:02x}"
    return spelled


def _times(low: int, high: Any, width: int = 1) -> str:
    if (low, high, width) == (1, 1, 1):
        return ""
    open_ended = high is codes.MAXREPEAT or high * width > MOST
    return f"{{{low},{'' if open_ended else high * width}}}"


def _bytes(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
