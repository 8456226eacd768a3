"""`mitmgate sessions`, `show`, `export` and `backtest` on recordings that are encrypted."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, http
from mitmproxy.io import FlowReader, tnetstring
from mitmproxy.test import tflow

from mitmgate.cli import main
from mitmgate.core.ledger import Archive, RecorderFile

pyrage = pytest.importorskip(
    "pyrage", reason="needs pyrage, of the extra `encryption` (scripts/test installs it)"
)

OWNER, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
PLACE = "tools[0].function.parameters.properties.codename"
IDS = [f"{n}bcdef01-0000-4000-8000-00000000000{n}" for n in range(2)]

type Run = Callable[..., tuple[int, str, str]]


def summary(n: int) -> dict[str, Any]:
    finding = {"rule": "weights-export", "action": "log", "severity": "low", "mode": "enforce"}
    approval = {"issuer": "os", "subject": "root", "verdict": "approve", "channel": "cli"}
    return {
        "principal": "dev:agent-7",
        "subject": "agent-7",
        "scopes": [],
        "groups": [],
        "bound": "none",
        "grant": "all",
        "operation": "chat",
        "model": "llama",
        "ending": "complete",
        "refusal": "",
        "status": 200,
        "findings": [{**finding, "address": PLACE, "view": "raw"}],
        "masked": {},
        "hold": "h-1",
        "approvals": [{**approval, "reason": "for project zebra", "time": "1800000000.0"}],
        "coverage": {"prompt:text": 1},
        "rules": {},
        "session": f"run-{n}",
    }


@cache
def flow(n: int) -> bytes:
    made = tflow.tflow(resp=True)
    body = {"model": "llama", "messages": [{"role": "user", "content": f"the zebra papers {n}"}]}
    kind = {"content-type": "application/json"}
    url = "http://10.0.0.1:8000/v1/chat/completions"
    made.request = http.Request.make("POST", url, json.dumps(body), kind)
    said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "zebra it is"}}]}
    made.response = http.Response.make(200, json.dumps(said), kind)
    made.id = IDS[n]
    made.metadata["mitmgate"] = summary(n)
    data: bytes = tnetstring.dumps(made.get_state())
    return data


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The first exchange is in the clear, the second is encrypted to OWNER."""
    archive = Archive(tmp_path, RecorderFile.model_validate({"schema": 1}))
    for n in range(2):
        archive.settle(IDS[n], flow(n), {"exchange": IDS[n], "path": "/x", **summary(n)})
        recipients = {"recipients": [str(OWNER.to_public())]}
        archive.reopen(RecorderFile.model_validate({"schema": 1, "encrypt": recipients}))
    archive.close()
    for name, key in (("key.txt", OWNER), ("other.txt", OTHER)):
        (tmp_path / name).write_text(f"# created: 2026-03-02T09:00:00Z\n{key}\n")
    return tmp_path


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        where = [] if arguments[0] == "backtest" else ["--state", state]
        code = main([str(each) for each in (*arguments, *where)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def key(state: Path) -> Path:
    return state / "key.txt"


def flows(path: Path) -> list[http.HTTPFlow]:
    with path.open("rb") as file:
        return list(FlowReader(file).stream())  # type: ignore[arg-type]


def test_what_is_listed_needs_no_key(run: Run) -> None:
    code, out, _ = run("sessions", "--json", "--rule", "weights-export")
    assert (code, "zebra" in out) == (0, False)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["encrypted"] for row in rows] == [False, True]
    assert rows[1]["session"] == "run-1"
    assert run("verify")[0] == 0


def test_an_exchange_without_a_key(run: Run) -> None:
    code, out, err = run("show", IDS[1])
    assert (code, "zebra" in out, PLACE in out) == (1, False, False)
    assert "weights-export (log, low)\n" in out
    assert out.rstrip().endswith("line 2, encrypted")
    assert f"{IDS[1]} (byte 0) is encrypted: give the identity" in err
    assert "--identity FILE" in err
    assert run("show", IDS[0])[0] == 0
    assert run("show", IDS[1], "--json")[:2] == (1, "")


def test_an_exchange_with_a_key(run: Run, key: Path) -> None:
    code, out, err = run("show", IDS[1], "--identity", key)
    assert (code, err) == (0, "")
    assert "  the zebra papers 1" in out
    assert "  zebra it is" in out
    assert f"weights-export (log, low) at {PLACE}" in out
    assert ": for project zebra" in out
    assert str(OWNER) not in out
    document = json.loads(run("show", IDS[1], "--json", "--identity", key)[1])
    assert document["findings"][0]["address"] == PLACE
    assert document["approvals"][0]["reason"] == "for project zebra"


def test_the_key_of_somebody_else(run: Run, state: Path) -> None:
    code, out, err = run("show", IDS[1], "--identity", state / "other.txt")
    assert code == 1
    assert "zebra" not in out
    assert "none of these identities is one of its recipients" in err
    code, _, err = run("export", "--identity", state / "other.txt", "-o", state / "out.mitm")
    assert code == 1
    assert "1 exchange in" in err
    assert [each.id for each in flows(state / "out.mitm")] == IDS[:1]


def test_a_file_that_is_none(run: Run, state: Path) -> None:
    code, _, err = run("show", IDS[1], "--identity", state / "nowhere.txt")
    assert (code, "nowhere.txt" in err) == (1, True)
    (state / "bad.txt").write_text("hello\n")
    code, _, err = run("show", IDS[1], "--identity", state / "bad.txt")
    assert (code, "bad.txt:1: is no secret key" in err) == (1, True)


def test_what_is_cut_out_is_in_the_clear(
    run: Run, state: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = state / "out.mitm"
    assert run("export", "-o", out, "--identity", key)[0] == 0
    assert out.read_bytes() == flow(0) + flow(1)
    monkeypatch.setenv("MITMGATE_IDENTITY", str(key))
    for form, name in (("--har", "o.har"), ("--jsonl", "o.jsonl")):
        assert run("export", form, "-o", state / name)[0] == 0
        assert (state / name).read_text().count("zebra it is") == 2
    monkeypatch.setenv("MITMGATE_TOKEN", "t")
    assert run("export", "--replay", "http://127.0.0.1:1", "-o", state / "again.mitm")[0] == 0
    assert [
        b"zebra papers" in each.request.raw_content for each in flows(state / "again.mitm")
    ] == [
        True,
        True,
    ]


def test_nothing_is_cut_out_without_a_key(run: Run, state: Path) -> None:
    code, _, err = run("export", "-o", state / "out.mitm")
    assert (code, "is encrypted: give the identity" in err) == (1, True)
    assert not (state / "out.mitm").exists()


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """Rules that deny the prompts."""
    rules = tmp_path / "rules"
    rules.mkdir()
    rule = {"id": "zebra-ask", "title": "Zebra", "action": "deny", "match": "zebra papers"}
    rule |= {"message": "No.", "tests": {"match": ["zebra papers"], "pass": ["no"]}}
    issuer = {"id": "dev", "issuer": "https://dev", "audience": "models", "algorithms": ["RS256"]}
    issuer |= {"keys": {"jwks_url": "https://dev/keys"}}
    grant = {"id": "all", "who": {"subject": "*"}, "operations": ["chat"], "models": ["*"]}
    files = {
        "identity": {"issuers": [issuer], "grants": [grant]},
        "commands": {"rules": [rule]},
        "approval": {"rules": []},
        "recorder": {},
        "masker": {"recognizers": [], "profiles": {"default": {"answer": []}}},
    }
    for name, content in files.items():
        (rules / f"{name}.yaml").write_text(json.dumps({"schema": 1, **content}))
    return rules


@pytest.mark.parametrize("jobs", [1, 2])
def test_rules_over_what_is_encrypted(
    run: Run, state: Path, key: Path, trial: Path, jobs: int
) -> None:
    arguments = ["backtest", state / "recordings", "--rules", trial, "--json", "--jobs", jobs]
    code, out, err = run(*arguments, "--identity", key)
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["exchange"] for each in found if each.get("change") == "denied"] == IDS
    code, out, err = run(*arguments)
    assert (code, "byte 0 is encrypted: give the identity" in err) == (2, True)
    code, out, err = run(*arguments, "--identity", state / "other.txt")
    assert (code, "byte 0: none of these identities is one of" in err) == (2, True)
    assert IDS[0] in out


def test_mitmproxy_says_what_to_do(state: Path) -> None:
    _, path = sorted((state / "recordings").glob("*.mitm"))
    with pytest.raises(
        exceptions.FlowReadException, match=r"encrypted by mitmgate: mitmgate export --identity"
    ):
        list(FlowReader(io.BytesIO(path.read_bytes())).stream())
