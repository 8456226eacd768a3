"""What all controls together have said of an exchange so far."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mitmgate.core.matching import Finding
from mitmgate.core.wire.segment import plain

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Verdict:
    """Filled by the addons as they run. None of it is read back to decide anything."""

    findings: list[Finding] = field(default_factory=list)
    masked: dict[str, int] = field(default_factory=dict)  # recognizer id -> values masked
    hold: str = ""  # id of the hold that it waited for
    approvals: list[dict[str, str]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # addon -> digest of its rules
    coverage: dict[str, int] = field(default_factory=dict)  # "answer:text" -> strings read

    def find(self, exchange: str, findings: Iterable[Finding]) -> None:
        """Keep what was found, once for each rule and place; `exchange` is an id, for the log."""
        known = {(f.rule.id, f.address) for f in self.findings}
        for finding in findings:
            if (finding.rule.id, finding.address) in known:
                continue
            known.add((finding.rule.id, finding.address))
            self.findings.append(finding)
            if finding.rule.only_in_audit:
                would = "held" if finding.rule.action == "hold" else "refused"
                logger.info(
                    "exchange %s would have been %s: %s at %s (audit)",
                    exchange,
                    would,
                    finding.rule.id,
                    plain(finding.address),
                )

    def cover(self, side: str, counts: dict[str, int]) -> None:
        """Say what was read: strings of each kind, of the "prompt" or the "answer"."""
        for kind, count in counts.items():
            self.coverage[f"{side}:{kind}"] = count

    def plain(self) -> dict[str, Any]:
        """As metadata and ledger hold it."""
        return {
            "findings": [
                {
                    "rule": f.rule.id,
                    "action": f.rule.action,
                    "severity": f.rule.severity,
                    "mode": f.rule.mode or "enforce",
                    "address": f.address,
                    "view": f.view,
                }
                for f in self.findings
            ],
            "masked": dict(self.masked),
            "hold": self.hold,
            "approvals": [dict(each) for each in self.approvals],
            "coverage": dict(self.coverage),
            "rules": dict(self.digests),
        }

    def words(self) -> list[str]:
        """As people read it in a flow's comment."""
        words = list(dict.fromkeys(finding.rule.id for finding in self.findings))
        words += [f"masked {name} x{count}" for name, count in self.masked.items()]
        return [*words, f"hold {self.hold}"] if self.hold else words
