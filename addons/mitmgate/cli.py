"""The `mitmgate` command: what people do beside the gate, on its rules and its state."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mitmgate import __version__, explaining, rulebook
from mitmgate.approval import describe
from mitmgate.core import holds, ledger
from mitmgate.core.principal import Principal
from mitmgate.core.rules import RuleError
from mitmgate.core.tokens import devissuer

RULES = Path(__file__).parent.parent.parent / "rules"
STATE = Path(".mitmgate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 when it is done, 1 when not; wrong usage exits with 2."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (holds.HoldError, holds.StoreError, OSError, ValueError) as e:
        print(f"mitmgate: {e}", file=sys.stderr)
        return 1
    return code


def check(options: argparse.Namespace) -> int:
    """Load every rule file as the gate would, run the rules' own tests, print what is wrong."""
    report = rulebook.check(options.directory)
    for line in report.lines:
        print(f"  {line}")
    for problem in report.problems:
        print(problem, file=sys.stderr)
    if report.problems:
        print(f"{len(report.problems)} problems in {options.directory}", file=sys.stderr)
        return 1
    print(f"{options.directory} is good")
    return 0


def show_holds(options: argparse.Namespace) -> int:
    """List the requests that wait for a person, and those approved but not yet sent again."""
    with _store(options.state) as store:
        waiting = store.list(("pending", "approved"))
    for hold in waiting:
        print(f"{describe(hold)}{'' if hold.waiting else ', nobody waits on the line'}")
        print(f"    {hold.message}")
        for line in hold.excerpt.splitlines():
            print(f"    | {line}")
    if not waiting:
        print("nothing waits")
    return 0


def decide(options: argparse.Namespace) -> int:
    """Approve or deny a held request. Whoever may write the state directory may do so."""
    who = Principal(issuer="os", subject=getpass.getuser())
    with _store(options.state) as store:
        hold = store.decide(options.hold, who, options.verdict, options.reason, "cli")
        hold = store.get(hold.id)
    print(f"{hold.id} is {hold.state}")
    if hold.state == "pending":
        print(f"{hold.approvals} of {hold.quorum} approvals")
    elif hold.state == "approved" and not hold.waiting:
        print("nobody waits on the line: the same request goes through when it is sent again")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check recordings against their ledger; exit 1 if anything was changed, lost or reordered."""
    key = options.public_key.read_bytes() if options.public_key else None
    path = options.path or options.state / "recordings"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name another PATH, or --state DIR")
    report = ledger.verify(path, key)
    for finding in report.findings:
        print(finding, file=sys.stderr)
    print(f"{report.files} files, {report.entries} exchanges", end="")
    print(f", {report.unsigned} not covered by a signature" if key else "", end="")
    print(f", {len(report.growing)} still being written" if report.growing else "")
    print("every record is as it was written" if report.ok else f"{len(report.findings)} findings")
    return 0 if report.ok else 1


def token(options: argparse.Namespace) -> int:
    """Print a token of the development issuer, which is made in the state directory if need be."""
    print(
        devissuer.issue(
            options.state / "dev-issuer",
            subject=options.subject,
            scopes=options.scope,
            groups=options.group,
            claims=dict(options.claim),
            audience=options.audience,
            lifetime=options.lifetime,
        )
    )
    return 0


def explain(options: argparse.Namespace) -> int:
    """Say which grant lets a token's bearer do something, or which check fails. Fetches nothing."""
    try:
        explanation = asyncio.run(explaining.answer(options))
    except RuleError as e:
        print(e, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(explaining.document(explanation), indent=2))
    else:
        print("\n".join(explaining.text(explanation)))
    return 0 if explanation.grant else 1


class _store:
    """The holds of a gate, closed again at the end."""

    def __init__(self, state: Path) -> None:
        self._store = holds.HoldStore(state / "holds.sqlite", create=False)

    def __enter__(self) -> holds.HoldStore:
        return self._store

    def __exit__(self, *error: object) -> None:
        self._store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mitmgate", description=__doc__)
    parser.add_argument("--version", action="version", version=f"mitmgate {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, **defaults: object) -> argparse.ArgumentParser:
        help = (getattr(run, "__doc__", "") or "").partition("\n")[0]
        help = help.replace("Approve or deny", name.capitalize())
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run, **defaults)
        return command

    def state(command: argparse.ArgumentParser) -> None:
        help = "the gate's gate_state directory (default: .mitmgate)"
        command.add_argument("--state", type=Path, default=STATE, metavar="DIR", help=help)

    command = add("check", check)
    command.add_argument("directory", type=Path, nargs="?", default=RULES, metavar="DIR")
    state(add("holds", show_holds))
    for verdict in ("approve", "deny"):
        command = add(verdict, decide, verdict=verdict)
        command.add_argument("hold", metavar="ID", help="as `mitmgate holds` shows it")
        command.add_argument("--reason", required=True, help="kept with the decision")
        state(command)
    command = add("verify", verify)
    command.add_argument("path", type=Path, nargs="?", metavar="PATH", help="directory or file")
    command.add_argument("--public-key", type=Path, metavar="PEM", help="of the signing key")
    state(command)
    command = add("token", token)
    command.add_argument("--subject", required=True, help="who it is for, such as agent-7")
    command.add_argument("--scope", action="append", default=[], help="may be given again")
    command.add_argument("--group", action="append", default=[], help="may be given again")
    command.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_claim,
        metavar="NAME=VALUE",
        help="any other claim, as JSON or a plain string; null leaves one out; may be given again",
    )
    command.add_argument("--audience", default=devissuer.AUDIENCE)
    command.add_argument("--lifetime", type=float, default=3600.0, metavar="SECONDS")
    state(command)
    explaining.add_arguments(add("explain", explain), RULES)
    return parser


def _claim(given: str) -> tuple[str, object]:
    name, mark, value = given.partition("=")
    if not mark or not name:
        raise argparse.ArgumentTypeError(f"{given!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
