"""Key sets over HTTPS, by URL or by OpenID Connect discovery. Blocking: call it in a thread.

Nothing but the one URL is talked to: no redirects, no proxies from the environment, TLS verified
against the system's authorities (`SSL_CERT_FILE` adds a private one), answers bounded.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request

from mitmgate.core.tokens.errors import KeySetError, shown
from mitmgate.core.tokens.file import checked_url
from mitmgate.core.tokens.keyset import MAX_BYTES
from mitmgate.core.tokens.strictjson import read_object

TIMEOUT = 5.0  # seconds for each read from the socket


def fetch(url: str) -> bytes:
    """The body of `url`, 512 KB at most. Raises `KeySetError`."""
    try:
        request = urllib.request.Request(  # noqa: S310 - checked_url lets https and loopback through
            checked_url(url), headers={"Accept": "application/json", "User-Agent": "mitmgate"}
        )
        with _opener().open(request, timeout=TIMEOUT) as response:
            body: bytes = response.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as e:
        e.close()
        note = " (redirects are not followed)" if 300 <= e.code < 400 else ""
        raise KeySetError(url, f"answered {e.code}{note}") from None
    except urllib.error.URLError as e:
        raise KeySetError(url, f"cannot be reached: {e.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise KeySetError(url, f"cannot be fetched: {e or type(e).__name__}") from None
    if len(body) > MAX_BYTES:
        raise KeySetError(url, f"answers more than {MAX_BYTES >> 10} KB")
    return body


def discover(issuer: str) -> str:
    """The `jwks_uri` of `issuer` (OpenID Connect Discovery 1.0 section 4). Raises `KeySetError`."""
    url = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
    try:
        document = read_object(fetch(url))
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
    return jwks_uri


def _opener() -> urllib.request.OpenerDirector:
    # Put together by hand: build_opener would add proxies, redirects, file: and ftp:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
