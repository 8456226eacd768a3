"""Bodies that are read and judged in another process: the same results, and only ever a refusal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mitmproxy.test import tutils

import mitmgate
from mitmgate import reading
from mitmgate import workers as kit
from mitmgate.core import ruling
from mitmgate.core.matching import Finding
from mitmgate.core.principal import Principal
from mitmgate.core.rules import Listed, RuleFile, load
from mitmgate.core.rules.rule import Rule
from mitmgate.core.ruling import Ruling, asked_of, unpacked
from mitmgate.core.wire import endpoints
from mitmgate.core.wire.answer import read_answer
from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.prompt import Prompt, PromptError, read_prompt
from mitmgate.core.worker import Asking, JudgeAnswer, JudgePrompt, ReadPrompt, findings
from mitmgate.refusal import Refusal
from mitmgate.workers import Worker, WorkerError, Workers

CHAT = "/v1/chat/completions"
ASKING = Asking("POST", CHAT, "application/json")
LONG = "dGhpcyBpcyBub3QgYmFzZTY0IQx " * 200_000  # takes seconds to judge


class File(RuleFile):
    rules: Listed[Rule]


def rules(directory: Path, word: str = "weights") -> Ruling:
    def rule(name: str, hits: list[str], passes: list[str], **more: Any) -> dict[str, Any]:
        tests = {"match": hits, "pass": passes}
        return {"id": name, "title": name, "action": "deny", "tests": tests, **more}

    path = directory / f"{word}.yaml"
    found = [
        rule("word", [word], ["nothing"], match=rf"\b{word}\b"),
        rule(
            "far",
            [f"a {word}"],
            ["b"],
            match=rf"^a.{{0,9000}}\b{word}",
            unless=[{"groups": ["free"]}],
        ),
        rule("much", ['{"n": 9}'], ['{"n": 1}'], parameter="n", max=4),
        rule("inside", ["http://127.0.0.1/"], ["http://example.com/"], network=["loopback"]),
        rule("agent", ["bad"], ["good"], match="bad", where=["headers"], headers=["x-agent"]),
        rule("said", ["told"], ["asked"], match="told", where=["answer"]),
    ]
    path.write_text(json.dumps({"schema": 1, "rules": found}))
    loaded = load(path, File)
    return ruling.compile(loaded, loaded.file.rules, ("rules",))


def chat(text: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


def endpoint() -> Endpoint:
    found = endpoints.find("POST", CHAT)
    assert found is not None
    return found


def judging(rules: Ruling, principal: Principal | None = None, **headers: str) -> JudgePrompt:
    return JudgePrompt(ASKING, tuple(headers.items()), principal, rules.name)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Ruling:
    return rules(tmp_path_factory.mktemp("rules"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.close()


@pytest.fixture
def own() -> Iterator[Workers]:
    """Workers for a test that ends some of them."""
    workers = Workers(1)
    yield workers
    workers.close()


async def busy(workers: Workers) -> int:
    """The process that does the job under way."""
    while not workers.pids:
        await asyncio.sleep(0.01)
    return workers.pids[0]


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# The same results


WORDS = [
    "weights",
    "a",
    "w e i g h t s",
    "d2VpZ2h0cyB3ZWlnaHRz",
    "bad",
    "told",
    "\u2019",
    "sthgiew",
]
TEXTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=20)), max_size=8).map(" ".join)


@given(
    text=TEXTS,
    header=TEXTS.map(lambda text: text.encode().decode("ascii", "surrogateescape")),
    number=st.one_of(st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    address=st.sampled_from(["http://127.0.0.1/", "http://2130706433/", "https://example.com"]),
    group=st.sampled_from(["free", "other", None]),
)
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_worker_finds_in_a_request_what_is_found_here(
    known: Ruling,
    shared: Workers,
    text: str,
    header: str,
    number: float | None,
    address: str,
    group: str | None,
) -> None:
    body = chat(text, n=number, image_url=address)
    principal = Principal("idp", "x", groups=frozenset([group])) if group else None
    fields = (("x-agent", header),)
    try:
        prompt = read_prompt(endpoint(), CHAT, "application/json", body)
    except PromptError:
        return
    here = known.asked(asked_of("POST", CHAT, fields, prompt), principal)
    job = JudgePrompt(ASKING, fields, principal, known.name)
    there = findings(known, asyncio.run(shared.ask(job, body, known)))
    assert there == here
    assert all(finding.rule is rule_of(known, finding) for finding in there)


def rule_of(rules: Ruling, finding: Finding) -> Rule:
    return next(rule for rule in rules.rules if rule.id == finding.rule.id)


@pytest.mark.parametrize("text", ["what I was told", "nothing", "t o l d, and told \u2019"])
async def test_a_worker_finds_in_an_answer_what_is_found_here(
    known: Ruling, shared: Workers, text: str
) -> None:
    raw = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
    texts = read_answer(endpoint(), 200, "application/json", raw).readings("answer")
    here = known.answered(texts, None, "POST", "chat")
    job = JudgeAnswer("POST", CHAT, 200, "application/json", None, known.name)
    assert findings(known, (await shared.ask(job, raw, known))["found"]) == here
    assert bool(here) is ("told" in text)


async def test_an_answer_that_cannot_be_read_is_said_to_be(known: Ruling, shared: Workers) -> None:
    call = {"function": {"name": "f", "arguments": "[" * 5000}}
    deep = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}
    body = json.dumps(deep).encode()
    job = JudgeAnswer("POST", CHAT, 200, "application/json", None, known.name)
    assert set(await shared.ask(job, body, known)) <= {"found", "unreadable"}


def test_a_search_that_took_too_long_stays_a_hit(known: Ruling) -> None:
    late = Finding(known.rules[0], "messages[0].content", 0, 7, "", "timeout")
    sent = json.loads(json.dumps([[late.rule.id, late.address, 0, 7, "", "timeout"]]))
    assert findings(known, sent) == (late,)


def test_a_finding_of_a_rule_that_nobody_has_is_an_error(known: Ruling) -> None:
    with pytest.raises(KeyError):
        findings(known, [("another", "", 0, 0, "", "raw")])


def test_packed_rules_are_the_rules(known: Ruling, tmp_path: Path) -> None:
    assert unpacked(known.packed).rules == known.rules
    assert known.name != rules(tmp_path, "other").name


READ = [
    chat("hello"),
    chat("hello", stream=True),
    b"{",
    b'{"a": 1, "a": 2}',
    b"\xff",
    b"[]",
    b"",
    chat("x", context=[1]),
    json.dumps({"messages": [{"role": "user", "content": [1]}], "model": "\n"}).encode(),
    b'{"x":' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", READ, ids=range(len(READ)))
async def test_a_request_is_read_and_refused_as_it_is_here(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read() -> object:
        headers = ((b"content-type", b"application/json"),)
        request = tutils.treq(method=b"POST", path=CHAT.encode(), headers=headers)
        request.raw_content = body
        try:
            sent, prompt = await reading.request_of(request, endpoint(), CHAT)
        except Refusal as e:
            return e.status, e.code, e.message
        coverage = prompt.body.coverage if prompt.body else {}
        return sent, prompt.model, prompt.streams, coverage, prompt.readings(), prompt.segments()

    here = await read()
    monkeypatch.setattr(reading, "APART", -1)
    try:
        assert await read() == here
    finally:
        kit.close()


def test_a_body_that_was_read_elsewhere_is_a_body() -> None:
    raw = chat("hello", tools=[{"type": "function"}])
    prompt = read_prompt(endpoint(), CHAT, "application/json", raw)
    assert prompt.body is not None
    body = reading.UnreadBody(raw, endpoint().request or {}, prompt.body.coverage)
    assert (body.encode(), body.edited, body.size) == (raw, False, len(raw))
    assert "document" not in vars(body)  # until it is wanted
    late = Prompt(prompt.endpoint, CHAT, body, "m", False, None)
    assert late.readings() == prompt.readings()
    assert late.canonical == prompt.canonical
    body.edit(str.upper)
    prompt.body.edit(str.upper)
    assert body.edited
    assert body.encode() == prompt.body.encode() != raw
    assert not hasattr(body, "nothing")


# Faults


async def test_a_worker_that_is_killed_fails_one_job_and_the_next_gets_another(
    known: Ruling, own: Workers
) -> None:
    job = asyncio.create_task(own.ask(judging(known), chat(LONG), known))
    pid = await busy(own)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=f"worker {pid}: it ended, status -9"):
        await job
    assert await own.ask(judging(known), chat("weights"), known)
    assert own.pids != [pid]


async def test_a_worker_that_dies_while_it_waits_fails_nothing(known: Ruling, own: Workers) -> None:
    await own.ask(judging(known), chat("hello"), known)
    (pid,) = own.pids
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert await own.ask(judging(known), chat("weights"), known)
    assert own.pids != [pid]


async def test_a_worker_that_hangs_is_ended(
    known: Ruling, own: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own.ask(judging(known), chat("hello"), known)
    (pid,) = own.pids
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(kit, "PATIENCE", (0.2, 0.0))
    with pytest.raises(WorkerError, match="it took more than 0 s"):
        await own.ask(judging(known), chat("hello" * 100_000), known)
    assert ended(pid)
    monkeypatch.undo()
    assert await own.ask(judging(known), chat("weights"), known)


async def test_a_job_that_fails_says_why_and_is_nothing_found(own: Workers, known: Ruling) -> None:
    with pytest.raises(WorkerError, match="KeyError: 'no such rules'"):
        await own.ask(JudgePrompt(ASKING, (), None, "no such rules"), chat("hello"))
    with pytest.raises(WorkerError, match="no endpoint is GET '/nowhere'"):
        await own.ask(ReadPrompt(Asking("GET", "/nowhere", "")), b"")
    assert await own.ask(judging(known), chat("weights"), known)


async def test_the_code_is_that_of_the_gate_whatever_else_is_installed(
    own: Workers, known: Ruling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mitmgate").mkdir()
    (tmp_path / "mitmgate" / "__init__.py").write_text("raise ImportError('another')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert await own.ask(judging(known), chat("weights"), known)


async def test_a_process_that_cannot_be_started_is_an_error(
    own: Workers, known: Ruling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        await own.ask(judging(known), chat("hello"), known)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="status 1"):
        await own.ask(judging(known), chat("hello"), known)


async def test_closing_ends_what_is_under_way_and_what_waits(known: Ruling, own: Workers) -> None:
    jobs = [asyncio.create_task(own.ask(judging(known), chat(LONG), known)) for _ in range(3)]
    pid = await busy(own)
    own.close()
    for result in await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 10):
        assert isinstance(result, WorkerError | asyncio.CancelledError)
    assert ended(pid)
    with pytest.raises(RuntimeError):
        await own.ask(judging(known), chat("hello"), known)


async def test_whoever_left_before_the_turn_came_is_not_judged(
    known: Ruling, own: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "LOOKS", 0.01)
    first = asyncio.create_task(own.ask(judging(known), chat(LONG), known, lambda: True))
    await busy(own)
    with pytest.raises(Refusal) as left:
        await own.ask(judging(known), chat("hello"), known, lambda: True)
    assert (left.value.status, left.value.code) == (499, "client_left")
    assert not first.done()  # what has begun goes on
    own.close()
    with pytest.raises(WorkerError):
        await first


async def test_rules_that_change_are_those_of_the_job(tmp_path: Path, own: Workers) -> None:
    sets = [rules(tmp_path, f"word{i}") for i in range(kit.KNOWN + 2)]
    for _ in range(2):  # by now the worker has forgotten some of them
        for i, known in enumerate(sets):
            text = " ".join(f"word{n}" for n in range(len(sets)))
            found = findings(known, await own.ask(judging(known), chat(text), known))
            assert {finding.text for finding in found if finding.rule.id == "word"} == {f"word{i}"}
    assert len(own.pids) == 1


async def test_what_is_huge_keeps_no_large_one_waiting(known: Ruling) -> None:
    try:
        body = chat(LONG)
        assert len(body) > kit.HUGE
        huge = [
            asyncio.create_task(kit.workers(len(body)).ask(judging(known), body, known))
            for _ in range(kit.MOST_HUGE + kit.MOST)
        ]
        await busy(kit.workers(len(body)))
        large = kit.workers(kit.HUGE - 1)
        assert await large.ask(judging(known), chat("weights"), known)
        assert not any(job.done() for job in huge)
    finally:
        kit.close()
    await asyncio.gather(*huge, return_exceptions=True)
    assert large.closed
    assert kit.workers(1) is not large


async def test_workers_are_few_and_kept(known: Ruling) -> None:
    workers = Workers(2)
    try:
        for _ in range(2):
            await asyncio.gather(
                *(workers.ask(judging(known), chat("weights"), known) for _ in range(8))
            )
            assert 1 <= len(workers.pids) <= 2
    finally:
        workers.close()
    assert all(map(ended, workers.pids))


async def test_a_worker_stands_back_and_is_out_of_reach_of_ctrl_c(
    known: Ruling, own: Workers
) -> None:
    await own.ask(judging(known), chat("hello"), known)
    (pid,) = own.pids
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpgid(pid) != os.getpgid(0)


ORPHAN = """
import sys, threading
from mitmgate.core.worker import Asking, ReadPrompt
from mitmgate.workers import Worker
worker = Worker()
asking = Asking("POST", "/v1/chat/completions", "application/json")
body = b'{"x":[' + b"[]," * 30_000_000 + b"1]}"
threading.Thread(target=worker.do, args=(ReadPrompt(asking), None, body, 60), daemon=True).start()
print(worker.pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_ends_with_the_process_that_has_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(mitmgate.__file__).parents[1])},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ended(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while not (ended(pid) or is_zombie(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_zombie(pid: int) -> bool:
    """Whether it has ended and only its new parent does not know yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_one_that_is_ended_twice_is_ended() -> None:
    worker = Worker()
    worker.end("a test")
    worker.end()
    with pytest.raises(WorkerError, match="a test, status -9"):
        worker.do(ReadPrompt(ASKING), None, b"", 1)
    worker.close()
    worker.close()
    assert not worker.alive
