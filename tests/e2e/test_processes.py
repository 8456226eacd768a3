"""How the tests' own processes are started, waited for and stopped; none is left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jwt
import pytest

from harness import Gate, StandIn, Tokens, start_error, write_rules
from processes import Process, ProcessError

OPTIONS = """
def load(loader):
    for name in ("gate_rules", "gate_state", "gate_console"):
        loader.add_option(name, str, "", "stands for the gate's own")
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started")
time.sleep(60)
"""


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_line_is_waited_for_and_found_again() -> None:
    with Process(_python("print('one'); print('port 7'); input()")) as process:
        assert process.wait_line(r"port (\d+)")[1] == "7"
        assert process.wait_line("one")
    assert process.lines[:2] == ["one", "port 7"]


def test_a_process_that_ends_instead_is_an_error_with_its_output() -> None:
    with (
        Process(_python("import sys; sys.exit('no such file')")) as process,
        pytest.raises(ProcessError, match="no such file"),
    ):
        process.wait_line("ready")
    assert process.wait_exit() == 1


def test_waiting_has_a_deadline() -> None:
    with (
        Process(_python("import time; print('slow'); time.sleep(60)")) as process,
        pytest.raises(ProcessError, match=r"took over 0\.1 s"),
    ):
        process.wait_line("ready", 0.1)


def test_a_process_that_will_not_end_is_killed() -> None:
    process = Process(_python(STUBBORN))
    process.wait_line("started")
    assert process.stop(timeout=0.1) == -9
    assert process.stop() == -9
    assert not _alive(process.pid)


def test_the_environment_is_added_to() -> None:
    code = "import os; print(os.environ['MINE'], 'PATH' in os.environ)"
    with Process(_python(code), env={"MINE": "here"}) as process:
        assert process.wait_line("here (.*)")[1] == "True"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "options.py"
    path.write_text(OPTIONS)
    return path


async def test_a_gate_is_a_real_mitmdump_in_front_of_the_stand_in(
    standin: StandIn, tmp_path: Path, script: Path
) -> None:
    with Gate(tmp_path, standin.url, {"commands": "schema: 1\n"}, scripts=[script]) as gate:
        async with gate.client(standin.key) as client:
            answer = await client.get("/v1/models")
        assert answer.json()["object"] == "list"
        assert (await standin.wait_seen()).path == "/v1/models"
        first = gate.process.pid
        gate.kill9()
        assert not _alive(first)
        gate.start()
        async with gate.client(standin.key) as client:
            assert (await client.get("/v1/models")).status_code == 200
        gate.write_rules(commands={"schema": 1, "rules": []})
        assert "rules: []" in (tmp_path / "rules" / "commands.yaml").read_text()
    assert not _alive(gate.process.pid)


def test_a_gate_that_does_not_start_says_why(tmp_path: Path, script: Path) -> None:
    script.write_text("raise ValueError('broken on purpose')")
    with pytest.raises(ProcessError, match="broken on purpose"):
        Gate(tmp_path, "http://127.0.0.1:9", {}, scripts=[script])


def test_start_error(tmp_path: Path) -> None:
    assert "why not" in start_error(_python("import sys; sys.exit('why not')"), tmp_path)
    with pytest.raises(AssertionError, match="ended with 0"):
        start_error(_python("print('fine')"), tmp_path)


def test_rules_are_written_from_mappings_and_text(tmp_path: Path) -> None:
    write_rules(tmp_path, {"a": {"schema": 1}, "b": "as: [it, is] # kept\n"})
    assert (tmp_path / "a.yaml").read_text() == "schema: 1\n"
    assert (tmp_path / "b.yaml").read_text() == "as: [it, is] # kept\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "b.yaml"]


def test_tokens(tokens: Tokens, tmp_path: Path) -> None:
    key = jwt.PyJWKSet.from_json(tokens.jwks_file.read_text())["test-1"]
    token = tokens.mint("anna", scopes=["a", "b"], groups=["g"], jti=None, extra=1)
    claims = jwt.decode(token, key, audience="models", issuer=tokens.issuer)
    assert (claims["sub"], claims["scope"], claims["groups"]) == ("anna", "a b", ["g"])
    assert claims["extra"] == 1
    assert "jti" not in claims
    other = Tokens(tmp_path, tokens.issuer)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(other.mint(), key, audience="models")
