"""What the command believes about who runs it, and what it prints of what callers wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mitmgate.cli import main
from mitmgate.core import holds
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal

ROOT = Path(__file__).parents[1]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with one hold, of the user who runs the tests."""
    store = HoldStore(tmp_path / "holds.sqlite")
    store.open(
        "digest",
        Principal("company-idp", holds.account().subject),
        operation="chat",
        model="llama",
        rules=["money-move"],
        message="Money is moved after a second look.",
        excerpt="messages[0].content: \x1b[2J\x1b]0;title\x07wire the money\r\u202e",
        exchange="x-1",
        ttl=900,
        quorum=1,
    )
    store.close()
    return tmp_path


@pytest.mark.parametrize("name", ["LOGNAME", "USER", "LNAME", "USERNAME"])
def test_nobody_approves_their_own_request_under_a_name_from_the_environment(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for each in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "somebody-else")
    store = HoldStore(state / "holds.sqlite")
    (hold,) = store.list(("pending",))
    store.close()
    shutil.copy(ROOT / "rules" / "approval.yaml", state)
    where = ("--state", str(state), "--rules", str(state))
    assert main(["approve", hold.id, "--reason", "mine", *where]) == 1
    assert "your own request" in "".join(capsys.readouterr())


def test_an_account_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_001)
    assert holds.account() == Principal("os", "4000000001")


def test_a_terminal_obeys_nothing_that_callers_wrote(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["holds", "--state", str(state)]) == 0
    printed = capsys.readouterr().out
    assert "wire the money" in printed
    assert all(c.isprintable() or c == "\n" for c in printed)
