"""Faults and tricks around tokens, each of which got through once."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mitmgate.core.principal import Principal, Who
from mitmgate.core.rules import RuleError, load
from mitmgate.core.tokens import Authorizer, Grant, TokenError, presented
from mitmgate.core.tokens.errors import (
    IntrospectionUnavailable,
    KeySetError,
    RevocationsUnavailable,
    TokenRevoked,
)
from mitmgate.core.tokens.fetch import fetch
from mitmgate.core.tokens.file import IdentityFile
from mitmgate.core.tokens.identity import compile
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier
from mitmgate.core.tokens.watched import WatchedFile

AGENT = Principal("idp", "agent-7", token_id="t-1")


# Revocation


class TestOfAnExchangeThatOutlivesItsToken:
    async def test_a_revoked_caller_is_still_found(
        self, es256, issuer_of, keys_with, wall, written
    ):
        path = written("revoked.txt", "")
        revocations = Revocations(path, clock=wall)
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()))
        verifier = Verifier([trusted], revocations=revocations, clock=wall)
        principal = await verifier.verify(Presented(es256.token()))
        path.write_text("agent-7")
        wall.now = principal.expires + 3600
        revoked = verifier.listed(principal)
        assert revoked
        assert revoked.code == "token_revoked"


@pytest.mark.parametrize(
    "line",
    [
        "agent-7 # left in May",
        "agent-7\t# left in May",
        "agent-7  #",
        "idp:agent-7 # x # y",
        "t-1 # its token",
    ],
)
def test_a_note_behind_a_name_does_not_save_it(written, line):
    with pytest.raises(TokenRevoked):
        Revocations(written("revoked.txt", line)).check(AGENT)


def test_a_name_with_a_number_sign_in_it_is_one_name(written):
    revocations = Revocations(written("revoked.txt", "agent-7#b\nagent #8"))
    revocations.check(AGENT)
    for subject in ("agent-7#b", "agent #8"):
        with pytest.raises(TokenRevoked):
            revocations.check(Principal("idp", subject))


# Files that are none


def within[T](work: Callable[[], T], seconds: float = 2.0) -> T:
    """What `work` returns or raises; it must not take longer."""
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits"
    if errors:
        raise errors[0]
    return results[0]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_nobody_waits_for_a_pipe(pipe):
    file = WatchedFile(pipe, max_bytes=99)
    with pytest.raises(ValueError, match="is no ordinary file"):
        within(file.changed)
    with pytest.raises(RevocationsUnavailable, match="is no ordinary file"):
        within(Revocations(pipe).look)


def test_nor_for_a_device():
    with pytest.raises(ValueError, match="is no ordinary file"):
        within(WatchedFile(Path("/dev/zero"), max_bytes=99).changed)


@pytest.mark.parametrize("role", ["bearer_file", "authorities"])
async def test_nor_where_keys_are_fetched(pipe, role):
    url = "http://127.0.0.1:9/" if role == "bearer_file" else "https://127.0.0.1:9/"
    writer = threading.Timer(2, lambda: os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)))
    writer.daemon = True
    writer.start()  # or a failing test would hang
    begun = time.monotonic()
    with pytest.raises(KeySetError, match="is no ordinary file"):
        await fetch(url, **{role: pipe})
    writer.cancel()
    assert time.monotonic() - begun < 1.5


# What the log says


@pytest.mark.parametrize(
    "value",
    ["sk-live-0123456789 x", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln,Bearer eyJ", "hunter2  ", "hunter2\tx"],
)
def test_what_stands_in_the_place_of_a_scheme_is_not_repeated(value):
    with pytest.raises(TokenError) as refused:
        presented([("Authorization", value)])
    assert refused.value.code == "token_missing"
    for secret in ("sk-live", "eyJ", "hunter2"):
        assert secret not in refused.value.diagnostics()


def test_a_known_scheme_is_named():
    with pytest.raises(TokenError) as refused:
        presented([("Authorization", "Basic YTpi")])
    assert "'Basic'" in refused.value.diagnostics()


# Lists of models


def test_a_list_of_models_is_cut_down_in_one_pass_over_the_grants(monkeypatch):
    asked = []
    matches = Who.matches
    monkeypatch.setattr(Who, "matches", lambda *of: asked.append(1) or matches(*of))
    grants = [
        Grant.model_validate(
            {"id": f"g{i}", "who": {"subject": f"team-{i}-*"}, "operations": "*", "models": "a*"}
        )
        for i in range(50)
    ]
    usable = Authorizer(grants).usable(Principal("idp", "team-49-x"), ("chat", "embeddings"))
    assert [usable(f"{'a' if i % 2 else 'b'}{i}") for i in range(300)] == [False, True] * 150
    assert len(asked) <= 2 * len(grants)


# What the file says

FILE = """schema: 1
issuers:
  - id: idp
    issuer: https://idp.example.com
    audience: models
    keys: {jwks_url: https://idp.example.com/jwks}
    algorithms: [ES256]
dpop: {url: [https://models.example.com]}
grants:
  - {id: all, who: {issuer: idp, subject: 'a*'}, operations: [chat], models: ['*']}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("com/jwks", "com:99999/jwks", "6: issuers[0].keys.jwks_url: Port out of range"),
        ("com/jwks", "com:abc/jwks", "6: issuers[0].keys.jwks_url: Port could not be cast"),
        ("/jwks}", "/jwks, max_stale: 99999999999d}", "keys.max_stale: should be 365d at most"),
        ("//models.example.com", "//models.example.com:99999", "8: dpop.url: Port out of range"),
        ("[https://models.example.com]", "['https://x?']", "8: dpop.url: https://x? should be"),
        ("[https://models.example.com]", "['https://x#']", "8: dpop.url: https://x# should be"),
        ("[https://models.example.com]", "['https://x y']", "8: dpop.url: https://x y should be"),
        ("com]}", "com], window: 10m}", "8: dpop.window: should be 5m at most: a proof is made"),
        ("'a*'", "''", "10: grants[0].who.subject: String should have at least 1 character"),
        ("'a*'", "'a*', groups: ['']", "10: grants[0].who.groups[0]: String should have at least"),
        ("audience: models", "audience: 7", "5: issuers[0].audience: should be a list"),
        ("[ES256]", "ES256", "7: issuers[0].algorithms: should be a list"),
        ("[chat]", "[]", "10: grants[0].operations: should have one entry at least"),
        ("['*']", "[7]", "10: grants[0].models[0]: should be text; numbers and dates need quotes"),
    ],
)
def test_what_is_wrong_is_found_when_it_loads(written, old, new, message):
    assert old in FILE
    path = written("identity.yaml", FILE.replace(old, new))
    with pytest.raises(RuleError) as error:
        compile(load(path, IdentityFile))
    assert message in str(error.value)


def test_the_file_without_any_of_it_loads(written):
    compile(load(written("identity.yaml", FILE), IdentityFile))


class TestAskingAgain:
    @pytest.fixture
    def asked(self, es256, issuer_of, keys_with, wall):
        """A verifier whose issuer answers what `answers` has next, and how many it was asked."""
        answers: list[Exception | None] = []

        class Answers:
            now = most = 0

            async def check(self, token: str, principal: Principal) -> None:
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(0)
                self.now -= 1
                if answers and (error := answers.pop(0)):
                    raise error

        introspector = Answers()
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()), introspector)
        return Verifier([trusted], clock=wall), introspector, answers

    async def test_about_a_token(self, asked, es256, wall):
        verifier, _, answers = asked
        token = es256.token()
        principal = await verifier.verify(Presented(token))
        assert verifier.asks_about(principal)
        assert not verifier.asks_about(replace(principal, issuer="another"))
        assert not verifier.asks_about(None)
        assert await verifier.inactive(token, principal) is None
        answers += [IntrospectionUnavailable("down"), TokenRevoked("gone")]
        assert await verifier.inactive(token, principal) is None
        revoked = await verifier.inactive(token, principal)
        assert revoked
        assert revoked.code == "token_revoked"
        answers += [TokenRevoked("expired, its issuer says")]
        wall.now = principal.expires
        assert await verifier.inactive(token, principal) is None

    async def test_leaves_turns_to_who_comes_in(self, asked, es256):
        verifier, introspector, _ = asked
        token = es256.token()
        principal = await verifier.verify(Presented(token))
        await asyncio.gather(*(verifier.inactive(token, principal) for _ in range(50)))
        assert 1 < introspector.most <= 4
