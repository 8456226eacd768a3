"""Ordinary traffic, in which nothing that is enforced may find anything.

Most of it is taken from what is installed, when the tests run: documentation, licences,
docstrings, source, manuals. Pieces are picked by their hash, so that a run sees what the last one
saw, as long as nothing is installed anew. READMEs and manuals document commands, `curl ... | sh`
among them, which is what rules are to find in a tool call: they are read everywhere but there.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import yaml

from mitmgate.core.rules.rule import Rule

type Find = Callable[[str, str], set[Rule]]

STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = Path(sysconfig.get_path("purelib"))
MANUALS = Path("/usr/share/man")
PIECE = 1200  # characters
FILES = 150  # of a kind that are read at most


def ordinary(number: int) -> Iterator[tuple[str, str]]:
    """About `number` pieces of text, evenly of every kind there is: (kind, piece)."""
    kinds = {kind: picked for kind, make in KINDS.items() if (picked := _picked(make(), number))}
    each = -(-number // len(kinds))
    spare = number
    for kind, found in sorted(kinds.items(), key=lambda item: len(item[1])):
        for piece in found[:each]:
            spare -= 1
            yield kind, piece
    for kind, found in kinds.items():  # where other kinds have few
        for piece in found[each : each + max(0, spare)]:
            spare -= 1
            yield kind, piece


def _picked(texts: Iterable[str], number: int) -> list[str]:
    found = {piece for text in texts for piece in _cut(text)}
    return sorted(found, key=_hash)[:number]


def _cut(text: str) -> Iterator[str]:
    """Pieces of whole paragraphs."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) > PIECE:
            yield piece
            piece = ""
        piece += paragraph + "\n\n"
    if len(piece) > 80:
        yield piece


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _some(paths: Iterable[Path], most: int = FILES) -> list[Path]:
    return sorted(paths, key=lambda path: _hash(str(path.name)))[:most]


def _read(path: Path) -> str:
    return path.read_text("utf-8", "replace")


def _descriptions() -> Iterator[str]:
    for each in metadata.distributions():
        if each.name != "mitmgate":  # whose README shows a prompt that is held
            yield each.read_text("METADATA") or ""


def _licences() -> Iterator[str]:
    names = ("LICEN[CS]E*", "COPYING*", "NOTICE*")
    yield from map(
        _read,
        _some(path for name in names for path in PACKAGES.rglob(name) if path.is_file()),
    )


def _sources(directory: Path) -> list[Path]:
    return _some(
        path
        for path in directory.rglob("*.py")
        if "test" not in str(path.relative_to(directory)) and "site-packages" not in path.parts[-3:]
    )


def _source() -> Iterator[str]:
    yield from map(_read, [*_sources(STDLIB), *_sources(PACKAGES)])


def _docstrings() -> Iterator[str]:
    for path in [*_sources(STDLIB), *_sources(PACKAGES)]:
        try:
            tree = ast.parse(_read(path))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                yield ast.get_docstring(node) or ""


def _manuals() -> Iterator[str]:
    for path in _some(MANUALS.glob("man[1578]/*.gz")) if MANUALS.is_dir() else ():
        yield gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


KINDS = {
    "topics": topics.values,
    "descriptions": _descriptions,
    "licences": _licences,
    "source": _source,
    "docstrings": _docstrings,
    "manuals": _manuals,
}


TEXTS = ("prompt", "system", "tools", "tool_results", "answer")
CALLS = ("tool_calls", "answer.tool_calls")
DOCUMENTING = ("descriptions", "manuals")


def enforced(find: Find, where: str, text: str) -> list[str]:
    return sorted(rule.id for rule in find(where, text) if rule.enforced)


def test_what_is_installed_passes(find: Find) -> None:
    """2,000 pieces, each in a prompt or a tool call, and in one other place."""
    found: dict[str, str] = {}
    number = 0
    for number, (kind, text) in enumerate(ordinary(2000), 1):
        other = TEXTS[1 + number % 4]
        first = "prompt" if number % 2 or kind in DOCUMENTING else CALLS[number % 4 // 2]
        for where in (first, other):
            for rule in enforced(find, where, text):
                found[f"{rule} in {where}"] = text
    assert number >= 2000
    assert not found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_much_of_what_is_installed_passes_everywhere(find: Find) -> None:
    found: dict[str, str] = {}
    for kind, text in ordinary(8000):
        for where in TEXTS if kind in DOCUMENTING else (*TEXTS, *CALLS):
            for rule in enforced(find, where, text):
                found[f"{rule} in {where}"] = text
    assert not found


TALK = yaml.safe_load((Path(__file__).parent / "benign.yaml").read_text("utf-8"))
CASES = [(where, text) for group in TALK for where in group["where"] for text in group["texts"]]


def test_there_are_enough_texts_about_dangerous_things() -> None:
    texts = [text for group in TALK for text in group["texts"]]
    assert len(texts) == len(set(texts)) >= 150


@pytest.mark.parametrize(("where", "text"), CASES)
def test_talking_about_it_passes(find: Find, where: str, text: str) -> None:
    assert not enforced(find, where, text)


def test_talk_adds_up_to_nothing(find: Find) -> None:
    """Neighbours must not make a hit across lines."""
    text = "\n\n".join(text for where, text in CASES if where == "prompt")
    assert not enforced(find, "prompt", text)
