"""One try to tell a webhook, with real receivers."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import socket
import ssl
import threading
import time
from email.utils import format_datetime

import pytest
import tornado.httpserver
import tornado.web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks.webhooks import Webhook

from mitmgate.core.holds import post as posting
from mitmgate.core.holds.notify import Notice
from mitmgate.core.holds.post import PostError, aside, post

SECRET = "whsec_" + "QUJD" * 8


class Receiver:
    """A server that answers `status`, and keeps what it was sent."""

    def __init__(self):
        self.status, self.headers, self.body = 200, {}, b"ok"
        self.got = []
        self.hangs = False
        self.host = ""

    def serve(self, tls=None):
        receiver = self

        class Hook(tornado.web.RequestHandler):
            async def post(self):
                receiver.got.append(self.request)
                if receiver.hangs:
                    await asyncio.Event().wait()
                self.set_status(receiver.status)
                for name, value in receiver.headers.items():
                    self.set_header(name, value)
                if receiver.status != 204:
                    self.finish(receiver.body)

            get = post

        application = tornado.web.Application([("/.*", Hook)], log_function=lambda handler: None)
        server = tornado.httpserver.HTTPServer(application, ssl_options=tls)
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self.host = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        return server


@pytest.fixture
async def receiver():
    receiver = Receiver()
    server = receiver.serve()
    yield receiver
    server.stop()
    await server.close_all_connections()


def to(receiver, scheme="http", **keys):
    webhook = f"{scheme}://{receiver.host}/services/very-secret?token=very-secret"
    return Notice.model_validate({"webhook": webhook, **keys})


async def test_a_message_arrives_and_can_be_verified(receiver):
    assert await post(to(receiver, secret=SECRET), "msg_1", b'{"a": 1}') == receiver.host
    [request] = receiver.got
    assert request.method == "POST"
    assert request.uri == "/services/very-secret?token=very-secret"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["webhook-id"] == "msg_1"
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == {"a": 1}


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_taken(receiver, status):
    receiver.status = status
    assert await post(to(receiver), "msg_1", b"{}")


@pytest.mark.parametrize(
    ("status", "final"),
    [
        *((400, True), (401, True), (403, True), (404, True), (410, True), (422, True)),
        *((408, False), (429, False), (500, False), (502, False), (503, False)),
    ],
)
async def test_not_taken(receiver, status, final):
    receiver.status = status
    with pytest.raises(PostError, match=f"^{receiver.host} answered {status}$") as caught:
        await post(to(receiver), "msg_1", b"{}")
    assert (caught.value.final, caught.value.after) == (final, 0.0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver, status):
    receiver.status, receiver.headers = status, {"Location": f"http://{receiver.host}/elsewhere"}
    with pytest.raises(PostError, match=rf"answered {status} \(redirects") as caught:
        await post(to(receiver), "msg_1", b"{}")
    assert caught.value.final
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        *(("7", 7), ("0", 0), ("99999999", 900), ("9" * 400, 900)),
        *(("-1", 0), ("soon", 0), ("1.5", 0), ("\xb2", 0), ("Sun, 06 Nov 1994 08:49:37 GMT", 0)),
    ],
)
async def test_when_to_come_again(receiver, given, seconds):
    receiver.status, receiver.headers = 429, {"Retry-After": given}
    with pytest.raises(PostError) as caught:
        await post(to(receiver), "msg_1", b"{}")
    assert caught.value.after == seconds


async def test_when_to_come_again_as_a_date(receiver):
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    receiver.status, receiver.headers = 503, {"Retry-After": format_datetime(then, usegmt=True)}
    with pytest.raises(PostError) as caught:
        await post(to(receiver), "msg_1", b"{}")
    assert 50 < caught.value.after <= 60


async def test_a_receiver_that_hangs(receiver, monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT", 0.1)
    receiver.hangs = True
    with pytest.raises(PostError, match="cannot be reached: Timeout") as caught:
        await post(to(receiver), "msg_1", b"{}")
    assert not caught.value.final


async def test_nobody_listens():
    receiver = Receiver()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        receiver.host = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(PostError, match="cannot be reached") as caught:
            await post(to(receiver), "msg_1", b"{}")
    assert not caught.value.final
    assert "very-secret" not in str(caught.value)


async def test_a_name_that_does_not_resolve_is_looked_up_in_no_shared_thread(monkeypatch):
    threads = []

    def fail(*args):
        threads.append(threading.current_thread())
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(posting.socket, "getaddrinfo", fail)
    one = Notice.model_validate({"webhook": "https://hooks.invalid/very-secret"})
    with pytest.raises(PostError, match=r"^hooks.invalid cannot be reached: .*not known") as caught:
        await post(one, "msg_1", b"{}")
    assert not caught.value.final
    assert [(thread.name, thread.daemon) for thread in threads] == [("notices", True)]


async def test_an_answer_without_end(receiver, caplog):
    receiver.body = b" " * (posting.MAX_ANSWER + 1)
    with pytest.raises(PostError):
        await post(to(receiver), "msg_1", b"{}")
    assert "very-secret" not in caplog.text


async def test_what_is_referred_to_is_gone(monkeypatch):
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/very-secret")
    one = Notice.model_validate({"webhook": "${env:HOOK}"})
    monkeypatch.setenv("HOOK", "http://example.com/very-secret")
    with pytest.raises(PostError, match=r"env:HOOK.*cannot be used: .*https") as caught:
        await post(one, "msg_1", b"{}")
    assert "very-secret" not in str(caught.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(PostError, match=r"cannot be used: .*HOOK is not set") as caught:
        await post(one, "msg_1", b"{}")
    assert not caught.value.final


# TLS


@pytest.fixture
async def secure(tmp_path):
    """A receiver whose certificate only tmp_path/ca.pem vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(s.Encoding.PEM)
    )
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (tmp_path / "server.pem").write_bytes(certificate + pem)
    (tmp_path / "ca.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    receiver = Receiver()
    server = receiver.serve(context)
    yield receiver
    server.stop()
    await server.close_all_connections()


async def test_a_known_authority(secure, tmp_path):
    one = to(secure, "https", ca_file=str(tmp_path / "ca.pem"))
    assert await post(one, "msg_1", b"{}") == secure.host


async def test_an_unknown_authority(secure, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PostError, match="CERTIFICATE_VERIFY_FAILED"):
        await post(to(secure, "https"), "msg_1", b"{}")
    assert secure.got == []
    assert "very-secret" not in caplog.text


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_no_authorities(secure, tmp_path, content):
    file = tmp_path / "other.pem"
    if content:
        file.write_bytes(content)
    with pytest.raises(PostError, match=r"other.pem holds no authorities"):
        await post(to(secure, "https", ca_file=str(file)), "msg_1", b"{}")
    assert secure.got == []


# Threads


async def test_aside_raises_what_is_raised():
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0)


async def test_who_waits_can_be_cancelled():
    free = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(aside(lambda: free.wait(30)), 0.01)
    assert time.monotonic() - started < 5
    free.set()
