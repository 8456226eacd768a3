"""What is wrong at start ends start-up: one clear line each, exit 1, no traceback, no traffic."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness import Rules, Tokens, baseline, start_error, write_rules
from processes import GATEWAY, ROOT, Process, gate_command, wait_for_proxy

UPSTREAM = "http://127.0.0.1:9"


@pytest.fixture
def rules(tmp_path: Path, tokens: Tokens) -> dict[str, Any]:
    return dict(baseline(tokens, UPSTREAM, tmp_path))


def command(directory: Path, rules: Rules, **settings: Any) -> list[str]:
    write_rules(directory / "rules", rules)
    usual: dict[str, Any] = {
        "upstream": UPSTREAM,
        "rules": directory / "rules",
        "state": directory / "state",
        "confdir": directory / "confdir",
    }
    return gate_command("mitmdump", **{**usual, **settings})


def refused(directory: Path, rules: Rules, **settings: Any) -> str:
    output = start_error(command(directory, rules, **settings), directory)
    assert "Traceback" not in output
    assert "Errors logged during startup" in output or "Error logged during startup" in output
    return output


def test_a_wrong_key_names_file_line_and_key(tmp_path: Path, rules: dict[str, Any]) -> None:
    rules["commands"] = "schema: 1\nrules: []\nbogus: 1\n"
    assert "rules/commands.yaml:3: bogus: unknown key" in refused(tmp_path, rules)


def test_every_error_of_every_file_is_named(tmp_path: Path, rules: dict[str, Any]) -> None:
    rules["commands"] = "schema: 2\nrules: 7\n"
    rules["recorder"] = "schema: 1\nrequired: false\n"
    output = refused(tmp_path, rules)
    assert "commands.yaml:1: schema:" in output
    assert "commands.yaml:2: rules:" in output
    assert "recorder.yaml:2: required:" in output
    assert "unsafe_required" in output


def test_a_failing_self_test_names_the_rule(tmp_path: Path, rules: dict[str, Any]) -> None:
    rules["commands"]["rules"][0]["tests"]["match"] = ["nothing of the kind"]
    output = refused(tmp_path, rules)
    assert "weights-export: 'nothing of the kind' should match and does not" in output


def test_a_missing_rule_file(tmp_path: Path, rules: dict[str, Any]) -> None:
    del rules["masker"]
    assert "masker.yaml: cannot be read: No such file" in refused(tmp_path, rules)


def test_a_missing_key_file(tmp_path: Path, rules: dict[str, Any]) -> None:
    rules["identity"]["issuers"][0]["keys"] = {"jwks_file": "missing.json"}
    output = refused(tmp_path, rules)
    assert "missing.json" in output
    assert "identity.yaml:" in output


def test_a_missing_upstream_key(tmp_path: Path, rules: dict[str, Any]) -> None:
    rules["credentials"]["upstreams"][0]["value"] = "Bearer ${env:NO_SUCH_VARIABLE}"
    assert "the environment variable NO_SUCH_VARIABLE is not set" in refused(tmp_path, rules)


def test_a_state_directory_that_cannot_be_written(tmp_path: Path, rules: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    output = refused(tmp_path, rules, state=tmp_path / "file" / "state")
    assert "gate_state: cannot write in" in output


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_a_console_port_in_use(tmp_path: Path, rules: dict[str, Any], taken: int) -> None:
    output = refused(tmp_path, rules, console=f"127.0.0.1:{taken}")
    assert f"gate_console: cannot listen on 127.0.0.1:{taken}" in output


def test_a_listening_port_in_use(tmp_path: Path, rules: dict[str, Any], taken: int) -> None:
    line = command(tmp_path, rules)
    line[line.index("--listen-port") + 1] = str(taken)
    output = start_error(line, tmp_path)
    assert "address already in use" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stream_large_bodies", "1m"),
        ("ignore_hosts", "example"),
        ("allow_hosts", "example"),
        ("tcp_hosts", "example"),
        ("map_remote", "|/v1|http://127.0.0.1:9/"),
        ("modify_body", "/~q/hello/bye"),
        ("modify_headers", "/~q/X-A/b"),
        ("stickyauth", "."),
    ],
)
def test_options_that_would_open_the_gate(
    tmp_path: Path, rules: dict[str, Any], option: str, value: str
) -> None:
    output = refused(tmp_path, rules, options={option: value})
    assert f"the option {option} cannot be used with the gate" in output


@pytest.mark.parametrize("mode", ["regular", "socks5", "reverse:tcp://127.0.0.1:9"])
def test_modes_that_the_gate_does_not_guard(
    tmp_path: Path, rules: dict[str, Any], mode: str
) -> None:
    line = command(tmp_path, rules)
    line[line.index("--mode") + 1] = mode
    output = start_error(line, tmp_path)
    assert f"the gate does not guard mode '{mode}'" in output


def test_a_foreign_script_before_the_gate(tmp_path: Path, rules: dict[str, Any]) -> None:
    foreign = tmp_path / "foreign.py"
    foreign.write_text("def request(flow):\n    raise RuntimeError('not ours')\n")
    output = refused(tmp_path, rules, scripts=[foreign, GATEWAY])
    assert f"the script {foreign} stands before" in output


def test_an_addon_alone_that_needs_another_says_so(tmp_path: Path, rules: dict[str, Any]) -> None:
    output = refused(tmp_path, rules, scripts=[ROOT / "addons" / "approval.py"])
    assert "mitmgate.approval needs mitmgate.identity: load it first" in output


@pytest.mark.parametrize(
    "name", ["identity", "commands", "masker", "recorder", "credentials", "console", "views"]
)
def test_each_addon_loads_alone(tmp_path: Path, rules: dict[str, Any], name: str) -> None:
    with Process(
        command(tmp_path, rules, scripts=[ROOT / "addons" / f"{name}.py"]), cwd=tmp_path
    ) as process:
        wait_for_proxy(process)
        assert "rror" not in process.output
