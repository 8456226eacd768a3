"""Which recognizers can possibly match in a text, in one linear pass (Hyperscan).

It only saves time: it may name a recognizer that then finds nothing, never the other way round,
and without Hyperscan every recognizer is a candidate. It is given the relaxed patterns of
`closure`, not the recognizers' own: Hyperscan's `\\w` lacks combining marks and its (?i) the dotted
capital I, so it would overlook what `regex` finds.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

hyperscan: Any
try:
    import hyperscan
except ImportError:  # no wheel for this platform
    hyperscan = None

logger = logging.getLogger(__name__)
_SURROGATE = re.compile("[\ud800-\udfff]")  # no UTF-8; any character beyond ASCII does as well


class Prefilter:
    """`candidates` of a list of relaxed patterns, by their place in the list."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._always = frozenset(range(len(patterns)))
        self._database: Any = None
        self._local = threading.local()  # a scratch serves one thread
        if hyperscan is None or not patterns:
            return
        scanned = list(range(len(patterns)))
        self._database = _compile(patterns, scanned)
        if self._database is None:  # it does not say which pattern it refused
            scanned = [i for i in scanned if _compile([patterns[i]], [i])]
            self._database = _compile([patterns[i] for i in scanned], scanned)
        if self._database is not None:
            self._always -= frozenset(scanned)

    def candidates(self, text: str) -> frozenset[int]:
        """The patterns that may match somewhere in `text`."""
        if self._database is None:
            return self._always
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = _SURROGATE.sub("\ufffd", text).encode()
        found: set[int] = set()
        self._database.scan(data, lambda id_, *_: found.add(id_), scratch=self._scratch())
        return self._always.union(found) if found else self._always

    def _scratch(self) -> Any:
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        return scratch


def _compile(patterns: Sequence[str], ids: Sequence[int]) -> Any:
    """A database, or None when one of the patterns, or all together, are too much for Hyperscan."""
    return _compiled(tuple(patterns), tuple(ids))


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...], ids: tuple[int, ...]) -> Any:
    """Made once: an edit that leaves the patterns alone, and a second profile, cost nothing."""
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    flags = (
        hyperscan.HS_FLAG_PREFILTER
        | hyperscan.HS_FLAG_UTF8
        | hyperscan.HS_FLAG_UCP
        | hyperscan.HS_FLAG_SINGLEMATCH
    )
    try:
        sources = [pattern.replace(r"\U0010ffff", r"\x{10ffff}").encode() for pattern in patterns]
        database.compile(expressions=sources, ids=ids, flags=[flags] * len(sources))
    except (hyperscan.HyperscanError, UnicodeEncodeError) as e:
        logger.info("prefilter: %s", e)
        return None
    return database
