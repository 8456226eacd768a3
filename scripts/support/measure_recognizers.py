"""How often each recognizer of rules/masker.yaml fires in ordinary text: run this file.

The text is what is installed here: the standard library and its documentation, the sources,
licences, metadata and READMEs of the packages. With the id of a recognizer it shows a sample of
what that one found instead, to judge by eye; nothing can do that for you.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mitmgate.core.masking import MaskerFile, compile
from mitmgate.core.rules import load

ROOT = Path(__file__).resolve().parents[2]
KINDS = {".py", ".pyi", ".txt", ".md", ".rst", ".json", ".js", ".toml", ".cfg", ".yaml", ".yml"}
NAMES = {"METADATA", "RECORD", "LICENSE", "COPYING", "NOTICE", "AUTHORS"}
LARGEST = 1 << 20  # bytes; larger files are data


def corpus() -> Iterator[tuple[str, str]]:
    """(where from, text) of every ordinary text that is installed."""
    for name, text in pydoc_data.topics.topics.items():
        yield f"pydoc {name}", text
    paths = sysconfig.get_paths()
    for base in sorted({Path(paths["stdlib"]), Path(paths["purelib"]), Path(paths["platlib"])}):
        for path in sorted(base.rglob("*")):
            known = path.suffix in KINDS or path.name in NAMES
            if known and path.is_file() and path.stat().st_size <= LARGEST:
                yield str(path.relative_to(base)), path.read_text("utf-8", errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recognizer", nargs="?", help="show a sample of what this one found")
    parser.add_argument("--sample", type=int, default=40, help="how many (default: 40)")
    asked = parser.parse_args()
    file = load(ROOT / "rules" / "masker.yaml", MaskerFile)
    masker = compile(file, key=b"none").profile("default").answer
    counts: Counter[str] = Counter()
    found: list[str] = []
    characters = 0
    for where, text in corpus():
        characters += len(text)
        for hit in masker.mask(text).hits:
            counts[hit.recognizer] += 1
            if hit.recognizer == asked.recognizer:
                around = text[max(0, hit.start - 40) : hit.end + 30]
                found.append(f"{where}: {text[hit.start : hit.end]!r} in {around!r}")
    megabytes = characters / 1e6
    if asked.recognizer:
        step = max(1, len(found) // asked.sample)
        sys.stdout.write("".join(f"{line}\n" for line in found[::step][: asked.sample]))
        return
    sys.stdout.write(f"{megabytes:.1f} million characters\n")
    for id_ in masker.ids:
        if counts[id_]:
            sys.stdout.write(
                f"{id_:20} {counts[id_]:7} {counts[id_] / megabytes:8.2f} per million\n"
            )


if __name__ == "__main__":
    main()
