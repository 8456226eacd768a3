"""Where callers put their tokens, and every header that must not reach the model.

Clients of OpenAI send `Authorization: Bearer`, of Anthropic `x-api-key`, of Azure `api-key`: the
token may come in any of them, but there must be only one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mitmgate.core.tokens.errors import TokenConflict, TokenMalformed, TokenMissing, shown

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
_BEARER = re.compile(r"bearer(?: +(.*))?", re.IGNORECASE | re.DOTALL)


def bearer(headers: Sequence[tuple[str, str]]) -> str:
    """The one token in `headers`, not verified. Raises `TokenMissing` or `TokenConflict`.

    The same token in several headers is one token: some SDKs send it twice. A value that no token
    can be is `TokenMalformed`.
    """
    authorization = [
        value.strip(" \t") for name, value in headers if name.lower() == "authorization"
    ]
    tokens = {value.strip(" \t") for name, value in headers if name.lower() in KEY_HEADERS}
    if len(authorization) > 1:
        raise TokenConflict(f"{len(authorization)} Authorization headers")
    if authorization:
        tokens.add(_token(authorization[0]))
    tokens.discard("")
    if len(tokens) > 1:
        raise TokenConflict(f"{len(tokens)} different tokens in Authorization, x-api-key, api-key")
    for token in tokens:
        if not token.isprintable() or not token.isascii() or " " in token or "," in token:
            raise TokenMalformed("it has characters that no token has")
        return token
    raise TokenMissing("no Authorization: Bearer, x-api-key or api-key header")


def _token(authorization: str) -> str:
    match = _BEARER.fullmatch(authorization)
    if match is None:
        scheme = shown(authorization.split(" ")[0]) if " " in authorization else "of no scheme"
        raise TokenMissing(f"Authorization is {scheme}, not Bearer")
    return match[1] or ""
