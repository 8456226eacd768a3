"""Grants that a deny leaves nothing of."""

from __future__ import annotations

from typing import Any

import pytest

from mitmgate.core.tokens import IdentityFile
from mitmgate.core.tokens.shadow import shadowed
from mitmgate.core.wire.endpoints import OPERATIONS

ISSUERS = [
    {
        "id": name,
        "issuer": f"https://{name}.example",
        "audience": "models",
        "keys": {"jwks_url": f"https://{name}.example/keys"},
        "algorithms": ["ES256"],
        "trust_domain": f"{name}.example",
    }
    for name in ("one", "two")
]
ALLOW = {
    "id": "in",
    "who": {"issuer": "one", "subject": "agent-7*", "scopes": ["inference", "more"]},
    "operations": ["chat", "emb*"],
    "models": ["llama-3*", "Qwen"],
    "methods": ["POST"],
}


def names(allow: Any, deny: Any) -> list[tuple[str, str]]:
    base = {"id": "out", "effect": "deny", "who": {"issuer": "*"}}
    base |= {"operations": ["*"], "models": ["*"]}
    grants = [{**ALLOW, **allow}, {**base, **deny}]
    data = {"schema": 1, "issuers": ISSUERS, "grants": grants}
    file = IdentityFile.model_validate(data)
    return [(grant.id, by.id) for grant, by in shadowed(file, OPERATIONS)]


@pytest.mark.parametrize(
    "deny",
    [
        {},
        {"who": {"issuer": ["one"]}},
        {"who": {"subject": "agent-*"}},
        {"who": {"scopes": "inference"}},
        {"operations": ["chat", "embeddings"]},
        {"models": ["LLAMA-*", "qwen"]},
        {"methods": ["GET", "POST"]},
    ],
)
def test_covered(deny: Any) -> None:
    assert names({}, deny) == [("in", "out")]


@pytest.mark.parametrize(
    "deny",
    [
        {"who": {"issuer": "two"}},
        {"who": {"subject": "agent-71"}},
        {"who": {"subject": "agent-?*"}},
        {"who": {"scopes": ["inference", "other"]}},
        {"who": {"groups": "a"}},
        {"who": {"claims": {"env": "dev"}}},
        {"who": {"spiffe": "spiffe://one.example/*"}},
        {"operations": ["chat"]},
        {"models": ["llama-*"]},
        {"methods": ["GET"]},
        {"effect": "allow"},
    ],
)
def test_not_covered(deny: Any) -> None:
    assert names({}, deny) == []


def test_groups_claims_and_spiffe() -> None:
    who: Any = {
        "groups": ["a", "b"],
        "claims": {"env": ["dev-1"]},
        "spiffe": ["spiffe://one.example/ns/*"],
    }
    assert names({"who": who}, {"who": {"groups": ["a", "b", "c"]}})
    assert not names({"who": who}, {"who": {"groups": ["a"]}})
    assert names({"who": who}, {"who": {"claims": {"env": "dev-*"}}})
    assert not names({"who": who}, {"who": {"claims": {"env": "prod-*"}}})
    assert names({"who": who}, {"who": {"spiffe": ["spiffe://one.example/ns/*"]}})
    assert not names({"who": who}, {"who": {"spiffe": ["spiffe://one.example/ns/a"]}})


def test_a_grant_for_every_method() -> None:
    assert not names({"methods": None}, {"methods": ["GET", "POST"]})
    assert names({"methods": None}, {})
