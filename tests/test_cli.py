"""The command: what it prints and how it exits. Real gates are in tests/e2e."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jwt
import pytest

from mitmgate.cli import main
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal
from mitmgate.core.tokens import devissuer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The shipped rules, beside a development issuer of their own."""
    devissuer.prepare(tmp_path / ".mitmgate" / "dev-issuer")
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    return tmp_path / "rules"


def test_the_shipped_rules_are_good(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(rules)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == f"{rules} is good"
    assert len(re.findall(r"\.yaml  [0-9a-f]{12}$", output, re.MULTILINE)) == 6


def test_every_problem_of_every_file_is_printed(
    rules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rules / "commands.yaml").write_text("schema: 1\nrules: []\nbogus: 1\n")
    (rules / "recorder.yaml").write_text("schema: 1\nrotate: {size: big}\n")
    (rules / "typo.yaml").write_text("schema: 1\n")
    identity = (rules / "identity.yaml").read_text()
    (rules / "identity.yaml").write_text(identity.replace("masking: default ", "masking: nosuch "))
    assert main(["check", str(rules)]) == 1
    output, errors = capsys.readouterr()
    assert "typo.yaml  is read by no addon of the gate's own" in output
    assert "commands.yaml:3: bogus: unknown key" in errors
    assert "recorder.yaml:2: rotate.size: a size is a number and a unit" in errors
    assert "masker.yaml has no profile 'nosuch'" in errors
    assert errors.splitlines()[-1] == f"3 problems in {rules}"


def test_an_id_is_taken_once_in_all_files(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (rules / "approval.yaml").read_text()
    (rules / "approval.yaml").write_text(text.replace("infrastructure-destroy", "weights-export"))
    assert main(["check", str(rules)]) == 1
    assert "the id weights-export is taken by a rule in commands.yaml" in capsys.readouterr().err


def test_a_directory_without_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("cannot be read: No such file or directory") == 6


def test_a_token_of_the_development_issuer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["token", "--subject", "agent-7", "--scope", "inference", "--group", "a"]
    assert main([*arguments, "--lifetime", "60", "--state", str(tmp_path)]) == 0
    token = capsys.readouterr().out.strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == "agent-7"
    assert claims["scope"] == "inference"
    assert claims["groups"] == ["a"]
    assert claims["exp"] - claims["iat"] == 60
    assert (tmp_path / "dev-issuer" / "jwks.json").exists()


@pytest.fixture
def held(tmp_path: Path) -> tuple[Path, str]:
    """A state directory with one hold, and its id."""
    store = HoldStore(tmp_path / "holds.sqlite")
    hold, _ = store.open(
        "0" * 64,
        Principal("idp", "agent-7"),
        operation="chat",
        model="m",
        rules=["risky-thing"],
        message="Look at it first.",
        excerpt="messages[0].content: do the risky thing",
        exchange="e-1",
        ttl=60,
    )
    store.close()
    return tmp_path, hold.id


def test_holds_are_listed_and_decided(
    held: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    state, hold = held
    where = ["--state", str(state)]
    assert main(["holds", *where]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{hold} pending idp:agent-7 chat m [risky-thing]")
    assert "| messages[0].content: do the risky thing" in output
    assert main(["approve", hold, "--reason", "fine", *where]) == 0
    assert "nobody waits on the line" in capsys.readouterr().out
    assert main(["deny", hold, "--reason", "no, not fine", *where]) == 0
    assert main(["approve", hold, "--reason", "fine", *where]) == 1
    assert "was denied by" in capsys.readouterr().err
    assert main(["holds", *where]) == 0
    assert capsys.readouterr().out == "nothing waits\n"


@pytest.mark.parametrize(
    ("hold", "reason", "message"),
    [("h-nosuch", "fine", "h-nosuch"), (None, "  ", "a decision needs a reason")],
)
def test_a_decision_that_cannot_be_made(
    held: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    hold: str | None,
    reason: str,
    message: str,
) -> None:
    state, known = held
    assert main(["approve", hold or known, "--reason", reason, "--state", str(state)]) == 1
    assert message in capsys.readouterr().err


def test_holds_of_a_gate_that_never_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holds", "--state", str(tmp_path)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_verify_says_what_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--state", str(tmp_path)]) == 1
    assert f"{tmp_path / 'recordings'} does not exist" in capsys.readouterr().err
    (tmp_path / "recordings").mkdir()
    assert main(["verify", "--state", str(tmp_path)]) == 0
    assert "0 files, 0 exchanges" in capsys.readouterr().out
    (tmp_path / "recordings" / "x.mitm").write_bytes(b"junk")
    assert main(["verify", "--state", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "x" in output.err
    assert output.out.splitlines()[-1].endswith("findings")


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["approve", "h-1"], ["token"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "usage: mitmgate" in capsys.readouterr().err
