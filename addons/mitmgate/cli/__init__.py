"""The `mitmgate` command: what people do beside the gate, on its rules and its state."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mitmgate import __version__
from mitmgate.cli import (
    backtest,
    deciding,
    examining,
    explaining,
    exporting,
    listing,
    notes,
    reviewing,
    rulebook,
    verifying,
)
from mitmgate.core import holds
from mitmgate.core.rules import RuleError
from mitmgate.core.tokens import devissuer

RULES = Path(__file__).parents[3] / "rules"
STATE = Path(".mitmgate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 when it is done, 1 when not; wrong usage exits with 2."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody reads on, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (holds.HoldError, holds.StoreError, OSError, ValueError) as e:
        print(f"mitmgate: {e}", file=sys.stderr)
        return 1
    return code


def check(options: argparse.Namespace) -> int:
    """Load every rule file as the gate would, run the rules' own tests, print what is wrong.

    Of files that load, say also what in them has no effect; with `strict` that is wrong, too.
    """
    report = rulebook.check(options.directory)
    found = [] if report.problems else notes.notes(options.directory, report.rules)
    idle = notes.without_effect(report.rules)
    good = not report.problems and not (options.strict and found)
    if options.json:
        print(json.dumps(notes.document(report, found, idle, good=good), indent=2))
        return 0 if good else 1
    for line in report.lines:
        print(f"  {line}")
    for note in found:
        print(note)
    if idle:
        print(notes.said(idle))
    for problem in report.problems:
        print(problem, file=sys.stderr)
    if report.problems:
        print(f"{len(report.problems)} problems in {options.directory}", file=sys.stderr)
    elif not good:
        print(f"{len(found)} notes on {options.directory}", file=sys.stderr)
    else:
        print(f"{options.directory} is good")
    return 0 if good else 1


def verify(options: argparse.Namespace) -> int:
    """Check recordings against their ledger; exit 1 if anything was changed, lost or reordered.

    Returns 2 for what cannot be read.
    """
    try:
        report = verifying.read(options)
    except (OSError, ValueError) as e:
        print(f"mitmgate: {e}", file=sys.stderr)
        return 2
    for finding in report.findings:
        print(finding, file=sys.stderr)
    for line in verifying.summary(report, signed=options.public_key is not None):
        print(line)
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
    """Say what the gate would do about a token, a request or an answer, and why. Fetches nothing.

    Returns 0 for what goes on, 1 for what is refused or held.
    """
    explaining.check_usage(options)
    if options.request or options.answer:
        return _examine(options)
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


def _examine(options: argparse.Namespace) -> int:
    """Rule files and messages that cannot be read are no verdict: 2."""
    logging.getLogger("mitmgate").addHandler(logging.NullHandler())  # all of it is in the output
    try:
        found = asyncio.run(examining.examine(options))
    except (RuleError, OSError, ValueError) as e:
        print(e if isinstance(e, RuleError) else f"mitmgate: {e}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(examining.document(found), indent=2))
    else:
        print("\n".join(examining.text(found)))
    return 0 if found.outcome == "goes on" else 1


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
    command.add_argument("--strict", action="store_true", help="notes are errors, too")
    command.add_argument("--json", action="store_true", help="the same as one JSON object")
    command = add("holds", deciding.show_holds)
    command.add_argument("--watch", action="store_true", help="go on, and tell what comes and goes")
    state(command)
    for verdict in ("approve", "deny"):
        command = add(verdict, deciding.decide, verdict=verdict)
        command.add_argument("hold", metavar="ID", help="as `mitmgate holds` shows it")
        command.add_argument("--reason", required=True, help="kept with the decision")
        help = "whose approval.yaml says who decides (default: the gate's gate_rules)"
        command.add_argument("--rules", type=Path, metavar="DIR", help=help)
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
    for name, module in (("sessions", listing), ("show", reviewing), ("export", exporting)):
        command = add(name, module.run)
        module.add_arguments(command)
        state(command)
    backtest.add_arguments(add("backtest", backtest.run))
    return parser


def _claim(given: str) -> tuple[str, object]:
    name, mark, value = given.partition("=")
    if not mark or not name:
        raise argparse.ArgumentTypeError(f"{given!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
