"""`scripts/bench`: measures every part, or those that are named, and prints as it goes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import holds, masking, recording, report, rules, stalls, streams, tokens
from bench.figures import FULL, QUICK, Effort, Section

PARTS: Mapping[str, Callable[[Effort], Section]] = {
    "rules": rules.measure,
    "masking": masking.measure,
    "streams": streams.measure,
    "tokens": tokens.measure,
    "recording": recording.measure,
    "stalls": stalls.measure,
    "holds": holds.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="rougher, in less than a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    effort = QUICK if asked.quick else FULL
    about = report.machine()
    _say(report.head(about))
    sections = []
    for name in asked.parts or PARTS:
        sections.append(PARTS[name](effort))
        _say(report.table(sections[-1]) + "\n")
    _say(report.tail(sections))
    if asked.json:
        figures = report.as_json(about, sections, quick=asked.quick)
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
