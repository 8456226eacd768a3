from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import json
import socket
import ssl
import struct
import time
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec

from mitmgate.core.tokens.errors import KeySetError
from mitmgate.core.tokens.fetch import discover, fetch
from mitmgate.core.tokens.keys import keys_of

LIMIT = 512 * 1024


class Idp:
    """A local HTTP server with fixed answers; `asked` has the requests as they came."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.url = ""
        self._tasks = set()

    def answer(self, path, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.raw(path, ["\r\n".join(lines).encode() + b"\r\n\r\n" + body])

    def raw(self, path, pieces, hang=False):
        """The bytes of `pieces`; then it hangs up, or only hangs."""
        self.answers[path] = pieces, hang

    @property
    def paths(self):
        return [head.split()[1].decode() for head, _ in self.asked]

    def headers(self, at=-1):
        lines = self.asked[at][0].decode().split("\r\n")[1:-2]
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    async def serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append((head, b""))
            if length := self.headers().get("content-length"):
                self.asked[-1] = head, await reader.readexactly(int(length))
            missing = [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"], False
            pieces, hang = self.answers.get(head.split()[1].decode(), missing)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hang:
                await asyncio.Event().wait()
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self, context=None):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks)


@pytest.fixture
async def idp():
    async with Idp().running() as idp:
        yield idp


class Authority:
    """A certificate authority of our own."""

    def __init__(self):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Our CA")])
        self.certificate = self._issue(self._name, self._key.public_key(), True, [])

    def _issue(self, name, public, is_authority, alternatives):
        today = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(self._name, name, public, x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        else:
            usage = [name in ("key_cert_sign", "crl_sign") for name in USAGES]
            builder = builder.add_extension(
                x509.KeyUsage(**dict(zip(USAGES, usage, strict=True))), critical=True
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(s.Encoding.PEM)

    def context(self, directory):
        """A server's TLS, with a certificate for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp")])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        file = directory / "server.pem"
        file.write_bytes(
            self._issue(name, key.public_key(), False, [address])
            + key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@pytest.fixture
def ca_file(tmp_path):
    return tmp_path / "ca.pem"


@pytest.fixture
async def secure_idp(tmp_path, ca_file):
    """The same over TLS, with a certificate of an authority that only `ca_file` knows."""
    authority = Authority()
    ca_file.write_bytes(authority.certificate)
    async with Idp().running(authority.context(tmp_path)) as idp:
        yield idp


async def test_body(idp):
    idp.answer("/jwks?v=1", b"hello")
    assert await fetch(f"{idp.url}/jwks?v=1") == b"hello"
    assert idp.asked[0][0].startswith(b"GET /jwks?v=1 HTTP/1.1\r\n")
    headers = idp.headers()
    assert headers["host"] == idp.url.removeprefix("http://")
    assert headers["accept"] == "application/json"
    assert "authorization" not in headers
    assert "accept-encoding" not in headers


async def test_a_form(idp):
    idp.answer("/introspect", b"{}")
    await fetch(f"{idp.url}/introspect", form={"token": "a b&c=d"}, headers={"X-Y": "z"})
    head, body = idp.asked[0]
    assert head.startswith(b"POST /introspect ")
    assert body == b"token=a+b%26c%3Dd"
    assert idp.headers()["content-type"] == "application/x-www-form-urlencoded"
    assert idp.headers()["x-y"] == "z"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("form", [None, {"token": "t"}])
async def test_redirects_are_not_followed(idp, status, form):
    idp.answer("/jwks", b"", status, Location=f"{idp.url}/elsewhere")
    idp.answer("/elsewhere", b"x")
    with pytest.raises(KeySetError, match=rf"answered {status} \(redirects are not followed\)"):
        await fetch(f"{idp.url}/jwks", form=form)
    assert idp.paths == ["/jwks"]


@pytest.mark.parametrize("status", [201, 204, 401, 404, 500])
async def test_only_200_is_an_answer(idp, status):
    idp.answer("/jwks", b"" if status == 204 else b"{}", status)
    with pytest.raises(KeySetError, match=rf"answered {status}$"):
        await fetch(f"{idp.url}/jwks")


async def test_too_large(idp):
    idp.answer("/jwks", b" " * LIMIT)
    assert len(await fetch(f"{idp.url}/jwks")) == LIMIT
    idp.answer("/jwks", b" " * (LIMIT + 1))
    with pytest.raises(KeySetError, match="more than 512 KB"):
        await fetch(f"{idp.url}/jwks")


def chunks():
    while True:
        yield b"4000\r\n" + b" " * 0x4000 + b"\r\n"


def endless():
    while True:
        yield b" " * 0x4000


@pytest.mark.parametrize(
    ("head", "body"), [(b"Transfer-Encoding: chunked\r\n", chunks), (b"", endless)]
)
async def test_a_body_without_an_end(idp, head, body):
    def pieces():
        yield b"HTTP/1.1 200 OK\r\n" + head + b"\r\n"
        yield from body()

    idp.raw("/jwks", pieces())
    with pytest.raises(KeySetError, match="more than 512 KB"):
        await fetch(f"{idp.url}/jwks")


async def test_a_body_that_ends_with_the_connection(idp):
    idp.raw("/jwks", [b"HTTP/1.0 200 OK\r\n\r\n", b" " * LIMIT])
    assert len(await fetch(f"{idp.url}/jwks")) == LIMIT
    idp.raw("/jwks", [b"HTTP/1.0 200 OK\r\n\r\n", b" " * (LIMIT + 1)])
    with pytest.raises(KeySetError, match="more than 512 KB"):
        await fetch(f"{idp.url}/jwks")


async def test_a_reset_connection(idp):
    """However the server goes away, it is one sentence here."""

    async def reset(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
        await writer.drain()
        option = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        writer.transport.abort()

    idp.serve = reset
    async with idp.running():
        with pytest.raises(KeySetError, match="broke off"):
            await fetch(f"{idp.url}/jwks")


async def test_headers_without_an_end(idp):
    def pieces():
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"X: " + b"y" * 1000 + b"\r\n"

    idp.raw("/jwks", pieces())
    with pytest.raises(KeySetError, match="cannot be fetched"):
        await fetch(f"{idp.url}/jwks")


async def test_nothing_is_decompressed(idp):
    bomb = gzip.compress(b" " * (8 * LIMIT))
    idp.answer("/jwks", bomb, Content_Encoding="gzip")
    assert await fetch(f"{idp.url}/jwks") == bomb


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([], "cannot be fetched: (Connection|Stream) closed"),
        ([b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], "took longer"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nshort"], "broke off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "broke off"),
    ],
)
async def test_no_answer_in_http(idp, pieces, reason):
    idp.raw("/jwks", pieces)
    with pytest.raises(KeySetError, match=reason):
        await fetch(f"{idp.url}/jwks", timeout=0.2)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow"])
async def test_a_server_that_hangs(idp, begun):
    idp.raw("/jwks", [begun], hang=True)
    started = time.monotonic()
    with pytest.raises(KeySetError, match=r"took longer than 0\.05 s"):
        await fetch(f"{idp.url}/jwks", timeout=0.05)
    assert time.monotonic() - started < 2


async def test_nobody_there(unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(KeySetError, match=f"{url}/jwks: cannot be reached"):
        await fetch(f"{url}/jwks")


async def test_proxies_of_the_environment_are_not_used(idp, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    idp.answer("/jwks", b"direct")
    assert await fetch(f"{idp.url}/jwks") == b"direct"


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
async def test_urls_that_are_not_fetched(url):
    with pytest.raises(KeySetError, match="cannot be fetched"):
        await fetch(url)


class TestTls:
    async def test_a_private_authority(self, secure_idp, ca_file):
        secure_idp.answer("/jwks", b"secret")
        url = f"{secure_idp.url}/jwks"
        with pytest.raises(KeySetError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
            await fetch(url)
        assert secure_idp.asked == []
        assert await fetch(url, authorities=ca_file) == b"secret"
        with pytest.raises(KeySetError, match="Hostname mismatch"):
            await fetch(url.replace("127.0.0.1", "localhost"), authorities=ca_file)

    async def test_others_in_the_environment(self, secure_idp, ca_file, monkeypatch):
        secure_idp.answer("/jwks", b"secret")
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        assert await fetch(f"{secure_idp.url}/jwks") == b"secret"

    async def test_those_of_the_system_do_not_count_beside_it(
        self, secure_idp, ca_file, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        other = tmp_path / "other.pem"
        other.write_bytes(Authority().certificate)
        with pytest.raises(KeySetError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch(f"{secure_idp.url}/jwks", authorities=other)

    async def test_an_authority_that_is_replaced(self, secure_idp, ca_file, tmp_path):
        secure_idp.answer("/jwks", b"secret")
        other = tmp_path / "other.pem"
        other.write_bytes(Authority().certificate)
        with pytest.raises(KeySetError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch(f"{secure_idp.url}/jwks", authorities=other)
        ca_file.rename(other)
        assert await fetch(f"{secure_idp.url}/jwks", authorities=other) == b"secret"

    @pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n"])
    async def test_a_file_without_authorities(self, secure_idp, tmp_path, content):
        path = tmp_path / "none.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(KeySetError, match=r"none\.pem: holds no authorities"):
            await fetch(f"{secure_idp.url}/jwks", authorities=path)
        assert secure_idp.asked == []


class TestBearer:
    @pytest.fixture
    def bearer_file(self, written):
        return written("token", "ey.first\n")

    async def test_read_at_each_fetch(self, idp, bearer_file):
        idp.answer("/jwks", b"{}")
        await fetch(f"{idp.url}/jwks", bearer_file=bearer_file)
        bearer_file.write_text("ey.second")
        await fetch(f"{idp.url}/jwks", bearer_file=bearer_file)
        sent = [idp.headers(i)["authorization"] for i in (0, 1)]
        assert sent == ["Bearer ey.first", "Bearer ey.second"]

    @pytest.mark.parametrize("content", [b"", b"two words", b"a\r\nX: y", b"\xff", b"a" * 70_000])
    async def test_a_file_that_holds_no_token(self, idp, bearer_file, content):
        bearer_file.write_bytes(content)
        with pytest.raises(KeySetError, match=r"token: does not hold one bearer token") as caught:
            await fetch(f"{idp.url}/jwks", bearer_file=bearer_file)
        assert "words" not in str(caught.value)
        assert idp.asked == []

    async def test_a_file_that_cannot_be_read(self, idp, bearer_file):
        bearer_file.unlink()
        with pytest.raises(KeySetError, match=r"token: cannot be read: No such file"):
            await fetch(f"{idp.url}/jwks", bearer_file=bearer_file)
        assert idp.asked == []

    async def test_does_not_follow_a_redirect(self, idp, bearer_file):
        async with Idp().running() as thief:
            idp.answer("/jwks", b"", 307, Location=f"{thief.url}/jwks")
            with pytest.raises(KeySetError, match="answered 307"):
                await fetch(f"{idp.url}/jwks", bearer_file=bearer_file)
            assert thief.asked == []

    async def test_does_not_follow_a_discovery_document(self, idp, bearer_file):
        async with Idp().running() as thief:
            idp.answer(CONFIGURATION, {"issuer": idp.url, "jwks_uri": f"{thief.url}/jwks"})
            with pytest.raises(KeySetError, match="bearer_file is sent to the issuer's own host"):
                await discover(idp.url, bearer_file=bearer_file)
            assert thief.asked == []
        assert idp.headers()["authorization"] == "Bearer ey.first"

    @pytest.mark.parametrize(
        ("jwks_uri", "same"),
        [
            ("https://IDP.example.com:443/keys", True),
            ("https://idp.example.com:8443/keys", False),
            ("https://idp.example.com.evil.test/keys", False),
            ("https://idp.example.com@evil.test/keys", False),
            ("https://idp.example.com:x/keys", False),
            ("https://[idp.example.com/keys", False),
        ],
    )
    async def test_the_same_host(self, monkeypatch, bearer_file, jwks_uri, same):
        issuer = "https://idp.example.com"

        async def fixed(url, **_):
            return json.dumps({"issuer": issuer, "jwks_uri": jwks_uri}).encode()

        monkeypatch.setattr("mitmgate.core.tokens.fetch.fetch", fixed)
        if same:
            assert await discover(issuer, bearer_file=bearer_file) == jwks_uri
        else:
            with pytest.raises(KeySetError, match="points to keys at"):
                await discover(issuer, bearer_file=bearer_file)
        assert await discover(issuer) == jwks_uri


CONFIGURATION = "/.well-known/openid-configuration"


class TestDiscovery:
    async def test_jwks_uri(self, idp):
        idp.answer(CONFIGURATION, {"issuer": idp.url, "jwks_uri": f"{idp.url}/jwks"})
        assert await discover(idp.url) == f"{idp.url}/jwks"

    async def test_a_trailing_slash_belongs_to_the_issuer(self, idp):
        issuer = f"{idp.url}/realm/"
        idp.answer(f"/realm{CONFIGURATION}", {"issuer": issuer, "jwks_uri": f"{idp.url}/jwks"})
        assert await discover(issuer) == f"{idp.url}/jwks"

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
    async def test_refused(self, idp, document, reason):
        if isinstance(document, dict) and document.get("issuer") == "HERE":
            document = {**document, "issuer": idp.url}
        idp.answer(CONFIGURATION, document)
        with pytest.raises(KeySetError, match=reason):
            await discover(idp.url)

    async def test_tls_may_not_end_on_the_way_to_the_keys(self, secure_idp, ca_file):
        document = {"issuer": secure_idp.url, "jwks_uri": "http://127.0.0.1/jwks"}
        secure_idp.answer(CONFIGURATION, document)
        with pytest.raises(KeySetError, match="without TLS"):
            await discover(secure_idp.url, authorities=ca_file)


class TestKeysOverHttp:
    async def test_by_url(self, idp, issuer_of, es256):
        idp.answer("/jwks", {"keys": [es256.jwk()]})
        keys = keys_of(issuer_of(keys={"jwks_url": f"{idp.url}/jwks"}))
        await keys.start()
        assert keys.current().knows("k1")

    async def test_by_discovery(self, secure_idp, ca_file, issuer_of, written, es256):
        """With all that an issuer in a cluster needs: its own authority, and a token to ask."""
        url = secure_idp.url
        secure_idp.answer(CONFIGURATION, {"issuer": url, "jwks_uri": f"{url}/jwks"})
        secure_idp.answer("/jwks", {"keys": [es256.jwk()]})
        source = {"discovery": True, "bearer_file": str(written("token", "pod"))}
        keys = keys_of(issuer_of(issuer=url, keys=source, ca_file=str(ca_file)))
        await keys.start()
        assert keys.current().knows("k1")
        assert secure_idp.paths == [CONFIGURATION, "/jwks"]
        assert [secure_idp.headers(i)["authorization"] for i in (0, 1)] == ["Bearer pod"] * 2

    async def test_garbage(self, idp, issuer_of):
        idp.answer("/jwks", b"\x00garbage")
        keys = keys_of(issuer_of(keys={"jwks_url": f"{idp.url}/jwks"}))
        await keys.start()
        with pytest.raises(KeySetError, match="not a JWK set: not JSON"):
            keys.current()
