from __future__ import annotations

import asyncio
import base64
import json
import logging

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from mitmgate.core.principal import Principal
from mitmgate.core.rules.model import relative_to
from mitmgate.core.tokens.errors import IntrospectionUnavailable, KeySetError, TokenRevoked
from mitmgate.core.tokens.file import Introspection
from mitmgate.core.tokens.introspection import AT_ONCE, COOL_DOWN, REMEMBERED, Introspector

NOW = 1_800_000_000
URL = "https://idp.example.com/introspect"
CALLER = Principal(
    issuer="idp",
    subject="agent-7",
    expires=NOW + 600,
    claims={"iss": "https://idp.example.com", "sub": "agent-7"},
)


class Issuer:
    """Stands in for `fetch`: answers, fails, hangs and counts."""

    def __init__(self):
        self.asked = []
        self.answer: object = {"active": True}
        self.error: Exception | None = None
        self.errors: dict[str, Exception] = {}  # of single tokens
        self.held = False
        self.released = asyncio.Event()
        self.under_way = self.most = 0

    async def __call__(self, url, *, authorities, headers, form, timeout):
        self.asked.append((url, headers, form, authorities))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.held:
                await self.released.wait()
        finally:
            self.under_way -= 1
        if error := self.errors.get(form["token"], self.error):
            raise error
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()

    def release(self):
        self.held = False
        self.released.set()


@pytest.fixture
def issuer(monkeypatch):
    issuer = Issuer()
    monkeypatch.setattr("mitmgate.core.tokens.introspection.fetch", issuer)
    return issuer


@pytest.fixture
def secret(written):
    return written("secret", "hush\n")


@pytest.fixture
def rules(tmp_path, secret):
    def make(**changes):
        with relative_to(tmp_path):
            return Introspection.model_validate(
                {"url": URL, "client_id": "gate", "client_secret": "${file:secret}", **changes}
            )

    return make


@pytest.fixture
def introspector(rules, clock, wall):
    def make(**changes):
        return Introspector(rules(**changes), issuer="idp", clock=clock, wall=wall)

    return make


@pytest.fixture
def check(introspector):
    ready = introspector()

    async def check(about="t-1", principal=CALLER):
        await ready.check(about, principal)

    return check


def unavailable(reason):
    return pytest.raises(IntrospectionUnavailable, match=reason)


async def test_active(check, issuer):
    await check()
    [(url, headers, form, _)] = issuer.asked
    assert url == URL
    assert form == {"token": "t-1", "token_type_hint": "access_token"}
    assert headers == {"Authorization": "Basic " + base64.b64encode(b"gate:hush").decode()}


async def test_not_active(check, issuer):
    issuer.answer = {"active": False}
    with pytest.raises(TokenRevoked, match="idp says that it is not active"):
        await check()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "says active None"),
        ({"active": "true"}, "says active 'true'"),
        ({"active": 1}, "says active 1"),
        ({"active": 0}, "says active 0"),
        ({"active": None}, "says active None"),
        ({"active": [True]}, "says active"),
        ({"error": "invalid_client"}, "says active None"),
        ([{"active": True}], "not a JSON object"),
        (b"", "not JSON"),
        (b"true", "not a JSON object"),
        (b'{"active": true, "active": true}', "stands twice"),
        (b"eyJ0eXAiOiJ0b2tlbi1pbnRyb3NwZWN0aW9uK2p3dCJ9.e30.x", "not JSON"),
        (b"\xff", "not UTF-8"),
        ({"active": True, "sub": "agent-8"}, "says sub 'agent-8', the token 'agent-7'"),
        ({"active": True, "sub": ["agent-7"]}, "says sub"),
        ({"active": True, "iss": "https://idp.example.com/"}, "says iss"),
        ({"active": True, "sub": "agent-7", "iss": 7}, "says iss 7"),
    ],
)
async def test_odd_answers(check, issuer, answer, reason):
    issuer.answer = answer
    with unavailable(reason):
        await check()
    issuer.answer = {"active": True}  # it has answered: no cool-down, and nothing is remembered
    await check()


@pytest.mark.parametrize(
    "more",
    [
        {"sub": "agent-7", "iss": "https://idp.example.com", "exp": NOW + 600, "scope": "x"},
        {"sub": None},
        {"aud": "models", "username": "x", "client_id": "y"},
    ],
)
async def test_what_else_an_answer_may_say(check, issuer, more):
    issuer.answer = {"active": True, **more}
    await check()


async def test_a_lightweight_token_has_no_subject_to_differ_from(introspector, issuer):
    issuer.answer = {"active": True, "sub": "agent-7", "iss": "https://idp.example.com"}
    await introspector().check("t", Principal("idp", "x", expires=NOW + 600))


@pytest.mark.parametrize("reason", ["answered 500", "answered 401", "took longer than 3 s"])
async def test_no_answer(check, issuer, reason):
    issuer.error = KeySetError(URL, reason)
    with unavailable(f"idp: {URL}: {reason}"):
        await check()


async def test_an_unforeseen_error(check, issuer, caplog):
    issuer.error = RuntimeError("about t-1")
    with unavailable("idp: RuntimeError") as caught:
        await check()
    assert "t-1" not in str(caught.value)


class TestCredentials:
    async def test_the_secret_is_read_each_time(self, introspector, issuer, secret):
        asked = introspector(cache="0s")
        await asked.check("t", CALLER)
        secret.write_text("rotated")
        await asked.check("t", CALLER)
        sent = [headers["Authorization"].split()[1] for _, headers, _, _ in issuer.asked]
        assert [base64.b64decode(word) for word in sent] == [b"gate:hush", b"gate:rotated"]

    async def test_a_secret_that_cannot_be_read(self, check, issuer, secret):
        secret.unlink()
        with unavailable("idp: cannot read the file .*secret"):
            await check()
        assert issuer.asked == []
        secret.write_text("hush")
        await check()

    async def test_form_encoded_first(self, introspector, issuer):
        await introspector(client_id="a:b c", client_secret="%/+ü").check("t", CALLER)
        word = issuer.asked[0][1]["Authorization"].split()[1]
        assert base64.b64decode(word) == b"a%3Ab+c:%25%2F%2B%C3%BC"


class TestMemory:
    @pytest.mark.parametrize("active", [True, False])
    async def test_an_answer_holds_for_a_while(self, check, issuer, clock, active):
        async def outcome():
            try:
                await check()
            except TokenRevoked:
                return False
            return True

        issuer.answer = {"active": active}
        assert await outcome() is active
        issuer.answer = {"active": not active}
        clock.now = 29.9
        assert await outcome() is active
        assert len(issuer.asked) == 1
        clock.now = 30
        assert await outcome() is not active
        assert len(issuer.asked) == 2

    async def test_each_token_has_its_own(self, check, issuer):
        await check("t-1")
        issuer.answer = {"active": False}
        with pytest.raises(TokenRevoked):
            await check("t-2")
        await check("t-1")

    async def test_never_longer_than_the_token(self, check, issuer, clock, wall):
        brief = Principal("idp", "agent-7", expires=NOW + 5)
        await check(principal=brief)
        clock.now = 4.9
        await check(principal=brief)
        assert len(issuer.asked) == 1
        clock.now = 5
        wall.now += 5
        await check(principal=brief)  # within the leeway: asked each time
        await check(principal=brief)
        assert len(issuer.asked) == 3

    async def test_none(self, introspector, issuer):
        asked = introspector(cache="0s")
        await asked.check("t", CALLER)
        await asked.check("t", CALLER)
        assert len(issuer.asked) == 2
        assert not asked._answers

    async def test_bounded(self, introspector, issuer, monkeypatch):
        monkeypatch.setattr("mitmgate.core.tokens.introspection.REMEMBERED", 3)
        assert REMEMBERED == 4096
        asked = introspector()
        for token in ("a", "b", "c", "a", "d", "a"):
            await asked.check(token, CALLER)
        assert [form["token"] for _, _, form, _ in issuer.asked] == ["a", "b", "c", "d"]
        await asked.check("b", CALLER)  # longest unused, so forgotten
        assert len(issuer.asked) == 5
        assert len(asked._answers) == 3

    async def test_holds_no_token(self, introspector):
        asked = introspector()
        assert "t-secret" not in repr(vars(asked))

    async def test_a_failure_is_not_remembered(self, check, issuer, clock):
        issuer.error = KeySetError(URL, "answered 500")
        with unavailable("500"):
            await check()
        issuer.error = None
        clock.now = COOL_DOWN
        await check()


class TestFlights:
    async def test_one_for_each_token(self, check, issuer):
        issuer.held = True
        waiting = [asyncio.create_task(check()) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        issuer.release()
        await asyncio.gather(*waiting)
        assert len(issuer.asked) == 1

    async def test_all_who_wait_learn_that_it_is_revoked(self, check, issuer):
        issuer.answer = {"active": False}
        results = await asyncio.gather(*(check() for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [TokenRevoked] * 5
        assert len({id(result) for result in results}) == 5
        assert len(issuer.asked) == 1

    async def test_a_caller_that_leaves_does_not_end_it(self, check, issuer):
        issuer.held = True
        leaving, staying = asyncio.create_task(check()), asyncio.create_task(check())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        issuer.release()
        await staying
        assert leaving.cancelled()
        assert len(issuer.asked) == 1

    async def test_no_flights_are_left(self, introspector, issuer):
        asked = introspector()
        issuer.error = KeySetError(URL, "answered 500")
        with unavailable("500"):
            await asked.check("t", CALLER)
        await asyncio.sleep(0)
        assert not asked._flights

    async def test_so_many_at_once(self, check, issuer):
        issuer.held = True
        waiting = [asyncio.create_task(check(f"t-{i}")) for i in range(100)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(issuer.asked) == AT_ONCE
        issuer.release()
        await asyncio.gather(*waiting)
        assert len(issuer.asked) == 100
        assert issuer.most == AT_ONCE

    async def test_nobody_waits_for_a_turn_for_long(self, check, issuer, monkeypatch):
        monkeypatch.setattr("mitmgate.core.tokens.introspection.TIMEOUT", 0.02)
        issuer.held = True
        waiting = [asyncio.create_task(check(f"t-{i}")) for i in range(AT_ONCE)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with unavailable("16 other questions"):
            await check("late")
        issuer.release()
        await asyncio.gather(*waiting)


class TestCoolDown:
    async def test_an_issuer_that_fails_is_left_alone(self, check, issuer, clock):
        issuer.error = KeySetError(URL, "took longer than 3 s")
        with unavailable("took longer"):
            await check()
        for i in range(100):
            with unavailable("took longer than 3 s .asked less than 2 s ago"):
                await check(f"t-{i}")
        assert len(issuer.asked) == 1
        issuer.error = None
        clock.now = COOL_DOWN
        await check()
        await check("t-2")
        assert len(issuer.asked) == 3

    async def test_what_is_known_passes(self, check, issuer):
        await check("known")
        issuer.error = KeySetError(URL, "answered 500")
        with unavailable("500"):
            await check("other")
        await check("known")

    async def test_an_answer_meanwhile_ends_it(self, check, issuer):
        issuer.held = True
        issuer.errors["first"] = KeySetError(URL, "answered 500")
        first, second = asyncio.create_task(check("first")), asyncio.create_task(check("second"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        issuer.release()
        with unavailable("500"):
            await first
        await second
        await check("third")

    async def test_those_who_wait_for_a_turn_are_refused_too(self, check, issuer):
        issuer.held = True
        issuer.error = KeySetError(URL, "took longer than 3 s")
        waiting = [asyncio.create_task(check(f"t-{i}")) for i in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        issuer.release()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {IntrospectionUnavailable}
        assert len(issuer.asked) == AT_ONCE


class TestOverHttp:
    @pytest.fixture
    async def server(self):
        asked = []

        class Introspect(RequestHandler):
            def post(self):
                asked.append((self.get_body_argument("token"), self.request.headers))
                if self.get_body_argument("token") == "elsewhere":
                    return self.redirect("/other", status=307)
                self.write({"active": self.get_body_argument("token") == "good"})

        server = HTTPServer(Application([("/introspect", Introspect)], log_function=lambda _: None))
        socket, port = bind_unused_port()
        server.add_socket(socket)
        yield f"http://127.0.0.1:{port}/introspect", asked
        server.stop()
        await server.close_all_connections()

    async def test_all_of_it(self, server, introspector, caplog):
        url, asked = server
        caplog.set_level(logging.DEBUG)
        over = introspector(url=url, cache="0s")
        await over.check("good", CALLER)
        with pytest.raises(TokenRevoked):
            await over.check("bad", CALLER)
        with unavailable(r"answered 307 \(redirects are not followed\)"):
            await over.check("elsewhere", CALLER)
        assert [token for token, _ in asked] == ["good", "bad", "elsewhere"]
        headers = asked[0][1]
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert headers["Accept"] == "application/json"
        assert base64.b64decode(headers["Authorization"].split()[1]) == b"gate:hush"
        assert "elsewhere" not in caplog.text

    async def test_nobody_there(self, introspector, unused_tcp_port):
        over = introspector(url=f"http://127.0.0.1:{unused_tcp_port}/introspect")
        with unavailable("cannot be reached"):
            await over.check("good", CALLER)
