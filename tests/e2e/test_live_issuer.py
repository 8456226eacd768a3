"""The identity check against a certified OpenID provider: its tokens, its keys, its death."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import UPSTREAM_KEY, Gate, StandIn, Tokens, baseline
from liveissuer import SECRET, LiveIssuer, ProofKey, claims_of, kid_of
from mitmgate.core.tokens.keys import COOL_DOWN
from processes import GATEWAY

pytestmark = pytest.mark.issuer

StartGate = Callable[..., Gate]

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
BURST = 10_000  # forged tokens, each with a key id of its own
AT_ONCE = 4
ADDRESS = "https://models.example.com"  # what callers know the gate by, for DPoP


def trusting(issuer: LiveIssuer, grant: dict[str, Any] | None = None, **extra: Any) -> Any:
    """identity.yaml for `issuer`: agents may chat, and those of a group may list the models.

    `grant` goes into the grant for agents, `extra` into the issuer.
    """
    dpop = extra.pop("dpop", None)
    return {
        "schema": 1,
        "issuers": [
            {
                "id": "live-idp",
                "issuer": issuer.issuer,
                "audience": "models",
                "keys": {"discovery": True},
                "algorithms": ["RS256", "ES256", "EdDSA"],
                "typ": "at+jwt",
                **extra,
            }
        ],
        "grants": [
            {
                "id": "agents",
                "who": {"issuer": "live-idp", "subject": "agent-*", "scopes": ["inference"]},
                "operations": ["chat"],
                "models": ["stand-in"],
                **(grant or {}),
            },
            {
                "id": "cleared-agents",
                "who": {"issuer": "live-idp", "subject": "agent-*", "groups": ["cleared"]},
                "operations": ["models"],
                "models": ["*"],
            },
        ],
        **({"dpop": dpop} if dpop else {}),
    }


@pytest.fixture(scope="module")
def steady_issuer() -> Iterator[LiveIssuer]:
    """An issuer for tests that leave it as it is."""
    with LiveIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def gate(
    tmp_path_factory: pytest.TempPathFactory,
    standin_server: StandIn,
    tokens: Tokens,
    steady_issuer: LiveIssuer,
) -> Iterator[Gate]:
    """A gate that trusts `steady_issuer`, for tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("gate")
    rules = baseline(tokens, standin_server.url, directory)
    with Gate(
        directory, standin_server.url, {**rules, "identity": trusting(steady_issuer)}
    ) as gate:
        yield gate


@pytest.fixture
def issuer() -> Iterator[LiveIssuer]:
    """An issuer of the test's own, to turn its keys and to kill."""
    with LiveIssuer() as issuer:
        yield issuer


async def ask(client: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    """A chat with `token`; `headers` are added or put in place."""
    return await client.post(
        CHAT, json=BODY, headers={"Authorization": f"Bearer {token}", **headers}
    )


async def forwarded(standin: StandIn) -> int:
    """How many requests reached the model, after seeing that none brought a caller's token."""
    seen = await asyncio.to_thread(standin.seen)
    for request in seen:
        assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert "dpop" not in request.headers
    return len(seen)


class Caller:
    """Sends one request after the other until it is stopped, and keeps what came of them."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.kids: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def run(self, gate: Gate, token: Callable[[], Any]) -> None:
        """Never ends by itself; `token` gives a coroutine of the token to send."""
        async with gate.client() as client:
            while True:
                sent = await token()
                started = time.perf_counter()
                answer = await ask(client, sent)
                self.seconds.append(time.perf_counter() - started)
                self.statuses[answer.status_code] += 1
                self.kids[kid_of(sent)] += 1

    async def more(self, answers: int) -> None:
        """Wait until `answers` more have come."""
        wanted = self.statuses.total() + answers
        async with asyncio.timeout(30):
            while self.statuses.total() < wanted:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("resource", "algorithm"),
    [
        ("urn:models:rs256", "RS256"),
        ("urn:models:es256", "ES256"),
        ("urn:models:eddsa", "EdDSA"),
    ],
)
async def test_tokens_are_accepted(
    gate: Gate, standin: StandIn, steady_issuer: LiveIssuer, resource: str, algorithm: str
) -> None:
    token = await steady_issuer.token(resource=resource)
    assert kid_of(token).startswith(algorithm)
    async with gate.client() as client:
        answer = await ask(client, token)
    assert answer.status_code == 200, answer.text
    assert await forwarded(standin) == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("elsewhere", "audience_wrong"), ("opaque", "token_malformed"), ("id", "type_refused")],
)
async def test_what_is_no_access_token_for_the_gate_is_refused(
    gate: Gate, standin: StandIn, steady_issuer: LiveIssuer, kind: str, reason: str
) -> None:
    if kind == "id":
        token = await steady_issuer.id_token()
        assert claims_of(token)["aud"] == "models"
    else:
        token = await steady_issuer.token(resource=f"urn:{kind}")
    mark = gate.process.mark()
    async with gate.client() as client:
        answer = await ask(client, token)
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert reason not in answer.text
    await gate.logged(reason, since=mark)
    assert await forwarded(standin) == 0


async def test_a_caller_without_a_grant_is_refused(
    gate: Gate, standin: StandIn, steady_issuer: LiveIssuer
) -> None:
    async with gate.client() as client:
        answer = await ask(client, await steady_issuer.token("stranger"))
    assert answer.status_code == 403, answer.text
    assert await forwarded(standin) == 0


async def test_groups_are_the_issuers_own(
    gate: Gate, standin: StandIn, steady_issuer: LiveIssuer
) -> None:
    for name, status in (("agent-7", 200), ("agent-8", 403)):
        async with gate.client(await steady_issuer.token(name)) as client:
            answer = await client.get("/v1/models")
        assert answer.status_code == status, answer.text
    assert await forwarded(standin) == 1


async def start_hurried(
    start_gate: StartGate, issuer: LiveIssuer, directory: Path, **constants: float
) -> Gate:
    """A gate with other constants in `core.tokens.keys`: its minutes are long for a test.

    They hold from the next fetch on, so a token with an unknown key asks for one.
    """
    lines = [f"keys.{name} = {value}" for name, value in constants.items()]
    script = directory / "hurry.py"
    script.write_text("\n".join(["from mitmgate.core.tokens import keys", *lines]), "utf-8")
    gate = start_gate(rules={"identity": trusting(issuer)}, scripts=(GATEWAY, script))
    async with gate.client() as client:
        assert (await ask(client, issuer.forge("unknown"))).status_code == 401
    return gate


async def renewed(issuer: LiveIssuer) -> None:
    """Wait until the gate has the keys of now: when it asks again, it has read the last answer."""
    wanted = issuer.asked("/jwks") + 2
    async with asyncio.timeout(20):
        while issuer.asked("/jwks") < wanted:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "at-once"])
async def test_keys_turn_under_load(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer, tmp_path: Path, announced: bool
) -> None:
    """Twice: a new key signs and the old one goes.

    If it was announced, the gate has it from a renewal: the one fetch for an unknown key that a
    cool-down allows was for another. Otherwise the first token of a new key causes a fetch.
    """
    constants = {"RENEWAL": 0.1, "TICK": 0.05} if announced else {"COOL_DOWN": 0}
    gate = await start_hurried(start_gate, issuer, tmp_path, **constants)
    caller = Caller()
    fetched = issuer.asked("/jwks")
    async with issuer.client() as http, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(caller.run(gate, lambda: issuer.token(http=http))) for _ in range(3)
        ]
        for _ in range(2):
            await caller.more(20)
            if announced:
                issuer.publish_key()
                await renewed(issuer)
            issuer.sign_with_new_key()
            await caller.more(20)
            issuer.withdraw_old_keys()
            if announced:
                await renewed(issuer)
        await caller.more(20)
        for task in tasks:
            task.cancel()
    assert set(caller.statuses) == {200}, caller.statuses
    assert len(caller.kids) == 3
    assert 0 <= await forwarded(standin) - caller.statuses.total() <= 3  # those cut short
    if not announced:
        assert issuer.asked("/jwks") - fetched == 2


async def test_a_withdrawn_key_counts_no_more_once_the_set_is_new(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer, tmp_path: Path
) -> None:
    gate = await start_hurried(start_gate, issuer, tmp_path, RENEWAL=0.1, TICK=0.05)
    old, other = await issuer.token(), await issuer.token("agent-8")
    async with gate.client() as client:
        assert (await ask(client, old)).status_code == 200
        issuer.sign_with_new_key()
        await renewed(issuer)
        assert (await ask(client, await issuer.token())).status_code == 200
        assert (await ask(client, old)).status_code == 200
        assert await forwarded(standin) == 3
        issuer.withdraw_old_keys()
        await renewed(issuer)
        for token in (old, other):
            assert (await ask(client, token)).status_code == 401
        assert (await ask(client, await issuer.token())).status_code == 200
    assert await forwarded(standin) == 4


async def test_the_issuer_dies(start_gate: StartGate, standin: StandIn, issuer: LiveIssuer) -> None:
    gate = start_gate(rules={"identity": trusting(issuer)})
    known, new = await issuer.token(), await issuer.token("agent-8")
    issuer.sign_with_new_key()
    unknown = await issuer.token()
    async with gate.client() as client:
        assert (await ask(client, known)).status_code == 200
        issuer.kill9()
        assert (await ask(client, known)).status_code == 200
        assert (await ask(client, new)).status_code == 200
        # Nobody can tell it from a forged one now.
        answer = await ask(client, unknown)
        assert answer.status_code in (401, 503), answer.text
        assert (await ask(client, known)).status_code == 200
    assert await forwarded(standin) == 4


async def test_a_gate_starts_without_its_issuer(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer
) -> None:
    before = await issuer.token()
    issuer.kill9()
    gate = start_gate(rules={"identity": trusting(issuer)})
    gate.wait_log("live-idp.*its tokens get 503 until its keys come")
    async with gate.client() as client:
        answer = await ask(client, before)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
        assert await forwarded(standin) == 0
        issuer.start()
        token = await issuer.token()
        # Unasked: this token's own fetch for an unknown key is not due again so soon.
        async with asyncio.timeout(15):
            while (answer := await ask(client, token)).status_code == 503:
                await asyncio.sleep(0.1)
        assert answer.status_code == 200, answer.text
        assert (await ask(client, before)).status_code == 401  # the issuer's keys are others now
    assert await forwarded(standin) == 1


async def test_a_hanging_issuer_keeps_nobody_waiting_whose_key_is_known(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer
) -> None:
    gate = start_gate(rules={"identity": trusting(issuer)})
    known, new = await issuer.token(), await issuer.token("agent-8")
    issuer.sign_with_new_key()
    unknown = await issuer.token()
    async with gate.client() as client:
        assert (await ask(client, known)).status_code == 200
        issuer.process.popen.send_signal(signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(ask(client, unknown))
            for token in [known, new] * 10:
                assert (await ask(client, token)).status_code == 200
            assert not waiting.done()
        finally:
            issuer.process.popen.send_signal(signal.SIGCONT)
        assert (await waiting).status_code == 200
    assert await forwarded(standin) == 22


async def test_a_burst_of_unknown_keys(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer
) -> None:
    gate = start_gate(rules={"identity": trusting(issuer)})
    known = await issuer.token()

    async def same() -> str:
        return known

    forged = [issuer.forge(uuid.uuid4().hex) for _ in range(BURST)]
    refused: Counter[int] = Counter()
    begun = time.monotonic()

    async def attack() -> None:
        async with gate.client() as client:
            while forged:
                refused[(await ask(client, forged.pop())).status_code] += 1

    fetched = issuer.asked("/jwks")
    caller = Caller()
    calling = asyncio.create_task(caller.run(gate, same))
    await caller.more(30)
    alone = statistics.median(caller.seconds)
    caller.seconds.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(attack())
    beset = statistics.median(caller.seconds)
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling

    assert refused == {401: BURST}
    assert set(caller.statuses) == {200}
    assert len(caller.seconds) > 20
    assert 0 <= await forwarded(standin) - caller.statuses.total() <= 1  # the one cut short
    # One a cool-down, and one more where a renewal falls in between.
    assert issuer.asked("/jwks") - fetched <= 2 + (time.monotonic() - begun) / COOL_DOWN
    # It takes turns with the attackers; it waits for no fetch.
    assert beset < alone * (1 + AT_ONCE) * 5, f"{alone=:.4f} {beset=:.4f}"


async def test_revocation_is_seen_by_introspection(
    start_gate: StartGate, standin: StandIn, issuer: LiveIssuer
) -> None:
    introspection = {
        "url": f"{issuer.issuer}/token/introspection",
        "client_id": "gate",
        "client_secret": "${env:LIVE_IDP_SECRET}",
        "cache": "1s",
    }
    gate = start_gate(
        rules={"identity": trusting(issuer, introspection=introspection)},
        env={"LIVE_IDP_SECRET": SECRET},
    )
    token, other = await issuer.token(), await issuer.token("agent-8")
    async with gate.client() as client:
        assert (await ask(client, token)).status_code == 200
        assert (await ask(client, other)).status_code == 200
        await issuer.revoke(token)
        mark = gate.process.mark()
        served = await forwarded(standin)
        async with asyncio.timeout(10):
            while (answer := await ask(client, token)).status_code == 200:
                served += 1
                await asyncio.sleep(0.1)
        assert answer.status_code == 401, answer.text
        await gate.logged("token_revoked", since=mark)
        assert (await ask(client, other)).status_code == 200
        assert await forwarded(standin) == served + 1
        assert issuer.asked("/token/introspection") < served + 2  # answers were believed for 1 s

        late = await issuer.token()
        issuer.kill9()
        answer = await ask(client, late)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
    assert await forwarded(standin) == served + 1


async def test_a_bound_token_needs_its_key(
    start_gate: StartGate, standin: StandIn, steady_issuer: LiveIssuer
) -> None:
    gate = start_gate(
        rules={"identity": trusting(steady_issuer, {"bound": "dpop"}, dpop={"url": [ADDRESS]})}
    )
    key, other = ProofKey(), ProofKey()
    token = await steady_issuer.token(proof=key.prove("POST", f"{steady_issuer.issuer}/token"))
    assert claims_of(token)["cnf"]["jkt"]
    here = ("POST", ADDRESS + CHAT, token)
    used = key.prove(*here)
    async with gate.client() as client:

        async def present(proof: str) -> httpx.Response:
            return await ask(client, token, Authorization=f"DPoP {token}", DPoP=proof)

        assert (await present(used)).status_code == 200
        assert (await present(key.prove(*here))).status_code == 200
        assert await forwarded(standin) == 2

        for reason, answer in {
            "proof_replayed": await present(used),
            "the proof is of the key": await present(other.prove(*here)),
            "htu is": await present(key.prove("POST", ADDRESS + "/v1/models", token)),
            "ath is": await present(key.prove("POST", ADDRESS + CHAT, "another")),
            "there is no DPoP header": await ask(client, token, Authorization=f"DPoP {token}"),
            "the scheme is Bearer": await ask(client, token, DPoP=key.prove(*here)),
            "binding_missing": await ask(client, await steady_issuer.token()),
        }.items():
            assert answer.status_code == 401, f"{reason}: {answer.text}"
            assert "DPoP algs=" in answer.headers["www-authenticate"], reason
            await gate.logged(reason)
    assert await forwarded(standin) == 2
