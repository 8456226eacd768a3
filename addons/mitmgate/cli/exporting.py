"""`mitmgate export`: recorded exchanges cut out, as they are or in another form, into one file.

The file appears when it is whole. What is not as it was recorded is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from mitmproxy.addons.savehar import SaveHar
from mitmproxy.connection import Server

from mitmgate.cli import recorded
from mitmgate.cli.replaying import Gateway, checked, prepared
from mitmgate.cli.searching import (
    Search,
    add_filters,
    add_identity,
    add_place,
    identities,
    query,
)
from mitmgate.core.ledger import BadRecord, Entry, opened_flow

TOKEN = "MITMGATE_TOKEN"  # noqa: S105  (an environment variable's name)

type Form = Callable[[Entry, bytes], bytes]  # of an exchange and its flow


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command, but for `--state`."""
    add_place(command)
    add_filters(command)
    add_identity(command)
    help = "what to write, for its owner alone; - for standard output"
    command.add_argument("-o", dest="output", required=True, metavar="FILE", help=help)
    command.add_argument("--force", action="store_true", help="replace FILE if it is there")
    forms = command.add_mutually_exclusive_group()
    forms.add_argument("--har", action="store_true", help="an HTTP archive")
    forms.add_argument("--jsonl", action="store_true", help="a JSON object a line, with all texts")
    help = "the requests alone, for `mitmdump -C FILE` to send through the gate at that address"
    forms.add_argument("--replay", metavar="URL", help=help)
    help = f"of --replay: the token to send (default: that in ${TOKEN})"
    command.add_argument("--token-file", type=Path, metavar="FILE", help=help)
    command.set_defaults(wrong=command.error)


def run(options: argparse.Namespace) -> int:
    """Write recorded exchanges to a file: as .mitm, HAR, JSON lines, or to be sent again."""
    if options.token_file and not options.replay:
        options.wrong("--token-file goes with --replay")
    search = Search(options)
    keys = identities(options)
    before, form, between, after = _form(options)
    count = unknown = 0
    with _output(options.output, force=options.force) as file:
        file.write(before)
        for entry in search.entries(query(options)):
            if options.replay and not entry["principal"]:
                unknown += 1
                continue
            try:
                data = form(entry, opened_flow(entry, keys))
            except BadRecord as e:
                search.tell(e)
                continue
            file.write((between if count else b"") + data)
            count += 1
        if not count:
            raise ValueError("nothing found; nothing is written")
        file.write(after)
    noun = "exchange" if count == 1 else "exchanges"
    print(f"{count} {noun} in {options.output}", file=sys.stderr)
    if unknown:
        print(f"{unknown} more were of unknown callers: these are not kept", file=sys.stderr)
    return search.code


def _form(options: argparse.Namespace) -> tuple[bytes, Form, bytes, bytes]:
    """What stands before, how an exchange is written, and what stands between and after them."""
    if options.jsonl:
        return b"", _json_line, b"", b""
    if options.har:
        return _har()
    if options.replay:
        gateway, token = Gateway.parse(options.replay), _token(options.token_file)
        return b"", lambda *each: prepared(recorded.flow_of(*each), gateway, token), b"", b""
    return b"", lambda _, flow: flow, b"", b""


def _json_line(entry: Entry, flow: bytes) -> bytes:
    return json.dumps(recorded.document(entry, flow)).encode() + b"\n"


def _har() -> tuple[bytes, Form, bytes, bytes]:
    """mitmproxy's own form, an exchange at a time: `make_har` wants all of them in memory."""
    addon = SaveHar()
    before, after = json.dumps(addon.make_har([])).encode().split(b"[]}}")[0], b"\n]}}\n"
    seen: set[Server] = set()
    return (
        before + b"[\n",
        lambda *each: json.dumps(addon.flow_entry(recorded.flow_of(*each), seen)).encode(),
        b",\n",
        after,
    )


def _token(file: Path | None) -> str:
    """Raises `OSError` or `ValueError`."""
    if file:
        return checked(file.read_text("utf-8"))
    if not os.environ.get(TOKEN):
        raise ValueError(f"give the token to send in --token-file FILE, or in ${TOKEN}")
    return checked(os.environ[TOKEN])


@contextlib.contextmanager
def _output(path: str, *, force: bool) -> Iterator[BinaryIO]:
    """A file that takes its name at the end, and is gone on an exception.

    Raises `FileExistsError` for one that is there already, unless `force`.
    """
    if path == "-":
        yield sys.stdout.buffer
        return
    target = Path(path)
    if not force and target.exists():
        raise FileExistsError(f"{path} exists; --force replaces it")
    part, name = tempfile.mkstemp(".part", f".{target.name}.", target.parent)  # with mode 0600
    try:
        with open(part, "wb") as file:  # noqa: PTH123  (it is open)
            yield file
            file.flush()
            os.fsync(part)
        if force:
            Path(name).replace(target)
        else:
            target.hardlink_to(name)  # where `replace` would take the place of a new file
    finally:
        Path(name).unlink(missing_ok=True)
