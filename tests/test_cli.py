"""The command: what it prints and how it exits. Real gates are in tests/e2e."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import jwt
import pytest

from mitmgate.cli import main
from mitmgate.core import holds, ledger
from mitmgate.core.holds import HoldStore
from mitmgate.core.principal import Principal
from mitmgate.core.tokens import devissuer

ROOT = Path(__file__).parents[1]
RULES = ROOT / "rules"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The shipped rules, beside a development issuer of their own."""
    devissuer.prepare(tmp_path / ".mitmgate" / "dev-issuer")
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    return tmp_path / "rules"


def test_the_shipped_rules_are_good(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--strict", str(rules)]) == 0
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


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("n=5", 5),
        ("n=main", "main"),
        ("n=a=b", "a=b"),
        ('n={"a": ["b"]}', {"a": ["b"]}),
        ('n="5"', "5"),
        ("n=", ""),
        ("n=null", None),
    ],
)
def test_any_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, value: object
) -> None:
    assert main(["token", "--subject", "a", "--claim", given, "--state", str(tmp_path)]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
    assert claims.get("n") == value
    assert ("n" in claims) == (value is not None)


@pytest.fixture
def token(rules: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A token that the shipped rules let in."""
    where = ["--state", str(rules.parent / ".mitmgate")]
    assert main(["token", "--subject", "agent-7", "--scope", "inference", *where]) == 0
    return capsys.readouterr().out.strip()


class TestExplain:
    def test_allowed(self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["explain", "--token", token, "--operation", "chat", "--model", "smollm2:135m"]
        assert main([*asked, "--rules", str(rules)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "POST chat of 'smollm2:135m'"
        assert "  ok           signature: made with this key" in lines
        assert "  allow        research-agents: lets it" in lines
        assert "  no           clinic: subject is 'agent-7', wanted 'clinic-*'" in lines
        assert lines[-3:] == [
            "limits: none",
            "masking: default",
            "allowed by research-agents: goes on to the other controls",
        ]
        assert token.rpartition(".")[2] not in "".join(lines)

    def test_refused(self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["explain", "--token", token, "--operation", "chat", "--model", "gpt"]
        assert main([*asked, "--rules", str(rules)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert "  no           research-agents: models: stand-in*, smollm2*, not gpt" in lines
        assert lines[-1].startswith(
            "refused: the client gets 403 insufficient_scope; the log says model_not_granted: "
        )

    def test_a_token_that_is_not_accepted(
        self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        forged = f"{token[:-6]}AAAAAA"
        asked = ["explain", "--token", forged, "--operation", "chat", "--model", "gpt"]
        assert main([*asked, "--rules", str(rules)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3].startswith("  FAILED       signature: with the key 'dev-")
        assert lines[-2] == "  later checks were not made"
        assert lines[-1].startswith(
            "refused: the client gets 401 invalid_token; the log says signature_wrong: "
        )

    def test_json(self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
        where = ["--rules", str(rules), "--json"]
        asked = ["explain", "--token", token, "--operation"]
        assert main([*asked, "models", *where]) == 0
        allowed = json.loads(capsys.readouterr().out)
        assert main([*asked, "rerank", *where]) == 1
        refused = json.loads(capsys.readouterr().out)
        assert list(allowed) == list(refused)
        assert allowed["wanted"] == {"operation": "models", "model": None, "method": "GET"}
        assert (allowed["allowed"], allowed["grant"]) == (True, "research-agents")
        assert (allowed["code"], allowed["masking"]) == (None, "default")
        assert refused["caller"] == "dev:agent-7"
        assert (refused["status"], refused["code"]) == (403, "operation_not_granted")
        assert refused["grants"][0] == {
            "id": "research-agents",
            "effect": "allow",
            "unmet": "operations",
            "text": refused["grants"][0]["text"],
        }
        assert {check["outcome"] for check in refused["checks"]} == {"ok"}

    def test_where_the_token_comes_from(
        self,
        rules: Path,
        token: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (rules / "token").write_text(f"{token}\n")
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
        for given in (f"@{rules / 'token'}", "-"):
            asked = ["explain", "--token", given, "--operation", "models", "--rules", str(rules)]
            assert main(asked) == 0
            assert "allowed by research-agents" in capsys.readouterr().out
        asked = ["explain", "--token", "@nosuch", "--operation", "models", "--rules", str(rules)]
        assert main(asked) == 1
        assert "nosuch" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("asked", "wanted"),
        [
            (["--path", "/v1/chat/completions"], "POST chat of ''"),
            (["--path", "/v1/models"], "GET models"),
            (["--path", "/v1/models?limit=3"], "GET models"),
            (["--path", "/v2/models/m/infer"], "POST infer of 'm'"),
            (["--path", "/mcp", "--method", "DELETE"], "DELETE mcp"),
            (["--operation", "mcp"], "POST mcp"),
            (["--operation", "health"], "GET health"),
            (["--operation", "chat", "--model", ""], "POST chat of ''"),
        ],
    )
    def test_what_is_asked(
        self,
        rules: Path,
        token: str,
        capsys: pytest.CaptureFixture[str],
        asked: list[str],
        wanted: str,
    ) -> None:
        main(["explain", "--token", token, *asked, "--rules", str(rules)])
        assert capsys.readouterr().out.splitlines()[0] == wanted

    @pytest.mark.parametrize(
        ("asked", "name"),
        [
            (["--path", "/nosuch"], "/nosuch"),
            (["--operation", "chat", "--method", "GET"], "GET chat"),
        ],
    )
    def test_what_no_endpoint_does(
        self,
        rules: Path,
        token: str,
        capsys: pytest.CaptureFixture[str],
        asked: list[str],
        name: str,
    ) -> None:
        assert main(["explain", "--token", token, *asked, "--rules", str(rules)]) == 1
        assert capsys.readouterr().err.startswith(f"mitmgate: {name} is no endpoint of the gate")

    def test_two_models(self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["--path", "/v2/models/one/infer", "--model", "two", "--rules", str(rules)]
        assert main(["explain", "--token", token, *asked]) == 1
        assert "the path names the model one" in capsys.readouterr().err

    def test_keys_that_are_fetched(
        self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = rules / "identity.yaml"
        local = "jwks_file: ../.mitmgate/dev-issuer/jwks.json"
        assert local in path.read_text()
        path.write_text(path.read_text().replace(local, "jwks_url: 'https://idp.example.com/k'"))
        keys = rules.parent / ".mitmgate" / "dev-issuer" / "jwks.json"
        asked = ["explain", "--token", token, "--operation", "models", "--rules", str(rules)]
        assert main(asked) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "taken for granted: key, signature" in lines
        assert "the signature was NOT checked" in lines[-2]
        for given in (f"{keys}", f"dev={keys}"):
            assert main([*asked, "--keys", given]) == 0
            assert "NOT" not in capsys.readouterr().out
        for given in (f"{rules / 'masker.yaml'}", f"nosuch={keys}"):
            assert main([*asked, "--keys", given]) == 1
            assert capsys.readouterr().err.startswith(f"mitmgate: {given}: ")

    def test_limits_are_shown(
        self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = rules / "identity.yaml"
        limits = "limits: {requests_per_minute: 60, concurrent: 4, per: grant}"
        text = path.read_text().replace("masking: default ", f"masking: default\n    {limits} ", 1)
        path.write_text(text)
        main(["explain", "--token", token, "--operation", "models", "--rules", str(rules)])
        output = capsys.readouterr().out
        assert "limits: requests per minute 60, concurrent 4, per grant" in output

    def test_rules_that_do_not_load(
        self, rules: Path, token: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (rules / "identity.yaml").write_text("schema: 1\nissuers: []\ngrants: []\nbogus: 1\n")
        asked = ["explain", "--token", token, "--operation", "models", "--rules", str(rules)]
        assert main(asked) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 2
        assert errors[1] == f"{rules / 'identity.yaml'}:4: bogus: unknown key"


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
    (tmp_path / holds.IN_FORCE).write_text(str(RULES / "approval.yaml"))
    return tmp_path, hold.id


def test_who_decides_is_what_the_gate_goes_by(
    held: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, hold = held
    decision = ["approve", hold, "--reason", "fine", "--state", str(state)]
    text = (RULES / "approval.yaml").read_text("utf-8")
    named = text.replace("schema: 1\n", "schema: 1\napprovers: {who: {issuer: company-idp}}\n", 1)
    (tmp_path / "named.yaml").write_text(named)
    (state / holds.IN_FORCE).write_text(str(tmp_path / "named.yaml"))
    assert main(decision) == 1
    assert "is not among the approvers" in capsys.readouterr().err
    (state / holds.IN_FORCE).unlink()
    assert main(decision) == 1
    assert f"no gate has used {state}: name its rules with --rules DIR" in capsys.readouterr().err
    assert main([*decision, "--rules", str(RULES)]) == 0


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


def recordings(directory: Path) -> Path:
    """Two files, of which retention has taken the first."""
    place = directory / "recordings"
    recording = ledger.Recording(place, "w1")
    for n in range(2):
        recording.record(b"3:abc,", {"exchange": f"x-{n}"})
        recording.close()
    retention = ledger.Retention(
        place, directory / "journal", "w1", age=None, size=700, verifier=None
    )
    assert retention.step(recording.note, lambda read: None).removed
    recording.close()
    return place


def test_verify_tells_what_was_removed_from_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = recordings(tmp_path)
    assert main(["verify", str(place)]) == 0
    output = capsys.readouterr()
    assert "1 files with 1 exchanges were removed under retention, the last at 20" in output.out
    assert output.err == ""  # no progress where nobody looks
    first, *_ = sorted(place.glob("*.jsonl"))
    first.unlink()
    assert main(["verify", str(place)]) == 1
    assert "has no ledger beside it" in capsys.readouterr().err


def test_verify_shows_its_progress_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = recordings(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["verify", str(place)]) == 0
    shown = capsys.readouterr().err
    assert "MB\x1b[K" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize("key", ["nowhere.pem", "junk.pem"])
def test_verify_ends_with_2_for_a_key_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    place = recordings(tmp_path)
    assert main(["verify", str(place), "--public-key", str(tmp_path / key)]) == 2
    assert "mitmgate: " in capsys.readouterr().err


def test_verify_says_what_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--state", str(tmp_path)]) == 2
    assert f"{tmp_path / 'recordings'} does not exist" in capsys.readouterr().err
    (tmp_path / "recordings").mkdir()
    assert main(["verify", "--state", str(tmp_path)]) == 0
    assert "0 files, 0 exchanges" in capsys.readouterr().out
    (tmp_path / "recordings" / "x.mitm").write_bytes(b"junk")
    assert main(["verify", "--state", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "x" in output.err
    assert output.out.splitlines()[-1].endswith("findings")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["approve", "h-1"],
        ["token"],
        ["token", "--subject", "a", "--claim", "n"],
        ["token", "--subject", "a", "--claim", "=5"],
        ["explain", "--operation", "chat"],
        ["explain", "--token", "x"],
        ["explain", "--token", "x", "--operation", "nosuch"],
        ["explain", "--token", "x", "--operation", "chat", "--path", "/v1/models"],
        ["explain", "--token", "x", "--operation", "chat", "--method", "BREW"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "usage: mitmgate" in capsys.readouterr().err
