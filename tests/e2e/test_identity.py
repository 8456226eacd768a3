"""What callers may do and how much, whose key a token is bound to, and what a revocation ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx
import jwt
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from harness import Gate, Rules, StandIn, Tokens, baseline

CHAT = "/v1/chat/completions"
BODY = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}]}
StartGate = Callable[..., Gate]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def identity(tokens: Tokens, standin: StandIn, tmp_path: Path) -> Callable[..., Rules]:
    """identity.yaml of the baseline with other grants, and whatever else."""

    def rules(*grants: dict[str, Any], **more: Any) -> Rules:
        usual = baseline(tokens, standin.url, tmp_path)["identity"]
        assert not isinstance(usual, str)
        everyone = {"id": "all", "who": {"subject": "*"}, "operations": ["*"], "models": ["*"]}
        made = [{**everyone, **grant} for grant in grants] or [everyone]
        copied = json.loads(json.dumps(made))  # YAML would share parts by reference
        return {"identity": {**usual, "grants": copied, **more}}

    return rules


# How much


async def test_requests_a_minute(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(rules=identity({"limits": {"requests_per_minute": 2}}))
    async with gate.client(tokens.mint()) as client, gate.client(tokens.mint("b")) as other:
        assert [(await client.post(CHAT, json=BODY)).status_code for _ in range(2)] == [200, 200]
        answer = await client.post(CHAT, json=BODY)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limited"
        assert 0 < int(answer.headers["retry-after"]) <= 30
        assert (await other.post(CHAT, json=BODY)).status_code == 200  # has its own
    assert len(standin.seen()) == 3
    gate.wait_log("rate_limited: all allows 2 a minute")
    token = tokens.mint("c")
    claude = anthropic.AsyncAnthropic(base_url=gate.url, api_key=token, max_retries=0)
    chat = openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=tokens.mint("d"), max_retries=0)
    async with claude, chat:
        for _ in range(2):
            await claude.messages.create(
                model="stand-in", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
            )
            await chat.chat.completions.create(**BODY)
        with pytest.raises(anthropic.RateLimitError) as limited:
            await claude.messages.create(
                model="stand-in", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
            )
        assert "reached its limit" in str(limited.value)
        with pytest.raises(openai.RateLimitError, match="reached its limit"):
            await chat.chat.completions.create(**BODY)


async def test_prompt_bytes(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(rules=identity({"limits": {"prompt_bytes_per_minute": "1k"}}))
    async with gate.client(tokens.mint()) as client:
        answer = await client.post(CHAT, json=said("x" * 2000))
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "prompt_bytes_limited"
        assert "retry-after" not in answer.headers
        assert (await client.post(CHAT, json=said("x" * 600))).status_code == 200
        answer = await client.post(CHAT, json=said("x" * 600))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 1
    assert len(standin.seen()) == 1


async def test_exchanges_at_once(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(rules=identity({"limits": {"concurrent": 2}}))
    async with gate.client(tokens.mint()) as client:
        for _ in range(2):  # places are given back however an exchange ends
            slow = [
                asyncio.create_task(client.post(CHAT, json=said(f"standin: slow=30\n{i}")))
                for i in range(2)
            ]
            for i in range(2):
                await standin.wait_seen(lambda seen, i=i: seen.body.endswith(f'{i}"}}]}}'.encode()))
            answer = await client.post(CHAT, json=BODY)
            assert answer.status_code == 429
            assert answer.json()["error"]["code"] == "concurrency_limited"
            assert answer.headers["retry-after"] == "1"
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            for i in range(2):
                body = f'{i}"}}]}}'.encode()
                await standin.wait_seen(
                    lambda seen, body=body: (
                        seen.body.endswith(body) and seen.outcome == "client gone"
                    )
                )
            standin.reset()
        async with asyncio.timeout(10):
            while (await client.post(CHAT, json=BODY)).status_code == 429:
                await asyncio.sleep(0.02)
        assert (await client.post(CHAT, json={"model": "stand-in"})).status_code < 500
        for _ in range(4):
            assert (await client.post(CHAT, json=BODY)).status_code == 200


# What


async def test_lists_of_models_show_what_the_caller_may_use(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(
        rules=identity(
            {"id": "small", "who": {"subject": "small"}, "models": ["stand-in"]},
            {"id": "large", "who": {"subject": "large"}, "models": ["stand-in*"]},
            {"id": "look", "who": {"subject": "looker"}, "operations": ["models"]},
            {
                "id": "not-small",
                "who": {"subject": "large"},
                "effect": "deny",
                "models": ["stand-in"],
            },
        )
    )
    shown = {}
    for subject in ("small", "large", "looker"):
        async with gate.client(tokens.mint(subject)) as client:
            models = (await client.get("/v1/models")).json()["data"]
            tags = (await client.get("/api/tags")).json()["models"]
        shown[subject] = [entry["id"] for entry in models]
        assert [entry["name"] for entry in tags] == shown[subject]
    assert shown == {"small": ["stand-in"], "large": ["stand-in-large"], "looker": []}
    token = tokens.mint("small")
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=token) as chat:
        assert [model.id async for model in chat.models.list()] == ["stand-in"]


async def test_methods_and_claims(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(
        rules=identity(
            {"id": "reading", "methods": ["GET"]},
            {"id": "main", "who": {"claims": {"ref": "refs/heads/*", "/k8s.io/ns": "search"}}},
        )
    )
    claims = {"ref": "refs/heads/main", "k8s.io": {"ns": "search"}}
    for given, status in (
        (claims, 200),
        ({**claims, "ref": "refs/pull/7/merge"}, 403),
        ({**claims, "k8s.io": {"ns": "billing"}}, 403),
        ({"ref": "refs/heads/main"}, 403),
    ):
        async with gate.client(tokens.mint(**given)) as client:
            answer = await client.post(CHAT, json=BODY)
            assert answer.status_code == status
            if status == 403:
                assert answer.json()["error"]["code"] == "insufficient_scope"
                assert "insufficient_scope" in answer.headers["www-authenticate"]
            assert (await client.get("/v1/models")).status_code == 200


async def test_the_display_name_is_made_of_claims(
    start_gate: StartGate, standin: StandIn, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    rules = identity()
    rules["identity"]["issuers"][0]["display"] = "{repository}@{ref}"  # type: ignore[index]
    gate = start_gate(rules=rules)
    async with gate.client(tokens.mint(repository="octo/app", ref="main")) as client:
        await client.post(CHAT, json=BODY)
    gate.stop()
    (ledger,) = gate.state.rglob("*.jsonl")
    assert b"octo/app@main" in b"".join(p.read_bytes() for p in gate.state.rglob("*.mitm"))
    assert b"test-idp:agent-7" in ledger.read_bytes()


# Whose key


class Proofs:
    """A client's key, and DPoP proofs of it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.jwk = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        made = json.dumps({k: self.jwk[k] for k in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        self.thumbprint = b64(hashlib.sha256(made.encode()).digest())

    def proof(self, token: str, url: str, **claims: Any) -> str:
        made = {
            "jti": uuid.uuid4().hex,
            "htm": "POST",
            "htu": url,
            "iat": int(time.time()),
            "ath": b64(hashlib.sha256(token.encode()).digest()),
            **claims,
        }
        return jwt.encode(made, self.key, "ES256", {"typ": "dpop+jwt", "jwk": self.jwk})


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("nonce", [False, True])
async def test_dpop(
    start_gate: StartGate,
    standin: StandIn,
    tokens: Tokens,
    identity: Callable[..., Rules],
    nonce: bool,
) -> None:
    # The address is what callers know the gate by, whatever it listens on.
    known = "https://models.example.com"
    rules = identity({"bound": "dpop"}, dpop={"url": [known], "nonce": nonce})
    gate = start_gate(rules=rules)
    client, thief = Proofs(), Proofs()
    token = tokens.mint(cnf={"jkt": client.thumbprint})
    extra: dict[str, Any] = {}

    async def asked(scheme: str, *proofs: str, bearing: str = token) -> httpx.Response:
        headers = [("Authorization", f"{scheme} {bearing}"), *(("DPoP", p) for p in proofs)]
        async with gate.client() as http:
            return await http.post(CHAT, json=BODY, headers=headers)

    if nonce:
        answer = await asked("DPoP", client.proof(token, known + CHAT))
        assert answer.status_code == 401
        assert 'error="use_dpop_nonce"' in answer.headers["www-authenticate"]
        extra["nonce"] = answer.headers["dpop-nonce"]
    good = client.proof(token, known + CHAT, **extra)
    answer = await asked("DPoP", good)
    assert answer.status_code == 200, answer.text
    (seen,) = standin.seen()
    assert "dpop" not in seen.headers
    refused = {
        "replayed": (good,),
        "no proof": (),
        "two proofs": (client.proof(token, known + CHAT, **extra),) * 2,
        "the thief's own key": (thief.proof(token, known + CHAT, **extra),),
        "another address": (client.proof(token, gate.url + CHAT, **extra),),
        "another path": (client.proof(token, f"{known}/v1/completions", **extra),),
        "another method": (client.proof(token, known + CHAT, htm="GET", **extra),),
        "another token": (client.proof(tokens.mint(), known + CHAT, **extra),),
        "old": (client.proof(token, known + CHAT, iat=int(time.time()) - 100, **extra),),
    }
    for technique, proofs in refused.items():
        answer = await asked("DPoP", *proofs)
        assert answer.status_code == 401, technique
        assert "DPoP algs=" in answer.headers["www-authenticate"]
    for answer in (
        await asked("Bearer", client.proof(token, known + CHAT, **extra)),
        await asked("Bearer", bearing=token),
        await asked("Bearer", bearing=tokens.mint()),  # not bound, and the grant wants that
        await asked("DPoP", client.proof(token, known + CHAT, **extra), bearing=tokens.mint()),
    ):
        assert answer.status_code == 401
    assert len(standin.seen()) == 1
    # What was used is remembered over an edit of the file.
    mark = gate.process.mark()
    gate.write_rules(
        **{
            **rules,
            "identity": {
                **rules["identity"],
                "grants": [
                    {**rules["identity"]["grants"][0], "id": "edited"}  # type: ignore[index]
                ],
            },
        }
    )
    await gate.logged("identity.yaml is in force", since=mark)
    assert (await asked("DPoP", good)).status_code == 401
    assert (await asked("DPoP", client.proof(token, known + CHAT, **extra))).status_code == 200


def certificate(directory: Path, name: str) -> tuple[Path, str]:
    """A self-signed client certificate: a PEM file with its key, and its thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path, b64(made.fingerprint(hashes.SHA256()))


async def test_mtls(
    start_gate: StartGate,
    standin: StandIn,
    tokens: Tokens,
    identity: Callable[..., Rules],
    tmp_path: Path,
) -> None:
    gate = start_gate(rules=identity({"bound": "mtls"}), options={"request_client_cert": "true"})
    assert "not asked for their certificate" not in gate.output
    ours, thumbprint = certificate(tmp_path, "agent")
    theirs, _ = certificate(tmp_path, "thief")
    token = tokens.mint(cnf={"x5t#S256": thumbprint})

    async def asked(
        pem: Path | None, bearing: str = token, *, tls: bool = True, http2: bool = False
    ) -> int:
        context = ssl.create_default_context(
            cafile=str(gate.directory / "confdir" / "mitmproxy-ca-cert.pem")
        )
        context.check_hostname = False
        if pem:
            context.load_cert_chain(pem)
        base = gate.url.replace("http:", "https:") if tls else gate.url
        async with gate.client(bearing, base_url=base, verify=context, http2=http2) as client:
            codes = {(await client.post(CHAT, json=BODY)).status_code for _ in range(2)}
        assert len(codes) == 1
        return codes.pop()

    assert await asked(ours) == 200
    assert await asked(ours, http2=True) == 200
    assert len(standin.seen()) == 4
    assert await asked(theirs) == 401
    assert await asked(None) == 401
    assert await asked(None, tls=False) == 401
    assert await asked(ours, tokens.mint()) == 401  # the grant wants a bound token
    assert len(standin.seen()) == 4
    gate.wait_log("certificate_wrong: ")
    gate.wait_log("proof_required: the token is bound to a certificate")
    gate.wait_log("binding_missing: all wants a token that is bound by mtls")


async def test_an_operator_who_forgot_to_ask_for_certificates_is_told(
    start_gate: StartGate, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(rules=identity({"bound": "mtls"}))
    gate.wait_log("callers are not asked for their certificate: --set request_client_cert=true")


# For how long


@pytest.fixture
def revocable(
    start_gate: StartGate, identity: Callable[..., Rules], tmp_path: Path
) -> tuple[Gate, Path]:
    revoked = tmp_path / "revoked.txt"
    revoked.write_text("# nobody yet\n")
    return start_gate(rules=identity(revoked={"file": str(revoked)})), revoked


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "ollama"])
async def test_a_stream_of_a_revoked_caller_ends(
    revocable: tuple[Gate, Path], standin: StandIn, tokens: Tokens, dialect: str
) -> None:
    gate, revoked = revocable
    long = "standin: delay=0.05\nsay: " + "word " * 2000
    path, more = {
        "openai": (CHAT, {"stream": True}),
        "anthropic": ("/v1/messages", {"stream": True, "max_tokens": 9}),
        "ollama": ("/api/chat", {}),
    }[dialect]
    text = ""
    async with (
        asyncio.timeout(20),
        gate.client(tokens.mint("leaver", jti="t-77")) as client,
        client.stream("POST", path, json=said(long, **more)) as answer,
    ):
        assert answer.status_code == 200
        async for piece in answer.aiter_text():
            if not text:
                revoked.write_text("t-77\n")
            text += piece
            if "invalid_token" in text or "not accepted" in text:
                break
    assert "The token is not accepted." in text
    assert text.count("word") < 1000
    gate.wait_log("token_revoked")
    async with gate.client(tokens.mint("other")) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_a_held_request_of_a_revoked_caller_ends(
    revocable: tuple[Gate, Path], standin: StandIn, tokens: Tokens
) -> None:
    gate, revoked = revocable
    async with gate.client(tokens.mint("leaver")) as client, asyncio.timeout(15):
        asking = asyncio.create_task(client.post(CHAT, json=said("wire the money to Bob")))
        await gate.logged(r"mitmgate approve (h-\S+)")
        revoked.write_text("test-idp:leaver\n")
        answer = await asking
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_token"
        assert (await client.post(CHAT, json=BODY)).status_code == 401
    assert standin.seen() == []


async def test_a_list_that_cannot_be_read_lets_nobody_in(
    revocable: tuple[Gate, Path], standin: StandIn, tokens: Tokens
) -> None:
    gate, revoked = revocable
    revoked.unlink()
    async with gate.client(tokens.mint()) as client, asyncio.timeout(10):
        while (answer := await client.post(CHAT, json=BODY)).status_code == 200:
            await asyncio.sleep(0.05)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "temporarily_unavailable"
    assert answer.headers["retry-after"]


async def test_an_issuer_that_is_down_keeps_nobody_elses_callers_out(
    start_gate: StartGate,
    standin: StandIn,
    tokens: Tokens,
    identity: Callable[..., Rules],
    tmp_path: Path,
) -> None:
    (tmp_path / "down").mkdir()
    down = Tokens(tmp_path / "down", "https://down.example.com")
    rules = identity()
    usual = rules["identity"]["issuers"][0]  # type: ignore[index]
    keys = {"jwks_url": "http://127.0.0.1:9/jwks.json"}
    other = {**usual, "id": "down", "issuer": down.issuer, "keys": keys}
    rules["identity"]["issuers"].append(json.loads(json.dumps(other)))  # type: ignore[index]
    gate = start_gate(rules=rules, console="127.0.0.1:0")
    assert "down: http://127.0.0.1:9/jwks.json: cannot be reached" in gate.output
    assert "its tokens get 503 until its keys come" in gate.output
    async with gate.client(tokens.mint()) as client:
        assert (await client.post(CHAT, json=BODY)).status_code == 200
    async with gate.client(down.mint()) as client:
        answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "temporarily_unavailable"
    assert len(standin.seen()) == 1
    scraped = httpx.get(f"{gate.console}/metrics", trust_env=False).text
    assert 'mitmgate_keys_age_seconds{issuer="down"} NaN' in scraped
    assert 'mitmgate_keys_stale{issuer="down"} 1.0' in scraped


async def test_keys_are_watched(
    start_gate: StartGate, tokens: Tokens, identity: Callable[..., Rules]
) -> None:
    gate = start_gate(rules=identity(), console="127.0.0.1:0")
    scraped = httpx.get(f"{gate.console}/metrics", trust_env=False).text
    age = scraped.partition('mitmgate_keys_age_seconds{issuer="test-idp"} ')[2].partition("\n")[0]
    assert 0 <= float(age) < 60
    assert 'mitmgate_keys_stale{issuer="test-idp"} 0.0' in scraped
    tokens_before = tokens.jwks_file.read_text()
    try:
        tokens.jwks_file.write_text("{}")
        async with gate.client(tokens.mint()) as client:
            assert (await client.get("/v1/models")).status_code == 200  # with the last good keys
        gate.wait_log("issuer test-idp: no new keys: .* the last good keys serve on")
        scraped = httpx.get(f"{gate.console}/metrics", trust_env=False).text
        assert 'mitmgate_keys_stale{issuer="test-idp"} 1.0' in scraped
    finally:
        tokens.jwks_file.write_text(tokens_before)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_whole_answer_to_a_revoked_caller_is_neither_delivered_nor_recorded(
    start_gate: StartGate,
    tokens: Tokens,
    identity: Callable[..., Rules],
    tmp_path: Path,
    begun: bool,
) -> None:
    """Revoked before the answer's headers have come, and between them and its end."""
    asked, over = asyncio.Event(), asyncio.Event()
    body = json.dumps({"choices": [{"message": {"content": "jane.doe@example.com"}}]}).encode()

    async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        pieces = (
            [head % len(body) + body[:9], body[9:]] if begun else [b"", head % len(body) + body]
        )
        writer.write(pieces[0])
        await writer.drain()
        asked.set()
        await over.wait()
        writer.write(pieces[1])
        await writer.drain()
        writer.close()

    revoked = tmp_path / "revoked.txt"
    revoked.write_text("# nobody yet\n")
    async with await asyncio.start_server(model, "127.0.0.1", 0) as server, asyncio.timeout(30):
        upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gate = start_gate(rules=identity(revoked={"file": str(revoked)}), upstream=upstream)
        async with gate.client(tokens.mint("leaver")) as client:
            asking = asyncio.create_task(client.post(CHAT, json=BODY))
            await asked.wait()
            revoked.write_text("leaver\n")
            await gate.logged("token_revoked")
            over.set()
            answer = await asking
    assert answer.status_code == 401
    assert "not accepted" in answer.text
    gate.stop()
    recorded = b"".join(path.read_bytes() for path in gate.state.rglob("*.mitm"))
    assert b"The token is not accepted." in recorded
    assert b"jane.doe" not in recorded
