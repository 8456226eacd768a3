"""rules/samples: every kind of workload identity, with tokens as its platform issues them.

A sample is loaded as it stands, but for where the keys come from: those are this test's own.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import get_default_algorithms

from mitmgate.core.rules import load
from mitmgate.core.tokens import IdentityFile, NotAllowed, TokenError, compile
from mitmgate.core.tokens.file import problems_of
from mitmgate.core.tokens.grants import Wanted
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.wire.endpoints import OPERATIONS

SAMPLES = Path(__file__).parents[3] / "rules" / "samples"
KINDS = ("aws", "azure", "github-actions", "google", "kubernetes", "oidc", "spiffe")

PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
}
USES: dict[str, dict[str, str]] = {  # what a platform writes into its keys, besides alg and kid
    "prod": {"use": "jwt-svid"},
    "partner": {"use": "jwt-svid"},
}


class Platform:
    """One issuer of a sample: what its tokens look like and how it signs them."""

    def __init__(
        self,
        kind: str,
        issuer: str,
        algorithm: str,
        lifetime: int,
        typ: str | None,
        /,
        **claims: Any,
    ) -> None:
        self.kind = kind
        self.issuer = issuer
        self.algorithm = algorithm
        self.lifetime = lifetime
        self.typ = typ
        self.claims = claims

    def token(self, changes: dict[str, Any] | None = None, **header: Any) -> str:
        """A token; `changes` are by name or path, and a value of None leaves a claim out."""
        now = int(time.time()) - 60
        merged = {"iat": now, "exp": now + self.lifetime, **json.loads(json.dumps(self.claims))}
        for name, value in json.loads(json.dumps(changes or {})).items():
            put(merged, name, value)
        headers = {"kid": f"{self.issuer}-{self.algorithm}", "typ": self.typ, **header}
        algorithm = headers.pop("alg", self.algorithm)
        return jwt.PyJWS().encode(
            json.dumps(merged).encode(), PRIVATE[algorithm], algorithm, headers
        )


def put(claims: dict[str, Any], name: str, value: Any) -> None:
    *steps, last = (
        [step.replace("~1", "/") for step in name[1:].split("/")] if name[0] == "/" else [name]
    )
    for step in steps:
        claims = claims[step]
    if value is None:
        del claims[last]
    else:
        claims[last] = value


TENANT = "11111111-1111-4111-8111-111111111111"
STS = "/https:~1~1sts.amazonaws.com~1"
SEARCH = "system:serviceaccount:search:indexer"
POD = {
    "namespace": "search",
    "node": {"name": "worker-2", "uid": "1b5c1f3e-7a0a-4e0c-8b55-7a5c3f1d9a01"},
    "pod": {"name": "indexer-6d5f9c-x2x7p", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
    "serviceaccount": {"name": "indexer", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
}

KEYCLOAK = Platform(
    *("oidc", "company", "RS256", 300, "at+jwt"),
    jti="trrtcc:0b0e1d2e-7f4b-4d1b-9c3f-7c2b1f3f7a11",
    iss="https://sso.example.com/realms/company",
    aud="models",
    sub="5f2d1c9e-2f0a-4a53-9e0c-6f0b8f2c1a77",
    typ="Bearer",
    azp="batch-summaries",
    acr="1",
    realm_access={"roles": ["offline_access", "default-roles-company"]},
    resource_access={"models": {"roles": ["model-user"]}},
    scope="inference",
    clientHost="10.4.0.17",
    clientAddress="10.4.0.17",
    client_id="batch-summaries",
    preferred_username="service-account-batch-summaries",
)
AGENT = {
    "client_id": "agent-7",
    "azp": "agent-7",
    "/resource_access/models/roles": ["model-agent"],
    "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
}
KUBERNETES = Platform(
    *("kubernetes", "cluster", "RS256", 3600, None),
    iss="https://kubernetes.default.svc.cluster.local",
    aud=["models"],
    sub=SEARCH,
    nbf=int(time.time()) - 60,
    jti="7f3f2c0c-4c15-4f0c-9c52-4f5a0e9b7a10",
    **{"kubernetes.io": POD},
)
SPIRE = Platform(
    *("spiffe", "prod", "ES256", 300, "JWT"),
    aud=["models"],
    sub="spiffe://prod.example/ns/search/sa/indexer",
)
PARTNER = Platform(
    *("spiffe", "partner", "ES256", 300, None),
    iss="https://oidc-discovery.partner.example",
    aud=["models"],
    sub="spiffe://partner.example/translator",
)
GITHUB = Platform(
    *("github-actions", "github", "RS256", 300, "JWT"),
    jti="example-id",
    iss="https://token.actions.githubusercontent.com",
    aud="models",
    sub="repo:acme@1001/evals@7001:environment:models",
    nbf=int(time.time()) - 660,
    actor="ann",
    actor_id="12",
    base_ref="",
    check_run_id="50000001",
    enterprise="acme",
    enterprise_id="345",
    environment="models",
    event_name="push",
    head_ref="",
    job_workflow_ref="acme/workflows/.github/workflows/evaluate.yml@refs/heads/main",
    job_workflow_sha="b3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6",
    ref="refs/heads/main",
    ref_protected="true",
    ref_type="branch",
    repository="acme/evals",
    repository_id="7001",
    repository_owner="acme",
    repository_owner_id="1001",
    repository_visibility="private",
    run_attempt="1",
    run_id="9000001",
    run_number="10",
    runner_environment="github-hosted",
    sha="a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
    workflow="evaluate",
    workflow_ref="acme/evals/.github/workflows/evaluate.yml@refs/heads/main",
    workflow_sha="a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
)
RELEASE = {
    "environment": None,
    "repository": "acme/site",
    "repository_id": "7002",
    "sub": "repo:acme/site:ref:refs/tags/v1.2.0",
    "ref": "refs/tags/v1.2.0",
    "ref_type": "tag",
    "workflow_ref": "acme/site/.github/workflows/release.yml@refs/tags/v1.2.0",
    "job_workflow_ref": "acme/site/.github/workflows/release.yml@refs/tags/v1.2.0",
}
GOOGLE = Platform(
    *("google", "google", "RS256", 3600, "JWT"),
    iss="https://accounts.google.com",
    aud="https://models.example.com",
    azp="117000000000000000001",
    sub="117000000000000000001",
    email="summaries@acme-prod.iam.gserviceaccount.com",
    email_verified=True,
)
MACHINE = {
    "azp": "117000000000000000002",
    "sub": "117000000000000000002",
    "email": "indexing@acme-prod.iam.gserviceaccount.com",
    "google": {
        "compute_engine": {
            "instance_creation_timestamp": 1700000000,
            "instance_id": "152986662232938449",
            "instance_name": "indexing-1",
            "project_id": "acme-prod",
            "project_number": 4711,
            "zone": "europe-west3-a",
        }
    },
}
ENTRA = Platform(
    *("azure", "entra", "RS256", 86700, "JWT"),
    aud="22222222-2222-4222-8222-222222222222",
    iss=f"https://login.microsoftonline.com/{TENANT}/v2.0",
    nbf=int(time.time()) - 60,
    aio="k2RgYAgoXvRlz9+kaQoA",
    azp="44444444-4444-4444-8444-444444444444",
    azpacr="2",
    idtyp="app",
    oid="33333333-3333-4333-8333-333333333333",
    rh="1.AAAA",
    roles=["Models.Invoke"],
    sub="33333333-3333-4333-8333-333333333333",
    tid=TENANT,
    uti="J0kz9v",
    ver="2.0",
)
AWS = Platform(
    *("aws", "aws", "ES384", 900, "JWT"),
    iss="https://0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9.tokens.sts.global.api.aws",
    aud="models",
    sub="arn:aws:iam::012345678901:role/summaries",
    jti="c9a1e6c0-1c0f-4f6e-8a53-2f64f0e0d111",
    **{
        "https://sts.amazonaws.com/": {
            "aws_account": "012345678901",
            "source_region": "eu-central-1",
            "org_id": "o-abc1234567",
            "ou_path": "o-abc1234567/r-ab12/ou-ab12-11111111/",
            "principal_tags": {"environment": "production", "team": "search"},
            "lambda_source_function_arn": (
                "arn:aws:lambda:eu-central-1:012345678901:function:summaries"
            ),
            "request_tags": {"job": "4711"},
        }
    },
)
EKS = Platform(
    *("aws", "eks", "RS256", 3600, None),
    iss="https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF",
    aud=["models"],
    sub=SEARCH,
    nbf=int(time.time()) - 60,
    jti="0f1f2c0c-4c15-4f0c-9c52-4f5a0e9b7a10",
    **{"kubernetes.io": POD},
)
PLATFORMS = (KEYCLOAK, KUBERNETES, SPIRE, PARTNER, GITHUB, GOOGLE, ENTRA, AWS, EKS)


def keys_for(issuer: dict[str, Any]) -> dict[str, Any]:
    entries = []
    for name in issuer["algorithms"]:
        if name in PRIVATE:
            public = PRIVATE[name].public_key()
            entry = get_default_algorithms()[name].to_jwk(public, as_dict=True)
            more = USES.get(issuer["id"], {"use": "sig", "alg": name})
            entries.append({**entry, "kid": f"{issuer['id']}-{name}", **more})
    return {"keys": entries}


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each sample, compiled, with this test's keys in the place of the platform's."""
    directory = tmp_path_factory.mktemp("samples")
    found = {}
    for kind in KINDS:
        text = (SAMPLES / f"identity-{kind}.yaml").read_text("utf-8")
        content = yaml.safe_load(text)
        for issuer in content["issuers"]:
            path = directory / f"{kind}-{issuer['id']}.json"
            path.write_text(json.dumps(keys_for(issuer)), "utf-8")
            issuer["keys"] = {"jwks_file": path.name}
            issuer.pop("ca_file", None)
        path = directory / f"identity-{kind}.yaml"
        path.write_text(yaml.safe_dump(content), "utf-8")
        found[kind] = compile(load(path, IdentityFile), OPERATIONS)
    return found


async def outcome(
    identities: dict[str, Any], platform: Platform, token: str, wanted: Wanted, bound: str = "none"
) -> str:
    """The grant that lets the bearer in, or the code of the refusal."""
    identity = identities[platform.kind]
    try:
        principal = await identity.verifier.verify(Presented(token))
        grant = identity.authorizer.allow(replace(principal, bound=bound), wanted)
    except (TokenError, NotAllowed) as e:
        return str(e.code)
    return str(grant.id)


CHAT = Wanted("chat", "llama-3-8b")
EMBED = Wanted("embeddings", "bge-m3")


def test_there_is_a_sample_for_every_kind() -> None:
    names = {path.name for path in SAMPLES.iterdir()}
    assert names == {f"identity-{kind}.yaml" for kind in KINDS}
    assert {platform.kind for platform in PLATFORMS} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_loads_as_it_is(kind: str) -> None:
    path = SAMPLES / f"identity-{kind}.yaml"
    loaded = load(path, IdentityFile)
    assert list(problems_of(loaded, OPERATIONS)) == []
    for issuer in loaded.file.issuers:
        assert issuer.display
        assert issuer.max_lifetime <= 25 * 3600
        assert any(p.kind == kind and p.issuer == issuer.id for p in PLATFORMS)
    for grant in loaded.file.grants:
        who = grant.who
        assert who.issuer, f"{grant.id} trusts every issuer"
        assert who.subject or who.spiffe or who.claims, f"{grant.id} takes all of an issuer's"
    text = path.read_text("utf-8")
    assert "https://" in text.partition("schema: 1")[0], "where the facts are from"
    assert max(map(len, text.splitlines())) <= 110


# What each platform's token is


@pytest.mark.parametrize(
    ("platform", "changes", "name", "display"),
    [
        (KEYCLOAK, {}, "company:5f2d1c9e-2f0a-4a53-9e0c-6f0b8f2c1a77", "batch-summaries"),
        (KUBERNETES, {}, f"cluster:{SEARCH}", "search/indexer-6d5f9c-x2x7p"),
        (KUBERNETES, {"/kubernetes.io/pod": None}, f"cluster:{SEARCH}", ""),
        (
            *(SPIRE, {}, "prod:spiffe://prod.example/ns/search/sa/indexer"),
            "spiffe://prod.example/ns/search/sa/indexer",
        ),
        (
            *(PARTNER, {}, "partner:spiffe://partner.example/translator"),
            "partner: spiffe://partner.example/translator",
        ),
        (
            *(GITHUB, {}, "github:repo:acme@1001/evals@7001:environment:models"),
            "acme/evals run 9000001",
        ),
        (
            *(GOOGLE, {}, "google:117000000000000000001"),
            "summaries@acme-prod.iam.gserviceaccount.com",
        ),
        (
            *(ENTRA, {}, "entra:33333333-3333-4333-8333-333333333333"),
            "app 44444444-4444-4444-8444-444444444444",
        ),
        (
            *(AWS, {}, "aws:arn:aws:iam::012345678901:role/summaries"),
            "arn:aws:iam::012345678901:role/summaries",
        ),
        (EKS, {}, f"eks:{SEARCH}", "search/indexer-6d5f9c-x2x7p"),
    ],
)
async def test_who_it_is(
    identities: dict[str, Any], platform: Platform, changes: dict[str, Any], name: str, display: str
) -> None:
    verifier = identities[platform.kind].verifier
    principal = await verifier.verify(Presented(platform.token(changes)))
    assert (principal.name, principal.display) == (name, display)
    assert bool(principal.spiffe_id) is (platform.kind == "spiffe")


# What it may do, and what comes near and may not

GRANTED: list[tuple[Platform, dict[str, Any], Wanted, str]] = [
    (KEYCLOAK, {}, CHAT, "batch-summaries"),
    (KEYCLOAK, {"aud": ["account", "models"]}, CHAT, "batch-summaries"),
    (KEYCLOAK, {"scope": "email inference"}, CHAT, "batch-summaries"),
    (KEYCLOAK, {}, Wanted("models", None, "GET"), "batch-summaries"),
    (KUBERNETES, {}, EMBED, "search-indexer"),
    (
        KUBERNETES,
        {
            "sub": "system:serviceaccount:agents:planner",
            "/kubernetes.io/namespace": "agents",
            "/kubernetes.io/serviceaccount/name": "planner",
        },
        CHAT,
        "agents",
    ),
    (SPIRE, {}, EMBED, "search"),
    (SPIRE, {"sub": "spiffe://prod.example/agents/planner"}, CHAT, "agents"),
    (SPIRE, {"sub": "spiffe://prod.example/agents/team-a/planner/1"}, CHAT, "agents"),
    (PARTNER, {}, CHAT, "partner-translator"),
    (GITHUB, {}, CHAT, "evaluation"),
    (GITHUB, {"event_name": "workflow_dispatch"}, Wanted("chat", "llama-3"), "evaluation"),
    # customised or old subjects change nothing
    (GITHUB, {"sub": "repo:acme/evals:ref:refs/heads/main"}, CHAT, "evaluation"),
    (GITHUB, {"sub": "job_workflow_ref:x:repository_owner_id:1001"}, CHAT, "evaluation"),
    # ... and neither does a new name
    (GITHUB, {"repository": "acme-inc/evaluations"}, CHAT, "evaluation"),
    (GITHUB, RELEASE, CHAT, "release-notes"),
    (GOOGLE, {}, CHAT, "summaries"),
    (GOOGLE, MACHINE, EMBED, "indexing-machines"),
    (ENTRA, {}, CHAT, "summaries"),
    (ENTRA, {"roles": ["Models.Embed", "Models.Invoke"]}, CHAT, "summaries"),
    (ENTRA, {"roles": ["Models.Embed"], "oid": "5", "azp": "6"}, EMBED, "embedders"),
    (AWS, {}, CHAT, "summaries"),
    (AWS, {"sub": "arn:aws:iam::012345678901:role/search-indexer"}, EMBED, "search-team"),
    (EKS, {}, EMBED, "eks-indexer"),
]


@pytest.mark.parametrize(("platform", "changes", "wanted", "grant"), GRANTED)
async def test_granted(
    identities: dict[str, Any],
    platform: Platform,
    changes: dict[str, Any],
    wanted: Wanted,
    grant: str,
) -> None:
    assert await outcome(identities, platform, platform.token(changes), wanted) == grant


@pytest.mark.parametrize(("platform", "changes", "wanted", "grant"), GRANTED)
async def test_and_not_more(
    identities: dict[str, Any],
    platform: Platform,
    changes: dict[str, Any],
    wanted: Wanted,
    grant: str,
) -> None:
    token = platform.token(changes)
    operations = {
        operation
        for operation in OPERATIONS
        if await outcome(identities, platform, token, replace(wanted, operation=operation)) == grant
    }
    file = load(SAMPLES / f"identity-{platform.kind}.yaml", IdentityFile).file
    rule = next(rule for rule in file.grants if rule.id == grant)
    assert operations == set(rule.operations)
    for model in ("gpt-oss-120b", ""):
        other = replace(wanted, model=model, operation=rule.operations[0])
        assert await outcome(identities, platform, token, other) == "model_not_granted"


NO = "operation_not_granted"
REFUSED: list[tuple[Platform, dict[str, Any], str]] = [
    # an OpenID Connect provider
    (KEYCLOAK, {"iss": "https://sso.example.com/realms/partners"}, "issuer_unknown"),
    (KEYCLOAK, {"iss": "https://sso.example.com/realms/company/"}, "issuer_unknown"),
    (KEYCLOAK, {"iss": None}, "issuer_missing"),
    (KEYCLOAK, {"aud": "account"}, "audience_wrong"),
    (KEYCLOAK, {"aud": "batch-summaries"}, "audience_wrong"),
    (KEYCLOAK, {"aud": None}, "audience_missing"),
    (KEYCLOAK, {"scope": "email"}, NO),
    (KEYCLOAK, {"client_id": None}, NO),  # a person, through the same client
    (KEYCLOAK, {"client_id": "batch-summaries-test"}, NO),
    (KEYCLOAK, {"iat": 1_700_000_000, "exp": 1_700_000_300}, "token_expired"),
    (KEYCLOAK, {"exp": int(time.time()) + 4000}, "lifetime_too_long"),
    # Kubernetes
    (KUBERNETES, {"aud": ["https://kubernetes.default.svc.cluster.local"]}, "audience_wrong"),
    (KUBERNETES, {"aud": ["sts.amazonaws.com"]}, "audience_wrong"),
    (KUBERNETES, {"iss": "https://kubernetes.default.svc"}, "issuer_unknown"),
    (KUBERNETES, {"exp": int(time.time()) + 365 * 86400}, "lifetime_too_long"),
    (
        # the same name in another namespace
        KUBERNETES,
        {"sub": "system:serviceaccount:dev:indexer", "/kubernetes.io/namespace": "dev"},
        NO,
    ),
    (KUBERNETES, {"sub": "system:serviceaccount:search:indexer-2"}, NO),
    (KUBERNETES, {"sub": "system:serviceaccount:search-2:indexer"}, NO),
    (KUBERNETES, {"sub": "system:node:worker-2"}, NO),
    (KUBERNETES, {"/kubernetes.io/namespace": "dev"}, NO),
    (KUBERNETES, {"/kubernetes.io/serviceaccount/name": "default"}, NO),
    (KUBERNETES, {"/kubernetes.io/pod/name": "shell"}, NO),
    (KUBERNETES, {"/kubernetes.io/pod": None}, NO),  # kubectl create token
    (KUBERNETES, {"kubernetes.io": None}, NO),
    (KUBERNETES, {"kubernetes.io": "search"}, NO),
    # SPIFFE
    (SPIRE, {"aud": ["reports"]}, "audience_wrong"),
    (SPIRE, {"aud": "spiffe://prod.example/models"}, "audience_wrong"),
    (SPIRE, {"aud": []}, "audience_missing"),
    (SPIRE, {"exp": None}, "expiry_missing"),
    (SPIRE, {"exp": int(time.time()) + 3600}, "lifetime_too_long"),
    (SPIRE, {"iss": "https://oidc-discovery.prod.example"}, "issuer_unknown"),
    (SPIRE, {"iss": "https://oidc-discovery.partner.example"}, "key_unknown"),
    (SPIRE, {"sub": None}, "issuer_missing"),
    *(
        (SPIRE, {"sub": subject}, "issuer_missing")  # nothing says whose it would be
        for subject in (
            "spiffe://other.example/ns/search/sa/indexer",
            "spiffe://partner.example/translator",
            "spiffe://PROD.example/ns/search/sa/indexer",
            "spiffe://prod.example.evil/ns/search/sa/indexer",
            "spiffe://prod.example:443/ns/search/sa/indexer",
            "spiffe://x@prod.example/ns/search/sa/indexer",
            "spiffe://prod.example/ns/search/sa/../../agents/planner",
            "spiffe://prod.example/ns/search/sa/..",
            "spiffe://prod.example/ns/search/sa/.",
            "spiffe://prod.example/ns/search/sa/",
            "spiffe://prod.example/ns/search//indexer",
            "spiffe://prod.example//ns/search/sa/indexer",
            "spiffe://prod.example/ns/search/sa/index%65r",
            "spiffe://prod.example/ns/search/sa/%2e%2e",
            "spiffe://prod.example/ns/search/sa/indexer?x",
            "spiffe://prod.example/ns/search/sa/indexer#x",
            "spiffe://prod.example/ns/search/sa/*",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "Spiffe://prod.example/ns/search/sa/indexer",
            "system:serviceaccount:search:indexer",
        )
    ),
    *(
        (SPIRE, {"sub": subject}, NO)
        for subject in (
            "spiffe://prod.example/ns/search/sa/indexer/debug",  # `*` reaches over no slash
            "spiffe://prod.example/ns/search/sa",
            "spiffe://prod.example/ns/search-2/sa/indexer",
            "spiffe://prod.example/ns/dev/sa/indexer",
            "spiffe://prod.example/x/ns/search/sa/indexer",
            "spiffe://prod.example/NS/search/sa/indexer",
            "spiffe://prod.example/agents",
            "spiffe://prod.example/agents-2/planner",
        )
    ),
    (PARTNER, {"sub": "spiffe://prod.example/ns/search/sa/indexer"}, "spiffe_id_wrong"),
    (PARTNER, {"sub": "spiffe://partner.example/../translator"}, "spiffe_id_wrong"),
    (PARTNER, {"sub": "spiffe://partner.example/translator/"}, "spiffe_id_wrong"),
    (PARTNER, {"sub": "translator"}, "spiffe_id_wrong"),
    (PARTNER, {"sub": "spiffe://partner.example/translator-2"}, NO),
    (PARTNER, {"iss": None}, "issuer_missing"),
    # GitHub Actions
    (GITHUB, {"aud": "https://github.com/acme"}, "audience_wrong"),  # nobody asked for one
    (GITHUB, {"aud": "sts.amazonaws.com"}, "audience_wrong"),
    (GITHUB, {"iss": "https://token.actions.githubusercontent.com/acme"}, "issuer_unknown"),
    (GITHUB, {"iss": "https://github.example.com/_services/token"}, "issuer_unknown"),
    (GITHUB, {"repository_id": "7003"}, NO),  # made anew under the old name
    (GITHUB, {"repository_id": "7003", "repository_owner_id": "666"}, NO),  # a fork
    (GITHUB, {"repository_owner_id": "666"}, NO),
    (GITHUB, {"ref": "refs/heads/next"}, NO),
    (GITHUB, {"ref": "refs/heads/main2"}, NO),
    (GITHUB, {"ref": "refs/tags/refs/heads/main"}, NO),
    (GITHUB, {"ref": "refs/pull/7/merge", "event_name": "pull_request"}, NO),
    (GITHUB, {"event_name": "pull_request_target"}, NO),
    (GITHUB, {"environment": "staging"}, NO),
    (GITHUB, {"environment": None}, NO),
    (GITHUB, {"runner_environment": "self-hosted"}, NO),
    (
        GITHUB,
        {"job_workflow_ref": "acme/workflows/.github/workflows/evaluate.yml@refs/heads/x"},
        NO,
    ),
    (
        GITHUB,
        {"job_workflow_ref": "evil/workflows/.github/workflows/evaluate.yml@refs/heads/main"},
        NO,
    ),
    (GITHUB, {**RELEASE, "ref": "refs/heads/v1", "ref_type": "branch"}, NO),
    (GITHUB, {**RELEASE, "ref": "refs/heads/v1"}, NO),
    (
        GITHUB,
        {**RELEASE, "workflow_ref": "acme/site/.github/workflows/x.yml@refs/tags/v1.2.0"},
        NO,
    ),
    # Google
    (GOOGLE, {"iss": "accounts.google.com"}, "issuer_unknown"),
    (GOOGLE, {"aud": "https://other.example.com"}, "audience_wrong"),
    (GOOGLE, {"aud": "https://models.example.com/"}, "audience_wrong"),
    (GOOGLE, {"aud": "32555940559.apps.googleusercontent.com"}, "audience_wrong"),
    (GOOGLE, {"sub": "117000000000000000009"}, NO),  # the address of a deleted account
    (GOOGLE, {"email": "summaries@evil-prod.iam.gserviceaccount.com"}, NO),
    (GOOGLE, {"email_verified": False}, NO),
    (GOOGLE, {"email_verified": None}, NO),
    (GOOGLE, {"email": None}, NO),
    (GOOGLE, {**MACHINE, "google": {}}, NO),
    (GOOGLE, {**MACHINE, "email_verified": False}, NO),
    (GOOGLE, {**MACHINE, "/google/compute_engine/project_id": "evil-prod"}, NO),
    (GOOGLE, {**MACHINE, "/google/compute_engine/zone": "us-central1-a"}, NO),
    # Azure
    (ENTRA, {"iss": f"https://sts.windows.net/{TENANT}/"}, "issuer_unknown"),  # a v1 token
    (
        ENTRA,
        {"iss": "https://login.microsoftonline.com/99999999-9999-4999-8999-999999999999/v2.0"},
        "issuer_unknown",
    ),
    (ENTRA, {"aud": "api://22222222-2222-4222-8222-222222222222"}, "audience_wrong"),
    (ENTRA, {"aud": "https://graph.microsoft.com"}, "audience_wrong"),
    (ENTRA, {"tid": "99999999-9999-4999-8999-999999999999"}, NO),
    (ENTRA, {"roles": ["Models.Read"]}, NO),
    (ENTRA, {"roles": None}, NO),
    (ENTRA, {"oid": "55555555-5555-4555-8555-555555555555"}, NO),
    (ENTRA, {"oid": None}, "subject_missing"),
    (ENTRA, {"azp": "55555555-5555-4555-8555-555555555555"}, NO),
    (ENTRA, {"azp": None, "appid": "44444444-4444-4444-8444-444444444444"}, NO),
    (ENTRA, {"idtyp": "user", "scp": "Models.Invoke"}, NO),
    (ENTRA, {"idtyp": None}, NO),
    # AWS
    (
        AWS,
        {"iss": "https://ffffffff-4e5f-6071-8293-a4b5c6d7e8f9.tokens.sts.global.api.aws"},
        "issuer_unknown",
    ),
    (AWS, {"aud": "https://api.example.com"}, "audience_wrong"),
    (AWS, {"aud": None}, "audience_missing"),  # as Cognito's access tokens
    (AWS, {"exp": int(time.time()) + 3600}, "lifetime_too_long"),
    (AWS, {"sub": "arn:aws:iam::012345678901:role/reports"}, NO),
    (AWS, {"sub": "arn:aws:iam::999999999999:role/summaries"}, NO),
    (AWS, {"sub": "arn:aws:iam::012345678901:user/summaries"}, NO),
    (AWS, {f"{STS}/aws_account": "999999999999"}, NO),
    (AWS, {f"{STS}/aws_account": 12345678901}, NO),
    (AWS, {f"{STS}/org_id": "o-evil"}, NO),
    (AWS, {f"{STS}/lambda_source_function_arn": None}, NO),
    (
        AWS,
        {
            "sub": "arn:aws:iam::012345678901:role/search-indexer",
            f"{STS}/principal_tags": {},
            f"{STS}/request_tags": {"team": "search"},  # the caller's own word
        },
        NO,
    ),
    (AWS, {"https://sts.amazonaws.com/": None, "aws_account": "012345678901"}, NO),
    (EKS, {"aud": ["sts.amazonaws.com"]}, "audience_wrong"),
    (EKS, {"sub": "system:serviceaccount:dev:indexer", "/kubernetes.io/namespace": "dev"}, NO),
    (EKS, {"/kubernetes.io/pod": None}, NO),
    (EKS, {"iss": AWS.claims["iss"]}, "key_unknown"),  # each issuer has its own keys
]


@pytest.mark.parametrize(("platform", "changes", "code"), REFUSED)
async def test_near_misses(
    identities: dict[str, Any], platform: Platform, changes: dict[str, Any], code: str
) -> None:
    token = platform.token(changes)
    for wanted in {rule[2] for rule in GRANTED if rule[0].kind == platform.kind}:
        assert await outcome(identities, platform, token, wanted) == code


@pytest.mark.parametrize(
    ("platform", "header", "code"),
    [
        (KEYCLOAK, {"typ": "JWT"}, "type_refused"),  # an ID token
        (KEYCLOAK, {"typ": None}, "type_refused"),
        (KEYCLOAK, {"typ": "logout+jwt"}, "type_refused"),
        (KEYCLOAK, {"typ": "application/at+jwt"}, "batch-summaries"),
        (SPIRE, {"typ": "JOSE"}, "search"),
        (SPIRE, {"typ": None}, "search"),
        (SPIRE, {"typ": "wit+jwt"}, "type_refused"),
        (GITHUB, {"typ": None}, "type_refused"),
        (GOOGLE, {"typ": "at+jwt"}, "type_refused"),
        (ENTRA, {"typ": "dpop+jwt"}, "type_refused"),
        (KUBERNETES, {"typ": "JWT"}, "search-indexer"),
        (KUBERNETES, {"alg": "ES256"}, "algorithm_refused"),
        (GITHUB, {"alg": "ES256"}, "algorithm_refused"),
        (AWS, {"alg": "ES256"}, "algorithm_refused"),
        (AWS, {"alg": "RS256", "kid": "aws-RS256"}, "summaries"),
        (AWS, {"alg": "RS256"}, "algorithm_refused"),  # with the name of the other key
        (SPIRE, {"kid": "partner-ES256"}, "key_unknown"),
        (SPIRE, {"kid": "none-such"}, "key_unknown"),
        (SPIRE, {"jku": "https://evil.example/keys"}, "search"),  # never looked at
    ],
)
async def test_headers(
    identities: dict[str, Any], platform: Platform, header: dict[str, Any], code: str
) -> None:
    wanted = next(rule[2] for rule in GRANTED if rule[0] is platform)
    assert await outcome(identities, platform, platform.token(**header), wanted) == code


async def test_a_legacy_token_of_a_secret(identities: dict[str, Any]) -> None:
    """Before Kubernetes 1.24: no aud, no exp, no iat, and claims of another form."""
    claims = {
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "search",
        "kubernetes.io/serviceaccount/secret.name": "indexer-token-pnj77",
        "kubernetes.io/serviceaccount/service-account.name": "indexer",
        "sub": SEARCH,
    }
    for issuer, code in (
        ("kubernetes/serviceaccount", "issuer_unknown"),
        (KUBERNETES.claims["iss"], "audience_missing"),
    ):
        payload = json.dumps({**claims, "iss": issuer}).encode()
        token = jwt.PyJWS().encode(payload, PRIVATE["RS256"], "RS256", {"kid": "cluster-RS256"})
        assert await outcome(identities, KUBERNETES, token, EMBED) == code


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_token_that_was_tampered_with(
    identities: dict[str, Any], platform: Platform
) -> None:
    header, _, signature = platform.token().split(".")
    _, payload, _ = platform.token({"jti": "another"}).split(".")
    token = ".".join((header, payload, signature))
    assert await outcome(identities, platform, token, CHAT) == "signature_wrong"
    plain = json.dumps({"alg": "none", "typ": platform.typ or "JWT"}).encode()
    unsigned = f"{base64.urlsafe_b64encode(plain).rstrip(b'=').decode()}.{payload}.{signature}"
    assert await outcome(identities, platform, unsigned, CHAT) == "algorithm_refused"


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_token_of_one_kind_is_nothing_to_a_gate_of_another(
    identities: dict[str, Any], platform: Platform
) -> None:
    for kind in set(KINDS) - {platform.kind}:
        with pytest.raises(TokenError) as caught:
            await identities[kind].verifier.verify(Presented(platform.token()))
        expected = "issuer_unknown" if "iss" in platform.claims else "issuer_missing"
        assert caught.value.code == expected


async def test_an_agent_must_prove_to_have_its_key(identities: dict[str, Any]) -> None:
    """The token alone is refused; what the proof must be is for test_possession."""
    assert await outcome(identities, KEYCLOAK, KEYCLOAK.token(AGENT), CHAT) == "proof_required"
    unbound = KEYCLOAK.token({name: value for name, value in AGENT.items() if name != "cnf"})
    assert await outcome(identities, KEYCLOAK, unbound, CHAT) == "binding_missing"
    assert await outcome(identities, KEYCLOAK, unbound, CHAT, "mtls") == "binding_missing"
    assert await outcome(identities, KEYCLOAK, unbound, CHAT, "dpop") == "agents"
    user = KEYCLOAK.token({"client_id": "agent-7"})
    assert await outcome(identities, KEYCLOAK, user, CHAT, "dpop") == NO
