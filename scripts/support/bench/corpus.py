"""Texts to measure with: prose and code that any machine has which runs the gate.

Prose is Python's manual topics and the licences and descriptions of the installed packages, code is
the standard library. Every round gets texts cut out at other places, the same in every run.
"""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from pydoc_data import topics

_DOCUMENTS = re.compile(r"\.dist-info/(?:.*/)?(?:METADATA|LICEN[SC]E[^/]*|COPYING[^/]*)$")
_TYPOGRAPHIC = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2026", "''\"\"--.")
# About four characters each, cut as byte-pair encodings do: a blank belongs to what follows it.
_TOKEN = re.compile(r" ?[A-Za-z]{1,7}| ?\d{1,3}| ?[^\sA-Za-z\d]{1,3}|\s+")


@cache
def prose() -> str:
    """English in ASCII: typographic quotes made plain, what else is not ASCII left out."""
    found = [text for _, text in sorted(topics.topics.items())]
    packages = sorted(distributions(), key=lambda package: package.metadata["Name"].lower())
    for package in packages:
        for file in package.files or ():
            path = Path(str(package.locate_file(file)))
            if _DOCUMENTS.search(file.as_posix()) and path.is_file():
                found.append(path.read_text("utf-8", "replace"))
    return _ascii("\n\n".join(found).translate(_TYPOGRAPHIC))


def typographic_prose() -> str:
    """`prose` with typographic apostrophes, which is what takes a text out of ASCII most often."""
    return prose().replace("'", "\u2019")


@cache
def code() -> str:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return _ascii("\n".join(path.read_text("utf-8") for path in files))


def cuts(
    text: str, size: int, count: int, rounds: int, keep: Callable[[str], bool] = lambda _: True
) -> list[list[str]]:
    """`count` pieces of `size` characters that `keep` lets through, for a warm-up and `rounds`."""
    chance = random.Random(7)  # noqa: S311  (the same texts in every run)
    made = []
    for _ in range(rounds + 1):
        pieces: list[str] = []
        while len(pieces) < count:
            start = chance.randrange(len(text) - size)
            if keep(piece := text[start : start + size]):
                pieces.append(piece)
        made.append(pieces)
    return made


def tokens(text: str) -> list[str]:
    """`text` in pieces as a model would say it."""
    return _TOKEN.findall(text)


def words() -> list[str]:
    """Words that stand in the prose, for made-up rules that come close to matching it."""
    return sorted(set(re.findall(r"\b[a-z]{5,10}\b", " ".join(topics.topics.values()))))


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode("ascii")
