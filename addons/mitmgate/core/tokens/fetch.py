"""One HTTP request to an issuer: for its keys, for its configuration, or about a token.

Nothing but the one URL is talked to: no redirects, no proxies from the environment, TLS verified,
the answer bounded and never decompressed. Nothing is tried twice; that is for who asks.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from mitmgate.core.tokens.errors import KeySetError, shown
from mitmgate.core.tokens.file import checked_url
from mitmgate.core.tokens.keyset import MAX_BYTES
from mitmgate.core.tokens.strictjson import read_object
from mitmgate.core.tokens.watched import open_ordinary

TIMEOUT = 7.0  # seconds for one request, from the look-up of the name to the end of the answer
MAX_BEARER = 64 << 10
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1


async def fetch(
    url: str,
    *,
    authorities: Path | None = None,
    bearer_file: Path | None = None,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> bytes:
    """The body that `url` answers with 200, 512 KB at most. Raises `KeySetError`.

    With `authorities`, a PEM file, the server's certificate must come from one of those alone;
    without, from one of the system's (`SSL_CERT_FILE` has others). The token in `bearer_file` is
    sent as it stands there now. `form` makes it a POST. `timeout` is in seconds.
    """
    timeout = TIMEOUT if timeout is None else timeout
    try:
        secure = urlsplit(checked_url(url)).scheme == "https"
    except ValueError as e:
        raise KeySetError(url, f"cannot be fetched: {e}") from None
    sent = {"Accept": "application/json", "User-Agent": "mitmgate", **(headers or {})}
    begun: list[str] = []
    request = HTTPRequest(
        url,
        method="GET" if form is None else "POST",
        headers=sent | (_bearer(bearer_file) if bearer_file else {}),
        body=None if form is None else urlencode(form),
        connect_timeout=timeout,
        request_timeout=timeout,
        follow_redirects=False,
        decompress_response=False,
        header_callback=begun.append,
        ssl_options=_context(authorities) if secure else None,
    )
    client = SimpleAsyncHTTPClient(
        force_instance=True, max_buffer_size=MAX_BYTES, max_body_size=MAX_BYTES
    )
    try:
        response = await client.fetch(request, raise_error=False)
    except HTTPTimeoutError:
        raise KeySetError(url, f"took longer than {timeout:g} s") from None
    except Exception as e:
        raise KeySetError(url, _failure(e, bool(begun))) from None
    finally:
        client.close()
    if response.code != 200:
        note = " (redirects are not followed)" if 300 <= response.code < 400 else ""
        raise KeySetError(url, f"answered {response.code}{note}")
    if len(response.body) > MAX_BYTES:  # one that only the end of the connection would have ended
        raise KeySetError(url, f"answers more than {MAX_BYTES >> 10} KB")
    return response.body


def _failure(error: Exception, begun: bool) -> str:
    if begun:  # tornado hangs up on an answer that is too long, and does not tell it from others
        return f"broke off, or answers more than {MAX_BYTES >> 10} KB"
    verb = "reached" if isinstance(error, OSError) else "fetched"
    return f"cannot be {verb}: {str(error) or type(error).__name__}"


async def discover(
    issuer: str, *, authorities: Path | None = None, bearer_file: Path | None = None
) -> str:
    """The `jwks_uri` of `issuer` (OpenID Connect Discovery 1.0 section 4). Raises `KeySetError`.

    With `bearer_file`, keys at any other place than the issuer's own scheme, host and port are
    refused: that token is for the issuer alone.
    """
    url = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
    content = await fetch(url, authorities=authorities, bearer_file=bearer_file)
    try:
        document = read_object(content)
    except ValueError as e:
        raise KeySetError(url, f"is not a discovery document: {e}") from None
    if document.get("issuer") != issuer:
        said = shown(document.get("issuer"))
        raise KeySetError(url, f"speaks for the issuer {said}, not for {shown(issuer)}")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise KeySetError(url, "has no jwks_uri")
    if issuer.startswith("https:") and not jwks_uri.startswith("https:"):
        raise KeySetError(url, f"points to keys without TLS: {shown(jwks_uri)}")
    if bearer_file and _origin(jwks_uri) != _origin(issuer):
        note = "bearer_file is sent to the issuer's own host alone (or to a jwks_url)"
        raise KeySetError(url, f"points to keys at {shown(jwks_uri)}: {note}")
    return jwks_uri


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}[parts.scheme]
    except (ValueError, KeyError):
        return None


def _bearer(path: Path) -> dict[str, str]:
    try:
        with open_ordinary(path) as file:
            content = file.read(MAX_BEARER + 1)
    except OSError as e:
        raise KeySetError(path, f"cannot be read: {e.strerror or type(e).__name__}") from None
    token = content.strip()
    if len(content) > MAX_BEARER or not _TOKEN.fullmatch(token):
        raise KeySetError(path, "does not hold one bearer token and nothing else")
    return {"Authorization": f"Bearer {token.decode()}"}


def _context(authorities: Path | None) -> ssl.SSLContext:
    """What to trust, read from its file when that is new: it takes the loop some 20 ms."""
    file = authorities or ssl.get_default_verify_paths().cafile
    try:
        stamp = None
        if file:
            with open_ordinary(Path(file)) as opened:
                stat = os.fstat(opened.fileno())
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return _trusting(authorities, file, stamp)
    except OSError as e:
        raise KeySetError(file, f"holds no authorities: {e.strerror or e}") from None


@functools.lru_cache(maxsize=32)
def _trusting(authorities: Path | None, file: object, stamp: object) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authorities)
