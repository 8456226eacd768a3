"""Where callers put their tokens, and every header that must not reach the model.

Clients of OpenAI send `Authorization: Bearer`, of Anthropic `x-api-key`, of Azure `api-key`: the
token may come in any of them, but there must be only one, and it may not come in the query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from mitmgate.core.tokens.errors import TokenConflict, TokenMalformed, TokenMissing, shown
from mitmgate.core.tokens.presented import Presented

KEY_HEADERS = ("x-api-key", "api-key")
CREDENTIAL_HEADERS = (
    "authorization",
    "proxy-authorization",
    *KEY_HEADERS,
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "x-forwarded-access-token",
    "x-amz-security-token",
    "ocp-apim-subscription-key",
    "dpop",
    "cookie",
)
# What may be named when it is refused; anything else could be a token in the wrong place.
_OTHER_SCHEMES = ("apikey", "basic", "digest", "gnap", "negotiate", "ntlm", "token")
_SCHEMES = re.compile(r"(bearer|dpop)(?: +(.*))?", re.IGNORECASE | re.DOTALL)
# RFC 6750 section 2.3 and what vendors call it. A query stands in logs, histories and referrers.
_IN_QUERY = re.compile(
    r"(?<![^?&;])(access_token|id_token|token|jwt|auth|authorization|key|api[_-]?key|x-api-key)"
    r"=([^&;]*)",
    re.IGNORECASE,
)


def presented(
    headers: Sequence[tuple[str, str]],
    *,
    method: str = "",
    target: str = "",
    certificate: bytes = b"",
) -> Presented:
    """The one token of a request, not verified. Raises `TokenMissing` or `TokenConflict`.

    The same token in several headers is one token: some SDKs send it twice. A value that no token
    can be is `TokenMalformed`.
    """
    authorization, proofs, tokens = [], [], set()
    for name, value in headers:
        name, value = name.lower(), value.strip(" \t")
        if name == "authorization":
            authorization.append(value)
        elif name == "dpop":
            proofs.append(value)
        elif name in KEY_HEADERS:
            tokens.add(value)
    if len(authorization) > 1:
        raise TokenConflict(f"{len(authorization)} Authorization headers")
    path, _, query = target.partition("?")
    if found := _IN_QUERY.search(unquote(query)):
        raise TokenConflict(f"{found[1]} stands in the query, where a token has no place")
    scheme, token = _token(authorization[0]) if authorization else ("bearer", "")
    tokens = (tokens | {token}) - {""}
    if len(tokens) > 1:
        raise TokenConflict(f"{len(tokens)} different tokens in Authorization, x-api-key, api-key")
    for token in tokens:
        if not token.isprintable() or not token.isascii() or " " in token or "," in token:
            raise TokenMalformed("it has characters that no token has")
        return Presented(
            token,
            "DPoP" if scheme == "dpop" else "Bearer",
            tuple(proofs),
            method,
            path,
            certificate,
        )
    raise TokenMissing("no Authorization: Bearer, x-api-key or api-key header")


def without_credentials(target: str) -> str:
    """A request target whose query has no token in it: what may be logged and recorded."""
    path, mark, query = target.partition("?")
    if not mark or not _IN_QUERY.search(unquote(query)):
        return target
    return f"{path}?removed"


def _token(authorization: str) -> tuple[str, str]:
    match = _SCHEMES.fullmatch(authorization)
    if match is None:
        word, blank, _ = authorization.partition(" ")
        known = blank and word.lower() in _OTHER_SCHEMES
        said = f"is {shown(word)}" if known else "has no scheme that is known"
        raise TokenMissing(f"Authorization {said}, not Bearer or DPoP")
    return match[1].lower(), match[2] or ""
