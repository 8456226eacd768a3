from __future__ import annotations

import pytest

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.file import Grant
from mitmgate.core.tokens.grants import Authorizer, NotAllowed

AGENT = Principal("idp", "agent-7", scopes=frozenset({"inference"}))
CLINIC = Principal("idp", "clinic-1", frozenset({"inference"}), groups=frozenset({"cleared"}))
STRANGER = Principal("other", "agent-7", scopes=frozenset({"inference"}))

GRANTS = [
    {
        "id": "agents",
        "who": {"issuer": "idp", "subject": "agent-*", "scopes": ["inference"]},
        "operations": ["chat", "models"],
        "models": ["llama-*", "Qwen/*"],
    },
    {
        "id": "clinic",
        "who": {"issuer": "idp", "groups": ["cleared"]},
        "operations": "*",
        "models": "*",
        "masking": "cleared",
    },
    {
        "id": "second",
        "who": {"issuer": "idp"},
        "operations": ["chat"],
        "models": ["llama-*", "small"],
        "masking": "strict",
    },
    {
        "id": "no-secret",
        "who": {"issuer": "*"},
        "effect": "deny",
        "operations": ["*"],
        "models": ["*-secret"],
    },
    {
        "id": "no-rerank",
        "who": {"issuer": "*"},
        "effect": "deny",
        "operations": ["rerank*"],
        "models": ["*"],
    },
]


@pytest.fixture(scope="module")
def authorizer():
    return Authorizer(map(Grant.model_validate, GRANTS))


@pytest.mark.parametrize(
    ("principal", "operation", "model", "outcome"),
    [
        (AGENT, "chat", "llama-3", "agents"),
        (AGENT, "chat", "Qwen/Qwen3", "agents"),
        (AGENT, "chat", "small", "second"),  # the first that allows, not the first that covers
        (AGENT, "models", None, "agents"),
        (AGENT, "chat", None, "agents"),
        (CLINIC, "chat", "llama-3", "clinic"),
        (CLINIC, "embeddings", "anything/at:all", "clinic"),
        (AGENT, "chat", "Llama-3", "model_not_granted"),
        (AGENT, "chat", "gpt", "model_not_granted"),
        (AGENT, "chat", "xllama-3", "model_not_granted"),
        (AGENT, "embeddings", "llama-3", "operation_not_granted"),
        (AGENT, "embeddings", None, "operation_not_granted"),
        (AGENT, "Chat", "llama-3", "operation_not_granted"),
        (STRANGER, "chat", "llama-3", "operation_not_granted"),
        (AGENT, "chat", "llama-secret", "denied_by_grant"),
        (CLINIC, "chat", "Llama-SECRET", "denied_by_grant"),  # a deny ignores case
        # ... and what Ollama reads as the same model
        (CLINIC, "chat", "llama-secret:latest", "denied_by_grant"),
        (CLINIC, "chat", "library/llama-secret", "denied_by_grant"),
        (CLINIC, "chat", "registry.ollama.ai/library/llama-secret:latest", "denied_by_grant"),
        (CLINIC, "chat", " ./llama-secret", "denied_by_grant"),
        (CLINIC, "rerank", None, "denied_by_grant"),
        (CLINIC, "rerank-v2", "llama-3", "denied_by_grant"),
        (STRANGER, "chat", "llama-secret", "denied_by_grant"),
        # A model that is wanted but not named is the server's choice, which may be any.
        (AGENT, "chat", "", "denied_by_grant"),
        (CLINIC, "chat", "", "denied_by_grant"),
    ],
)
def test_table(authorizer, principal, operation, model, outcome):
    if not outcome.endswith(("_granted", "_grant")):
        assert authorizer.allow(principal, operation, model).id == outcome
        return
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(principal, operation, model)
    assert caught.value.code == outcome
    assert (caught.value.status, caught.value.error) == (403, "insufficient_scope")
    assert caught.value.diagnostics().startswith(f"{outcome}: ")


def test_the_deny_is_named(authorizer):
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(CLINIC, "chat", "x-secret")
    assert caught.value.grant == "no-secret"
    assert "no-secret denies idp:clinic-1 chat of 'x-secret'" in caught.value.diagnostics()
    assert "no-secret" not in caught.value.description


def test_the_grants_that_came_close_are_named(authorizer):
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(AGENT, "chat", "gpt")
    assert caught.value.grant is None
    assert "agents, second let idp:agent-7 do chat, but not with 'gpt'" in str(caught.value)


def test_before_the_body_is_known(authorizer):
    assert authorizer.allow_operation(AGENT, "chat").id == "agents"
    with pytest.raises(NotAllowed, match="no grant"):
        authorizer.allow_operation(AGENT, "embeddings")
    with pytest.raises(NotAllowed, match="no-rerank"):
        authorizer.allow_operation(CLINIC, "rerank")


def test_an_unnamed_model_needs_a_grant_of_every_model():
    allowing = Authorizer(map(Grant.model_validate, GRANTS[:2]))
    assert allowing.allow(CLINIC, "chat", "").id == "clinic"
    with pytest.raises(NotAllowed) as caught:
        allowing.allow(AGENT, "chat", "")
    assert caught.value.code == "model_not_granted"


def test_no_grants_allow_nothing():
    with pytest.raises(NotAllowed, match="no grant"):
        Authorizer([]).allow(AGENT, "health", None)


def test_order_of_denies_does_not_matter():
    for grants in (GRANTS, GRANTS[::-1]):
        with pytest.raises(NotAllowed, match="no-secret"):
            Authorizer(map(Grant.model_validate, grants)).allow(CLINIC, "chat", "a-secret")
