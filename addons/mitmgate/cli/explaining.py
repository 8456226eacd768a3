"""`mitmgate explain`: from what was typed to the question, and from the explanation to text.

It reads identity.yaml as the gate does and fetches nothing. Of the token it says what its claims
say, never the token itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from mitmgate.core import tokens
from mitmgate.core.rules import load
from mitmgate.core.tokens.explain import Explanation
from mitmgate.core.tokens.explain import explain as explanation_of
from mitmgate.core.tokens.file import METHODS, IdentityFile, Limits
from mitmgate.core.tokens.grants import Wanted
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.dialect import Endpoint

_MARKS = {"ok": "ok", "failed": "FAILED", "unchecked": "NOT CHECKED"}


def add_arguments(command: argparse.ArgumentParser, rules: Path) -> None:
    """The options of the command; `rules` is the directory of the rule files by default."""
    command.add_argument(
        "--token",
        help="the token, @FILE, or - for standard input; one that is typed here is seen by "
        "everybody who can list processes, and stays in the shell's history",
    )
    asked = command.add_mutually_exclusive_group()
    asked.add_argument(
        "--operation", metavar="NAME", choices=sorted(endpoints.OPERATIONS), help="such as chat"
    )
    asked.add_argument("--path", help="what is called, such as /v1/chat/completions")
    command.add_argument("--model", help="left out: the request names none")
    help = "default: POST, if the operation or path has it"
    command.add_argument("--method", choices=METHODS, help=help)
    command.add_argument(
        "--request",
        metavar="FILE",
        help="a request to judge: its body, or all of it as in HTTP/1.1; - for standard input",
    )
    command.add_argument(
        "--answer", metavar="FILE", help="an answer to judge, to that request or to --path"
    )
    command.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="of the request; may be given again",
    )
    command.add_argument(
        "--profile", metavar="NAME", help="of masker.yaml; default: the grant's, else default"
    )
    command.add_argument(
        "--rules", type=Path, default=rules, metavar="DIR", help="where the rule files are"
    )
    command.add_argument(
        "--keys",
        action="append",
        default=[],
        metavar="[ISSUER=]FILE",
        help="a saved key set (JWKS) in the place of the issuer's own; may be given again",
    )
    command.add_argument("--json", action="store_true", help="the same as one JSON object")
    command.set_defaults(wrong=command.error)


def check_usage(options: argparse.Namespace) -> None:
    """Options that do not go together end the command with 2, as wrong options do."""
    messages = options.request or options.answer
    if not messages and not options.token:
        options.wrong("the following arguments are required: --token, --request or --answer")
    if not messages and not (options.operation or options.path):
        options.wrong("one of the arguments --operation --path is required")
    if not messages and (options.header or options.profile):
        options.wrong("--header and --profile go with --request or --answer")
    if messages and (options.operation or options.model is not None):
        options.wrong("--operation and --model do not go with --request and --answer: use --path")
    if [options.token, options.request, options.answer].count("-") > 1:
        options.wrong("only one of --token, --request and --answer can be standard input")


async def answer(options: argparse.Namespace) -> Explanation:
    """The explanation that was asked for. Raises `RuleError`, `OSError` or `ValueError`."""
    identity, ids = _identity(options)
    return await _explain(options, identity, ids, _wanted(options))


async def explanation(options: argparse.Namespace, wanted: Wanted) -> Explanation:
    """What identity says to `wanted`. Raises like `answer`."""
    return await _explain(options, *_identity(options), wanted)


def _identity(options: argparse.Namespace) -> tuple[tokens.Identity, Sequence[str]]:
    loaded = load(options.rules / "identity.yaml", IdentityFile)
    identity = tokens.compile(loaded, endpoints.OPERATIONS)
    return identity, [issuer.id for issuer in loaded.file.issuers]


async def _explain(
    options: argparse.Namespace, identity: tokens.Identity, ids: Sequence[str], wanted: Wanted
) -> Explanation:
    saved = dict(_saved(each, ids) for each in options.keys)
    token = _token(options.token)
    try:
        return await explanation_of(identity, token, wanted, now=time.time(), saved=saved)
    except tokens.KeySetError as e:
        raise ValueError(str(e)) from None


def _header(given: str) -> tuple[str, str]:
    name, mark, value = given.partition(":")
    if not mark or not name.strip() or not f"{name}{value}".isprintable():
        raise argparse.ArgumentTypeError(f"{given!r} is not NAME: VALUE")
    return name.strip(), value.strip()


def _token(given: str) -> str:
    if given == "-":
        return sys.stdin.read().strip()
    if given.startswith("@"):
        return Path(given[1:]).read_text("utf-8").strip()
    return given


def _saved(given: str, ids: Sequence[str]) -> tuple[str, Path]:
    issuer, mark, path = given.partition("=")
    return (issuer, Path(path)) if mark and issuer in ids else ("", Path(given))


def _wanted(options: argparse.Namespace) -> Wanted:
    """What the gate would take the request for."""
    methods = [options.method] if options.method else ["POST", *METHODS]
    path = options.path and options.path.partition("?")[0]
    endpoint = next(filter(None, (_find(options, path, method) for method in methods)), None)
    if endpoint is None:
        what = f"{options.method or ''} {options.path or options.operation}".strip()
        raise ValueError(f"{what} is no endpoint of the gate; a caller gets 404 endpoint_unknown")
    named = endpoint.model(path) if path else None
    if named is not None and options.model not in (None, named):
        raise ValueError(f"the path names the model {named}; a caller gets 400 model_invalid")
    # A model that is not named is the server's own choice.
    unnamed = "" if endpoint.generates else None
    model = options.model if options.model is not None else named or unnamed
    return Wanted(endpoint.operation, model, endpoint.method)


def _find(options: argparse.Namespace, path: str | None, method: str) -> Endpoint | None:
    if path:
        return endpoints.find(method, path)
    fitting = (each for each in endpoints.ENDPOINTS if each.operation == options.operation)
    return next((each for each in fitting if each.method == method), None)


def text(explanation: Explanation) -> Iterator[str]:
    """Lines for people: the checks, the grants, what counts, and last the verdict."""
    yield f"{explanation.wanted}"
    for check in explanation.checks:
        yield f"  {_MARKS[check.outcome]:<11}  {check.name}: {check.text}"
    if explanation.principal is None:
        yield "  later checks were not made"
    for fit in explanation.fits:
        mark = fit.grant.effect if not fit.unmet else "no"
        yield f"  {mark:<11}  {fit.grant.id}: {fit.text}"
    grant, error = explanation.grant, explanation.error
    if grant:
        yield f"limits: {_limits(grant.limits)}"
        yield f"masking: {grant.masking}"
    if explanation.assumed:
        yield f"taken for granted: {', '.join(explanation.assumed)}"
    if "signature" in explanation.assumed:
        yield "the signature was NOT checked: save the issuer's key set and give --keys FILE"
    if error:
        gets = f"the client gets {error.status} {error.public}"
        yield f"refused: {gets}; the log says {error.diagnostics()}"
    elif grant:
        yield f"allowed by {grant.id}: goes on to the other controls"


def _limits(limits: Limits | None) -> str:
    if limits is None:
        return "none"
    said = [
        f"{name.replace('_', ' ')} {value}"
        for name in ("requests_per_minute", "prompt_bytes_per_minute", "concurrent")
        if (value := getattr(limits, name)) is not None
    ]
    return f"{', '.join(said)}, per {limits.per}"


def document(explanation: Explanation) -> dict[str, object]:
    """The same as an object for programs; its keys stay."""
    grant, error, principal = explanation.grant, explanation.error, explanation.principal
    return {
        "allowed": grant is not None,
        "status": error.status if error else None,
        "error": error.public if error else None,
        "code": error.code if error else None,
        "detail": error.detail if error else None,
        "wanted": asdict(explanation.wanted),
        "caller": principal.name if principal else None,
        "checks": [
            {"name": check.name, "outcome": check.outcome, "text": check.text}
            for check in explanation.checks
        ],
        "unchecked": list(explanation.assumed),
        "grants": [
            {"id": fit.grant.id, "effect": fit.grant.effect, "unmet": fit.unmet, "text": fit.text}
            for fit in explanation.fits
        ],
        "grant": grant.id if grant else None,
        "limits": grant.limits.model_dump() if grant and grant.limits else None,
        "masking": grant.masking if grant else None,
    }
