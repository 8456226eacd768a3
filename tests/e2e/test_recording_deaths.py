"""`kill -9` at every step of an exchange's life: what the model server saw is recorded, once.

A killed process loses nothing that it has written, whatever `fsync` says: that is about power cuts.
So an answer that a caller got to its very end is recorded as complete, with that text: its record
is written before its end is sent. What may be lost is how an exchange ended that nobody got the end
of: it is `interrupted` then, also where the whole text of a stream had gone out, but not its end.
And what is recorded as complete may not have reached its caller.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mitmproxy.io import tnetstring

from dying import arm, death, death_at_start, disarm, recorder_script
from harness import Gate, Rules, StandIn, Tokens, baseline
from mitmgate.core import ledger
from mitmgate.core.ledger import Entry
from processes import GATEWAY, Process

CHAT = "/v1/chat/completions"
RECORDER = """
from mitmgate.identity import Identity
from mitmgate.recorder import Recorder

addons = [Identity(), Recorder()]
"""
WHOLE = GATEWAY.read_text("utf-8")

# In the order in which an exchange comes to them.
NOT_ADMITTED = ("before admit", "before request", "within request")
NOT_SENT = ("after request", "after admit", "connected")
ANSWERED = ("answering", "before settle")
ROTATING = ("before end", "within end", "after end", "before head", "within head", "after head")
WRITING = ("before pointer", "after pointer", "before flow", "within flow", "after flow")
LINE = ("before entry", "within entry")
RECORDED = ("after entry", "after settle")
FORGOTTEN = ("before forget", "after forget")
SENT = (*ANSWERED, *ROTATING, *WRITING, *LINE)
POINTS = (*NOT_ADMITTED, *NOT_SENT, *SENT, *RECORDED, *FORGOTTEN)
FEW = ("after request", "before settle", "after end", "after flow", "after settle")
RECOVERY = (
    *("before cut", "before copy", "after copy", "after cut", "before closing", "within closing"),
    *("after closing", "before leftover", "after flow", "within entry", "after entry"),
    *("before discard", "after discard"),
)
FEW_OF_RECOVERY = ("after copy", "within closing", "after entry")
RETENTION = ("before removed", "after removed", "before removal", "within removal", "after removal")
FEW_OF_RETENTION = ("within removal",)

STARTING = 0.9  # seconds in which a gate that starts may be killed, too


def body(word: str, knobs: str = "", **more: Any) -> dict[str, Any]:
    content = f"standin: {knobs}\nsay: the answer to {word}."
    return {"model": "stand-in", "messages": [{"role": "user", "content": content}], **more}


def word_of(data: bytes) -> str:
    """The `word` of a request that `body` made."""
    content: str = json.loads(data)["messages"][0]["content"]
    return content.rpartition(" ")[2].removesuffix(".")


def signing_key(directory: Path) -> tuple[Path, Path]:
    """A private key and its public half, as files."""
    key = Ed25519PrivateKey.generate()
    private, public = directory / "signing-key.pem", directory / "public-key.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return private, public


def rules(tokens: Tokens, model: StandIn, directory: Path, key: Path, **recorder: Any) -> Rules:
    files = baseline(tokens, model.url, directory)
    written = {"schema": 1, "sign": {"key": f"${{file:{key}}}"}, **recorder}
    return {**files, "recorder": written}


# What is on disk


def journal(gate: Gate) -> list[Path]:
    return [p for p in (gate.state / "journal").rglob("*") if p.suffix in (".flow", ".over")]


async def recovered(*gates: Gate) -> None:
    """Wait until whatever was left in the journal of `gates` is recorded."""
    async with asyncio.timeout(20):
        while any(journal(gate) for gate in gates):
            await asyncio.sleep(0.02)


def recorded(state: Path) -> list[tuple[Entry, dict[str, Any]]]:
    """Every ledger line that can be read, with its flow as it is checked against it."""
    found = ledger.entries(state / "recordings", ledger.Query(), lambda finding: None)
    return [(each, tnetstring.loads(ledger.flow_bytes(each))) for each in found]  # type: ignore[misc]


def by_word(state: Path) -> dict[str, list[tuple[Entry, dict[str, Any]]]]:
    """The records of each word; no exchange has two."""
    ids: Counter[str] = Counter()
    words: dict[str, list[tuple[Entry, dict[str, Any]]]] = {}
    for entry, flow in recorded(state):
        ids[entry["exchange"]] += 1
        assert flow["id"] == entry["exchange"]
        if flow["request"]["content"]:
            words.setdefault(word_of(flow["request"]["content"]), []).append((entry, flow))
    assert set(ids.values()) <= {1}, [each for each, count in ids.items() if count > 1]
    return words


def verify(state: Path, public_key: Path) -> str:
    """What `mitmgate verify` prints when it is content, without the key and with it."""
    command = [Path(sys.executable).with_name("mitmgate"), "verify", "--state", state]
    for key in ([], ["--public-key", public_key]):
        done = subprocess.run([*command, *key], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# At a named step


@pytest.fixture(scope="module")
def model() -> Iterator[StandIn]:
    """A stand-in that asks for no key, since a gate of the recorder alone sends none."""
    with StandIn() as server:
        yield server


@pytest.fixture(scope="module")
def mortal(
    tmp_path_factory: pytest.TempPathFactory, model: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    """A gate that every test kills and starts again; a file of its recordings holds one exchange,
    so that each of them rotates."""
    directory = tmp_path_factory.mktemp("mortal")
    private, public = signing_key(directory)
    files = rules(tokens, model, directory, private, rotate={"size": "1k"})
    scripts = (recorder_script(directory, RECORDER),)
    with Gate(directory, model.url, files, scripts=scripts) as gate:
        yield gate
        gate.stop()
        verify(gate.state, public)


async def ask(gate: Gate, token: str, asked: dict[str, Any]) -> tuple[bytes, bool]:
    """What comes, and whether it came to its end."""
    got = b""
    async with gate.client(token) as client:
        with suppress(httpx.TransportError):
            async with client.stream("POST", CHAT, json=asked) as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_raw():
                    got += piece
                return got, True
    return got, False


def some(points: tuple[str, ...], few: tuple[str, ...]) -> list[Any]:
    return [
        point if point in few else pytest.param(point, marks=pytest.mark.slow) for point in points
    ]


@pytest.mark.parametrize("streams", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", some(POINTS, FEW))
async def test_a_death(
    mortal: Gate, model: StandIn, tokens: Tokens, point: str, streams: bool
) -> None:
    word = f"{point}-{streams}".replace(" ", "-")
    model.reset()
    if point not in FORGOTTEN:  # there, it would be the first to be forgotten
        assert (await ask(mortal, tokens.mint(), body(f"before-{word}")))[1]
        model.reset()
    arm(mortal, point)
    got, whole = await ask(mortal, tokens.mint(), body(word, stream=streams))
    await death(mortal)
    assert len(model.seen()) == (0 if point in (*NOT_ADMITTED, *NOT_SENT) else 1)
    if streams and point in (*SENT[1:], *RECORDED):
        assert b"[DONE]" in got  # the whole text, and not the end of the body
    assert whole is (point in FORGOTTEN)

    await asyncio.to_thread(mortal.start)
    await recovered(mortal)
    words = by_word(mortal.state)
    if point not in FORGOTTEN:
        ((before, _),) = words[f"before-{word}"]
        assert before["ending"] == "complete"
    if point in NOT_ADMITTED:
        assert word not in words
        if point == "within request":
            await mortal.logged("is torn .*flow.torn")
    else:
        ((entry, flow),) = words[word]
        over = point in (*RECORDED, *FORGOTTEN)
        assert entry["ending"] == ("complete" if over else "interrupted")
        assert entry["principal"] == "test-idp:agent-7"
        if over:
            assert flow["response"]["content"].startswith(got)
            assert f"answer to {word}".encode() in flow["response"]["content"] or streams
    report = ledger.verify(mortal.state / "recordings")
    assert report.ok, report.findings


async def test_a_death_while_the_model_answers(
    mortal: Gate, model: StandIn, tokens: Tokens
) -> None:
    got = b""
    async with mortal.client(tokens.mint()) as client:

        async def read(asked: dict[str, Any]) -> None:
            nonlocal got
            async with client.stream("POST", CHAT, json=asked) as answer:
                async for piece in answer.aiter_raw():
                    got += piece

        reading = [
            asyncio.create_task(read(body("silent", "slow=60"))),
            asyncio.create_task(read(body("begun", "hang=3", stream=True))),
        ]
        await model.wait_seen(lambda seen: b"silent" in seen.body)
        while got.count(b"data:") < 3:
            await asyncio.sleep(0.01)
        mortal.kill9()
        for each in await asyncio.gather(*reading, return_exceptions=True):
            assert isinstance(each, httpx.TransportError)
    await asyncio.to_thread(mortal.start)
    await recovered(mortal)
    for word in ("silent", "begun"):
        ((entry, flow),) = by_word(mortal.state)[word]
        assert entry["ending"] == "interrupted"
        assert flow["response"] is None
    report = ledger.verify(mortal.state / "recordings")
    assert report.ok, report.findings


@pytest.mark.parametrize(
    "points", [FEW_OF_RECOVERY, pytest.param(RECOVERY, marks=pytest.mark.slow)], ids=["few", "all"]
)
async def test_deaths_of_a_gate_that_recovers(
    mortal: Gate, model: StandIn, tokens: Tokens, points: tuple[str, ...]
) -> None:
    word = f"recovering-{len(points)}"
    arm(mortal, "within entry")
    assert not (await ask(mortal, tokens.mint(), body(word)))[1]
    await death(mortal)
    for point in points:
        await death_at_start(mortal, point)
    await asyncio.to_thread(mortal.start)
    await recovered(mortal)
    ((entry, _),) = by_word(mortal.state)[word]
    assert entry["ending"] == "interrupted"
    report = ledger.verify(mortal.state / "recordings")
    assert report.ok, report.findings
    assert list((mortal.state / "recordings").glob("*.mitm.torn"))  # which the ledger tells of


@pytest.mark.parametrize(
    "points",
    [FEW_OF_RETENTION, pytest.param(RETENTION, marks=pytest.mark.slow)],
    ids=["few", "all"],
)
async def test_deaths_of_a_gate_that_removes(
    tmp_path: Path, model: StandIn, tokens: Tokens, points: tuple[str, ...]
) -> None:
    private, public = signing_key(tmp_path)
    rotate = {"size": "1k"}
    files = rules(tokens, model, tmp_path, private, rotate=rotate)
    scripts = (recorder_script(tmp_path, RECORDER),)
    with Gate(tmp_path, model.url, files, scripts=scripts) as gate:
        for n in range(2 + len(points)):
            assert (await ask(gate, tokens.mint(), body(str(n))))[1]
        gate.kill9()
        before = {word: entry.flows.name for word, [(entry, _)] in by_word(gate.state).items()}
        files = rules(tokens, model, tmp_path, private, rotate=rotate, retain={"size": "1k"})
        gate.write_rules(recorder=files["recorder"])
        for point in points:
            await death_at_start(gate, point)
        await asyncio.to_thread(gate.start)
        gate.wait_log("is removed under retention")
        assert (await ask(gate, tokens.mint(), body("last")))[1]
        gate.stop()
    report = ledger.verify(gate.state / "recordings", public.read_bytes())
    assert report.ok, report.findings
    removed = {each.file for each in report.removed}
    left = by_word(gate.state)
    assert "last" in left
    for word, file in before.items():
        assert word in left or file in removed


async def test_a_gate_records_what_others_left_that_died_beside_it(
    mortal: Gate, tmp_path: Path, model: StandIn, tokens: Tokens
) -> None:
    private = mortal.directory / "signing-key.pem"
    files = rules(tokens, model, tmp_path, private)
    scripts = (recorder_script(tmp_path, RECORDER),)
    options = {"gate_state": str(mortal.state)}
    with Gate(tmp_path, model.url, files, scripts=scripts, options=options) as other:
        arm(mortal, "within flow")
        arm(other, "after flow")
        one = ask(mortal, tokens.mint(), body("beside-one"))
        two = ask(other, tokens.mint(), body("beside-two"))
        assert await asyncio.gather(one, two) == [(b"", False), (b"", False)]
        await asyncio.gather(death(mortal), death(other))
        await asyncio.to_thread(mortal.start)  # and the other one never again
        await recovered(mortal)
        words = by_word(mortal.state)
        for word in ("beside-one", "beside-two"):
            assert [entry["ending"] for entry, _ in words[word]] == ["interrupted"]
        report = ledger.verify(mortal.state / "recordings")
        assert report.ok, report.findings


# At any moment, under load


class Caller:
    """Asks all the time, each time something else, and keeps what it got to the very end."""

    def __init__(self, number: int, gates: list[Gate], token: str) -> None:
        self._number = number
        self._gates = gates
        self._token = token
        self._chance = random.Random(number)
        self.over = False  # the last answer is waited for
        self.whole: dict[str, bytes] = {}  # by word
        self.refused: dict[str, int] = {}  # status by exchange

    async def work(self) -> None:
        count = 0
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            while not self.over:
                count += 1
                with suppress(httpx.TransportError):
                    await self._ask(client, f"{self._number}-{count}")
                await asyncio.sleep(self._chance.uniform(0, 0.06))

    async def _ask(self, client: httpx.AsyncClient, word: str) -> None:
        url = self._gates[self._number % len(self._gates)].url
        headers = {"authorization": f"Bearer {self._token}"}
        what = self._chance.choice((*2 * ["plain", "stream"], "leave", "cut", "refused"))
        if what == "refused":
            no_token = self._chance.random() < 0.5
            answer = await client.post(
                url + (CHAT if no_token else "/no/such"),
                json=body(word),
                headers={} if no_token else headers,
            )
            assert answer.status_code == (401 if no_token else 404)
            self.refused[answer.headers["x-gate-exchange"]] = answer.status_code
            return
        knobs = {"leave": "hang=4", "cut": "cut=4"}.get(what, "delay=0.004")
        user = "u" * self._chance.choice((1, 40_000))
        asked = body(word, knobs, stream=what != "plain", user=user)
        async with client.stream("POST", url + CHAT, json=asked, headers=headers) as answer:
            got = b""
            async for piece in answer.aiter_raw():
                got += piece
                if what == "leave" and got.count(b"data:") >= 2:
                    return
            assert answer.status_code == 200, got
            self.whole[word] = got


class Killer:
    """Ends a gate again and again: at a named point, at a moment of chance, or while it starts."""

    def __init__(self, gate: Gate, points: tuple[str, ...], seed: int) -> None:
        self._gate = gate
        self._points = points
        self._chance = random.Random(seed)
        self.deaths = 0

    async def work(self, deaths: int) -> None:
        while self.deaths < deaths:
            await self._kill()
            if self._chance.random() < 0.2:
                await self._kill_while_it_starts()
            await asyncio.to_thread(self._gate.start)

    async def _kill(self) -> None:
        if self._chance.random() < 0.3:
            arm(self._gate, self._chance.choice(self._points))
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while self._gate.process.popen.poll() is None:
                        await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(self._chance.uniform(0.02, 0.6))
        self._end()

    async def _kill_while_it_starts(self) -> None:
        gate = self._gate
        gate.process = Process(gate.command, cwd=gate.directory)
        await asyncio.sleep(self._chance.uniform(0.3, STARTING))
        self._end()

    def _end(self) -> None:
        self._gate.kill9()
        disarm(self._gate)
        self.deaths += 1


@pytest.fixture
def start_gates(
    tmp_path: Path, model: StandIn, tokens: Tokens
) -> Iterator[Callable[[int, str], list[Gate]]]:
    """`start_gates(2, RECORDER)`: gates that share a directory of recordings."""
    gates: list[Gate] = []
    private, _ = signing_key(tmp_path)

    def start(count: int, addons: str) -> list[Gate]:
        for n in range(count):
            (directory := tmp_path / str(n)).mkdir()
            files = rules(tokens, model, directory, private, rotate={"size": "300k"})
            scripts = (recorder_script(directory, addons),)
            options = {"gate_state": str(tmp_path / "state")}
            gate = Gate(directory, model.url, files, scripts=scripts, options=options)
            gate.state = tmp_path / "state"
            gates.append(gate)
        return gates

    yield start
    for gate in gates:
        gate.stop()


CAMPAIGN = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("deaths", "workers", "addons"),
    [
        pytest.param(2, 1, RECORDER, id="quick"),
        pytest.param(220, 2, RECORDER, id="two recorders", marks=CAMPAIGN),
        pytest.param(60, 2, WHOLE, id="two whole gates", marks=CAMPAIGN),
    ],
)
async def test_deaths_at_any_moment(
    tmp_path: Path,
    model: StandIn,
    tokens: Tokens,
    start_gates: Callable[[int, str], list[Gate]],
    deaths: int,
    workers: int,
    addons: str,
) -> None:
    seed = time.time_ns()
    sys.stdout.write(f"seed {seed}\n")
    model.reset()
    gates = start_gates(workers, addons)
    token = tokens.mint(lifetime=3500)
    callers = [Caller(number, gates, token) for number in range(6 * workers)]
    killers = [Killer(gate, POINTS, seed + n) for n, gate in enumerate(gates)]
    asking = [asyncio.create_task(caller.work()) for caller in callers]
    killing = asyncio.gather(*(killer.work(deaths // workers) for killer in killers))
    await asyncio.wait([killing, *asking], return_when=asyncio.FIRST_COMPLETED)
    for caller in callers:
        caller.over = True
    await killing
    await asyncio.gather(*asking)
    await recovered(*gates)
    for gate in gates:
        gate.stop()
    report = verify(gates[0].state, tmp_path / "public-key.pem")

    seen = Counter(word_of(each.body) for each in model.seen())
    words = by_word(gates[0].state)
    endings: Counter[str] = Counter()
    for word, count in seen.items():
        assert count == 1
        ((entry, flow),) = words[word]
        endings[entry["ending"]] += 1
        if entry["ending"] == "interrupted":
            assert flow["response"] is None
    for caller in callers:
        for word, got in caller.whole.items():
            ((entry, flow),) = words[word]
            assert (entry["ending"], flow["response"]["content"]) == ("complete", got)
    refused = {e["exchange"]: e.fields["status"] for e, _ in recorded(gates[0].state)}
    for caller in callers:
        assert caller.refused.items() <= refused.items()
    whole = sum(len(caller.whole) for caller in callers)
    died = sum(killer.deaths for killer in killers)
    assert died >= deaths
    if deaths > 50:  # and no idle campaign
        assert whole > deaths
        assert set(endings) == {"complete", "interrupted", "client_aborted", "upstream_error"}
        assert list((gates[0].state / "recordings").glob("*.torn"))
    told = f"{died} deaths, {seen.total()} requests seen, {whole} answered to the end"
    sys.stdout.write(f"{told}, {dict(endings)}; {report}")
