"""`mitmgate backtest`: made recordings before changed rules."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow

from mitmgate.cli import main
from mitmgate.cli.backtest import recorded

CHAT = "/v1/chat/completions"
MAIL = r"[a-z]{1,20}@example\.com"
PHONE = r"\+44 \d{4}"


def rule(id: str, match: str, *samples: str, **more: Any) -> dict[str, Any]:
    tests = {"match": list(samples) or [match], "pass": ["nothing"]}
    return {"id": id, "title": id, "action": "deny", "match": match, "tests": tests, **more}


def recognizer(id: str, match: str, sample: str, **more: Any) -> dict[str, Any]:
    tests = {"match": [sample], "pass": ["nothing"]}
    return {"id": id, "match": match, "replace": f"[{id}]", "tests": tests, **more}


EMAIL = recognizer("email", MAIL, "ann@example.com")
FILES: dict[str, dict[str, Any]] = {
    "identity": {
        "issuers": [
            {
                "id": "dev",
                "issuer": "https://idp.example.com",
                "audience": "models",
                "keys": {"jwks_file": "not-there.json"},  # no key is read
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
            },
            {
                "id": "agents",
                "who": {"subject": "agent-*", "scopes": ["inference"]},
                "operations": ["chat", "models"],
                "models": ["m*"],
            },
        ],
    },
    "commands": {
        "rules": [
            rule("shell-rm", "rm -rf /", unless=[{"groups": ["ops"]}]),
            rule("answer-rm", "rm -rf /", where=["answer"]),
            rule("watched", "casual remark", mode="audit"),
            rule("model-admin", "^/api/pull", "/api/pull", where=["path"]),
            {
                "id": "many",
                "title": "many",
                "action": "deny",
                "parameter": "n",
                "max": 2,
                "tests": {"match": ['{"n": 9}'], "pass": ["{}"]},
            },
        ]
    },
    "approval": {"hold": "7s", "rules": [rule("wire", "wire the money", action="hold")]},
    "masker": {
        "recognizers": [EMAIL],
        "profiles": {"default": {"answer": ["email"]}, "none": {"answer": []}},
    },
    "recorder": {"directory": "recordings"},
}


def write(directory: Path, **changed: dict[str, Any] | None) -> Path:
    """A rules directory: FILES with some in their place; None is a file that is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **changed}.items():
        if content is not None:
            text = json.dumps({"schema": 1, **content}, indent=1)
            (directory / f"{name}.yaml").write_text(text)
    return directory


def commands(*rules: dict[str, Any], without: str = "") -> dict[str, Any]:
    kept = [each for each in FILES["commands"]["rules"] if each["id"] != without]
    return {"rules": [*kept, *rules]}


def masker(*recognizers: dict[str, Any], prompt: tuple[str, ...] = ()) -> dict[str, Any]:
    ids = [each["id"] for each in recognizers]
    profiles = {"default": {"answer": ids, "prompt": list(prompt)}, "none": {"answer": []}}
    return {"recognizers": list(recognizers), "profiles": profiles}


def digests(directory: Path, admitted: bool = True) -> dict[str, str]:
    names = ("identity", "commands", "approval", "masker", "recorder")
    found = {
        name: hashlib.sha256((directory / f"{name}.yaml").read_bytes()).hexdigest()
        for name in names
    }
    return found if admitted else {name: found[name] for name in ("identity", "commands")}


def found(id: str, action: str = "deny", address: str = "messages[0].content") -> dict[str, Any]:
    return {"rule": id, "action": action, "mode": "enforce", "address": address, "view": "raw"}


class Bench:
    """Recordings under rules, and `mitmgate backtest` over them."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.then = write(directory / "then")
        self.file = directory / "recordings" / "a.mitm"
        self.file.parent.mkdir(exist_ok=True)
        self._capsys = capsys

    def record(
        self,
        asked: str | dict[str, Any] | bytes = "hello",
        answer: str | bytes | None = "fine",
        *,
        kind: str = "application/json",
        path: str = CHAT,
        headers: Mapping[str, str] | None = None,
        summary: Mapping[str, Any] | None = None,
        refusal: str = "",
        admitted: bool | None = None,
        **more: Any,
    ) -> str:
        """Append one exchange as the gate would have recorded it. Returns its id."""
        flow = tflow.tflow(resp=True)
        given = {"model": "m-1", "messages": [{"role": "user", "content": asked}]}
        if isinstance(asked, dict):
            given = {**given, "messages": [{"role": "user", "content": "hello"}], **asked}
        body = asked if isinstance(asked, bytes) else json.dumps(given).encode()
        flow.request = http.Request.make(
            "POST", f"http://model{path}", body, {"content-type": "application/json"}
        )
        for name, value in (headers or {}).items():
            flow.request.headers[name] = value
        if isinstance(answer, str):
            answer = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        flow.response = http.Response.make(200, b"", {"content-type": kind})
        flow.response.raw_content = answer
        admitted = not refusal if admitted is None else admitted
        flow.metadata["mitmgate"] = {
            "principal": "dev:agent-7",
            "subject": "agent-7",
            "scopes": ["inference"],
            "groups": [],
            "bound": "none",
            "grant": "agents",
            "operation": "chat",
            "model": "m-1",
            "ending": "refused" if refusal else "complete",
            "refusal": refusal,
            "findings": [],
            "masked": {},
            "hold": "",
            "rules": digests(self.then, admitted),
            **more,
            **(summary or {}),
        }
        self.append(flow)
        return flow.id

    def append(self, flow: Any) -> None:
        with self.file.open("ab") as file:
            tnetstring.dump(flow.get_state(), file)

    def run(self, *options: str | Path, files: tuple[Path, ...] = ()) -> tuple[int, list[Any], str]:
        """The status, the objects, and what is on standard error."""
        given = map(str, (*(files or [self.file]), *options))
        code = main(["backtest", "--json", *given])
        out, err = self._capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    def text(self, *options: str | Path) -> str:
        main(["backtest", str(self.file), *map(str, options)])
        return self._capsys.readouterr().out

    def changes(self, *options: str | Path) -> list[tuple[str, str, str]]:
        """Kind, side and rule of each change; nothing may be unjudged."""
        _, objects, _ = self.run(*options)
        assert not [each for each in objects if each["type"] in ("unjudged", "error")]
        return changes(objects)


def changes(objects: list[Any]) -> list[tuple[str, str, str]]:
    found = [each for each in objects if each["type"] == "change"]
    return [(each["change"], each["side"], each["rule"]) for each in found]


def unjudged(objects: list[Any]) -> list[tuple[str, str]]:
    return [(each["side"], each["reason"]) for each in objects if each["type"] == "unjudged"]


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


Both = Callable[..., list[tuple[str, str, str]]]


@pytest.fixture(params=["recorded", "rules"])
def both(bench: Bench, request: pytest.FixtureRequest) -> Both:
    """The changes that new rules make, against what was recorded and against the old rules."""

    def run(**changed: Any) -> list[tuple[str, str, str]]:
        now = write(bench.directory / "now", **changed)
        against = ["--against", bench.then] if request.param == "rules" else []
        return bench.changes("--rules", now, *against)

    return run


# Requests


def test_a_rule_that_is_added_denies(bench: Bench, both: Both) -> None:
    bench.record("drop the table")
    bench.record("hello")
    assert both(commands=commands(rule("drop", "drop the table"))) == [
        ("denied", "request", "drop")
    ]


def test_what_is_said_of_a_change(bench: Bench) -> None:
    id = bench.record("please drop the table now", answer="fine")
    now = write(bench.directory / "now", commands=commands(rule("drop", "drop the table")))
    code, (change, summary), _ = bench.run("--rules", now, "--fail-on", "denied")
    assert code == 1
    finding = change.pop("finding")
    assert change == {
        "type": "change",
        "exchange": id,
        "file": str(bench.file),
        "offset": 0,
        "principal": "dev:agent-7",
        "operation": "chat",
        "model": "m-1",
        "change": "denied",
        "side": "request",
        "rule": "drop",
        "was": None,
        "address": "messages[0].content",
        "count": 1,
        "texts": [],
    }
    assert (finding["original"], finding["start"], finding["end"]) == ("drop the table", 7, 21)
    assert finding["file"] == "commands.yaml"
    assert summary.pop("seconds") >= 0
    assert summary == {
        "type": "summary",
        "files": 1,
        "exchanges": 1,
        "changed": 1,
        "partly_unjudged": 0,
        "baseline": "recorded",
        "changes": {
            **dict.fromkeys(("held", "masked", "undenied", "unheld", "unmasked", "reason"), 0),
            "denied": 1,
        },
        "rules": [{"change": "denied", "rule": "drop", "exchanges": 1}],
        "unjudged": [],
        "errors": 0,
        "failed_on": ["denied"],
    }
    text = bench.text("--rules", now, "--fail-on", "denied")
    assert f"denied   {id} dev:agent-7 chat m-1: request, drop at messages[0].content" in text
    assert "please >>>drop the table<<< now" in text
    assert "newly denied: drop x1" in text
    assert "failed on denied" in text
    silent = bench.text("--rules", now, "--no-text")
    assert ">>>" not in silent
    _, (change, _), _ = bench.run("--rules", now, "--no-text")
    assert change["finding"]["text"] is change["finding"]["original"] is None


def test_parameters_headers_and_queries_are_judged(bench: Bench, both: Both) -> None:
    bench.record({"n": 2})
    bench.record("hello", headers={"x-title": "evil"})
    bench.record("hello", path=f"{CHAT}?note=evil")
    stricter = {**FILES["commands"]["rules"][-1], "id": "fewer", "max": 1}
    title = rule("title", "evil", where=["headers"], headers=["x-title"])
    note = rule("note", "evil", where=["query"])
    found = both(commands=commands(stricter, title, note))
    assert [each[2] for each in found] == ["fewer", "title", "note"]


def test_a_rule_that_goes_no_longer_denies(bench: Bench) -> None:
    id = bench.record("rm -rf /", refusal="shell-rm", findings=[found("shell-rm")])
    now = write(bench.directory / "now", commands=commands(without="shell-rm"))
    for against in ([], ["--against", bench.then]):
        code, objects, _ = bench.run("--rules", now, *against, "--fail-on", "undenied")
        assert code == 1
        assert changes(objects) == [("undenied", "request", "shell-rm")]
        assert objects[0]["exchange"] == id
        assert objects[0]["address"] == "messages[0].content"
        assert unjudged(objects) == [("answer", "no-answer")]
        assert (objects[0]["finding"] is not None) == bool(against)


def test_what_is_refused_by_another_rule_is_no_new_denial(bench: Bench, both: Both) -> None:
    bench.record("rm -rf /", refusal="shell-rm", findings=[found("shell-rm")])
    renamed = commands(rule("shell-destroy", "rm -rf /"), without="shell-rm")
    assert both(commands=renamed) == [("reason", "request", "shell-destroy")]


def test_an_audit_mode_lets_it_through(bench: Bench) -> None:
    bench.record("rm -rf /", refusal="shell-rm", findings=[found("shell-rm")])
    audit = {**FILES["commands"], "mode": "audit"}
    now = write(bench.directory / "now", commands=audit)
    assert changes(bench.run("--rules", now)[1]) == [("undenied", "request", "shell-rm")]


def test_what_was_refused_stays_refused(bench: Bench, both: Both) -> None:
    bench.record("rm -rf /", refusal="shell-rm", findings=[found("shell-rm")])
    assert both(commands=commands(rule("drop", "drop the table"))) == []


def test_holds_come_and_go(bench: Bench, both: Both) -> None:
    bench.record("sell the house")
    wire = found("wire", "hold")
    bench.record("wire the money", hold="h-1", findings=[wire])  # it was approved
    other = {"rules": [rule("sell", "sell the house", action="hold")]}
    assert both(approval=other) == [("held", "request", "sell"), ("unheld", "request", "wire")]


def test_a_held_request_that_is_denied_now(bench: Bench, both: Both) -> None:
    bench.record("wire the money", hold="h-1", findings=[found("wire", "hold")])
    denied = commands(rule("no-wire", "wire the money"))
    assert both(commands=denied) == [("denied", "request", "no-wire")]


@pytest.mark.parametrize("refusal", ["wire", "client_left", "hold_limit"])
def test_a_hold_that_was_not_approved_is_a_hold(bench: Bench, both: Both, refusal: str) -> None:
    hold = "" if refusal == "hold_limit" else "h-1"
    bench.record(
        "wire the money",
        refusal=refusal,
        hold=hold,
        findings=[found("wire", "hold")],
        answer=b"{}",
    )
    assert both(approval={"hold": "9s", "rules": FILES["approval"]["rules"]}) == []


def test_a_refused_hold_that_goes_has_no_answer(bench: Bench) -> None:
    wire = found("wire", "hold")
    bench.record("wire the money", refusal="wire", hold="h-1", findings=[wire], answer=b"{}")
    now = write(bench.directory / "now", approval={"rules": []})
    assert changes(bench.run("--rules", now)[1]) == [("unheld", "request", "wire")]


# Callers


def test_exceptions_by_groups_go_by_what_was_recorded(bench: Bench, both: Both) -> None:
    bench.record("drop the table", groups=["dba"])
    bench.record("drop the table")
    added = rule("drop", "drop the table", unless=[{"groups": ["dba"]}])
    assert both(commands=commands(added)) == [("denied", "request", "drop")]


@pytest.mark.parametrize("older", [False, True])
def test_an_exception_that_needs_what_is_not_recorded_is_not_guessed(
    bench: Bench, older: bool
) -> None:
    unless = {"groups": ["dba"]} if older else {"claims": {"ref": "main"}}
    kept = {"scopes": None, "groups": None, "bound": None} if older else {}
    bench.record("drop the table", summary=kept)
    bench.record("hello", summary=kept)
    added = rule("drop", "drop the table", unless=[unless, {"subject": "other-*", **unless}])
    now = write(bench.directory / "now", commands=commands(added))
    for against in ([], ["--against", bench.then]):
        code, objects, _ = bench.run("--rules", now, *against, "--fail-on", "unjudged")
        assert code == 1
        assert changes(objects) == []
        assert unjudged(objects) == [("request", "exception")]
        assert next(iter(unless)) in objects[0]["detail"]
        assert "drop excepts" in objects[0]["detail"]
    # Another rule, which excepts nobody, makes it certain.
    sure = commands(added, rule("table", "the table"))
    now = write(bench.directory / "now", commands=sure)
    assert bench.changes("--rules", now) == [("denied", "request", "table")]
    # Both sides have the same open question: nothing would change.
    assert bench.changes("--rules", now, "--against", now) == []


def test_an_exception_of_rules_that_were_in_force_is_known(bench: Bench) -> None:
    excepting = commands(rule("drop", "drop the table", unless=[{"claims": {"ref": "main"}}]))
    bench.then = write(bench.directory / "then", commands=excepting)
    bench.record("drop the table")  # no finding: the caller was excepted
    bench.record("drop the table", refusal="drop", findings=[found("drop")], answer=b"{}")
    assert bench.changes("--rules", bench.then) == []
    more = commands(*excepting["rules"][-1:], rule("hi", "hello"))
    now = write(bench.directory / "now", commands=more)
    assert bench.changes("--rules", now, "--against", bench.then) == []


def test_masking_goes_by_the_grant(bench: Bench, both: Both) -> None:
    bench.record(answer="call +44 2079", groups=["cleared"], grant="cleared")
    bench.record(answer="call +44 2079")
    phone = recognizer("phone", PHONE, "+44 2079")
    assert both(masker=masker(EMAIL, phone)) == [("masked", "answer", "phone")]


def test_a_grant_that_goes_lets_nobody_in(bench: Bench, both: Both) -> None:
    bench.record("hello", model="m-1")
    identity = json.loads(json.dumps(FILES["identity"]))
    identity["grants"][1]["models"] = ["other"]
    assert both(identity=identity) == [("denied", "request", "model_not_granted")]
    identity["issuers"][0]["id"] = "elsewhere"
    assert both(identity=identity) == [("denied", "request", "issuer_unknown")]


def test_a_grant_that_comes_lets_in(bench: Bench) -> None:
    id = bench.record("hello", refusal="model_not_granted", answer=b"{}")
    identity = json.loads(json.dumps(FILES["identity"]))
    identity["grants"][1]["models"] = ["m-1"]
    identity["grants"][1]["who"] = {"subject": "agent-7"}
    now = write(bench.directory / "now", identity=identity)
    _, objects, _ = bench.run("--rules", now)
    assert changes(objects) == [("undenied", "request", "model_not_granted")]
    assert objects[0]["exchange"] == id


def test_a_grant_by_claims_is_open_unless_it_is_the_recorded_one(bench: Bench) -> None:
    identity = json.loads(json.dumps(FILES["identity"]))
    identity["grants"][1]["who"] = {"claims": {"ref": "main"}}
    bench.record("hello")
    now = write(bench.directory / "now", identity=identity)
    _, objects, _ = bench.run("--rules", now)
    assert unjudged(objects) == [("request", "grant")]
    assert "claims" in objects[0]["detail"]
    # Recorded under these very grants, the caller was let in by one of them.
    bench.file.unlink()
    bench.then = write(bench.directory / "then", identity=identity)
    bench.record("hello")
    assert bench.changes("--rules", bench.then) == []
    identity["grants"].insert(0, {**identity["grants"][0], "id": "else"})
    now = write(bench.directory / "now", identity=identity)
    assert bench.changes("--rules", now, "--against", bench.then) == []


@pytest.mark.parametrize("bound", ["mtls", "none", None])
def test_a_grant_that_wants_a_bound_token(bench: Bench, bound: str | None) -> None:
    bench.record("hello", bound=bound)
    identity = json.loads(json.dumps(FILES["identity"]))
    identity["grants"][1]["bound"] = "mtls"
    now = write(bench.directory / "now", identity=identity)
    _, objects, _ = bench.run("--rules", now)
    denied = [("denied", "request", "binding_missing")] if bound == "none" else []
    assert changes(objects) == denied
    assert unjudged(objects) == ([] if bound else [("request", "grant")])


def test_workloads_are_known_by_their_subject(bench: Bench) -> None:
    identity = json.loads(json.dumps(FILES["identity"]))
    del identity["issuers"][0]["issuer"]
    identity["issuers"][0]["trust_domain"] = "prod.example"
    identity["grants"][1]["who"] = {"spiffe": "spiffe://prod.example/ns/a/*"}
    added = commands(rule("drop", "drop it", unless=[{"spiffe": "spiffe://prod.example/ns/a/ci"}]))
    now = write(bench.directory / "now", identity=identity, commands=added)
    for name in ("a/ci", "a/web", "b/web"):
        subject = f"spiffe://prod.example/ns/{name}"
        bench.record("drop it", subject=subject, principal=f"dev:{subject}")
    assert bench.changes("--rules", now) == [
        ("denied", "request", "drop"),
        ("denied", "request", "operation_not_granted"),
    ]


# Answers


def test_answer_rules_see_answers(bench: Bench, both: Both) -> None:
    bench.record(answer="the magic word")
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("ma", "gic")]
    stream = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
    bench.record({"stream": True}, stream.encode(), kind="text/event-stream")
    magic = rule("magic", "magic", where=["answer"])
    assert both(commands=commands(magic)) == [("denied", "answer", "magic")] * 2


def test_an_answer_that_a_rule_refused(bench: Bench) -> None:
    hit = found("answer-rm", address="choices[0].message.content")
    bench.record(refusal="answer-rm", findings=[hit], admitted=True, answer=b"{}")
    same = write(bench.directory / "now", approval={"rules": []})
    assert bench.changes("--rules", same) == []
    gone = write(bench.directory / "gone", commands=commands(without="answer-rm"))
    for against in ([], ["--against", bench.then]):
        assert bench.changes("--rules", gone, *against) == [("undenied", "answer", "answer-rm")]
    more = write(bench.directory / "more", commands=commands(rule("x", "x y", where=["answer"])))
    assert unjudged(bench.run("--rules", more)[1]) == [("answer", "answer-refused")]
    assert bench.changes("--rules", more, "--against", bench.then) == []


def test_what_was_masked_is_not_in_the_recording(bench: Bench) -> None:
    bench.record(answer="ask [email]", masked={"email": 1})
    magic = commands(rule("magic", "magic", where=["answer"]))
    now = write(bench.directory / "now", commands=magic)
    for against in ([], ["--against", bench.then]):
        _, objects, _ = bench.run("--rules", now, *against)
        assert changes(objects) == []
        assert unjudged(objects) == [("answer", "answer-masked")]
    # A rule on prompts makes no difference to answers; that is known against other rules.
    now = write(bench.directory / "now", commands=commands(rule("drop", "drop the table")))
    assert bench.changes("--rules", now, "--against", bench.then) == []


def test_a_recognizer_that_goes_unmasks_what_it_masked(bench: Bench, both: Both) -> None:
    bench.record(answer="ask [email]", masked={"email": 2})
    phone = recognizer("phone", PHONE, "+44 2079")
    assert both(masker=masker(phone)) == [("unmasked", "answer", "email")]


def test_a_recognizer_that_changed_may_find_less(bench: Bench) -> None:
    bench.record(answer="ask [email]", masked={"email": 2})
    narrow = recognizer("email", "ann@example[.]com", "ann@example.com")
    now = write(bench.directory / "now", masker=masker(narrow))
    for against in ([], ["--against", bench.then]):
        _, objects, _ = bench.run("--rules", now, *against)
        assert changes(objects) == []
        assert unjudged(objects) == [("answer", "masked-then")]
    phone = recognizer("phone", PHONE, "+44 2079")
    now = write(bench.directory / "now", masker=masker(EMAIL, phone))
    assert unjudged(bench.run("--rules", now)[1]) == [("answer", "masked-then")]
    assert bench.changes("--rules", now, "--against", bench.then) == []


def test_masking_is_compared_by_value(bench: Bench) -> None:
    bench.record(answer="ann@example.com and bob@example.com", grant="cleared", groups=["cleared"])
    old = masker(EMAIL)
    old["profiles"]["none"]["answer"] = ["email"]
    new = masker(recognizer("mail", MAIL, "ann@example.com"))
    new["profiles"]["none"]["answer"] = ["mail"]
    before = write(bench.directory / "before", masker=old)
    now = write(bench.directory / "now", masker=new)
    assert bench.changes("--rules", now, "--against", before) == []
    _, objects, _ = bench.run("--rules", before, "--against", bench.then)
    assert changes(objects) == [("masked", "answer", "email")]
    assert objects[0]["texts"] == ["ann@example.com", "bob@example.com"]
    assert objects[0]["count"] == 2
    _, objects, _ = bench.run("--rules", bench.then, "--against", before)
    assert changes(objects) == [("unmasked", "answer", "email")]
    assert "ann@example.com, bob@example.com" in bench.text("--rules", before)
    assert "ann@" not in bench.text("--rules", before, "--no-text")


def test_prompts_are_masked_by_new_rules(bench: Bench, both: Both) -> None:
    bench.record("I am ann@example.com")
    found = both(masker=masker(EMAIL, prompt=("email",)))
    assert found == [("masked", "request", "email")]


def test_prompts_may_have_been_recorded_masked(bench: Bench) -> None:
    bench.then = write(
        bench.directory / "then",
        masker=masker(EMAIL, prompt=("email",)),
        recorder={"directory": "recordings", "prompts": "masked"},
    )
    bench.record("I am [email]", masked={"email": 1})
    assert bench.changes("--rules", bench.then) == []
    now = write(
        bench.directory / "now", commands=commands(rule("bob", "bob@")), masker=FILES["masker"]
    )
    _, objects, _ = bench.run("--rules", now, "--against", bench.then)
    assert ("request", "prompt-masked") in unjudged(objects)


@pytest.mark.parametrize("ending", ["client_aborted", "upstream_error", "interrupted"])
def test_an_answer_that_is_not_whole(bench: Bench, ending: str) -> None:
    bench.record("drop the table", ending=ending)
    bench.record("hello", ending=ending, answer=None)
    assert bench.changes("--rules", bench.then, "--against", bench.then) == []
    now = write(
        bench.directory / "now",
        commands=commands(rule("drop", "drop the table"), rule("x", "x y", where=["answer"])),
    )
    for against in ([], ["--against", bench.then]):
        _, objects, _ = bench.run("--rules", now, *against)
        assert changes(objects) == [("denied", "request", "drop")]
        assert unjudged(objects) == [("answer", "answer-incomplete")]


def test_an_answer_that_cannot_be_read_is_not_judged(bench: Bench) -> None:
    bench.record(answer=b"{")
    _, objects, _ = bench.run("--rules", bench.then)
    assert unjudged(objects) == [("answer", "answer-unreadable")]


# What is not judged


def test_what_cannot_be_judged_is_named(bench: Bench) -> None:
    bench.append(tflow.ttcpflow())
    bench.append(tflow.tflow(resp=True))
    bench.record(b"", summary={"principal": "", "subject": ""}, refusal="token_missing")
    bench.record(b"", headers={"content-length": "12"})
    bench.record("hello", refusal="rate_limited", answer=b"{}")
    bench.record(b"{", answer=b"{}")
    bench.record("hello", path="/v1/gone")
    code, objects, _ = bench.run("--rules", bench.then)
    assert code == 0
    assert changes(objects) == []
    assert unjudged(objects) == [
        ("request", "not-http"),
        ("request", "no-verdict"),
        ("request", "no-caller"),
        ("request", "no-body"),
        ("request", "refused-otherwise"),
        ("request", "request-unreadable"),
        ("request", "endpoint"),
    ]
    assert objects[-1]["partly_unjudged"] == 7
    assert bench.run("--rules", bench.then, "--fail-on", "unjudged,denied")[0] == 1
    text = bench.text("--rules", bench.then)
    assert "not judged: request of 1: no-caller; first " in text
    assert "nothing would change" in text


def test_a_fault_in_judging_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    bench.record()
    monkeypatch.setattr("mitmgate.cli.backtest.comparing.recorded", fail)
    _, objects, _ = bench.run("--rules", bench.then)
    assert unjudged(objects) == [("request", "failed")]
    assert "broken" in objects[0]["detail"]


def test_unknown_endpoints_and_unreadable_bodies_stay_refused(bench: Bench, both: Both) -> None:
    gone = {"operation": "", "grant": "", "model": ""}
    bench.record("hello", path="/v1/gone", refusal="endpoint_unknown", answer=b"{}", summary=gone)
    bench.record(b"{", refusal="body_unreadable", answer=b"{}")
    path = rule("gone", "^/v1/gone", "/v1/gone", where=["path"])
    assert both(commands=commands(path)) == [("reason", "request", "gone")]


# Files


def test_directories_are_searched_and_files_read_once(bench: Bench) -> None:
    bench.record()
    other = bench.file.parent / "deep" / "b.mitm"
    other.parent.mkdir()
    other.write_bytes(bench.file.read_bytes())
    code, objects, _ = bench.run("--rules", bench.then, files=(bench.file, bench.file.parent))
    assert (code, objects[-1]["files"], objects[-1]["exchanges"]) == (0, 2, 2)


def test_a_torn_tail_is_told_and_what_stands_before_is_judged(bench: Bench) -> None:
    bench.record("drop the table")
    whole = bench.file.stat().st_size
    with bench.file.open("ab") as file:
        file.write(b"999:{")
    now = write(bench.directory / "now", commands=commands(rule("drop", "drop the table")))
    code, objects, err = bench.run("--rules", now, "--fail-on", "denied")
    assert code == 2
    assert changes(objects) == [("denied", "request", "drop")]
    assert objects[1]["offset"] == whole
    assert objects[-1]["errors"] == 1
    assert f"{bench.file}: byte {whole}: no whole flow begins here; 5 bytes were not read" in err


def test_a_frame_that_is_no_flow_is_told_and_others_are_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.record()
    offset = bench.file.stat().st_size
    with bench.file.open("ab") as file:
        file.write(tnetstring.dumps({"type": "http", "version": 21}))
        deep = b"0:]"
        for _ in range(5000):
            deep = b"%d:%s]" % (len(deep), deep)
        file.write(tnetstring.dumps(7) + deep)
    bench.record()
    flow = tflow.tflow()
    flow.metadata["mitmgate"] = {"principal": 1}
    bench.append(flow)
    monkeypatch.setattr("mitmgate.cli.backtest.outcomes.ERRORS", 2)
    code, objects, err = bench.run("--rules", bench.then)
    assert code == 2
    assert "2 more places cannot be read" in err
    assert objects[-1]["exchanges"] == 2
    assert objects[-1]["errors"] == 4
    assert f"byte {offset}: is no recorded flow" in err


@pytest.mark.parametrize("content", [b"", b"{}", b"no recording"])
def test_nothing_to_judge_is_an_error(bench: Bench, content: bytes) -> None:
    bench.file.write_bytes(content)
    code, _, err = bench.run("--rules", bench.then)
    assert code == 2
    assert err


def test_files_that_are_not_there(bench: Bench) -> None:
    (bench.directory / "empty").mkdir()
    for path in ("empty", "missing.mitm"):
        code, objects, err = bench.run("--rules", bench.then, files=(bench.directory / path,))
        assert (code, objects) == (2, [])
        assert path in err


def test_rules_that_do_not_load_are_told_as_by_check(bench: Bench) -> None:
    bench.record()
    bad = write(bench.directory / "bad", commands=commands(rule("twice", "x"), rule("twice", "y")))
    code, objects, err = bench.run("--rules", bench.then, "--against", bad)
    assert (code, objects) == (2, [])
    assert "bad/commands.yaml:" in err
    assert "twice" in err


@pytest.mark.parametrize(
    "options", [["--fail-on", "refused"], ["--jobs", "0"], ["--jobs", "x"], []]
)
def test_wrong_usage(bench: Bench, options: list[str]) -> None:
    rules = ["--rules", str(bench.then)] if options else []
    with pytest.raises(SystemExit, match="2"):
        bench.run(*options, *rules)


def test_large_flows_and_many_spans(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "SPAN", 3000)
    for i in range(20):
        bench.record("drop the table" if i == 7 else "hello " * (1000 if i == 3 else 1))
    now = write(bench.directory / "now", commands=commands(rule("drop", "drop the table")))
    assert bench.changes("--rules", now) == [("denied", "request", "drop")]
    spans = list(recorded.spans(bench.file))
    assert sum(span.flows for span in spans) == 20
    assert len(spans) > 5
    ends = [0, *(span.end for span in spans)]
    assert [span.start for span in spans] == ends[:-1]


def test_several_processes_find_the_same_in_the_same_order(bench: Bench) -> None:
    ids = [bench.record("drop the table") for _ in range(8)]
    with bench.file.open("ab") as file:
        file.write(b"9")
    now = write(bench.directory / "now", commands=commands(rule("drop", "drop the table")))
    code, objects, _ = bench.run("--rules", now, "--jobs", "2")
    assert code == 2  # the torn tail
    assert [each["exchange"] for each in objects if each["type"] == "change"] == ids


def test_progress_is_shown_on_a_terminal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    bench.record()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("mitmgate.cli.backtest.PROGRESS", 0)
    bench.run("--rules", bench.then)
    assert "1 exchanges, 100%" in terminal.getvalue()


def test_a_recording_is_only_read(bench: Bench) -> None:
    bench.record("rm -rf /", refusal="shell-rm", findings=[found("shell-rm")])
    before = bench.file.read_bytes(), sorted(bench.directory.rglob("*"))
    bench.file.chmod(0o400)
    bench.run("--rules", bench.then)
    assert (bench.file.read_bytes(), sorted(bench.directory.rglob("*"))) == before


# The same rules change nothing

WORDS = st.sampled_from(
    ["rm -rf /", "wire the money", "ann@example.com", "+44 2079", "casual remark", "hello"]
)
TEXTS = st.lists(WORDS | st.text(max_size=20), max_size=6).map(" ".join)
SUMMARIES = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([[], ["ops"], ["cleared"], None]),
        "scopes": st.sampled_from([["inference"], [], None]),
        "ending": st.sampled_from(["complete", "complete", "client_aborted", "interrupted"]),
        "masked": st.dictionaries(st.sampled_from(["email", "gone"]), st.integers(1, 3)),
        "hold": st.sampled_from(["", "h-1"]),
        "refusal": st.sampled_from(["", "", "shell-rm", "answer-rm", "rate_limited", "wire"]),
        "findings": st.lists(st.sampled_from([found("shell-rm"), found("wire", "hold")])),
    }
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(TEXTS, TEXTS, SUMMARIES, st.booleans()), min_size=1, max_size=4))
def test_rules_against_themselves_change_nothing(
    bench: Bench, made: list[tuple[str, str, dict[str, Any], bool]]
) -> None:
    bench.file.unlink(missing_ok=True)
    for asked, answer, summary, known in made:
        rules = digests(bench.then) if known else {"recorder": "other", "commands": "other"}
        grant = "cleared" if "cleared" in (summary["groups"] or ()) else "agents"
        bench.record(asked, answer, summary={**summary, "grant": grant, "rules": rules})
    # The same rules in other bytes: nothing may be taken to be the same because its digest is.
    same = write(bench.directory / "same")
    for path in same.glob("*.yaml"):
        path.write_text(f"# the same\n{path.read_text()}")
    strict = "denied,held,masked,undenied,unheld,unmasked,reason"
    for other in (bench.then, same):
        code, objects, _ = bench.run("--rules", other, "--against", bench.then, "--fail-on", strict)
        assert changes(objects) == []
        assert code == 0
