"""What `explain` says is what the gate does: it is held against Verifier and Authorizer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from mitmgate.core.principal import Principal
from mitmgate.core.rules.loader import load
from mitmgate.core.tokens import extract
from mitmgate.core.tokens.errors import KeySetError, TokenError
from mitmgate.core.tokens.explain import explain
from mitmgate.core.tokens.file import Grant, IdentityFile
from mitmgate.core.tokens.fit import fit
from mitmgate.core.tokens.grants import Authorizer, NotAllowed, Wanted
from mitmgate.core.tokens.identity import compile
from mitmgate.core.tokens.possession import Possession
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.verify import Verifier

NOW = 1_800_000_000
GATE = "https://gate.example"
CERTIFICATE = b"the DER of a certificate"
RULES = """\
schema: 1
issuers:
  - id: idp
    issuer: https://idp.example.com
    audience: [models, other]
    keys: {jwks_file: keys.json}
    algorithms: [ES256, RS256]
  - id: strict
    issuer: https://strict.example.com
    audience: models
    keys: {jwks_file: keys.json}
    algorithms: [ES256]
    typ: at+jwt
    max_lifetime: 5m
  - id: workloads
    trust_domain: prod.example
    audience: models
    keys: {jwks_file: keys.json}
    algorithms: [ES256]
  - id: remote
    issuer: https://remote.example.com
    audience: models
    keys: {jwks_url: 'https://remote.example.com/jwks'}
    algorithms: [ES256]
grants:
  - id: agents
    who: {issuer: [idp, remote], subject: 'agent-*'}
    operations: [chat, models]
    models: ['llama-*']
    limits: {requests_per_minute: 60}
  - id: holders
    who: {issuer: '*', scopes: [held]}
    operations: [embeddings]
    models: ['*']
    bound: mtls
  - id: provers
    who: {issuer: idp, claims: {/kubernetes.io/namespace: [billing]}}
    operations: [chat]
    models: ['*']
    bound: dpop
    masking: cleared
  - id: readers
    who: {issuer: '*'}
    operations: [models]
    models: ['*']
    methods: [GET]
  - id: workloads
    who: {spiffe: 'spiffe://prod.example/ns/*/sa/*'}
    operations: ['*']
    models: ['*']
  - id: no-secrets
    who: {issuer: '*'}
    effect: deny
    operations: ['*']
    models: ['*-secret']
dpop: {url: [https://gate.example]}
revoked: {file: revoked.txt}
"""


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


THUMBPRINT = b64(hashlib.sha256(CERTIFICATE).digest())
HOLDER = ec.generate_private_key(ec.SECP256R1())
JWK = ECAlgorithm.to_jwk(HOLDER.public_key(), as_dict=True)
JKT = b64(
    hashlib.sha256(
        json.dumps({k: JWK[k] for k in ("crv", "kty", "x", "y")}, separators=(",", ":")).encode()
    ).digest()
)


def wall() -> float:
    return NOW


@pytest.fixture(scope="module")
def directory(tmp_path_factory, es256, rs256):
    directory = tmp_path_factory.mktemp("explain")
    entries = [es256.jwk(), rs256.jwk(kid="r1")]
    (directory / "keys.json").write_text(json.dumps({"keys": entries}))
    (directory / "revoked.txt").write_text("t-revoked\nidp:agent-gone\n")
    (directory / "identity.yaml").write_text(RULES)
    return directory


@pytest.fixture(scope="module")
def identity(directory):
    loaded = load(directory / "identity.yaml", IdentityFile)
    made = compile(loaded)
    possession = Possession(loaded.file.dpop, clock=wall)
    verifier = Verifier(
        made.issuers,
        possession=possession,
        revocations=Revocations(directory / "revoked.txt"),
        clock=wall,
    )
    return replace(made, verifier=verifier, possession=possession)


def proof(token: str) -> str:
    claims = {
        "jti": jwt.utils.base64url_encode(hashlib.sha256(token.encode()).digest()).decode(),
        "htm": "POST",
        "htu": f"{GATE}/v1",
        "iat": NOW,
        "ath": b64(hashlib.sha256(token.encode()).digest()),
    }
    headers = {"typ": "dpop+jwt", "jwk": JWK}
    return jwt.PyJWS().encode(json.dumps(claims).encode(), HOLDER, "ES256", headers)


async def gate(identity, token: str, wanted: Wanted, *, holds: bool) -> tuple[object, ...]:
    """The verdict of the real thing; with `holds`, the caller shows whatever its token wants."""
    possession = Possession(identity.rules.dpop, clock=wall)  # so that a proof is no replay
    identity.verifier._possession = possession
    try:
        given = extract.presented([("Authorization", f"Bearer {token}")], method="POST")
        given = replace(given, path="/v1", certificate=CERTIFICATE if holds else b"")
        if holds and JKT in str(jwt_claims(token)):
            given = replace(given, scheme="DPoP", proofs=(proof(token),))
        principal = await identity.verifier.verify(given)
        identity.authorizer.allow(principal, replace(wanted, model=None))
        grant = identity.authorizer.allow(principal, wanted)
    except (TokenError, NotAllowed) as e:
        return e.status, e.public, e.code, e.detail
    return grant.id, principal.name, principal.bound


def jwt_claims(token: str) -> object:
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None


async def explained(identity, token: str, wanted: Wanted, **options) -> tuple[object, ...]:
    said = await explain(identity, token, wanted, now=NOW, **options)
    assert (said.grant is None) != (said.error is None)
    failed = [check for check in said.checks if check.outcome == "failed"]
    assert bool(failed) == (said.principal is None)
    signature = token.rpartition(".")[2]
    assert len(signature) < 20 or signature not in str(said)
    if said.error:
        if failed:
            assert failed == [said.checks[-1]]
            assert failed[0].text.startswith(said.error.detail)
        return said.error.status, said.error.public, said.error.code, said.error.detail
    assert said.principal is not None
    assert next(f.grant for f in said.fits if not f.unmet) == said.grant
    return said.grant.id, said.principal.name, said.principal.bound


NAMESPACE = {"kubernetes.io": {"namespace": "billing"}}
STRICT = {"iss": "https://strict.example.com", "exp": NOW + 60}
WORKLOAD = {"iss": None, "sub": "spiffe://prod.example/ns/search/sa/agent"}
CLAIMS: dict[str, tuple[dict[str, object], str]] = {  # -> a code of the token, or "" where good
    "good": ({}, ""),
    "a stranger": ({"sub": "ci-7"}, ""),
    "iss unknown": ({"iss": "https://idp.example.com/"}, "issuer_unknown"),
    "iss missing": ({"iss": None}, "issuer_missing"),
    "iss a number": ({"iss": 5}, "claim_malformed"),
    "aud missing": ({"aud": None}, "audience_missing"),
    "aud wrong": ({"aud": ["x"]}, "audience_wrong"),
    "aud odd": ({"aud": {"a": 1}}, "claim_malformed"),
    "exp missing": ({"exp": None}, "expiry_missing"),
    "exp a string": ({"exp": "5"}, "claim_malformed"),
    "exp enormous": ({"exp": 10**30}, "claim_malformed"),
    "expired": ({"exp": NOW - 31}, "token_expired"),
    "expired within the leeway": ({"iat": NOW - 100, "exp": NOW - 29}, ""),
    "iat missing": ({"iat": None}, "issued_at_missing"),
    "iat ahead": ({"iat": NOW + 31}, "issued_in_future"),
    "nbf ahead": ({"nbf": NOW + 31}, "not_yet_valid"),
    "lives long": ({"exp": NOW + 3601}, "lifetime_too_long"),
    "lives long for one issuer": ({**STRICT, "exp": NOW + 600}, "type_refused"),
    "sub missing": ({"sub": None}, "subject_missing"),
    "sub unprintable": ({"sub": "a\nb"}, "claim_malformed"),
    "a workload": (WORKLOAD, ""),
    "a workload with iss": ({**WORKLOAD, "iss": "https://idp.example.com"}, ""),
    "a workload of another domain": (
        {"iss": None, "sub": "spiffe://test.example/x"},
        "issuer_missing",
    ),
    "revoked by id": ({"jti": "t-revoked"}, "token_revoked"),
    "revoked by name": ({"sub": "agent-gone"}, "token_revoked"),
    "bound to a certificate": ({"cnf": {"x5t#S256": THUMBPRINT}, "scope": "held"}, ""),
    "bound to a key": ({"cnf": {"jkt": JKT}, **NAMESPACE}, ""),
    "bound to both": ({"cnf": {"jkt": JKT, "x5t#S256": THUMBPRINT}, **NAMESPACE}, ""),
    "a namespace, unbound": (NAMESPACE, ""),
    "scopes, unbound": ({"scope": "held"}, ""),
    "cnf odd": ({"cnf": "x"}, "proof_required"),
    "cnf empty": ({"cnf": {}}, "proof_required"),
    "cnf unknown": ({"cnf": {"jwk": JWK}}, "proof_required"),
    "cnf no digest": ({"cnf": {"jkt": "abc"}}, "proof_required"),
    "cnf half a digest": ({"cnf": {"jkt": JKT, "x5t#S256": "abc"}}, "proof_required"),
    "revoked and bound": ({"cnf": {"jkt": JKT}, "jti": "t-revoked"}, "token_revoked"),
}
WANTED = [
    Wanted(operation, model, method)
    for operation, model, method in itertools.product(
        ["chat", "embeddings", "models"], [None, "", "llama-3", "gpt", "Llama-Secret"], ["POST"]
    )
] + [Wanted("models", None, "GET"), Wanted("models", "gpt", "GET")]


@pytest.mark.parametrize("name", CLAIMS)
async def test_claims(identity, es256, name):
    claims, code = CLAIMS[name]
    token = es256.token(**claims)
    for wanted in WANTED:
        said = await explained(identity, token, wanted)
        assert said == await gate(identity, token, wanted, holds=True)
        assert not code or said[2] == code


def forms(es256, other_es256, rs256):
    good = es256.token()
    header, payload, signature = good.split(".")
    none = b64(b'{"alg":"none"}')
    yield "", "token_missing"
    yield "rubbish", "token_malformed"
    yield "a b", "token_malformed"
    yield "Bearer " + good, "token_malformed"
    yield f"{header}.{payload}.{signature}.x.\u00e9", "token_malformed"
    yield "a.b.c.d.e", "token_encrypted"
    yield "x" * (17 << 10), "token_too_large"
    yield f"{none}.{payload}.", "token_malformed"
    yield f"{none}.{payload}.{signature}", "algorithm_refused"
    yield f"{header}.{payload}.{signature[:-2]}", "signature_wrong"
    yield es256.token({"crit": ["b64"]}), "critical_header"
    yield es256.token({"typ": "dpop+jwt"}), "type_refused"
    yield es256.token({"kid": "k2"}), "key_unknown"
    yield es256.token({"kid": "r1"}), "algorithm_refused"
    yield other_es256.token(), "signature_wrong"
    yield rs256.token({"kid": "r1"}, **STRICT), "type_refused"
    yield rs256.token({"kid": "r1", "typ": "at+jwt"}, **STRICT), "algorithm_refused"
    yield es256.token({"typ": "at+jwt"}, **STRICT), "operation_not_granted"
    yield es256.sign(b'{"iss": "a", "iss": "b"}'), "token_malformed"


async def test_forms_types_algorithms_keys_and_signatures(identity, es256, other_es256, rs256):
    wanted = Wanted("chat", "llama-3")
    for token, code in forms(es256, other_es256, rs256):
        said = await explained(identity, token, wanted)
        assert said == await gate(identity, token, wanted, holds=True)
        assert said[2] == code, token


ODD = st.sampled_from([None, "", "x", 0, -1, True, 1.5, [], ["models"], {}, {"a": 1}, 1e300])
NAMES = ["iss", "aud", "sub", "iat", "exp", "nbf", "jti", "scope", "scp", "groups", "cnf"]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(list(CLAIMS)),
    odd=st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2),
    wanted=st.sampled_from(WANTED),
)
def test_claims_at_random(identity, es256, name, odd, wanted):
    async def check() -> None:
        token = es256.token(**{**CLAIMS[name][0], **odd})
        said = await explained(identity, token, wanted)
        assert said == await gate(identity, token, wanted, holds=True)

    asyncio.run(check())


async def test_a_caller_who_shows_nothing_fails_at_what_was_not_checked(identity, es256):
    token = es256.token(cnf={"x5t#S256": THUMBPRINT}, scope="held")
    wanted = Wanted("embeddings", "m")
    said = await explain(identity, token, wanted, now=NOW)
    assert said.assumed == ("binding",)
    assert said.grant is not None
    assert said.grant.id == "holders"
    assert THUMBPRINT in said.checks[-2].text
    assert (await gate(identity, token, wanted, holds=False))[2] == "proof_required"


async def test_without_dpop_no_proof_ever_helps(identity, es256):
    without = replace(identity, possession=Possession(None))
    said = await explained(without, es256.token(cnf={"jkt": JKT}), Wanted("chat", "llama-3"))
    assert said[2:] == (
        "proof_required",
        "the token needs a DPoP proof, but identity.yaml has no dpop",
    )


async def test_each_step_is_a_line_in_the_order_of_the_gate(identity, es256):
    said = await explain(identity, es256.token(), Wanted("chat", "llama-3"), now=NOW)
    names = [check.name for check in said.checks]
    assert names == [
        *("form", "issuer", "typ", "algorithm", "key", "signature"),
        *("aud", "times", "caller", "binding", "revocation"),
    ]
    assert {check.outcome for check in said.checks} == {"ok"}
    times = next(check.text for check in said.checks if check.name == "times")
    assert times == ("iat 2027-01-15 08:00:00 UTC, 0 s ago; exp 2027-01-15 08:10:00 UTC, in 10 min")
    assert said.fits[0].grant.id == "no-secrets"
    assert said.grant is not None
    assert said.grant.limits is not None


async def test_times_are_readable_where_they_fail(identity, es256):
    token = es256.token(iat=NOW - 7300, exp=NOW - 7200, nbf=True)
    said = await explain(identity, token, Wanted("chat"), now=NOW)
    assert said.checks[-1].name == "claims"
    assert said.checks[-1].text == (
        "exp was 7200 s ago (iat 2027-01-15 05:58:20 UTC, 2 h ago; "
        "exp 2027-01-15 06:00:00 UTC, 2 h ago)"
    )


async def test_introspection_is_left_to_the_gate(directory, es256):
    path = directory / "asking.yaml"
    asked = "introspection: {url: 'https://idp.example.com/i', client_id: g, client_secret: s}"
    path.write_text(RULES.replace("audience: [models, other]", f"audience: models\n    {asked}"))
    identity = compile(load(path, IdentityFile))
    said = await explain(identity, es256.token(), Wanted("chat", "llama-3"), now=NOW)
    assert said.assumed == ("introspection",)
    assert said.grant is not None


class TestRemoteKeys:
    REMOTE = "https://remote.example.com"
    WANTED = Wanted("chat", "llama-3")

    async def test_the_signature_is_not_checked_and_that_is_said(self, identity, other_es256):
        forged = other_es256.token(iss=self.REMOTE)
        said = await explain(identity, forged, self.WANTED, now=NOW)
        assert said.assumed == ("key", "signature")
        assert "https://remote.example.com/jwks" in said.checks[4].text
        assert said.grant is not None

    async def test_the_claims_are_checked_all_the_same(self, identity, es256):
        said = await explain(identity, es256.token(iss=self.REMOTE, aud="x"), self.WANTED, now=NOW)
        assert said.error is not None
        assert said.error.code == "audience_wrong"

    @pytest.mark.parametrize("name", ["remote", ""])
    async def test_with_a_saved_set_it_is_checked(
        self, identity, directory, es256, other_es256, name
    ):
        saved = {name: directory / "keys.json"}
        good = await explain(
            identity, es256.token(iss=self.REMOTE), self.WANTED, now=NOW, saved=saved
        )
        assert good.assumed == ()
        assert good.grant is not None
        said = await explained(
            identity, other_es256.token(iss=self.REMOTE), self.WANTED, saved=saved
        )
        assert said[2] == "signature_wrong"

    async def test_a_saved_set_of_another_issuer_is_not_taken(self, identity, directory, es256):
        saved = {"idp": directory / "keys.json"}
        said = await explain(
            identity, es256.token(iss=self.REMOTE), self.WANTED, now=NOW, saved=saved
        )
        assert "signature" in said.assumed

    async def test_a_saved_set_that_is_none(self, identity, directory, es256):
        token = es256.token(iss=self.REMOTE)
        saved = {"": directory / "identity.yaml"}
        with pytest.raises(KeySetError, match="not a JWK set"):
            await explain(identity, token, self.WANTED, now=NOW, saved=saved)

    async def test_discovery(self, directory, es256):
        path = directory / "discovering.yaml"
        path.write_text(
            RULES.replace("jwks_url: 'https://remote.example.com/jwks'", "discovery: true")
        )
        identity = compile(load(path, IdentityFile))
        said = await explain(identity, es256.token(iss=self.REMOTE), self.WANTED, now=NOW)
        assert f"{self.REMOTE}/.well-known/openid-configuration" in said.checks[4].text


AGENT = Principal(
    "idp",
    "agent-7",
    scopes=frozenset({"inference"}),
    groups=frozenset({"a"}),
    claims={"kubernetes.io": {"namespace": "search"}, "n": 5},
)
WHOLE = {"id": "g", "who": {"issuer": "idp"}, "operations": "chat", "models": "llama-*"}


@pytest.mark.parametrize(
    ("changes", "unmet", "text"),
    [
        ({}, "", "lets it"),
        ({"operations": ["embeddings", "rerank"]}, "operations", "embeddings, rerank, not chat"),
        ({"methods": ["GET", "HEAD"]}, "methods", "methods: GET, HEAD, not POST"),
        ({"who": {"issuer": ["a", "b"]}}, "issuer", "issuer is 'idp', wanted 'a' or 'b'"),
        ({"who": {"subject": "ci-*"}}, "subject", "subject is 'agent-7', wanted 'ci-*'"),
        (
            {"who": {"spiffe": "spiffe://a.example/*"}},
            "spiffe",
            "spiffe is 'agent-7', wanted 'spiffe://a.example/*'",
        ),
        (
            {"who": {"scopes": ["inference", "admin"]}},
            "scopes",
            "scopes is ['inference'], wanted 'inference' and 'admin'",
        ),
        ({"who": {"groups": ["b", "c"]}}, "groups", "groups is ['a'], wanted 'b' or 'c'"),
        (
            {"who": {"claims": {"/kubernetes.io/namespace": "billing"}}},
            "claims./kubernetes.io/namespace",
            "claims./kubernetes.io/namespace is 'search', wanted 'billing'",
        ),
        ({"who": {"claims": {"n": 6}}}, "claims.n", "claims.n is 5, wanted '6'"),
        ({"who": {"claims": {"x": 6}}}, "claims.x", "claims.x is missing, wanted '6'"),
        ({"models": ["a", "b"]}, "models", "models: a, b, not llama-3"),
        ({"bound": "mtls"}, "bound", "bound: wants mtls; this token has no cnf"),
        ({"effect": "deny"}, "", "denies it"),
        ({"effect": "deny", "models": "LLAMA*"}, "", "denies it"),
        ({"effect": "deny", "models": "gpt"}, "models", "models: gpt, not llama-3"),
        ({"operations": "x", "models": "x", "methods": ["GET"]}, "operations", "x, not chat"),
    ],
)
def test_the_first_key_that_does_not_hold(changes, unmet, text):
    found = fit(Grant.model_validate(WHOLE | changes), AGENT, Wanted("chat", "llama-3"))
    assert found.unmet == unmet
    assert found.text.endswith(text)


def test_a_bound_token_and_a_grant_of_another_binding():
    grant = Grant.model_validate({**WHOLE, "bound": "mtls"})
    found = fit(grant, replace(AGENT, bound="dpop"), Wanted("chat", "llama-3"))
    assert found.text == "bound: wants mtls; this token is bound by dpop"


def test_a_model_that_is_not_named():
    grant = Grant.model_validate(WHOLE)
    assert fit(grant, AGENT, Wanted("chat", "")).text.startswith("models: llama-*; nothing names")
    assert fit(grant, AGENT, Wanted("chat", None)).unmet == ""


def test_all_keys_hold_just_where_the_grant_applies():
    keys = {
        "operations": ["chat", "x"],
        "methods": [None, ["GET"]],
        "who": [{"issuer": "idp"}, {"issuer": "x"}],
        "models": ["*", "llama-*", "x"],
        "effect": ["allow", "deny"],
    }
    for values in itertools.product(*keys.values()):
        grant = Grant.model_validate(WHOLE | dict(zip(keys, values, strict=True)))
        for model in (None, "", "llama-3", "y"):
            wanted = Wanted("chat", model)
            try:
                applies = Authorizer([grant]).allow(AGENT, wanted) == grant
            except NotAllowed as e:
                applies = e.code == "denied_by_grant"
            assert (fit(grant, AGENT, wanted).unmet == "") == applies
