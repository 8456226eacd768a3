"""Texts that stand apart in a request and together before the model.

A server joins the parts of a message, and a template joins the messages. What is harmless in pieces
may not be so as a whole, so the whole is judged too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mitmgate.core.wire.segment import Segment

_LAST_STEP = re.compile(r"\[\d+\](?=[^\[\]]*$)")


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """What is read together: the parts of each list of parts, and all text of one kind.

    Parts are joined as they are, and so are the fields of the request itself (prefix, prompt,
    suffix); all text of one kind by line breaks, as templates do. A text that stands alone has
    nothing to be joined with and is not repeated.
    """
    known = [segment for segment in segments if segment.text]
    whole: dict[str, list[Segment]] = {}
    for segment in known:
        whole.setdefault(segment.where, []).append(segment)
    made = joined_parts(known)
    for each in whole.values():
        made += _together("*", each, "\n")
    return made


def joined_parts(segments: Iterable[Segment]) -> list[Segment]:
    """The parts of each list of parts alone."""
    # Not only neighbours: other fields of the parts stand between their texts.
    parts: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        if segment.text:
            parts.setdefault(_container(segment), []).append(segment)
    return [
        made for (_, container), group in parts.items() for made in _together(container, group, "")
    ]


def _container(segment: Segment) -> tuple[str, str]:
    """The list that a text is a part of; fields of the request itself are parts of it."""
    if "[" not in segment.address and "." not in segment.address:
        return segment.where, "$"
    return segment.where, _LAST_STEP.sub("[*]", segment.address)


def _together(address: str, parts: list[Segment], separator: str) -> list[Segment]:
    if len(parts) < 2:
        return []
    return [Segment(parts[0].where, address, separator.join(part.text for part in parts))]
