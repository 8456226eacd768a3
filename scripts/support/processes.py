"""Child processes for demo, tests and benchmarks: start, wait for a line of output, stop.

Readiness is always a line that the process prints (with the port it got), never a sleep. Every
process is ended through its own handle; nothing here looks for processes by name.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).resolve().parent
GATEWAY = ROOT / "addons" / "gateway.py"
READY = SUPPORT / "ready.py"


class ProcessError(Exception):
    """A process ended, or did not print what was waited for. The text carries its output."""


class Process:
    """A running child whose output is collected. As a context manager it is stopped at the end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; `env` is added to this process's own environment."""
        self.command = [str(part) for part in command]
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.popen = subprocess.Popen(  # noqa: S603  (the callers' own commands)
            self.command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as output:
            for line in output:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def lines(self) -> list[str]:
        """What it printed so far, standard output and standard error together."""
        with self._changed:
            return list(self._lines)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def mark(self) -> int:
        """Here and now in the output: give it to `wait_line` as `since`."""
        with self._changed:
            return len(self._lines)

    def wait_line(
        self, pattern: str | re.Pattern[str], timeout: float = 20, *, since: int = 0
    ) -> re.Match[str]:
        """Block until a line matches `pattern` (searched), looking at old lines from `since` too.

        Raises `ProcessError` after `timeout` seconds, or when the process ends without it.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                while since < len(self._lines):
                    if found := expression.search(self._lines[since]):
                        return found
                    since += 1
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "ended" if self._ended else f"took over {timeout:g} s"
                    raise ProcessError(
                        f"{self.command[0]} {why} without printing /{expression.pattern}/;"
                        " it printed:\n" + "\n".join(self._lines)
                    )
                self._changed.wait(left)

    def wait_exit(self, timeout: float = 20) -> int:
        """The exit status, once it ends by itself. Raises `ProcessError` after `timeout`."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"{self.command[0]} did not end; it printed:\n{self.output}"
            ) from None
        self._reader.join(timeout)
        return status

    def stop(self, timeout: float = 10) -> int:
        """Ask it to end, insist after `timeout` seconds. The exit status; safe to call again."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.wait_exit(timeout)

    def kill9(self) -> None:
        """End it as a power cut would."""
        self.popen.kill()
        self.wait_exit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A running model server. `control_url` is empty when it has no log of requests."""

    process: Process
    url: str
    control_url: str = ""


def start_standin(*, key: str = "", delay: float = 0.002) -> ModelServer:
    """The stand-in model server, on ports of the system's choice; asks for `key` if given.

    `delay` is the seconds between two pieces of a stream.
    """
    options = ["--delay", str(delay), *(["--key", key] if key else [])]
    process = Process([sys.executable, SUPPORT / "standin.py", *options])
    try:
        url = process.wait_line(r"stand-in model server at (\S+)")[1]
        control = process.wait_line(r"requests it saw at (\S+)/_standin")[1]
    except ProcessError:
        process.kill9()
        raise
    return ModelServer(process, url, control)


def start_llamacpp(*, key: str = "") -> ModelServer:
    """llama.cpp with SmolLM2 (the extra `model`), on a port of the system's choice."""
    process = Process([sys.executable, SUPPORT / "llamacpp.py", *(["--key", key] if key else [])])
    try:
        return ModelServer(process, process.wait_line(r"llama\.cpp server at (\S+)", 60)[1])
    except ProcessError:
        process.kill9()
        raise


def gate_command(
    program: str,
    *,
    upstream: str,
    rules: Path,
    state: Path,
    confdir: Path,
    console: str = "",
    scripts: Sequence[Path] = (GATEWAY,),
    options: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line of the gate in front of `upstream` under `program` (mitmdump, mitmweb).

    `wait_for_proxy` then tells when it is up: the last script of all is `ready.py`.
    """
    settings = {
        "gate_rules": rules,
        "gate_state": state,
        "gate_console": console,
        "confdir": confdir,
        **(options or {}),
    }
    return [
        str(Path(sys.executable).with_name(program)),
        *(part for script in (*scripts, READY) for part in ("-s", str(script))),
        "--mode",
        f"reverse:{upstream}",
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        "0",
        *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
    ]


def wait_for_proxy(process: Process, timeout: float = 30) -> str:
    """The URL at which a process made with `gate_command` answers, once it does.

    Raises `ProcessError` when it ends instead, or after `timeout` seconds.
    """
    address = process.wait_line(r"proxy .*listening at (127\.0\.0\.1:\d+)", timeout)[1]
    process.wait_line("start-up is over", timeout)
    return f"http://{address}"


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot tell which one they were given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
