"""Is a recording as it was written? Offline, streaming, in bounded memory.

Finds the first record of each file that was changed, removed, repeated, inserted, moved or cut,
and files that are missing from a chain. What it cannot know: whether somebody who can write the
files rewrote all of an unsigned chain, or cut off its newest files and made the `.last` file name
one that is left. Signatures, and copies kept elsewhere, are for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitmgate.core.ledger.chain import GENESIS
from mitmgate.core.ledger.inspection import Finding, Inspected, inspect
from mitmgate.core.ledger.pair import FLOWS, LEDGER
from mitmgate.core.ledger.recovery import pointer
from mitmgate.core.ledger.removal import Removal
from mitmgate.core.ledger.retention import undisturbed
from mitmgate.core.ledger.signature import Verifier
from mitmgate.core.ledger.store import STEM


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, and what is wrong, in the order of the files; at most a few per file.

    `unsigned` counts the entries that no verified signature covers (all of them without a public
    key). `growing` are files that a gate is still writing, `removed` those that went under
    retention, as far as the ledgers that are left still say.
    """

    files: int
    entries: int
    unsigned: int
    growing: tuple[Path, ...]
    removed: tuple[Removal, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong with what was read."""
        return not self.findings


def verify(
    path: Path,
    public_key: str | bytes | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check a directory of recordings, or one `.mitm` (or `.jsonl`) with the other beside it.

    With a `public_key` (PEM) every closed file has to end with its signature. One file alone is
    checked without what stands before it. `progress` is told how many bytes of how many are read.
    Raises `OSError` for what cannot be read and `ValueError` for a key that is none.
    """
    verifier = Verifier.from_pem(public_key) if public_key else None
    if not path.is_dir():
        return _report(_inspected(path.parent, [path.stem], verifier, progress), {}, [])
    with undisturbed(path):
        stems = {found.stem for suffix in (FLOWS, LEDGER) for found in path.glob(f"*{suffix}")}
        files = _inspected(path, sorted(stems), verifier, progress)
        removed = {each.file: each for file in files for each in file.removals}
        # of a removal that was cut short no more than the ledger is left
        files = [f for f in files if not (f.incomplete and f.flows.name in removed)]
        return _report(files, removed, [*_links(files, removed), *_pointers(path, files, removed)])


def _inspected(
    directory: Path,
    stems: Sequence[str],
    verifier: Verifier | None,
    progress: Callable[[int, int], None],
) -> list[Inspected]:
    names = [directory / (stem + suffix) for stem in stems for suffix in (FLOWS, LEDGER)]
    total = sum(name.stat().st_size for name in names if name.exists())
    done = 0

    def read(more: int) -> None:
        nonlocal done
        done += more
        progress(done, max(done, total))  # a file may grow

    return [inspect(directory, stem, verifier, read) for stem in stems]


def _report(
    files: list[Inspected], removed: Mapping[str, Removal], others: list[Finding]
) -> Report:
    findings = [file.finding for file in files if file.finding] + others
    order = {id(finding): i for i, finding in enumerate(findings)}
    findings.sort(key=lambda f: (f.path.stem, order[id(f)]))
    return Report(
        len(files),
        sum(file.entries for file in files),
        sum(file.unsigned for file in files),
        tuple(file.flows for file in files if file.growing),
        tuple(sorted(removed.values(), key=lambda each: each.time)),
        tuple(findings),
    )


def _links(files: list[Inspected], removed: Mapping[str, Removal]) -> list[Finding]:
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
        gone = removed.get(previous) if isinstance(previous, str) else None
        message = None
        if place in followed:
            message = f"follows the same file as {followed[place].name}"
        elif previous is None:
            if (head.seq, head.prev) != (0, GENESIS):
                message = "says that it is the first, but goes on from something"
        elif before is None and gone is None:
            message = f"the file before it, {previous}, is missing"
        elif before is None and gone and not gone.precedes(head):
            message = f"does not go on where {previous}, removed under retention, ended"
        elif before and before.finding is None:
            if before.growing:
                message = f"{previous} goes on, and yet this follows it"
            elif (head.prev, head.seq) != (before.tip.hash, before.tip.seq + 1):
                message = f"does not go on where {previous} ended"
        followed.setdefault(place, file.ledger)
        if message:
            findings.append(Finding(file.ledger, message, 1, head.seq))
    return findings


def _pointers(
    directory: Path, files: list[Inspected], removed: Mapping[str, Removal]
) -> list[Finding]:
    """Whether each worker's `.last` file names its newest file, or one that it has begun since."""
    findings = []
    newest: dict[str, Path] = {}
    for file in files:
        worker = file.ledger.stem.rpartition("-")[2]
        if file.entries and file.flows.name not in removed:
            newest[worker] = file.flows
    named = {path.stem: path for path in sorted(directory.glob("*.last"))}
    for worker in sorted({*newest, *named}):
        path, least = pointer(directory, worker), newest.get(worker)
        text = path.read_text("utf-8", "replace") if worker in named else ""
        name = text.removesuffix("\n")
        message = None
        if worker not in named:
            message = f"is missing; it named {least.name if least else ''} or a later file"
        elif text == name or not STEM.fullmatch(name.removesuffix(FLOWS)):
            message = "names no recording"
        elif not name.endswith(f"-{worker}{FLOWS}"):
            message = f"names {name}, which is another's"
        elif name not in removed and not (directory / name).exists():
            message = f"the newest file, {name}, is missing"
        elif least and name < least.name:
            message = f"names {name}, but {least.name} is newer"
        if message:
            findings.append(Finding(path, message))
    return findings
