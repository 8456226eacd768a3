"""Who gets in, and what a page of another site, or another name, cannot do."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from mitmgate.core.tokens import TokenError, Unavailable
from mitmgate.web import attempts, sessions
from mitmgate.web.attempts import Attempts
from mitmgate.web.sessions import Sessions

PAGES = ("/", "/queue", "/history", "/holds/h-222222", "/events", "/api/me", "/api/holds")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cookies(answer: httpx.Response) -> dict[str, str]:
    return {line.split("=")[0]: line for line in answer.headers.get_list("set-cookie")}


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_sees_anything_without_signing_in(site: Any, path: str) -> None:
    hold = site.hold("wire SECRET")
    answer = await site.client().get(path)
    if answer.status_code == 303:
        assert answer.headers["location"].startswith("/signin?next=")
    else:
        assert answer.status_code == 401
    assert "SECRET" not in answer.text
    assert hold.id not in answer.text


@pytest.mark.parametrize("path", ["/holds/h-222222/approve", "/signout", "/api/holds/h-2/deny"])
async def test_nobody_does_anything_without_signing_in(site: Any, path: str) -> None:
    answer = await site.client().post(path, data={"reason": "x"})
    assert answer.status_code == 401


async def test_headers_of_every_answer(site: Any) -> None:
    browser = await site.signed_in()
    paths = ("/", "/signin", "/nowhere", "/static/console.js", "/static/no", "/api/me", "/api/no")
    for path in paths:
        headers = (await browser.get(path)).headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-cache" if path.endswith(".js") else "no-store")
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "permissions-policy" in headers
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


async def test_pages_have_nothing_inline_and_nothing_of_others(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    for path in ("/", "/signin", "/history", f"/holds/{hold.id}"):
        page = (await browser.get(path)).text
        assert " style=" not in page
        assert "<style" not in page
        assert " onclick" not in page
        assert "javascript:" not in page
        assert "http://" not in page
        assert "https://" not in page


async def test_the_session_cookie_is_kept_from_scripts_and_other_sites(site: Any) -> None:
    client = site.client()
    csrf = (await client.get("/signin")).text.split('name="csrf" value="')[1].split('"')[0]
    answer = await client.post("/signin", data={"csrf": csrf, "token": "tok-ann"})
    assert answer.status_code == 303
    cookie = cookies(answer)["gate-session"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert attribute in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    assert "tok-ann" not in str(answer.headers)


async def test_behind_tls_cookies_are_secure_and_bound_to_the_host(site: Any) -> None:
    site.write_rules(console={"url": "https://approvals.example.com"})
    client = site.client(headers={"Host": "approvals.example.com"})
    page = await client.get("/signin")
    form = cookies(page)["__Host-gate-signin"]
    assert "Secure" in form
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    answer = await client.post(
        "/signin",
        data={"csrf": csrf, "token": "tok-ann"},
        headers={"Cookie": form.split(";")[0], "Origin": "https://approvals.example.com"},
    )
    cookie = cookies(answer)["__Host-gate-session"]
    assert "Secure" in cookie
    assert "HttpOnly" in cookie
    # One without the prefix, which another host of the site could have set, is not looked at.
    value = cookie.split(";")[0].partition("=")[2]
    for name, status in (("__Host-gate-session", 200), ("gate-session", 401)):
        answer = await client.get("/api/me", headers={"Cookie": f"{name}={value}"})
        assert answer.status_code == status


async def test_a_session_id_that_somebody_else_chose_is_not_taken(site: Any) -> None:
    browser = await site.signed_in("tok-ben")
    old = browser.client.cookies["gate-session"]
    await browser.sign_in("tok-ann")  # the form is not shown; it redirects
    client = site.client(cookies={"gate-session": "chosen-by-the-attacker"})
    csrf = (await client.get("/signin")).text.split('name="csrf" value="')[1].split('"')[0]
    answer = await client.post("/signin", data={"csrf": csrf, "token": "tok-ann"})
    new = cookies(answer)["gate-session"].split(";")[0].partition("=")[2]
    assert new not in ("chosen-by-the-attacker", old)
    again = site.client(cookies={"gate-session": "chosen-by-the-attacker"})
    assert (await again.get("/api/me")).status_code == 401


async def test_signing_in_again_ends_the_session_before(site: Any) -> None:
    browser = await site.signed_in("tok-ben")
    old = browser.client.cookies["gate-session"]
    nonce = "n" * 20
    answer = await site.client().post(
        "/signin",
        data={"csrf": site.web.signed("signin", nonce), "token": "tok-ann"},
        headers={"Cookie": f"gate-session={old}; gate-signin={nonce}"},
    )
    assert answer.status_code == 303
    stale = site.client(cookies={"gate-session": old})
    assert (await stale.get("/api/me")).status_code == 401


@pytest.mark.parametrize("fields", [{}, {"csrf": ""}, {"csrf": "x"}, {"csrf": "é"}])
async def test_nobody_is_signed_in_by_a_form_of_another_site(
    site: Any, fields: dict[str, str]
) -> None:
    for headers in ({}, {"Cookie": "gate-signin=known"}):
        answer = await site.client().post(
            "/signin", data={"token": "tok-ann", **fields}, headers=headers
        )
        assert answer.status_code == 403
        assert "gate-session" not in cookies(answer)
    answer = await site.client().post(
        "/signin", data={"token": "tok-ann", "csrf": site.web.signed("signin", "")}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("token", ["made-up", "ü", "a b\x00", "x" * 5000])
async def test_a_token_that_is_not_accepted_is_not_said_back(
    site: Any, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = await site.signed_in()
    await browser.submit("/", "/signout")
    answer = await browser.sign_in(token)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert token not in answer.text
    assert token not in caplog.text
    assert (await browser.get("/api/me")).status_code == 401


async def test_a_token_from_a_terminal_has_line_breaks(site: Any) -> None:
    browser = await site.signed_in(" tok-\n ann\r\n")
    assert "Ann Approver" in (await browser.get("/")).text


async def test_when_tokens_cannot_be_verified_it_says_so(site: Any) -> None:
    browser = await site.signed_in("tok-ben")
    await browser.submit("/", "/signout")
    site.refused["tok-ann"] = Unavailable("no keys")
    answer = await browser.sign_in("tok-ann")
    assert answer.status_code == 503
    site.desk.verify = None
    assert (await browser.sign_in("tok-ann")).status_code == 503


@pytest.mark.parametrize(
    ("after", "leads_to"),
    [
        ("/holds/h-abc234", "/holds/h-abc234"),
        ("/history", "/history"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/signout", "/"),
    ],
)
async def test_signing_in_leads_to_pages_of_ours_only(site: Any, after: str, leads_to: str) -> None:
    client = site.client()
    page = await client.get("/signin", params={"next": after})
    assert f'name="next" value="{leads_to}"' in page.text
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    data = {"csrf": csrf, "token": "tok-ann", "next": after}
    answer = await client.post("/signin", data=data)
    assert answer.headers["location"] == leads_to


async def test_signing_out_ends_the_session_on_the_server(site: Any) -> None:
    browser = await site.signed_in()
    id = browser.client.cookies["gate-session"]
    answer = await browser.submit("/", "/signout")
    assert answer.url.path == "/signin"
    stale = site.client(cookies={"gate-session": id})
    assert (await stale.get("/api/me")).status_code == 401


async def test_a_revoked_or_expired_token_ends_its_session_at_once(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    page = (await browser.get(f"/holds/{hold.id}")).text
    csrf = page.split('name="csrf" value="')[1].split('"')[0]
    site.refused["tok-ann"] = TokenError("revoked")
    answer = await browser.client.post(
        f"/holds/{hold.id}/approve", data={"csrf": csrf, "reason": "x"}
    )
    assert answer.status_code == 401
    assert site.store.get(hold.id).state == "pending"
    site.refused.clear()
    assert (await browser.get("/api/me")).status_code == 401  # it does not come back


async def test_trouble_with_verification_ends_no_session(site: Any) -> None:
    browser = await site.signed_in()
    site.refused["tok-ann"] = Unavailable("no keys")
    assert (await browser.get("/")).status_code == 503
    site.refused.clear()
    assert (await browser.get("/")).status_code == 200


def test_sessions_end_with_their_token_and_when_idle() -> None:
    clock = Clock()
    site = Sessions(clock=clock)
    short, _ = site.begin("t", 1010.0, "idp:ann")
    idle, _ = site.begin("t", 1e9, "idp:ann")
    kept, _ = site.begin("t", 1e9, "idp:ann")
    clock.now = 1010.0
    assert site.find(short) is None
    for _ in range(4):
        clock.now += sessions.IDLE / 3
        assert site.find(kept)
        site.find(idle, touch=False)
    assert site.find(idle) is None
    site.end(kept)
    assert site.find(kept) is None


def test_there_are_only_so_many_sessions() -> None:
    site = Sessions()
    ids = [site.begin("t", 4e9, f"idp:{i}")[0] for i in range(sessions.MOST + 1)]
    assert site.find(ids[0]) is None
    assert all(site.find(id) for id in ids[1:])
    assert len(set(ids)) == len(ids)


async def test_too_many_wrong_tokens_have_to_wait(site: Any) -> None:
    good = await site.signed_in()
    browser = await site.signed_in("tok-ben")
    await browser.submit("/", "/signout")
    statuses = [(await browser.sign_in(f"wrong-{i}")).status_code for i in range(attempts.MOST + 1)]
    assert statuses == [401] * attempts.MOST + [429]
    limited = await site.client("wrong").get("/api/me")
    assert limited.status_code == 429
    assert 0 < int(limited.headers["retry-after"]) <= attempts.SPAN
    assert (await good.get("/")).status_code == 200  # whoever is in stays in


def test_failures_are_forgotten() -> None:
    clock = Clock()
    known = Attempts(clock=clock)
    for _ in range(attempts.MOST):
        assert known.wait("a") == 0
        known.failed("a")
    assert known.wait("a") == attempts.SPAN
    assert known.wait("b") == 0
    clock.now += attempts.SPAN
    assert known.wait("a") == 0
    for i in range(attempts.REMEMBERED + 5):
        known.failed(str(i))
    assert len(known._failures) == attempts.REMEMBERED


@pytest.mark.parametrize("csrf", ["", "x", "é"])
@pytest.mark.parametrize("path", ["/holds/{}/approve", "/api/holds/{}/approve", "/signout"])
async def test_without_its_csrf_token_a_session_changes_nothing(
    site: Any, path: str, csrf: str
) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    for sent in ({"data": {"csrf": csrf, "reason": "x"}}, {"json": {"csrf": csrf, "reason": "x"}}):
        answer = await browser.client.post(path.format(hold.id), **sent)
        assert answer.status_code == 403
    assert site.store.get(hold.id).state == "pending"
    assert (await browser.get("/api/me")).status_code == 200


async def test_the_csrf_token_of_somebody_else_is_none(site: Any) -> None:
    hold = site.hold()
    ann, ben = await site.signed_in("tok-ann"), await site.signed_in("tok-ben")
    csrf = (await ben.get("/api/me")).json()["csrf"]
    answer = await ann.client.post(f"/holds/{hold.id}/approve", data={"csrf": csrf, "reason": "x"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_what_another_site_sends_is_refused_even_with_the_token(
    site: Any, headers: dict[str, str]
) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    csrf = (await browser.get("/api/me")).json()["csrf"]
    for path in (f"/holds/{hold.id}/approve", f"/api/holds/{hold.id}/approve", "/signin"):
        answer = await browser.client.post(
            path, data={"csrf": csrf, "reason": "x"}, headers={"X-CSRF-Token": csrf, **headers}
        )
        assert answer.status_code == 403
    assert site.store.get(hold.id).state == "pending"


async def test_our_own_origin_is_accepted(site: Any) -> None:
    hold = site.hold()
    browser = await site.signed_in()
    csrf = (await browser.get("/api/me")).json()["csrf"]
    answer = await browser.client.post(
        f"/holds/{hold.id}/approve",
        data={"csrf": csrf, "reason": "x"},
        headers={"Origin": site.url, "Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 200
    assert site.store.get(hold.id).state == "approved"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8082", 303),
        ("localhost:8082", 303),
        ("[::1]:8082", 303),
        ("10.0.0.5", 303),
        ("approvals.example.com", 303),
        ("evil.example", 421),
        ("approvals.example.com.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:x", 421),
        ("", 421),
    ],
)
async def test_another_name_for_this_address_is_refused(site: Any, host: str, status: int) -> None:
    site.write_rules(console={"url": "https://approvals.example.com"})
    answer = await site.client().get("/", headers={"Host": host})
    assert answer.status_code == status
    for path in ("/static/console.js", "/api/me", "/nowhere"):
        answer = await site.client("tok-ann").get(path, headers={"Host": host})
        assert (answer.status_code == 421) == (status == 421)


async def test_a_link_from_another_site_leads_on_by_itself(site: Any) -> None:
    # A Strict cookie does not come along; the page asks again, and then it does.
    answer = await site.client().get("/holds/h-222222", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0">' in answer.text
    answer = await site.client().get("/holds/h-222222", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303


class TestAssertion:
    """A trusted proxy says who is asking."""

    HEADER = "x-forwarded-assertion"

    @pytest.fixture(autouse=True)
    def _configured(self, site: Any) -> None:
        site.write_rules(console={"assertion_header": self.HEADER})

    async def test_it_is_verified_on_each_request(self, site: Any) -> None:
        hold = site.hold()
        client = site.client(headers={self.HEADER: "tok-ann"})
        page = await client.get(f"/holds/{hold.id}")
        assert page.status_code == 200
        assert "Ann Approver" in page.text
        assert "Sign out" not in page.text
        csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
        path = f"/holds/{hold.id}/approve"
        assert (await client.post(path, data={"reason": "x"})).status_code == 403
        answer = await client.post(path, data={"reason": "x", "csrf": csrf})
        assert answer.status_code == 303
        assert site.store.get(hold.id).decisions[0].subject == "ann"
        site.refused["tok-ann"] = TokenError("over")
        assert (await client.get("/")).status_code == 401

    async def test_nothing_else_from_the_proxy_is_believed(self, site: Any) -> None:
        said = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "approvers", "Remote-User": "ann"}
        answer = await site.client(headers=said).get("/")
        assert answer.status_code == 303

    async def test_a_bad_one_is_not_made_good_by_a_session(self, site: Any) -> None:
        browser = await site.signed_in()
        answer = await browser.get("/", headers={self.HEADER: "made-up"})
        assert answer.status_code == 401

    async def test_two_are_none(self, site: Any) -> None:
        headers = [(self.HEADER, "tok-ann"), (self.HEADER, "tok-ben")]
        answer = await site.client().get("/api/me", headers=headers)
        assert answer.status_code == 401

    async def test_not_configured_it_is_nothing(self, site: Any) -> None:
        site.write_rules()
        answer = await site.client(headers={self.HEADER: "tok-ann"}).get("/api/me")
        assert answer.status_code == 401

    async def test_authorization_may_be_that_header_and_needs_csrf_then(self, site: Any) -> None:
        site.write_rules(console={"assertion_header": "authorization"})
        hold = site.hold()
        client = site.client("tok-ann")
        assert (await client.get("/")).status_code == 200
        path = f"/api/holds/{hold.id}/approve"
        assert (await client.post(path, json={"reason": "x"})).status_code == 403


async def test_a_body_that_is_too_large_is_not_read(site: Any) -> None:
    browser = await site.signed_in()
    with pytest.raises(httpx.HTTPError):
        answer = await browser.client.post("/signin", data={"token": "x" * 100_000})
        answer.raise_for_status()
