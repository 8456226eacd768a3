"""A token as a request brought it, with all that may show that its bearer also has its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Presented:
    """One token, not verified. `proofs` are the values of all `DPoP` headers.

    `method` and `path` are the request's, the path without its query; `certificate` is the DER of
    the TLS connection's client certificate, b"" where there is none.
    """

    token: str
    scheme: Literal["Bearer", "DPoP"] = "Bearer"
    proofs: tuple[str, ...] = ()
    method: str = ""
    path: str = ""
    certificate: bytes = b""
