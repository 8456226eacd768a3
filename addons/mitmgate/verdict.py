"""What all controls together have said of an exchange so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from mitmgate.core.matching import Finding


@dataclass(slots=True)
class Verdict:
    """What all controls together have said of an exchange so far."""

    findings: list[Finding] = field(default_factory=list)
    masked: dict[str, int] = field(default_factory=dict)  # recognizer id -> values masked
    hold: str = ""  # id of the hold that it waited for
    approvals: list[dict[str, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # addon -> digest of its rules
    coverage: dict[str, int] = field(default_factory=dict)  # "answer:text" -> strings read
