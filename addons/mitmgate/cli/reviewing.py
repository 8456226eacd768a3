"""`mitmgate show`: one recorded exchange as people read it, with what the gate did about it.

A mask in a text is told by its form (`[CARD]`, `[CARD-3f9a1c]`, `****1111`), and only where the
ledger says that something was masked: a caller may have written the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator

from mitmgate.cli import recorded
from mitmgate.cli.recorded import Said
from mitmgate.cli.searching import Search, add_place, written
from mitmgate.core.ledger import BadRecord, Entry, Query, flow_bytes
from mitmgate.core.wire.segment import plain

_MASK = re.compile(r"\[[A-Z][A-Z0-9_-]*(?:-[0-9a-f]{6})?\]|(?:\*[ -]?){4,}\w{0,8}")
_SHOWN = 4000  # characters of a message that cannot be read


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command, but for `--state`."""
    help = "of the exchange, as `mitmgate sessions` and X-Gate-Exchange have it, or its beginning"
    command.add_argument("exchange", metavar="ID", help=help)
    add_place(command)
    command.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Show a recorded exchange: who and what, the verdict, the prompt and the answer."""
    search = Search(options)
    found = _named(search, options.exchange)
    style = Style(sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    for entry in found:
        try:
            if options.json:
                print(json.dumps(recorded.document(entry), indent=2))
                continue
            print("\n".join(_head(entry, style)))
            print("\n".join(_transcript(entry, style)))
        except BadRecord as e:
            search.tell(e)
    return search.code


class Style:
    """Escape sequences of a terminal, or what stands in their place where they are not wanted."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def head(self, text: str) -> str:
        """What a part is."""
        return f"\x1b[1m{text}\x1b[0m" if self._colours else text

    def alert(self, text: str) -> str:
        """What was found or refused."""
        return f"\x1b[31m{text}\x1b[0m" if self._colours else text

    def mask(self, text: str) -> str:
        """What stands in the place of something else."""
        return f"\x1b[7m{text}\x1b[0m" if self._colours else f">>>{text}<<<"


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
    client, server = (fields.get(name) or ("",) for name in ("client", "server"))
    who = entry["principal"] or "an unknown caller"
    who += f" ({entry['display']})" if entry["display"] else ""
    who += f", grant {entry['grant']}" if entry["grant"] else ""
    who += f", token {entry['token_id']}" if entry["token_id"] else ""
    who += f", from {client[0]}" if client[0] else ""
    what = f"{entry['method']} {entry['path']}"
    what += f", {entry['operation']} of {entry['dialect']}" if entry["operation"] else ""
    what += f", model {entry['model']}" if entry["model"] else ""
    what += ", at " + ":".join(map(str, server)) if server[0] else ""
    ended = " ".join(entry.verdicts)
    ended += f": {entry['refusal']}" if entry["refusal"] else ""
    ended += f" (status {fields['status']})" if fields.get("status") else ""
    yield style.head(f"exchange {plain(entry['exchange'])}")
    yield f"  time:     {_times(entry)}"
    yield f"  caller:   {plain(who)}"
    if entry["session"]:
        yield f"  session:  {plain(entry['session'])} (as the caller says)"
    yield f"  request:  {plain(what)}"
    yield f"  ended:    {style.alert(plain(ended)) if entry['refusal'] else plain(ended)}"
    for each in fields.get("findings") or ():
        rule = f"{each['rule']} ({each['action']}, {each['severity']}, {each['mode']})"
        view = "" if each["view"] == "raw" else f", as {each['view']}"
        yield f"  found:    {style.alert(plain(f'{rule} at {each["address"]}{view}'))}"
    for name, count in (fields.get("masked") or {}).items():
        yield f"  masked:   {plain(name)} x{count}"
    if entry["hold"]:
        yield f"  held:     {plain(entry['hold'])}"
    for each in fields.get("approvals") or ():
        person = f"{each['issuer']}:{each['subject']}, {each['channel']}"
        when = written(float(each["time"]))
        said = f"{each['verdict']} by {person}, {when}: {each['reason']}"
        yield f"  decision: {plain(said)}"
    yield f"  record:   {plain(str(entry.flows))}, byte {fields['offset']}, line {entry.number}"


def _times(entry: Entry) -> str:
    said = written(entry.started)
    if first := entry.fields.get("first_byte"):
        said += f", first byte after {first - entry.started:.2f} s"
    if entry.fields.get("ended"):
        said += f", all after {entry.ended - entry.started:.2f} s"
    return said


def _transcript(entry: Entry, style: Style) -> Iterator[str]:
    """What the recording says. Raises `BadRecord`."""
    flow = recorded.flow_of(entry, flow_bytes(entry))
    yield ""
    yield style.head("request")
    yield from _message(recorded.asked(flow), entry, style)
    yield ""
    yield style.head("answer")
    yield from _message(recorded.answered(flow), entry, style)
    if flow.error:
        yield f"  {style.alert(plain(flow.error.msg))}"


def _message(said: Said, entry: Entry, style: Style) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for each in entry.fields.get("findings") or ():
        found.setdefault(each["address"], []).append(each["rule"])
    for turn in said.turns:
        rules = plain(", ".join(found.get(turn.address, ())))
        mark = f"  {style.alert(f'<- {rules}')}" if rules else ""
        yield f"  {turn.where} {plain(turn.address)}{mark}"
        yield from _text(turn.text, entry, style)
    if said.reason:
        yield f"  cannot be read: {plain(said.reason)}; as it came:"
        yield from _text(said.raw.decode("utf-8", "replace")[:_SHOWN], entry, style)
    elif not said.turns:
        yield "  no text"


def _text(text: str, entry: Entry, style: Style) -> Iterator[str]:
    for line in text.split("\n"):
        shown = plain(line)
        if entry.fields.get("masked"):
            shown = _MASK.sub(lambda mask: style.mask(mask[0]), shown)
        yield f"    | {shown}"
