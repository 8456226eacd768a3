"""`mitmgate explain --request` and `--answer`, and the notes of `mitmgate check`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mitmgate.cli import main
from mitmgate.core.tokens import devissuer

CHAT = "/v1/chat/completions"
MAIL = r"[a-z]{1,20}@example\.com"


def rule(id: str, match: str, *samples: str, **more: Any) -> dict[str, Any]:
    tests = {"match": list(samples) or [match], "pass": ["nothing"]}
    return {"id": id, "title": id, "action": "deny", "match": match, "tests": tests, **more}


FILES: dict[str, dict[str, Any]] = {
    "identity": {
        "issuers": [
            {
                "id": "dev",
                "issuer": devissuer.ISSUER,
                "audience": devissuer.AUDIENCE,
                "keys": {"jwks_file": "../state/dev-issuer/jwks.json"},
                "algorithms": ["ES256"],
            }
        ],
        "grants": [
            {
                "id": "cleared",
                "who": {"groups": ["cleared"]},
                "operations": ["*"],
                "models": ["*"],
                "masking": "none",
                "limits": {"requests_per_minute": 5},
            },
            {
                "id": "agents",
                "who": {"subject": "agent-*"},
                "operations": ["chat", "models"],
                "models": ["m*"],
            },
        ],
    },
    "commands": {
        "rules": [
            rule("shell-rm", "rm -rf /", unless=[{"groups": ["ops"]}, {"groups": ["cleared"]}]),
            rule("watched", "casual remark", mode="audit"),
            rule("model-admin", "^/api/pull", "/api/pull", where=["path"]),
            rule("bad-title", "evil", where=["headers"], headers=["x-title"]),
            {
                "id": "many",
                "title": "many",
                "action": "deny",
                "parameter": "n",
                "max": 2,
                "tests": {"match": ['{"n": 9}'], "pass": ["{}"]},
            },
            rule("answer-rm", "rm -rf /", where=["answer"]),
        ]
    },
    "approval": {"hold": "7s", "rules": [rule("wire", "wire the money", action="hold")]},
    "masker": {
        "recognizers": [
            {
                "id": "email",
                "match": MAIL,
                "replace": "[EMAIL]",
                "tests": {"match": ["a@example.com"], "pass": ["a"]},
            }
        ],
        "profiles": {
            "default": {"answer": ["email"]},
            "none": {"answer": []},
            "both": {"answer": ["email"], "prompt": ["email"]},
        },
    },
    "recorder": {"directory": "recordings"},
    "credentials": {"upstreams": []},
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gate")
    devissuer.prepare(directory / "state" / "dev-issuer")
    for name, content in FILES.items():
        write(directory / "rules", name, content)
    return directory / "rules"


def write(directory: Path, name: str, content: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.yaml").write_text(json.dumps({"schema": 1, **content}, indent=1))


def token(rules: Path, *groups: str, subject: str = "agent-7") -> str:
    return devissuer.issue(rules.parent / "state" / "dev-issuer", subject=subject, groups=groups)


def chat(content: str, **more: Any) -> str:
    return json.dumps({"model": "m-1", "messages": [{"role": "user", "content": content}], **more})


class Explain:
    def __init__(self, rules: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._rules, self._directory, self._capsys = rules, directory, capsys

    def file(self, content: str | bytes) -> str:
        path = self._directory / f"message-{len(list(self._directory.iterdir()))}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def __call__(self, *options: str) -> tuple[int, str, str]:
        code = main(["explain", *options, "--rules", str(self._rules)])
        return code, *self._capsys.readouterr()

    def json(self, *options: str) -> tuple[int, Any]:
        code, output, _ = self(*options, "--json")
        return code, json.loads(output)


@pytest.fixture
def explain(rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(rules, tmp_path, capsys)


def test_what_goes_on(explain: Explain) -> None:
    code, output, errors = explain("--request", explain.file(chat("hello")))
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == f"request: POST {CHAT}, chat of openai, model m-1"
    assert "  prompt messages[0].content: hello" in lines
    assert "    as rot13: uryyb" in lines
    assert lines[-2:] == [
        "request goes on",
        "note: identity was not looked at, and no exception (unless) applied: no token",
    ]


def test_what_is_denied_in_disguise(explain: Explain) -> None:
    hidden = "cm0gLXJmIC8="
    code, output, _ = explain("--request", explain.file(chat(f"a run {hidden} b\u200b")))
    assert code == 1
    lines = output.splitlines()
    at = lines.index("  found by shell-rm (commands.yaml): deny, medium, stable, enforce")
    assert lines[at + 1] == (f"    at messages[0].content [6:18] a run >>>{hidden}<<< b\\u200b")
    assert lines[at + 2] == "    as decoded: rm -rf /"
    assert "request is refused by commands: 403 shell-rm: Refused by policy." in lines
    assert "\u200b" not in output


def test_json_of_a_request(explain: Explain) -> None:
    code, found = explain.json("--request", explain.file(chat("x" * 300 + " rm -rf /")))
    assert code == 1
    assert list(found) == ["outcome", "identity", "profile", "request", "answer", "left_out"]
    assert (found["outcome"], found["identity"], found["answer"]) == ("refused", None, None)
    request = found["request"]
    assert request["operation"] == "chat"
    (finding,) = request["findings"]
    assert finding == {
        "rule": "shell-rm",
        "file": "commands.yaml",
        "action": "deny",
        "severity": "medium",
        "status": "stable",
        "mode": "enforce",
        "enforced": True,
        "address": "messages[0].content",
        "start": 301,
        "end": 309,
        "original": "rm -rf /",
        "view": "raw",
        "text": "rm -rf /",
    }
    assert request["verdict"] == {
        "outcome": "refused",
        "by": "commands",
        "status": 403,
        "code": "shell-rm",
        "public": "shell-rm",
        "message": "Refused by policy.",
        "detail": None,
        "rules": [],
    }
    text = next(each for each in request["texts"] if each["address"] == "messages[0].content")
    assert (len(text["text"]), text["characters"], text["shortened"]) == (100, 309, True)
    assert {"view": "rot13", "text": "k" * 100, "characters": 309, "shortened": True} in text[
        "views"
    ]


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (
            chat("wire the money"),
            "request is held for approval by wire: Refused by policy. "
            "(409 wire if nobody decides within 7 s)",
        ),
        (chat("a", n=3), "request is refused by commands: 403 many: Refused by policy."),
        (
            "[1]",
            "request is refused by body: 400 body_unreadable: "
            "The request body must be a JSON object.",
        ),
        (
            '{"model": "m", "prompt_embeds": "x"}',
            "request is refused by body: 400 prompt_opaque: "
            "`prompt_embeds` carries text in a form that cannot be judged.",
        ),
        (
            chat("rm -rf / and wire the money"),
            "request is refused by commands: 403 shell-rm: Refused by policy.",
        ),
    ],
)
def test_verdicts(explain: Explain, content: str, verdict: str) -> None:
    code, output, _ = explain("--request", explain.file(content))
    assert code == 1
    assert verdict in output.splitlines()


def test_what_is_in_audit(explain: Explain) -> None:
    code, output, _ = explain("--request", explain.file(chat("a casual remark")))
    assert code == 0
    assert "deny, medium, stable, audit: changes nothing" in output
    assert "would have been refused: watched at messages[0].content (audit)" in output


@pytest.mark.parametrize(
    ("options", "code", "verdict"),
    [
        (["--path", "/api/pull"], 1, "commands: 403 model-admin: Refused by policy."),
        (
            ["--path", "/api/pul"],
            1,
            "endpoint: 404 endpoint_unknown: POST /api/pul is not an endpoint of this gateway.",
        ),
        (["--header", "X-Title: the evil one"], 1, "commands: 403 bad-title: Refused by policy."),
        (
            ["--header", "Content-Type: text/html"],
            1,
            "body: 415 media_type_unsupported: Send application/json in UTF-8, not 'text/html'.",
        ),
        (
            ["--header", "Upgrade: h2c"],
            1,
            "body: 400 upgrade_refused: Protocol upgrades are not accepted.",
        ),
        (
            ["--path", "/v1/models", "--method", "GET"],
            1,
            "body: 400 body_unexpected: /v1/models takes no request body.",
        ),
    ],
)
def test_what_is_asked_around_a_body(
    explain: Explain, options: list[str], code: int, verdict: str
) -> None:
    found, output, _ = explain("--request", explain.file(chat("hello")), *options)
    assert found == code
    assert f"request is refused by {verdict}" in output.splitlines()


RAW = "POST {path} HTTP/1.1\nHost: gate\nContent-Type: application/json\n{head}\n{body}\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_whole_request(explain: Explain, end: str) -> None:
    raw = RAW.format(path="/api/chat?q=1", head="X-Title: evil\nCookie: a=b\n", body=chat("hello"))
    code, found = explain.json("--request", explain.file(raw.replace("\n", end)))
    assert code == 1
    request = found["request"]
    assert (request["target"], request["dialect"]) == ("/api/chat?q=1", "ollama")
    assert request["verdict"]["code"] == "bad-title"
    addresses = {each["address"] for each in request["texts"]}
    assert {"headers.x-title", "query.q"} <= addresses
    assert "headers.cookie" not in addresses


def test_a_get_from_a_file(explain: Explain) -> None:
    raw = "GET /v1/models HTTP/2\nHost: gate\n\n"
    assert explain("--request", explain.file(raw))[0] == 0


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (RAW.format(path=CHAT, head="Content-Length: 999\n", body="{}"), "Content-Length is 999"),
        (RAW.format(path=CHAT, head="Transfer-Encoding: chunked\n", body="2\n{}\n0\n"), "chunked"),
        (RAW.format(path=CHAT, head="no colon\n", body="{}"), "Invalid header line"),
        (RAW.format(path="nowhere", head="", body="{}"), "Bad HTTP request line"),
    ],
)
def test_files_that_are_no_request(explain: Explain, raw: str, says: str) -> None:
    code, output, errors = explain("--request", explain.file(raw))
    assert (code, output) == (2, "")
    assert says in errors


def test_other_things_that_keep_from_judging(explain: Explain, tmp_path: Path) -> None:
    whole = explain.file(RAW.format(path=CHAT, head="", body="{}"))
    assert explain("--request", whole, "--path", "/v1/models")[0] == 2
    assert explain("--request", whole, "--method", "POST")[0] == 2
    assert explain("--request", "nosuch")[0] == 2
    body = explain.file("{}")
    assert explain("--request", body, "--path", "v1")[0] == 2
    (tmp_path / "none").mkdir()
    assert main(["explain", "--request", body, "--rules", str(tmp_path / "none")]) == 2


def test_standard_input(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(chat("rm -rf /").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert explain("--request", "-")[0] == 1


# Callers


def test_an_exception_for_this_caller(explain: Explain, rules: Path) -> None:
    asked = ["--request", explain.file(chat("rm -rf /"))]
    code, found = explain.json(*asked, "--token", token(rules, "cleared"))
    assert code == 0
    assert found["identity"]["grant"] == "cleared"
    assert found["profile"] == "none"
    assert found["request"]["exceptions"] == [
        {"rule": "shell-rm", "unless": 1, "address": "messages[0].content"}
    ]
    assert found["left_out"] == [
        "the limits of the grant were not looked at: only a running gate counts"
    ]
    code, output, _ = explain(*asked, "--token", token(rules))
    assert code == 1
    assert output.startswith("identity\n  ok           form: ")
    assert "excepts" not in output
    _, output, _ = explain(*asked, "--token", token(rules, "cleared"))
    assert "  shell-rm excepts this caller (unless[1]) at messages[0].content" in output


def test_a_caller_without_the_model(explain: Explain, rules: Path) -> None:
    body = chat("rm -rf /").replace("m-1", "other")
    code, found = explain.json("--request", explain.file(body), "--token", token(rules))
    assert code == 1
    assert found["identity"]["code"] == "model_not_granted"
    verdict = found["request"]["verdict"]
    assert (verdict["by"], verdict["status"]) == ("identity", 403)
    assert (verdict["code"], verdict["public"]) == ("model_not_granted", "insufficient_scope")
    assert found["request"]["findings"] == []


def test_what_comes_first(explain: Explain, rules: Path) -> None:
    """The operation is looked at before the body, and the token before the endpoint."""
    broken = ["--request", explain.file("{"), "--token", token(rules)]
    assert explain.json(*broken)[1]["request"]["verdict"]["code"] == "body_unreadable"
    embeddings = explain.json(*broken, "--path", "/v1/embeddings")[1]
    assert embeddings["request"]["verdict"]["code"] == "operation_not_granted"
    unknown = ["--request", explain.file("{}"), "--path", "/api/pull"]
    found = explain.json(*unknown, "--token", token(rules))[1]
    assert found["request"]["verdict"]["code"] == "model-admin"
    assert (found["identity"]["caller"], found["identity"]["error"]) == ("dev:agent-7", None)
    found = explain.json(*unknown, "--token", f"{token(rules)[:-6]}AAAAAA")[1]
    assert found["request"]["verdict"]["code"] == "signature_wrong"


def test_a_token_in_the_query(explain: Explain, rules: Path) -> None:
    asked = ["--request", explain.file(chat("a")), "--path", f"{CHAT}?api_key=x"]
    code, found = explain.json(*asked, "--token", token(rules))
    assert (code, found["request"]["verdict"]["code"]) == (1, "token_conflict")


# Answers

MESSAGE = {"role": "assistant", "content": "write to bob@example.com"}
ANSWER = json.dumps({"choices": [{"index": 0, "message": MESSAGE}]})
CHUNKS = [
    {"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in ("bob@exa", "mple.com ")
]
STREAM = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS) + "data: [DONE]\n\n"


def test_an_answer(explain: Explain) -> None:
    code, output, _ = explain("--answer", explain.file(ANSWER))
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == f"answer: POST {CHAT}, chat of openai"
    assert "  masked by email x1: bob@example.com" in lines
    assert "answer goes on" in lines
    _, found = explain.json("--answer", explain.file(ANSWER), "--profile", "none")
    assert found["answer"]["masked"] == {}


def test_an_answer_that_is_denied(explain: Explain) -> None:
    call = {"id": "1", "type": "function"}
    call["function"] = {"name": "sh", "arguments": '{"cmd": "rm", "args": ["-rf", "/"]}'}  # type: ignore[assignment]
    denied = json.dumps({"choices": [{"index": 0, "message": {"tool_calls": [call]}}]})
    code, found = explain.json("--answer", explain.file(denied))
    assert code == 1
    assert found["answer"]["verdict"]["code"] == "answer-rm"
    (finding,) = found["answer"]["findings"]
    assert finding["original"] == "rm -rf /"


@pytest.mark.parametrize(
    ("content", "by", "status"),
    [("{", "answer", 502), ("HTTP/1.1 200 OK\nContent-Type: image/png\n\nx", "answer", 502)],
)
def test_an_answer_that_cannot_be_read(
    explain: Explain, content: str, by: str, status: int
) -> None:
    code, found = explain.json("--answer", explain.file(content))
    verdict = found["answer"]["verdict"]
    assert (code, verdict["by"], verdict["status"]) == (1, by, status)
    assert verdict["code"] == "answer_unreadable"
    assert verdict["detail"]


def test_a_stream(explain: Explain) -> None:
    code, found = explain.json("--answer", explain.file(STREAM))
    answer = found["answer"]
    assert (code, answer["streams"], answer["masked"]) == (0, True, {"email": 1})
    assert [each["text"] for each in answer["texts"]] == ["bob@example.com "]
    bad = STREAM.replace("bob@exa", "rm -").replace("mple.com", "rf /")
    code, found = explain.json("--answer", explain.file(bad))
    assert (code, found["answer"]["verdict"]["code"]) == (1, "answer-rm")
    assert [(each["rule"], each["start"]) for each in found["answer"]["findings"]] == [
        ("answer-rm", None)
    ]
    code, found = explain.json("--answer", explain.file("data: {\n\n"))
    assert (code, found["answer"]["verdict"]["code"]) == (1, "answer_unreadable")


def test_request_and_answer_together(explain: Explain, rules: Path) -> None:
    asked = ["--request", explain.file(chat("rm -rf /")), "--answer", explain.file(ANSWER)]
    code, found = explain.json(*asked, "--profile", "both")
    assert (code, found["outcome"]) == (1, "refused")
    assert found["answer"]["verdict"]["outcome"] == "goes on"
    assert "the request is refused, so no such answer would come" in found["left_out"]
    mail = ["--request", explain.file(chat("write to a@example.com")), "--profile", "both"]
    code, found = explain.json(*mail, "--answer", explain.file(ANSWER))
    assert (code, found["request"]["masked"], found["answer"]["masked"]) == (
        0,
        {"email": 1},
        {"email": 1},
    )


def test_a_profile_that_is_not_there(explain: Explain) -> None:
    asked = explain.json("--request", explain.file(chat("a")), "--profile", "nosuch")
    assert (asked[0], asked[1]["request"]["verdict"]["code"]) == (1, "gate_fault")
    assert "nosuch" in asked[1]["request"]["verdict"]["detail"]
    answered = explain.json("--answer", explain.file(ANSWER), "--profile", "nosuch")
    assert (answered[0], answered[1]["answer"]["verdict"]["code"]) == (1, "gate_fault")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--request", "-", "--token", "-"],
        ["--request", "-", "--answer", "-"],
        ["--request", "x", "--operation", "chat"],
        ["--request", "x", "--model", "m"],
        ["--request", "x", "--header", "nothing"],
        ["--token", "x", "--path", "/", "--header", "a: b"],
        ["--token", "x", "--path", "/", "--profile", "a"],
        ["--path", "/"],
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["explain", *arguments])
    assert exit.value.code == 2
    assert "usage: mitmgate" in capsys.readouterr().err


# Notes


def check(directory: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    code = main(["check", str(directory), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devissuer.prepare(tmp_path / "state" / "dev-issuer")
    files = json.loads(json.dumps(FILES))
    files["commands"]["rules"] += [
        rule("late", "rm -rf /h", unless=[{"groups": ["ops"]}, {"groups": ["cleared"]}]),
        rule("partly", "rm -rf /h|mkfs", "mkfs", "rm -rf /h"),
        rule("nowhere", "xyzzy", operations=["models"], where=["prompt"]),
        rule("nobody", "plugh", unless=[{"issuer": "dev"}]),
        rule("logged", "plover", action="log"),
        rule("new", "frotz", status="experimental"),
        rule("old", "gnusto", status="deprecated"),
    ]
    files["identity"]["grants"].append(
        {
            "id": "closed",
            "effect": "deny",
            "who": {"subject": "agent-*"},
            "operations": ["*"],
            "models": ["*"],
        }
    )
    spare = {**files["masker"]["recognizers"][0], "id": "spare"}
    files["masker"]["recognizers"].append(spare)
    for name, content in files.items():
        write(tmp_path / "rules", name, content)
    code, found = check(tmp_path / "rules", capsys)
    assert (code, found["good"], found["problems"]) == (0, True, [])
    assert [(each["kind"], each["id"], each["other"]) for each in found["notes"]] == [
        ("never", "nowhere", ""),
        ("never", "nobody", ""),
        ("shadowed", "late", "shell-rm"),
        ("shadowed", "late", "partly"),
        ("overlap", "partly", "shell-rm"),
        ("overlap", "partly", "late"),
        ("grant-shadowed", "agents", "closed"),
        ("profile-unused", "both", ""),
        ("recognizer-unused", "spare", ""),
    ]
    assert found["without_effect"] == {"audit": 1, "log": 1, "experimental": 1, "deprecated": 1}
    assert check(tmp_path / "rules", capsys, "--strict")[0] == 1
    assert main(["check", str(tmp_path / "rules")]) == 0
    output = capsys.readouterr().out
    assert "shadowed: shell-rm finds all samples of late, and does all that late does" in output
    assert "rules that are experimental change nothing: 1" in output
    assert main(["check", str(tmp_path / "rules"), "--strict"]) == 1
    assert capsys.readouterr().err == f"9 notes on {tmp_path / 'rules'}\n"


def test_overlaps_that_are_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devissuer.prepare(tmp_path / "state" / "dev-issuer")
    files = json.loads(json.dumps(FILES))
    files["masker"]["profiles"]["both"]["offered"] = True
    idle = rule("idle", "rm -rf /h", also_found_by=["partly", "shell-rm"])
    partly = rule("partly", "rm -rf /h|mkfs", "mkfs", "rm -rf /h", also_found_by=["shell-rm"])
    gone = rule("gone", "plover", also_found_by=["partly", "nosuch", "audited", "partly"])
    files["commands"]["rules"] += [partly, rule("audited", "xyzzy", mode="audit"), gone]
    for name, content in files.items():
        write(tmp_path / "rules", name, content)
    code, found = check(tmp_path / "rules", capsys, "--strict")
    assert (code, found["good"], found["problems"]) == (1, False, [])
    assert [(each["kind"], each["id"], each["other"]) for each in found["notes"]] == [
        ("overlap-gone", "gone", "partly"),
        ("overlap-gone", "gone", "nosuch"),
    ]
    gone["also_found_by"] = ["audited"]
    write(tmp_path / "rules", "commands", files["commands"])
    assert check(tmp_path / "rules", capsys, "--strict")[0] == 0
    files["commands"]["rules"].append(idle)  # what has no effect is noted all the same
    write(tmp_path / "rules", "commands", files["commands"])
    notes = check(tmp_path / "rules", capsys, "--strict")[1]["notes"]
    assert [(each["kind"], each["id"], each["other"]) for each in notes] == [
        ("overlap", "partly", "idle"),
        ("shadowed", "idle", "partly"),
    ]


def test_a_profile_for_approvers_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devissuer.prepare(tmp_path / "state" / "dev-issuer")
    files = json.loads(json.dumps(FILES))
    files["approval"]["approvers"] = {"who": {"groups": ["ops"]}, "profile": "both"}
    for name, content in files.items():
        write(tmp_path / "rules", name, content)
    assert check(tmp_path / "rules", capsys, "--strict")[0] == 0


def test_a_rule_does_not_accept_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "commands", {"schema": 1, "rules": [rule("r", "x", also_found_by=["r"])]})
    _, found = check(tmp_path, capsys)
    messages = [each["message"] for each in found["problems"]]
    assert "also_found_by names other rules, and this is the rule itself" in "".join(messages)


def test_problems_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(tmp_path, capsys)
    assert (code, found["good"], found["notes"]) == (1, False, [])
    assert len(found["problems"]) == 6
    assert set(found["problems"][0]) == {"path", "line", "where", "message"}
