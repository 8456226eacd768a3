"""Request targets as they may be kept: without the values of parameters that carry credentials."""

from __future__ import annotations

import re
from collections.abc import Container
from urllib.parse import unquote_plus

# RFC 6750 section 2.3 and RFC 6749; what vendors call a key; signed URLs of clouds.
CREDENTIAL_PARAMETERS = frozenset(
    """
    access_token refresh_token id_token id_token_hint token auth_token session_token jwt bearer
    auth authorization api_key apikey x_api_key key access_key secret secret_key client_secret
    client_assertion assertion code code_verifier password passwd pwd sig signature
    x_amz_credential x_amz_security_token x_amz_signature x_goog_credential x_goog_signature
    subscription_key ocp_apim_subscription_key session sessionid sid
    x_auth_token private_token personal_access_token user_token credential credentials
    """.split()
)
REMOVED = "removed"
_COMPACT = frozenset(name.replace("_", "") for name in CREDENTIAL_PARAMETERS)

_HIDDEN = re.compile(r"[?&;#]\s*([\w.\[\]-]{1,60})\s*=")


def without_secrets(target: str, more: Container[str] = ()) -> str:
    """`target` with the value of each credential-like parameter replaced by a word.

    `more` are further names, in lower case. Everything else stays as it is, byte for byte. Names
    are compared percent-decoded, in lower case, by their letters and digits alone; a value that
    holds such a parameter itself, a URL say, goes as a whole.
    """
    path, mark, query = target.partition("?")
    if not mark:
        return target
    parts = re.split(r"([&;])", query)
    return path + mark + "".join(_scrubbed(part, more) for part in parts)


def _scrubbed(part: str, more: Container[str]) -> str:
    name, mark, value = part.partition("=")
    if not mark or not value:
        return part
    inside = any(_secret(found[1], more) for found in _HIDDEN.finditer(f"&{_decoded(value)}"))
    return f"{name}={REMOVED}" if inside or _secret(_decoded(name), more) else part


def _decoded(text: str) -> str:
    for _ in range(3):  # encoded more than once, as in a URL within a URL
        text = unquote_plus(text)
    return text


def _secret(name: str, more: Container[str]) -> bool:
    name = name.strip().lower()
    return name in more or re.sub(r"[\W_]", "", name) in _COMPACT
