"""Whom to tell that something waits: `notify` in approval.yaml, and how a message is signed.

Signatures follow Standard Webhooks 1.0.0 (standardwebhooks.com), for which receivers have
libraries. Nothing here writes a message (`core.holds.message`) or sends one (`core.holds.post`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pydantic

from mitmgate.core.holds.hold import Hold
from mitmgate.core.rules import FilePath, Listed, Model, Reference

Event = Literal["held", "decided"]


def _is_address(webhook: Reference) -> Reference:
    _checked(webhook.resolve())
    return webhook


def _is_secret(secret: Reference | None) -> Reference | None:
    if secret is not None:
        _key(secret.resolve())
    return secret


class Notice(Model):
    """One of `notify` in approval.yaml: a webhook and what it is told.

    `secret` signs (json only). `prompt` lets the start of what was asked into the message. The
    receiver's certificate must come from an authority in `ca_file`, or else one of the system's.
    """

    webhook: Annotated[Reference, pydantic.AfterValidator(_is_address)]
    format: Literal["json", "slack"] = "json"
    secret: Annotated[Reference | None, pydantic.AfterValidator(_is_secret)] = None
    prompt: bool = False
    on: Annotated[Listed[Event], pydantic.Field(min_length=1)] = ("held",)
    ca_file: FilePath | None = None

    @pydantic.field_validator("secret")
    @classmethod
    def _signs(cls, secret: Reference | None, info: pydantic.ValidationInfo) -> Reference | None:
        if secret is not None and info.data.get("format") == "slack":
            raise ValueError("signs json; Slack looks at no signature, its address is the secret")
        return secret


def address(notice: Notice) -> str:
    """The URL to send to, as it is now. Raises `ValueError`, which never shows the URL."""
    return _checked(notice.webhook.resolve())


def event_id(hold: Hold, event: Event) -> str:
    """The same for every try to tell of the same event, so that a receiver can drop repetitions."""
    what = [hold.id, hold.digest, hold.created, event]
    if event == "decided":
        what += [hold.state, len(hold.decisions)]
    return "msg_" + hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def headers(notice: Notice, event_id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of one try at `now` (Unix seconds). Raises `ValueError` for a spoilt secret."""
    found = {"Content-Type": "application/json"}
    if notice.format == "json":
        stamp = str(int(now))
        found |= {"webhook-id": event_id, "webhook-timestamp": stamp}
        if notice.secret is not None:
            signed = b".".join([event_id.encode(), stamp.encode(), body])
            mac = hmac.digest(_key(notice.secret.resolve()), signed, "sha256")
            found["webhook-signature"] = f"v1,{base64.b64encode(mac).decode()}"
    return found


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and not set(url) & set(" \\#")
        usable = plain and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:  # it may have the URL in its text
        usable = False
    if not usable:
        raise ValueError("should be a plain https URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("people are told over https (http only to a loopback address)")
    return url


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _key(secret: str) -> bytes:
    """The bytes of a secret as Standard Webhooks writes it."""
    encoded = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("should be whsec_ and 24 to 64 random bytes in base64")
    return key
