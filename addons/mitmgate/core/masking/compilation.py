"""masker.yaml, as loaded, to recognizers that can run: every problem in it, with its line.

A recognizer is refused when its matches cannot be decided on a stream (no limit to its width,
anchors, empty matches), when a part of it does not exist, and when its own samples disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import regex

from mitmgate.core.masking.closure import Closure, closure, prefix
from mitmgate.core.masking.extent import reach, width
from mitmgate.core.masking.masker import Masker, ProfileMaskers
from mitmgate.core.masking.model import MaskerFile, Recognizer, Tail
from mitmgate.core.masking.probe import witness
from mitmgate.core.masking.recognizer import TIMEOUT, CompiledRecognizer, CompiledTail
from mitmgate.core.masking.replacement import replacer
from mitmgate.core.masking.syntax import Chars, Node, UnsupportedError, parse
from mitmgate.core.masking.validators import VALIDATORS
from mitmgate.core.rules import Loaded, Problem, RuleError

MAX_SPAN = 2000  # characters that a stream may have to hold back for one recognizer
_TOO_WIDE = "give the repeats an upper limit, or set max_len, or put the open end into `tail`"


class _FaultError(ValueError):
    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Masking:
    """All profiles of one masker.yaml. `profiles` maps their names to their maskers."""

    def __init__(self, profiles: Mapping[str, ProfileMaskers]) -> None:
        self.profiles = dict(profiles)

    def profile(self, name: str) -> ProfileMaskers:
        """Raises `KeyError` with a message that names the profiles there are."""
        try:
            return self.profiles[name]
        except KeyError:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise KeyError(f"no masking profile {name!r}; there are: {known}") from None


def compile(loaded: Loaded[MaskerFile], *, key: bytes) -> Masking:
    """Compile and self-test `loaded`. `key` (not empty) makes pseudonyms.

    Raises `RuleError` with every problem of the file.
    """
    if not key:
        raise ValueError("pseudonyms need a key")
    problems: list[Problem] = []
    compiled: dict[str, CompiledRecognizer] = {}
    known = {recognizer.id for recognizer in loaded.file.recognizers}
    first: dict[str, int] = {}
    for index, recognizer in enumerate(loaded.file.recognizers):
        here = ("recognizers", index)
        if first.setdefault(recognizer.id, index) != index:
            problems.append(loaded.problem((*here, "id"), f"{recognizer.id} stands twice"))
            continue
        try:
            ready = compile_recognizer(recognizer, key)
        except _FaultError as e:
            problems.append(loaded.problem((*here, e.key), f"{recognizer.id}: {e}"))
            continue
        compiled[recognizer.id] = ready
        for where, message in _self_test(recognizer, Masker([ready])):
            problems.append(loaded.problem((*here, "tests", *where), f"{recognizer.id}: {message}"))
    for name, profile in loaded.file.profiles.items():
        for side, ids in (("answer", profile.answer), ("prompt", profile.prompt)):
            problems += [
                loaded.problem(("profiles", name, side, i), f"there is no recognizer {id_}")
                for i, id_ in enumerate(ids)
                if id_ not in known
            ]
    if problems:
        raise RuleError(problems)
    return Masking(_profiles(loaded.file, compiled))


def _profiles(
    file: MaskerFile, compiled: Mapping[str, CompiledRecognizer]
) -> dict[str, ProfileMaskers]:
    """Profiles share the masker when they name the same recognizers; rule order is file order."""
    made: dict[frozenset[str], Masker] = {}

    def masker(ids: tuple[str, ...]) -> Masker:
        chosen = frozenset(ids)
        if chosen not in made:
            made[chosen] = Masker([one for id_, one in compiled.items() if id_ in chosen])
        return made[chosen]

    return {
        name: ProfileMaskers(answer=masker(profile.answer), prompt=masker(profile.prompt))
        for name, profile in file.profiles.items()
    }


def compile_recognizer(recognizer: Recognizer, key: bytes) -> CompiledRecognizer:
    """Raises `_FaultError`, which says under which YAML key the fault lies."""
    validator = None
    if recognizer.validate_with is not None:
        validator = VALIDATORS.get(recognizer.validate_with)
        if validator is None:
            known = ", ".join(VALIDATORS)
            message = f"unknown validator {recognizer.validate_with!r}; there are: {known}"
            raise _FaultError("validate", message)
    pattern, tree = _pattern(recognizer.match, "match")
    least, most = width(tree)
    if least == 0:
        raise _FaultError("match", "it matches the empty text")
    try:
        ahead, behind = reach(tree, behind=False), reach(tree, behind=True)
    except UnsupportedError as e:
        raise _FaultError("match", str(e)) from None
    if recognizer.max_len is not None:
        span = recognizer.max_len
    elif most is None:
        raise _FaultError("match", f"its length has no limit: {_TOO_WIDE}")
    else:
        span = most + ahead
    if span > MAX_SPAN or behind > MAX_SPAN:
        raise _FaultError("match", f"it can be longer than {MAX_SPAN} characters: {_TOO_WIDE}")
    made = closure(tree)
    _probe(tree, pattern, made, span)
    return CompiledRecognizer(
        id=recognizer.id,
        pattern=pattern,
        grouped="value" in pattern.groupindex,
        validator=validator,
        replace=replacer(recognizer.replace, key),
        tail=_tail(recognizer.tail) if recognizer.tail else None,
        window=recognizer.max_len,
        span=span,
        behind=behind,
        closure=made,
    )


def _probe(tree: Node, pattern: regex.Pattern[str], made: Closure, span: int) -> None:
    searches: tuple[Callable[[str], object], ...] = (
        made.undecided.search,
        lambda text: pattern.search(text, timeout=TIMEOUT),
    )
    for search in searches:
        if text := witness(tree, search, span):
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise _FaultError("match", f"its search explodes, for one on {shown!r}")


def _pattern(source: str, key: str) -> tuple[regex.Pattern[str], Node]:
    try:
        return regex.compile(source, regex.VERSION0), parse(source)
    except regex.error as e:
        raise _FaultError(key, f"not a regular expression: {e}") from None
    except UnsupportedError as e:
        raise _FaultError(key, str(e)) from None


def _tail(tail: Tail) -> CompiledTail:
    _, node = _pattern(tail.run, "tail")
    if not isinstance(node, Chars):
        raise _FaultError("tail", "`run` is one character class")
    run = regex.compile(f"(?:{tail.run})*+", regex.VERSION0)
    if tail.until is None:
        return CompiledTail(run, None, None, 0)
    marker, node = _pattern(tail.until, "tail")
    least, most = width(node)
    if least == 0 or most is None or most > MAX_SPAN:
        raise _FaultError("tail", f"`until` is 1 to {MAX_SPAN} characters long")
    if reach(node, behind=False) or reach(node, behind=True):
        raise _FaultError("tail", "`until` has no lookaround and no \\b")
    viable = re.compile(f"(?:{prefix(node) or ''})\\Z")
    return CompiledTail(run, marker, viable, most)


def _self_test(recognizer: Recognizer, alone: Masker) -> Iterator[tuple[tuple[str, int], str]]:
    """Where the recognizer, on its own, disagrees with its samples."""
    for index, sample in enumerate(recognizer.tests.match):
        if not _hits(alone, sample):
            yield ("match", index), f"does not find {sample!r}"
    for index, sample in enumerate(recognizer.tests.not_match):
        if _hits(alone, sample):
            yield ("pass", index), f"finds something in {sample!r}"


def _hits(masker: Masker, sample: str) -> bool:
    return bool(masker.mask(sample).hits)
