"""Is a recording as it was written? Offline, streaming, in bounded memory.

Finds the first record of each file that was changed, removed, repeated, inserted, moved or cut,
and files that are missing from a chain. What it cannot know: whether somebody who can write the
files rewrote all of an unsigned chain, or cut off its newest files together with the `.last` file
that names them. Signatures, and copies kept elsewhere, are for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.ledger.chain import GENESIS
from mitmgate.core.ledger.inspection import Finding, Inspected, inspect
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.signature import Verifier


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, and what is wrong, in the order of the files; at most a few per file.

    `unsigned` counts the entries that no verified signature covers (all of them without a public
    key). `growing` are files that a gate is still writing.
    """

    files: int
    entries: int
    unsigned: int
    growing: tuple[Path, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong with what was read."""
        return not self.findings


def verify(path: Path, public_key: str | bytes | None = None) -> Report:
    """Check a directory of recordings, or one `.mitm` (or `.jsonl`) with the other beside it.

    With a `public_key` (PEM) every closed file has to end with its signature. One file alone is
    checked without what stands before it. Raises `OSError` for what cannot be read and `ValueError`
    for a key that is none.
    """
    verifier = Verifier.from_pem(public_key) if public_key else None
    if not path.is_dir():
        file = inspect(path.parent, path.stem, verifier)
        return _report([file], [])
    stems = {found.stem for suffix in (FLOWS, LEDGER) for found in path.glob(f"*{suffix}")}
    files = [inspect(path, stem, verifier) for stem in sorted(stems)]
    return _report(files, [*_links(files), *_pointers(path)])


def _report(files: list[Inspected], others: list[Finding]) -> Report:
    findings = [file.finding for file in files if file.finding] + others
    order = {id(finding): i for i, finding in enumerate(findings)}
    findings.sort(key=lambda f: (f.path.stem, order[id(f)]))
    return Report(
        len(files),
        sum(file.entries for file in files),
        sum(file.unsigned for file in files),
        tuple(file.flows for file in files if file.growing),
        tuple(findings),
    )


def _links(files: list[Inspected]) -> list[Finding]:
    """Whether each file follows the one that its head names, and each chain begins once."""
    by_name = {file.flows.name: file for file in files}
    followed: dict[object, Path] = {}
    findings = []
    for file in files:
        if file.head is None:
            continue
        head, previous = file.head, file.head.fields.get("previous")
        # what is followed: a file, or for a chain's first file the nothing before its worker
        place = previous or ("nothing", head.fields.get("worker"))
        before = by_name.get(previous) if isinstance(previous, str) else None
        message = None
        if place in followed:
            message = f"follows the same file as {followed[place].name}"
        elif previous is None:
            if (head.seq, head.prev) != (0, GENESIS):
                message = "says that it is the first, but goes on from something"
        elif before is None:
            message = f"the file before it, {previous}, is missing"
        elif before.finding is None and (head.prev, head.seq) != (
            before.tip.hash,
            before.tip.seq + 1,
        ):
            message = f"does not go on where {previous} ended"
        followed.setdefault(place, file.ledger)
        if message:
            findings.append(Finding(file.ledger, message, 1, head.seq))
    return findings


def _pointers(directory: Path) -> list[Finding]:
    findings = []
    for path in sorted(directory.glob("*.last")):
        name = path.read_text("utf-8", "replace").strip()
        if not name or not (directory / name).exists():
            findings.append(Finding(path, f"the newest file, {name}, is missing"))
    return findings
