"""The inside of a token whose signature holds: claims (RFC 7519 section 4.1) to a principal.

pyjwt could check most of these, but takes `"123"` and `true` for times and reads only the
system's clock; here every claim has its exact type and its own exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mitmgate.core import claim
from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import (
    AudienceMissing,
    AudienceWrong,
    ClaimMalformed,
    ExpiryMissing,
    IssuedAtMissing,
    IssuedInFuture,
    LifetimeTooLong,
    NotYetValid,
    SpiffeIdWrong,
    SubjectMissing,
    TokenError,
    TokenExpired,
    shown,
)
from mitmgate.core.tokens.file import Issuer

MAX_SUBJECT = 512
MAX_SPIFFE_ID = 2048  # SPIFFE-ID section 2.3
_LATEST = 253402300800  # the year 10000
# No empty, `.` or `..` step, no slash at the end: an ID has one spelling.
_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+)")


def principal_of(claims: Mapping[str, Any], issuer: Issuer, now: float) -> Principal:
    """The caller that `claims` describe at `now` (Unix seconds). Raises `TokenError`."""
    _check_audience(claims, issuer)
    expires = _check_times(claims, issuer, now)
    subject = _subject(claims, issuer)
    return Principal(
        issuer=issuer.id,
        subject=subject,
        scopes=_scopes(claims),
        groups=_groups(claims, issuer),
        token_id=_string(claims, "jti"),
        expires=expires,
        display=claim.fill(issuer.display, claims) if issuer.display else "",
        spiffe_id=subject if issuer.trust_domain is not None else "",
        claims=dict(claims),
    )


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audience = claims.get("aud")
    if audience is None or audience == []:
        raise AudienceMissing(f"aud is missing; {issuer.id} wants {' or '.join(issuer.audience)}")
    audiences = _strings("aud", [audience] if isinstance(audience, str) else audience)
    if audiences.isdisjoint(issuer.audience):
        raise AudienceWrong(
            f"aud is {shown(audience)}; {issuer.id} wants {' or '.join(issuer.audience)}"
        )


def _check_times(claims: Mapping[str, Any], issuer: Issuer, now: float) -> float:
    expires = _time(claims, "exp", ExpiryMissing)
    issued = _time(claims, "iat", IssuedAtMissing)
    if expires <= now - issuer.leeway:
        raise TokenExpired(f"exp was {now - expires:.0f} s ago")
    if issued > now + issuer.leeway:
        raise IssuedInFuture(f"iat is {issued - now:.0f} s ahead")
    if "nbf" in claims and (start := _time(claims, "nbf", ClaimMalformed)) > now + issuer.leeway:
        raise NotYetValid(f"nbf is {start - now:.0f} s ahead")
    if expires <= issued:
        raise ClaimMalformed("exp is not after iat")
    if expires - issued > issuer.max_lifetime:
        lives = f"lives {expires - issued:.0f} s"
        raise LifetimeTooLong(f"{lives}; {issuer.id} allows {issuer.max_lifetime:.0f} s")
    return expires


def _time(claims: Mapping[str, Any], name: str, missing: type[TokenError]) -> float:
    """A NumericDate as a number: neither true nor "123" nor infinity is one."""
    value = claims.get(name)
    if value is None:
        raise missing(f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClaimMalformed(f"{name} is {shown(value)}, not a number")
    if not math.isfinite(value if isinstance(value, float) else 0) or not 0 <= value <= _LATEST:
        raise ClaimMalformed(f"{name} is {shown(value)}, not a time in seconds")
    return float(value)


def _subject(claims: Mapping[str, Any], issuer: Issuer) -> str:
    _string(claims, "sub")
    name = issuer.subject_claim
    subject = _string(claims, name)
    if not subject:
        raise SubjectMissing(f"{name} is missing or empty")
    longest = MAX_SUBJECT if issuer.trust_domain is None else MAX_SPIFFE_ID
    if len(subject) > longest or not subject.isprintable() or subject != subject.strip():
        raise ClaimMalformed(f"{name} is {shown(subject)}")
    if issuer.trust_domain is not None and trust_domain(subject) != issuer.trust_domain:
        wanted = f"spiffe://{issuer.trust_domain}/..."
        raise SpiffeIdWrong(f"{name} is {shown(subject)}; {issuer.id} wants {wanted}")
    return subject


def trust_domain(subject: str) -> str | None:
    """The trust domain of a workload's SPIFFE ID (SPIFFE-ID section 2), None if it is none."""
    found = _SPIFFE_ID.fullmatch(subject)
    return found[1] if found else None


def _string(claims: Mapping[str, Any], name: str) -> str:
    value = claim.find(claims, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ClaimMalformed(f"{name} is {shown(value)}, not a string")
    return value


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` (RFC 8693: words in a string) and `scp` (a list or words) as some issuers say."""
    scopes = frozenset(_string(claims, "scope").split())
    scp = claims.get("scp")
    return scopes | _strings("scp", scp.split() if isinstance(scp, str) else scp or [])


def _groups(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[str]:
    name = issuer.groups_claim
    value = claim.find(claims, name)
    if value is None:
        return frozenset()
    return _strings(name, [value] if isinstance(value, str) else value)


def _strings(name: str, values: object) -> frozenset[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ClaimMalformed(f"{name} is {shown(values)}, not a list of strings")
    return frozenset(values)
