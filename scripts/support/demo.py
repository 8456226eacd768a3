"""The demo: a model server, the gate under mitmweb, and a tour of what the gate does to traffic.

Everything it makes is in one directory below `.mitmgate/`, and it stops all that it started. With
`--once` nobody is needed: each outcome is checked, and the exit status says whether all were right.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml

import tour
from mitmgate.core.tokens import devissuer
from processes import (
    ROOT,
    ModelServer,
    Process,
    ProcessError,
    free_port,
    gate_command,
    start_llamacpp,
    start_standin,
    wait_for_proxy,
)
from screen import Screen
from tour import UPSTREAM_KEY, Demo, UnexpectedError, shown


def prepare(directory: Path, server: ModelServer) -> None:
    """The sample rules in a place of their own, with this demo's model server in them."""
    rules = directory / "rules"
    shutil.copytree(ROOT / "rules", rules)
    (directory / "upstream.key").write_text(UPSTREAM_KEY)
    upstream = {
        "id": "demo",
        "address": server.url.removeprefix("http://"),
        "header": "Authorization",
        "value": "Bearer ${file:../upstream.key}",
    }
    (rules / "credentials.yaml").write_text(
        yaml.safe_dump({"schema": 1, "upstreams": [upstream]}, sort_keys=False)
    )


def token_file(directory: Path, subject: str, scopes: list[str]) -> Path:
    """A file with a token of the development issuer, which the sample identity.yaml trusts."""
    token = devissuer.issue(
        directory / ".mitmgate" / "dev-issuer",
        subject=subject,
        scopes=scopes,
        lifetime=8 * 3600,
    )
    path = directory / f"{subject}.token"
    path.write_text(token)
    path.chmod(0o600)
    return path


def run(directory: Path, screen: Screen, *, once: bool, real: bool) -> None:
    """Start everything, take the tour, wait for Ctrl-C unless `once`, stop everything."""
    with ExitStack() as stack:
        if real:
            server = start_llamacpp(key=UPSTREAM_KEY)
        else:  # slow enough to watch
            server = start_standin(key=UPSTREAM_KEY, delay=0.002 if once else 0.04)
        stack.enter_context(server.process)
        prepare(directory, server)
        agent = token_file(directory, "agent-7", ["inference"])
        command = gate_command(
            "mitmweb",
            upstream=server.url,
            rules=directory / "rules",
            state=directory / ".mitmgate",
            confdir=directory / "confdir",
            console="127.0.0.1:0",
            options={"web_port": str(free_port()), "web_open_browser": "false"},
        )
        gate = stack.enter_context(Process(command, cwd=directory))
        url = wait_for_proxy(gate, 60)
        web = gate.wait_line(r"Web server listening at (\S+)")[1]

        screen.title("mitmgate demo")
        kind = "llama.cpp with SmolLM2" if real else "a stand-in, which says what it is told"
        screen.field("model server", f"{server.url} ({kind})")
        screen.field("gateway", f"{url}/v1")
        screen.field("mitmweb", web)
        screen.field("console", gate.wait_line(r"console listening at (\S+)")[1])
        screen.field("token", f"{shown(agent)}, for callers")
        screen.field("rules", f"{shown(directory / 'rules')} (edit them: changes apply at once)")
        model = "smollm2-135m" if real else "stand-in"
        demo = Demo(screen, directory, gate, url, agent.read_text(), model, real=real)
        try:
            tour.take(demo, once=once)
        except (UnexpectedError, OSError, http.client.HTTPException) as e:
            screen.line()
            raise UnexpectedError(f"{e}\nThe gate printed:\n{gate.output}") from e
        if not once:
            stay(demo, agent)
    screen.line()
    screen.good("everything that the demo started is stopped")


def stay(demo: Demo, agent: Path) -> None:
    """Say how to go on by hand, and wait for Ctrl-C or for the gate to end."""
    demo.screen.step(7, "Your turn; Ctrl-C ends it")
    body = json.dumps({**demo.body("hello"), "stream": True})
    demo.screen.command(
        f'curl -N {demo.url}/v1/chat/completions -H "Authorization: Bearer $(cat {shown(agent)})"'
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    try:
        demo.gate.popen.wait()
    except KeyboardInterrupt:
        return
    raise UnexpectedError(f"The gate ended by itself and printed:\n{demo.gate.output}")


def _terminated(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    arguments.add_argument(
        "--once", action="store_true", help="approve by itself, check each outcome, and end"
    )
    arguments.add_argument(
        "--model", action="store_true", help="a real small model under llama.cpp answers"
    )
    options = arguments.parse_args()
    screen = Screen()
    # A plain kill ends what was started, too.
    signal.signal(signal.SIGTERM, _terminated)
    parent = ROOT / ".mitmgate"
    parent.mkdir(mode=0o700, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    try:
        run(directory, screen, once=options.once, real=options.model)
    except (UnexpectedError, ProcessError) as e:
        screen.bad(str(e))
        screen.say(f"What it left is in {shown(directory)}")
        return 1
    except KeyboardInterrupt:
        screen.line()
        return 130
    if options.once:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
