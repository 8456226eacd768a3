"""What the gate would say to one token and one request, step by step, without a gate.

Every step is the gate's own function, in the gate's order; nothing is judged here a second time.
Nothing is fetched either: what only a running gate can know is taken for granted, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mitmgate.core.principal import Bound, Principal
from mitmgate.core.tokens import compact, verify
from mitmgate.core.tokens.claims import principal_of
from mitmgate.core.tokens.errors import CertificateWrong, ProofWrong, TokenError, shown
from mitmgate.core.tokens.extract import presented
from mitmgate.core.tokens.file import Grant, Issuer
from mitmgate.core.tokens.fit import Fit, fit, one_of
from mitmgate.core.tokens.grants import NotAllowed, Wanted
from mitmgate.core.tokens.identity import Identity
from mitmgate.core.tokens.keys import FileKeys
from mitmgate.core.tokens.keyset import MAX_BYTES
from mitmgate.core.tokens.possession import CERTIFICATE, KEY, Possession
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.watched import WatchedFile

_PROOFS = {CERTIFICATE: "its client certificate", KEY: "a DPoP proof of its key"}
_YEAR_10000 = 253402300800


@dataclass(frozen=True, slots=True)
class Check:
    """One step of verifying a token. What is `unchecked` is taken for granted further down."""

    name: str
    outcome: Literal["ok", "failed", "unchecked"]
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All steps up to the one that decided: `grant` is the one that counts, else `error` is set.

    `fits` are in the gate's order, the grants that deny first.
    """

    wanted: Wanted
    checks: tuple[Check, ...]
    principal: Principal | None = None
    fits: tuple[Fit, ...] = ()
    grant: Grant | None = None
    error: TokenError | NotAllowed | None = None

    @property
    def assumed(self) -> tuple[str, ...]:
        """The checks that only a running gate makes."""
        names = (check.name for check in self.checks if check.outcome == "unchecked")
        return tuple(dict.fromkeys(names))


async def explain(
    identity: Identity,
    token: str,
    wanted: Wanted,
    *,
    now: float,
    saved: Mapping[str, Path] | None = None,
) -> Explanation:
    """What `identity` says at `now` (Unix seconds) to a request for `wanted` with `token`.

    `saved` are key sets in files, by the id of the issuer whose own ones they stand in for; "" is
    whichever issuer the token has. Raises `KeySetError` where one cannot be used.
    """
    steps = _Steps()
    try:
        principal = await _verify(steps, identity, token, now, saved or {})
    except TokenError as e:
        steps.fail(e)
        return Explanation(wanted, tuple(steps.checks), error=e)
    grants = sorted(identity.rules.grants, key=lambda grant: grant.effect != "deny")
    fits = tuple(fit(grant, principal, wanted) for grant in grants)
    grant: Grant | None = None
    error: TokenError | NotAllowed | None = None
    try:
        # As the gate does: when the headers have come, and again when the model is known.
        identity.authorizer.allow(principal, replace(wanted, model=None))
        grant = identity.authorizer.allow(principal, wanted)
    except (TokenError, NotAllowed) as e:
        error = e
    return Explanation(wanted, tuple(steps.checks), principal, fits, grant, error)


class _Steps:
    """The checks that were made, and the one that is being made."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self._name = self._note = ""

    def begin(self, name: str, note: str = "") -> None:
        """`note` is added to what is said if it fails."""
        self._name, self._note = name, note

    def passed(self, text: str) -> None:
        self.checks.append(Check(self._name, "ok", text))

    def skip(self, name: str, text: str) -> None:
        self.checks.append(Check(name, "unchecked", text))

    def fail(self, error: TokenError) -> None:
        self.checks.append(Check(self._name, "failed", error.detail + self._note))


async def _verify(
    steps: _Steps, identity: Identity, token: str, now: float, saved: Mapping[str, Path]
) -> Principal:
    """`Verifier.verify`, one step after the other. Raises the `TokenError` of the last one."""
    steps.begin("form")
    token = presented([("Authorization", f"Bearer {token}")]).token
    unverified = compact.read(token)
    claims = unverified.claims
    steps.passed(f"a signed JWT with {shown(', '.join(claims))}")
    steps.begin("issuer")
    issuer = identity.verifier.issuer_of(claims)
    rules = issuer.rules
    known_by = f"iss is {shown(claims['iss'])}" if "iss" in claims else f"of {rules.trust_domain}"
    steps.passed(f"{rules.id}, {known_by}")
    steps.begin("typ")
    verify.check_type(unverified, rules)
    steps.passed(unverified.typ or "none")
    steps.begin("algorithm")
    verify.check_algorithm(unverified, rules)
    steps.passed(unverified.algorithm)
    path = saved.get(rules.id) or saved.get("")
    if path is None and rules.keys.jwks_file is None:
        steps.skip("key", f"{shown(unverified.kid)} is looked for in {_source(rules)}")
        steps.skip("signature", "NOT checked: nothing is fetched here, anybody can write the rest")
    else:
        if path:
            keys = FileKeys(rules, WatchedFile(path, max_bytes=MAX_BYTES))
            keys.current()  # a wrong file is not the token's fault
            issuer = replace(issuer, keys=keys)
        steps.begin("key")
        _, key = await verify.find_key(issuer, unverified)
        steps.passed(f"{shown(unverified.kid)} of {path or rules.keys.jwks_file}")
        steps.begin("signature")
        identity.verifier.check_signature(token, unverified, key)
        steps.passed("made with this key")
    times = _times(claims, now)
    steps.begin("claims", f" ({times})" if times else "")
    principal = principal_of(claims, rules, now)
    for name, text in (
        ("aud", f"{shown(claims['aud'])}, wanted {one_of(rules.audience)}"),
        ("times", times),
        ("caller", _description(principal)),
    ):
        steps.begin(name)
        steps.passed(text)
    steps.begin("binding")
    principal = replace(principal, bound=_bound(steps, identity.possession, principal))
    if revoked := identity.rules.revoked:
        steps.begin("revocation")
        Revocations(revoked.file).check(principal)
        steps.passed(f"not in {revoked.file}")
    if rules.introspection:
        steps.skip("introspection", f"{rules.introspection.url} is asked at run time")
    return principal


def _bound(steps: _Steps, possession: Possession, principal: Principal) -> Bound:
    """How the bearer has to prove to have the token's key, which cannot be shown here.

    Each proof is tried with one that is certainly wrong: if that is found wrong, a right one would
    do; if even then one is missing, none ever will. Raises `ProofRequired` then.
    """
    cnf = principal.claims.get("cnf")
    members = [name for name in _PROOFS if name in cnf] if isinstance(cnf, dict) else []
    if not isinstance(cnf, dict) or not members:
        bound = possession.prove(principal, Presented(""))
        steps.passed("no cnf: whoever has the token may use it")
        return bound
    for name in members:
        dud = Presented("", scheme="DPoP", proofs=("dud",), certificate=b"dud")
        alone = replace(principal, claims={"cnf": {name: cnf[name]}})
        with suppress(CertificateWrong, ProofWrong):
            possession.prove(alone, dud)
        steps.skip("binding", f"the caller must show {_PROOFS[name]}, {name} {cnf[name]}")
    return "dpop" if KEY in members else "mtls"


def _source(issuer: Issuer) -> str:
    if issuer.keys.jwks_url:
        return issuer.keys.jwks_url
    return f"the jwks_uri of {issuer.issuer}/.well-known/openid-configuration"


def _description(principal: Principal) -> str:
    said = [principal.name]
    if principal.display:
        said.append(f"shown as {principal.display}")
    for name, values in (("scopes", principal.scopes), ("groups", principal.groups)):
        said.append(f"{name} {shown(' '.join(sorted(values)))}" if values else f"no {name}")
    return ", ".join(said)


def _times(claims: Mapping[str, Any], now: float) -> str:
    said = []
    for name in ("iat", "nbf", "exp"):
        value: Any = claims.get(name)
        if type(value) in (int, float) and 0 <= value < _YEAR_10000:
            moment = datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%d %H:%M:%S")
            said.append(f"{name} {moment} UTC, {_distance(value - now)}")
    return "; ".join(said)


def _distance(seconds: float) -> str:
    size, unit = abs(seconds), "s"
    for name, length in (("min", 60), ("h", 3600), ("d", 86400)):
        if abs(seconds) >= 2 * length:
            size, unit = abs(seconds) / length, name
    return f"in {size:.0f} {unit}" if seconds > 0 else f"{size:.0f} {unit} ago"
