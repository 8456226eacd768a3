from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.fetch import discover, fetch
from mitmgate.core.tokens.keys import keys_of


class Idp:
    """A local HTTP server with fixed answers: path -> (status, headers, body)."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                idp.asked.append(self.path)
                status, headers, body = idp.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = (status, headers, body)


@contextmanager
def serving(idp):
    thread = threading.Thread(target=idp.server.serve_forever, args=(0.01,))
    thread.start()
    yield idp
    idp.server.shutdown()
    idp.server.server_close()
    thread.join()


@pytest.fixture
def idp():
    with serving(Idp()) as idp:
        yield idp


@pytest.fixture
def secure_idp(tmp_path, es256):
    """The same over TLS, with a certificate for 127.0.0.1 that nobody has signed."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, es256.private.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(es256.private, hashes.SHA256())
    )
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(s.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        es256.private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    )
    idp = Idp()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    idp.server.socket = context.wrap_socket(idp.server.socket, server_side=True)
    idp.server.handle_error = lambda request, address: None  # clients that hang up, as they must
    idp.url = idp.url.replace("http:", "https:")
    with serving(idp):
        yield idp


def test_body(idp):
    idp.answer("/jwks", b"hello")
    assert fetch(f"{idp.url}/jwks") == b"hello"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(idp, status):
    idp.answer("/jwks", b"", status, Location=f"{idp.url}/elsewhere")
    idp.answer("/elsewhere", b"x")
    with pytest.raises(KeySetError, match=rf"answered {status} \(redirects are not followed\)"):
        fetch(f"{idp.url}/jwks")
    assert idp.asked == ["/jwks"]


def test_errors_of_the_server(idp):
    idp.answer("/jwks", b"broken", 500)
    with pytest.raises(KeySetError, match=r"answered 500$"):
        fetch(f"{idp.url}/jwks")


def test_too_large(idp):
    idp.answer("/jwks", b" " * (512 * 1024))
    assert len(fetch(f"{idp.url}/jwks")) == 512 * 1024
    idp.answer("/jwks", b" " * (512 * 1024 + 1))
    with pytest.raises(KeySetError, match="more than 512 KB"):
        fetch(f"{idp.url}/jwks")


def test_nobody_there(idp):
    url = idp.url
    idp.server.server_close()
    with pytest.raises(KeySetError, match=f"{url}/jwks: cannot be reached"):
        fetch(f"{url}/jwks")


def test_proxies_of_the_environment_are_not_used(idp, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    idp.answer("/jwks", b"direct")
    assert fetch(f"{idp.url}/jwks") == b"direct"


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example.com/jwks",
        "ftp://127.0.0.1/jwks",
        "file:///etc/passwd",
        "data:,x",
        "https://user:secret@idp.example.com/",
        "https://",
        "jwks.json",
        "https://[::1",
    ],
)
def test_urls_that_are_not_fetched(url):
    with pytest.raises(KeySetError, match="cannot be fetched"):
        fetch(url)


def test_tls_is_verified(secure_idp, tmp_path, monkeypatch):
    secure_idp.answer("/jwks", b"secret")
    with pytest.raises(KeySetError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
        fetch(f"{secure_idp.url}/jwks")
    assert secure_idp.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    assert fetch(f"{secure_idp.url}/jwks") == b"secret"
    with pytest.raises(KeySetError, match="Hostname mismatch"):
        fetch(f"{secure_idp.url.replace('127.0.0.1', 'localhost')}/jwks")


CONFIGURATION = "/.well-known/openid-configuration"


class TestDiscovery:
    def test_jwks_uri(self, idp):
        idp.answer(CONFIGURATION, {"issuer": idp.url, "jwks_uri": f"{idp.url}/jwks"})
        assert discover(idp.url) == f"{idp.url}/jwks"

    def test_a_trailing_slash_belongs_to_the_issuer(self, idp):
        issuer = f"{idp.url}/realm/"
        idp.answer(f"/realm{CONFIGURATION}", {"issuer": issuer, "jwks_uri": f"{idp.url}/jwks"})
        assert discover(issuer) == f"{idp.url}/jwks"

    @pytest.mark.parametrize(
        ("document", "reason"),
        [
            ({"issuer": "https://other.example.com", "jwks_uri": "https://x/"}, "speaks for"),
            ({"jwks_uri": "https://x/"}, "speaks for the issuer None"),
            ({"issuer": "HERE"}, "no jwks_uri"),
            ({"issuer": "HERE", "jwks_uri": ["https://x/"]}, "no jwks_uri"),
            (b"<html>", "not a discovery document"),
            (b"[]", "not a discovery document"),
        ],
    )
    def test_refused(self, idp, document, reason):
        if isinstance(document, dict) and document.get("issuer") == "HERE":
            document["issuer"] = idp.url
        idp.answer(CONFIGURATION, document)
        with pytest.raises(KeySetError, match=reason):
            discover(idp.url)

    def test_tls_may_not_end_on_the_way_to_the_keys(self, monkeypatch):
        document = {"issuer": "https://idp.example.com", "jwks_uri": "http://127.0.0.1/jwks"}
        monkeypatch.setattr(
            "mitmgate.core.tokens.fetch.fetch", lambda url: json.dumps(document).encode()
        )
        with pytest.raises(KeySetError, match="without TLS"):
            discover("https://idp.example.com")


class TestKeysOverHttp:
    async def test_by_url(self, idp, issuer_of, es256):
        idp.answer("/jwks", {"keys": [es256.jwk()]})
        keys = keys_of(issuer_of(keys={"jwks_url": f"{idp.url}/jwks"}))
        await keys.start()
        assert keys.current().knows("k1")

    async def test_by_discovery(self, idp, issuer_of, es256):
        idp.answer(CONFIGURATION, {"issuer": idp.url, "jwks_uri": f"{idp.url}/jwks"})
        idp.answer("/jwks", {"keys": [es256.jwk()]})
        keys = keys_of(issuer_of(issuer=idp.url, keys={"discovery": True}))
        await keys.start()
        assert keys.current().knows("k1")
        assert idp.asked == [CONFIGURATION, "/jwks"]

    async def test_garbage(self, idp, issuer_of):
        idp.answer("/jwks", b"\x00garbage")
        keys = keys_of(issuer_of(keys={"jwks_url": f"{idp.url}/jwks"}))
        with pytest.raises(KeySetError, match="not a JWK set: not JSON"):
            await keys.start()
