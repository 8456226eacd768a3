"""What was measured, where, and what was not: as a table and as JSON."""

from __future__ import annotations

import datetime
import os
import platform
import textwrap
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.figures import Figure, Section

PACKAGES = ("mitmgate", "mitmproxy", "regex", "hyperscan", "PyJWT", "cryptography")
NOT_MEASURED = (
    "the proxy itself: latency and throughput of the whole gate beside a bare mitmdump, memory, "
    "many streams at once",
    "waiting, but for stalls and holds: figures are CPU time of one process, so queueing, disks "
    "and networks are not in them",
    "platforms without Hyperscan, where every rule is searched for",
    "whole JSON bodies, tool calls, logprobs, and streams of other dialects",
)
_COLUMNS = "{:<44} {:>10} {:>10} {:>7} {:>8}  {:<4} {}"


def machine() -> dict[str, Any]:
    """What the figures depend on. Nothing in it names the machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def head(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    lines = (
        f"{about['cpu']}, {about['cores']} cores, load {about['load']}, {about['system']}",
        f"{about['python']}; {packages}",
        f"{about['date']}; CPU time of this process, median of rounds taken in turn",
    )
    columns = _COLUMNS.format("", "measured", "naive", "ratio", "target", "met", "").rstrip()
    return "\n".join((*lines, "", columns))


def table(section: Section) -> str:
    """A section for people, in lines that fit `head`."""
    lines = [section.title, *(_row(figure) for figure in section.figures)]
    return "\n".join((*lines, *map(_point, section.remarks)))


def tail(sections: Sequence[Section]) -> str:
    figures = [figure for section in sections for figure in section.figures]
    bound = [figure for figure in figures if figure.met is not None]
    missed = sum(not figure.met for figure in bound)
    verdict = [f"{len(bound) - missed} of {len(bound)} targets met"] if bound else []
    return "\n".join((*verdict, "Not measured:", *map(_point, NOT_MEASURED)))


def as_json(about: dict[str, Any], sections: Sequence[Section], *, quick: bool) -> dict[str, Any]:
    return {
        "schema": 1,
        "quick": quick,
        "machine": about,
        "sections": [
            {
                "title": section.title,
                "figures": [figure.as_json() for figure in section.figures],
                "remarks": list(section.remarks),
            }
            for section in sections
        ],
        "not_measured": list(NOT_MEASURED),
    }


def _point(text: str) -> str:
    return textwrap.fill(text, 96, initial_indent="  * ", subsequent_indent="    ")


def _row(figure: Figure) -> str:
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    ratio = "" if figure.ratio is None else f"{figure.ratio:,.1f}x"
    return _COLUMNS.format(
        f"  {figure.name}",
        _number(figure.measured),
        _number(figure.naive),
        ratio,
        _number(figure.target),
        met,
        figure.unit,
    ).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value > 99 or value == int(value) else f"{value:.2g}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
