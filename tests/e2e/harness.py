"""What end-to-end tests stand on: a real mitmdump with the gate, tokens, a stand-in model server.

Everything listens on a port of the system's choice, keeps its files in a directory of its own and
is ended by its own handle, also when a test fails. Fixtures over this are in `conftest.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from baseline import UPSTREAM_KEY, Rules, baseline
from issuer import Tokens
from processes import (
    GATEWAY,
    ModelServer,
    Process,
    gate_command,
    start_standin,
    wait_for_proxy,
)

__all__ = [
    "UPSTREAM_KEY",
    "Gate",
    "Rules",
    "Seen",
    "StandIn",
    "Tokens",
    "baseline",
    "start_error",
    "write_rules",
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the stand-in got it; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    outcome: str  # answering, complete, cut or client gone

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class StandIn:
    """A running stand-in model server, and what it saw."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.server: ModelServer = start_standin(key=key)
        self.url = self.server.url
        self._log = f"{self.server.control_url}/_standin/requests"

    def seen(self) -> list[Seen]:
        """Every request since the last `reset`, oldest first."""
        answer = httpx.get(self._log, trust_env=False).json()
        return [
            Seen(
                item["method"],
                item["path"],
                {name.lower(): value for name, value in item["headers"]},
                base64.b64decode(item["body_base64"]),
                item["outcome"],
            )
            for item in answer["requests"]
        ]

    def reset(self) -> None:
        httpx.delete(self._log, trust_env=False).raise_for_status()

    async def wait_seen(
        self, condition: Callable[[Seen], bool] = lambda _: True, timeout: float = 10
    ) -> Seen:
        """The first request for which `condition` holds, as soon as there is one."""
        deadline = time.monotonic() + timeout
        while True:
            seen = await asyncio.to_thread(self.seen)
            for request in seen:
                if condition(request):
                    return request
            if time.monotonic() > deadline:
                raise AssertionError(f"no such request within {timeout:g} s, only {seen}")
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        self.server.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def write_rules(directory: Path, rules: Rules) -> None:
    """Each entry as NAME.yaml; a string is written as it is. Replaced whole, as an editor does."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in rules.items():
        text = content if isinstance(content, str) else yaml.safe_dump(dict(content))
        draft = directory / f".{name}.draft"
        draft.write_text(text, "utf-8")
        draft.replace(directory / f"{name}.yaml")


class Gate:
    """A mitmdump with the gate, in a directory of its own. A context manager that stops it.

    `rules` and `state` are directories; `url` is where it answers.
    """

    def __init__(
        self,
        directory: Path,
        upstream: str,
        rules: Rules,
        *,
        options: Mapping[str, str] | None = None,
        scripts: Sequence[Path] = (GATEWAY,),
        env: Mapping[str, str] | None = None,
        console: str = "",
        program: str = "mitmdump",
    ) -> None:
        """Write `rules` and start; `options` are mitmproxy's, `console` is off when empty."""
        self.directory = directory
        self.rules = directory / "rules"
        self.state = directory / "state"
        self._env = dict(env or {})
        write_rules(self.rules, rules)
        self.command = gate_command(
            program,
            upstream=upstream,
            rules=self.rules,
            state=self.state,
            confdir=directory / "confdir",
            console=console,
            scripts=scripts,
            options={"flow_detail": "0", **(options or {})},
        )
        self.start()

    def start(self) -> None:
        """Start, or start again in the same directory (the port may differ)."""
        self.process = Process(self.command, cwd=self.directory, env=self._env)
        try:
            self.url = wait_for_proxy(self.process)
        except BaseException:
            self.process.kill9()
            raise

    @property
    def output(self) -> str:
        return self.process.output

    @property
    def console(self) -> str:
        """The console's URL, for a gate started with `console="127.0.0.1:0"`."""
        return self.wait_log(r"console listening at (\S+)")[1]

    def write_rules(self, **rules: Mapping[str, Any] | str) -> None:
        """Put rule files in place while it runs: `gate.write_rules(commands={...})`."""
        write_rules(self.rules, rules)

    def wait_log(
        self, pattern: str | re.Pattern[str], timeout: float = 10, *, since: int = 0
    ) -> re.Match[str]:
        """Block until it has printed a line that matches; see `Process.wait_line`."""
        return self.process.wait_line(pattern, timeout, since=since)

    async def logged(
        self, pattern: str | re.Pattern[str], timeout: float = 10, *, since: int = 0
    ) -> re.Match[str]:
        """`wait_log` for tests that have a request under way on the event loop."""
        return await asyncio.to_thread(self.wait_log, pattern, timeout, since=since)

    def client(self, token: str = "", **settings: Any) -> httpx.AsyncClient:
        """A client of the gate that sends `token`."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        usual: dict[str, Any] = {"headers": headers, "trust_env": False, "timeout": 30}
        return httpx.AsyncClient(**{"base_url": self.url, **usual, **settings})

    def stop(self) -> int:
        """End it as an operator would. The exit status; safe to call again."""
        return self.process.stop()

    def kill9(self) -> None:
        """End it as a power cut would."""
        self.process.kill9()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_error(command: Sequence[str], directory: Path, timeout: float = 30) -> str:
    """The output of a gate that is expected to refuse to start. Fails if it starts."""
    process = Process(command, cwd=directory)
    try:
        status = process.wait_exit(timeout)
    finally:
        process.kill9()
    if status == 0:
        raise AssertionError(f"it ended with 0 and printed:\n{process.output}")
    return process.output
