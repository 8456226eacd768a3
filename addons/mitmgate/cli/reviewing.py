"""`mitmgate show`: one recorded exchange as people read it, with what the gate did about it.

It is the account and the transcript that mitmweb shows, whole, with the masks marked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from mitmproxy import http

from mitmgate.cli import recorded
from mitmgate.cli.recorded import Said
from mitmgate.cli.searching import Search, add_identity, add_place, identities
from mitmgate.cli.table import terminal
from mitmgate.core.account import Fact, account, times
from mitmgate.core.ledger import BadRecord, Entry, IdentityNeeded, Query, opened_flow
from mitmgate.core.summary import counts, found, number
from mitmgate.core.wire.rendering import Style, render
from mitmgate.core.wire.segment import plain

_SHOWN = 4000  # characters of a message that cannot be read
_WIDEST = 100  # places of a line, however wide the terminal is


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command, but for `--state`."""
    help = "of the exchange, as `mitmgate sessions` and X-Gate-Exchange have it, or its beginning"
    command.add_argument("exchange", metavar="ID", help=help)
    add_place(command)
    add_identity(command)
    command.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Show a recorded exchange: who and what, the verdict, the prompt and the answer."""
    search = Search(options)
    style, keys = _style(), identities(options)
    for entry in _named(search, options.exchange):
        try:
            if options.json:
                print(json.dumps(recorded.document(entry, opened_flow(entry, keys)), indent=2))
                continue
            flow = recorded.flow_of(entry, opened_flow(entry, keys))
            known = recorded.told(entry, flow)
            print("\n".join(_head(known, style)))
            print("\n".join(_transcript(known, flow, style)))
        except (BadRecord, IdentityNeeded) as e:
            if not options.json:
                print("\n".join(_head(entry, style)))
            search.tell(str(e))
    return search.code


def _style() -> Style:
    """Wrapped for a terminal, and in colours where these are wanted."""
    width = terminal()
    width = width and min(width, _WIDEST)
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return Style(mask=lambda text: f">>>{text}<<<", width=width, whole=True)
    return Style(_painted(1), _painted(31), _painted(7), width, whole=True)


def _painted(attribute: int) -> Callable[[str], str]:
    return lambda text: f"\x1b[{attribute}m{text}\x1b[0m"


def _named(search: Search, id: str) -> list[Entry]:
    """The exchange of that id, which may be there twice. Raises `ValueError`."""
    found: dict[str, list[Entry]] = {}
    for entry in search.entries(Query(exchanges=(id,))):
        if len(found) < 4 or entry["exchange"] in (id, *found):
            found.setdefault(entry["exchange"], []).append(entry)
    if id in found:
        return found[id]
    if not found:
        raise ValueError(f"no exchange {plain(id)} is recorded here")
    if len(found) > 1:
        some = plain(", ".join(list(found)[:3]))
        raise ValueError(f"more than one exchange begins with {plain(id)!r}: {some}, ...")
    return next(iter(found.values()))


def _head(entry: Entry, style: Style) -> Iterator[str]:
    """What the ledger says."""
    fields = entry.fields
    kept = ", encrypted" if entry["encrypted"] else ""
    place = f"{entry.flows}, byte {fields['offset']}, line {entry.number}{kept}"
    yield style.head(f"exchange {plain(entry['exchange'])}")
    for fact in (
        *account(fields),
        times(entry.started, number(fields, "first_byte"), number(fields, "ended")),
        Fact("record", place),
    ):
        yield fact.line(style)


def _transcript(entry: Entry, flow: http.HTTPFlow, style: Style) -> Iterator[str]:
    """What the recording says."""
    style = style if counts(entry.fields, "masked") else replace(style, mask=None)
    for title, said in zip(("request", "answer"), recorded.messages(flow), strict=True):
        yield ""
        yield style.head(title)
        yield from _message(said, entry, style)
    if flow.error:
        yield f"  {style.alert(plain(flow.error.msg))}"


def _message(said: Said, entry: Entry, style: Style) -> Iterator[str]:
    if said.turns:
        yield render(said.turns, found(entry.fields), style)
    if said.raw:
        yield from style.lines(f"cannot be read: {said.reason}; as it came:")
        yield from style.lines(said.raw.decode("utf-8", "replace")[:_SHOWN])
    elif said.reason:
        yield f"\n[{plain(said.reason)}]"
    elif not said.turns:
        yield "  no text"
