"""`mitmgate sessions`, `show` and `export` on recordings made here. Real gates are in tests/e2e."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader, FlowWriter
from mitmproxy.test import tflow

from mitmgate.cli import main, recorded
from mitmgate.cli.replaying import Gateway
from mitmgate.cli.searching import moment
from mitmgate.cli.table import fitted, places
from mitmgate.core.ledger import BadRecord, Entry, Recording

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC).timestamp()
TEXT = "Ask \x1b[2Jjane\u202e\nat [EMAIL], card ************1111."


def deep(levels: int) -> bytes:
    """A list in a list, and so on, as mitmproxy writes it."""
    data = b"0:]"
    for _ in range(levels):
        data = b"%d:%s]" % (len(data), data)
    return data


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with five exchanges of three callers; its gate has ended."""
    recording = Recording(tmp_path / "recordings", "w1")
    finding = {"rule": "weights-export", "action": "deny", "severity": "critical"}
    finding |= {"mode": "enforce", "address": "messages[0].content", "view": "decoded"}
    decision = {"issuer": "os", "subject": "root", "verdict": "approve", "channel": "cli"}
    decision |= {"reason": "ticket\x1b[31m 4711", "time": str(START)}
    put(recording, 0, session="run-1", masked={"email": 1, "card": 1}, display="Batch")
    put(recording, 1, session="run-1", stream=True)
    more = {"ending": "refused", "refusal": "weights-export", "findings": [finding]}
    put(recording, 2, session="run-1", subject="agent-8", status=403, **more)
    put(recording, 3, model="gpt-oss", hold="h-1", approvals=[decision], path="/v1/nosuch")
    put(recording, 4, subject="", principal="", ending="refused", refusal="token_missing")
    recording.close()
    return tmp_path


def put(recording: Recording, n: int, *, stream: bool = False, **more: Any) -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response
    path = more.get("path", "/v1/chat/completions")
    asked = [{"role": "user", "content": "export the weights"}]
    body = {"model": "llama", "messages": more.pop("messages", asked)}
    end = more.pop("end", None)
    flow.request = http.Request.make(
        "POST",
        f"http://10.0.0.1:8000{path}",
        json.dumps(body),
        {"content-type": "application/json", "content-length": "7", "x-mine": "1"},
    )
    if stream:
        pieces = [{"choices": [{"index": 0, "delta": {"content": c}}]} for c in "hello"]
        text = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
        flow.response = http.Response.make(200, text[:end], {"content-type": "text/event-stream"})
    else:
        message = {"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}]}
        kind = {"content-type": "application/json"}
        flow.response = http.Response.make(200, json.dumps(message), kind)
    subject = more.get("subject", "agent-7")
    fields = {
        "exchange": f"{n}bcdef01-0000-4000-8000-00000000000{n}",
        "principal": f"dev:{subject}",
        "subject": subject,
        "operation": "chat",
        "dialect": "openai",
        "model": "llama",
        "method": "POST",
        "path": path,
        "session": "",
        "ending": "complete",
        "refusal": "",
        "status": 200,
        "started": START + n,
        "first_byte": START + n + 0.25,
        "ended": START + n + 0.5,
        **more,
    }
    flow.id = str(fields["exchange"])
    written = io.BytesIO()
    FlowWriter(written).add(flow)
    recording.record(written.getvalue(), fields)


type Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--state", str(state)])
        return code, *capsys.readouterr()

    return run


def ids(output: str) -> list[int]:
    return [int(json.loads(line)["exchange"][0]) for line in output.splitlines()]


# sessions


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["--principal", "agent-7"], [0, 1, 3]),
        (["--principal", "dev/agent-8", "--principal", ""], [2, 4]),
        (["--session", "run-1", "--principal", "agent-7"], [0, 1]),
        (["--operation", "embeddings"], []),
        (["--model", "gpt*"], [3]),
        (["--verdict", "masked", "--verdict", "approved"], [0, 3]),
        (["--rule", "token_missing"], [4]),
        (["--exchange", "2bcd", "--exchange", "3"], [2, 3]),
        (["--since", "2026-03-02T09:00:02Z"], [2, 3, 4]),
        (["--since", "2026-03-02T10:00:02+01:00", "--until", "2026-03-02T09:00:04"], [2, 3]),
        (["--since", "2026-03-02", "--until", "2026-03-03"], [0, 1, 2, 3, 4]),
        (["--since", "1h"], []),
        (["--limit", "2"], [3, 4]),
    ],
)
def test_filters(run: Run, filters: list[str], found: list[int]) -> None:
    code, output, _ = run("sessions", "--json", *filters)
    assert (code, ids(output)) == (0, found)


def test_json_of_an_exchange(run: Run, state: Path) -> None:
    _, output, _ = run("sessions", "--json", "--exchange", "0")
    (recording,) = (state / "recordings").glob("*.mitm")
    row = json.loads(output)
    assert row.pop("length") > 500
    assert row == {
        "exchange": "0bcdef01-0000-4000-8000-000000000000",
        "time": "2026-03-02T09:00:00.000000Z",
        "seconds": 0.5,
        "principal": "dev:agent-7",
        "session": "run-1",
        "operation": "chat",
        "model": "llama",
        "verdict": ["complete", "masked"],
        "status": 200,
        "refusal": "",
        "rules": [],
        "masked": {"email": 1, "card": 1},
        "hold": "",
        "file": str(recording),
        "offset": 0,
        "encrypted": False,
    }


def test_whole_lines_where_there_is_no_terminal(run: Run) -> None:
    _, output, errors = run("sessions", "--limit", "3")
    assert [line.split("\t") for line in output.splitlines()][:2] == [
        ["TIME", "ID", "PRINCIPAL", "OPERATION", "MODEL", "SESSION", "VERDICT"],
        [
            "2026-03-02T09:00:02Z",
            "2bcdef01-0000-4000-8000-000000000002",
            "dev:agent-8",
            "chat",
            "llama",
            "run-1",
            "denied weights-export",
        ],
    ]
    assert errors == ""


@pytest.mark.parametrize("width", [20, 40, 80, 109, 110, 200])
@pytest.mark.parametrize("group", [[], ["--group"]])
def test_a_table_fits_the_terminal(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch, width: int, group: list[str]
) -> None:
    recording = Recording(state / "recordings", "w2")
    put(recording, 5, model="\x1b[2J模型" * 20, session="e\u0301" * 99, subject="\u202ea" * 99)
    recording.close()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    assert run("sessions", *group)[0] == 0
    output = terminal.getvalue()
    assert all(places(line) <= width for line in output.splitlines())
    assert not {"\x1b", "\u202e"} & set(output)
    assert ("2026" in output) is (width >= 110)


def test_sessions_are_of_one_caller_each(run: Run) -> None:
    code, output, _ = run("sessions", "--group", "--json")
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [(row["principal"], row["session"], row["exchanges"]) for row in rows] == [
        ("dev:agent-7", "run-1", 2),
        ("dev:agent-8", "run-1", 1),
        ("dev:agent-7", "", 1),
        ("", "", 1),
    ]
    assert rows[0] == {
        "principal": "dev:agent-7",
        "session": "run-1",
        "first": "2026-03-02T09:00:00Z",
        "last": "2026-03-02T09:00:01Z",
        "exchanges": 2,
        "models": {"llama": 2},
        "operations": {"chat": 2},
        "verdicts": {"complete": 2, "masked": 1},
    }
    assert "2 complete, 1 masked" in run("sessions", "--group")[1]


def test_nothing_found(run: Run, tmp_path: Path) -> None:
    assert run("sessions", "--model", "nosuch") == (0, "", "nothing found\n")
    for command in (["sessions"], ["show", "0"], ["export", "-o", tmp_path / "x"]):
        code, _, errors = run(*command, tmp_path / "nosuch")
        assert (code, "does not exist" in errors) == (1, True)


def test_a_broken_line_is_told_and_ends_with_1(run: Run, state: Path) -> None:
    (ledger,) = (state / "recordings").glob("*.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:2], b"junk\n", *lines[2:]]))
    for command in (["sessions", "--json"], ["export", "--jsonl", "-o", state / "out"]):
        code, _, errors = run(*command)
        assert code == 1
        assert errors.startswith(f"{ledger}:3: is no line of a ledger\n")
    assert len((state / "out").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["sessions", "--since", "yesterday"],
        ["sessions", "--since", "5"],
        ["sessions", "--verdict", "nosuch"],
        ["sessions", "--operation", "nosuch"],
        ["sessions", "--limit", "0"],
        ["sessions", "--limit", "x"],
        ["show"],
        ["export"],
        ["export", "-o", "x", "--har", "--jsonl"],
        ["export", "-o", "x", "--token-file", "t"],
    ],
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    assert exit.value.code == 2


def test_how_long_ago() -> None:
    now = datetime.now(UTC).timestamp()
    assert moment("7d") == pytest.approx(now - 7 * 86400, abs=5)


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("abc", 5, "abc  "),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("模型", 4, "模型"),
        ("模型模", 4, "模… "),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 2, "  "),
    ],
)
def test_cells(text: str, room: int, shown: str) -> None:
    assert fitted(text, room) == shown


def test_a_reader_who_leaves(state: Path) -> None:
    program = "import sys; from mitmgate.cli import main; sys.exit(main())"
    command = [sys.executable, "-W", "ignore", "-c", program, "sessions", "--state", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# show


def test_an_exchange_with_masks(run: Run, state: Path) -> None:
    code, output, _ = run("show", "0bc")
    assert code == 0
    (recording,) = (state / "recordings").glob("*.mitm")
    title = "─" * 74
    assert output.split("\n") == [
        "exchange 0bcdef01-0000-4000-8000-000000000000",
        "caller   dev:agent-7 (Batch)",
        "session  run-1 (as the caller says)",
        "asked    chat of openai, model llama, POST /v1/chat/completions",
        "ended    complete masked (status 200)",
        "masked   card x1, email x1",
        "time     2026-03-02 09:00:00 UTC, first byte in 0.25 s, all in 0.50 s",
        f"record   {recording}, byte 0, line 2",
        "",
        "request",
        f"── USER  messages[0] {title}"[:74],
        "  export the weights",
        "",
        f"── SETTINGS {title}"[:74],
        "  model: llama",
        "",
        "answer",
        f"── ASSISTANT  choices[0] {title}"[:74],
        "  Ask \\x1b[2Jjane\\u202e",
        "  at >>>[EMAIL]<<<, card >>>************1111<<<.",
        "",
    ]


def test_an_exchange_that_was_refused(run: Run) -> None:
    output = run("show", "2")[1]
    assert "\nended    refused denied: weights-export (status 403)\n" in output
    found = "weights-export (deny, critical) at messages[0].content, read as decoded"
    assert f"\nfound    {found}\n" in output
    assert "\n── USER  messages[0]  << weights-export >> ──" in output
    assert "[EMAIL]" in output
    assert ">>>" not in output  # nothing was masked: the model wrote that itself


def test_a_stream_is_joined(run: Run) -> None:
    assert "\n  hello\n" in run("show", "1")[1]


def test_a_hold_and_its_decisions(run: Run) -> None:
    output = run("show", "3")[1]
    assert "\nended    complete held approved (status 200)\n" in output
    assert "\nhold     h-1\n" in output
    decision = "approved by os:root on 2026-03-02 09:00:00 UTC (cli): ticket\\x1b[31m 4711"
    assert f"\ndecided  {decision}\n" in output
    assert "\n  cannot be read: not an endpoint of the gate; as it came:\n" in output
    assert '  {"model": "llama", "messages": [' in output


def test_a_stream_that_breaks_off_is_shown_as_far_as_it_came(run: Run, state: Path) -> None:
    recording = Recording(state / "recordings", "w2")
    put(recording, 6, stream=True, end=-34, ending="client_aborted", status=0)
    recording.close()
    output = run("show", "6")[1]
    assert output.endswith("\n  hell\n\n[the stream breaks off within an event]\n")
    answer = json.loads(run("show", "6", "--json")[1])["answer"]
    assert [text["text"] for text in answer["texts"]] == ["hell"]
    assert answer["unread"] == "the stream breaks off within an event"


def test_long_texts_are_shown_whole_and_wrapped_for_terminals_alone(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(state / "recordings", "w2")
    message = {"role": "user", "content": "so it goes [AWS KEY] on " * 1_500 + "x" * 200_000}
    put(recording, 6, messages=[message] * 2, masked={"aws-access-key": 3_000})
    recording.close()
    output = run("show", "6")[1]
    assert "left out" not in output
    assert output.count("so it goes >>>[AWS KEY]<<< on ") == 3_000
    assert max(map(len, output.split("\n"))) > 200_000
    message["content"] = message["content"][:12_000]
    recording = Recording(state / "recordings", "w3")
    put(recording, 7, messages=[message] * 2, masked={"aws-access-key": 3_000})
    recording.close()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    run("show", "7")
    transcript = terminal.getvalue().partition("request")[2].replace("\x1b[0m", "")
    assert transcript.count("\x1b[7m[AWS KEY]") == 1_000  # none is parted
    lines = transcript.replace("\x1b[7m", "").replace("\x1b[1m", "").split("\n")
    assert max(map(len, lines)) == 60


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_terminals(
    run: Run, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    run("show", "0")
    assert ("\x1b[7m[EMAIL]\x1b[0m" in terminal.getvalue()) is (no_color == "")
    assert ("\x1b" in terminal.getvalue()) is (no_color == "")


def test_json_of_all_that_was_said(run: Run) -> None:
    shown = json.loads(run("show", "0", "--json")[1])
    texts = [{"where": "prompt", "address": "messages[0].content", "text": "export the weights"}]
    texts += [{"where": "prompt", "address": "model", "text": "llama"}]
    assert shown["prompt"]["texts"] == texts
    assert shown["answer"]["texts"][-1]["text"] == TEXT
    assert (shown["prompt"]["unread"], shown["answer"]["unread"]) == (None, None)
    assert shown["verdict"] == ["complete", "masked"]


@pytest.mark.parametrize(
    ("id", "message"),
    [("nosuch", "no exchange nosuch is recorded here"), ("", "more than one exchange begins")],
)
def test_an_id_that_is_none(run: Run, id: str, message: str) -> None:
    code, output, errors = run("show", id)
    assert (code, output) == (1, "")
    assert message in errors


def test_an_exchange_that_is_there_twice(run: Run, state: Path) -> None:
    recording = Recording(state / "recordings", "w2")
    put(recording, 0, ending="interrupted")
    recording.close()
    output = run("show", "0")[1]
    assert output.count("exchange 0bcdef01") == 2


def test_a_changed_recording_is_told(run: Run, state: Path) -> None:
    (recording,) = (state / "recordings").glob("*.mitm")
    data = recording.read_bytes()
    recording.write_bytes(data.replace(b"export the weights", b"EXPORT the weights", 1))
    code, output, errors = run("show", "0")
    assert code == 1
    assert "caller   dev:agent-7" in output
    assert "EXPORT" not in output
    assert "the flow of 0bcdef01-0000-4000-8000-000000000000 (byte 0) is not what was" in errors
    code, _, errors = run("export", "-o", state / "out.mitm")
    assert code == 1
    assert "is not what was recorded" in errors
    assert len(flows(state / "out.mitm")) == 4


# export


def flows(path: Path) -> list[http.HTTPFlow]:
    with path.open("rb") as file:
        return list(FlowReader(file).stream())  # type: ignore[arg-type]


def test_flows_are_copied_byte_for_byte(run: Run, state: Path) -> None:
    (recording,) = (state / "recordings").glob("*.mitm")
    out = state / "out.mitm"
    code, output, errors = run("export", "-o", out)
    assert (code, output, errors) == (0, "", f"5 exchanges in {out}\n")
    assert out.read_bytes() == recording.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    run(
        "export",
        "-o",
        state / "two.mitm",
        "--principal",
        "agent-7",
        "--until",
        "2026-03-02T09:00:02",
    )
    assert recording.read_bytes().startswith((state / "two.mitm").read_bytes())
    assert [flow.id[0] for flow in flows(state / "two.mitm")] == ["0", "1"]


def test_an_archive(run: Run, state: Path) -> None:
    from mitmproxy.addons.savehar import SaveHar

    run("export", "--har", "-o", state / "out.har")
    run("export", "-o", state / "out.mitm")
    written = json.loads((state / "out.har").read_text())
    made = SaveHar().make_har(flows(state / "out.mitm"))
    assert written == json.loads(json.dumps(made))
    assert len(written["log"]["entries"]) == 5


def test_json_lines(run: Run, state: Path) -> None:
    run("export", "--jsonl", "-o", state / "out.jsonl", "--principal", "agent-7")
    rows = [json.loads(line) for line in (state / "out.jsonl").read_text().splitlines()]
    assert [row["exchange"][0] for row in rows] == ["0", "1", "3"]
    assert [row["answer"]["texts"][-1]["text"] for row in rows[:2]] == [TEXT, "hello"]
    assert rows[2]["prompt"]["unread"] == "not an endpoint of the gate"


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes], state: Path) -> None:
    main(["export", "--jsonl", "-o", "-", "--state", str(state)])
    output, errors = capfdbinary.readouterr()
    assert len([json.loads(line) for line in output.splitlines()]) == 5
    assert errors == b"5 exchanges in -\n"


def test_nothing_is_overwritten(run: Run, state: Path) -> None:
    out = state / "out.mitm"
    out.write_text("mine")
    code, _, errors = run("export", "-o", out)
    assert (code, out.read_text()) == (1, "mine")
    assert f"{out} exists; --force replaces it" in errors
    assert run("export", "-o", out, "--force")[0] == 0
    assert len(flows(out)) == 5
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_file_that_comes_meanwhile_is_not_overwritten(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = state / "out.mitm"
    monkeypatch.setattr(os, "fsync", lambda _: out.write_text("mine"))
    code, _, errors = run("export", "-o", out)
    assert (code, out.read_text()) == (1, "mine")
    assert "File exists" in errors
    assert not list(state.glob(".*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nosuch"], "nothing found; nothing is written"),
        (["--replay", "http://127.0.0.1:1"], "give the token to send in --token-file FILE"),
        (["--replay", "127.0.0.1:8080"], "should be the gate's address"),
        (["--replay", "http://127.0.0.1:1/v1", "--token-file", "t"], "should end with the port"),
        (["--replay", "http://127.0.0.1:1", "--token-file", "nosuch"], "nosuch"),
        (["--replay", "http://127.0.0.1:1", "--token-file", "two"], "should be one word"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("MITMGATE_TOKEN", raising=False)
    monkeypatch.chdir(state)
    (state / "t").write_text("abc")
    (state / "two").write_text("se cret\r\nX-Evil: 1")
    before = sorted(state.iterdir())
    code, _, errors = run("export", "-o", "out", *arguments)
    assert code == 1
    assert message in errors
    assert "cret" not in errors
    assert sorted(state.iterdir()) == before


def test_requests_to_be_sent_again(run: Run, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITMGATE_TOKEN", "fresh.token\n")
    out = state / "again.mitm"
    code, _, errors = run("export", "--replay", "https://gate.example", "-o", out)
    assert (code, errors.splitlines()) == (
        0,
        [f"4 exchanges in {out}", "1 more were of unknown callers: these are not kept"],
    )
    one, *others = flows(out)
    assert len(others) == 3
    assert one.id.startswith("0bcdef01")
    assert (one.response, one.error, one.metadata, one.marked) == (None, None, {}, "")
    assert one.request.url == "https://gate.example/v1/chat/completions"
    assert dict(one.request.headers) == {
        "content-type": "application/json",
        "x-mine": "1",
        "host": "gate.example:443",
        "authorization": "Bearer fresh.token",
        "content-length": str(len(one.request.content or b"")),
    }
    assert b"fresh" not in next((state / "recordings").glob("*.mitm")).read_bytes()


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://gate/", "gate:80"),
        ("https://[::1]", "[::1]:443"),
    ],
)
def test_addresses(url: str, authority: str) -> None:
    assert Gateway.parse(url).authority == authority


@pytest.mark.parametrize(
    "url", ["", "gate", "ftp://gate", "http://", "http://a@gate", "http://gate?x=1", "http://g:x"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (some are the standard library's)
        Gateway.parse(url)


def test_an_address_with_a_password_is_refused_and_not_said() -> None:
    for url in ("http://a:hush@gate", "http://:hush@gate"):
        with pytest.raises(ValueError, match="no name and password") as refused:
            Gateway.parse(url)
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("data", [b"5:hello,", b"7:nothing^", deep(5000), b"2:{}}"])
def test_bytes_that_are_no_flow_are_told(tmp_path: Path, data: bytes) -> None:
    entry = Entry(tmp_path / "x.jsonl", 1, {"exchange": "e"})
    with pytest.raises(BadRecord, match="cannot be read"):
        recorded.flow_of(entry, data)
