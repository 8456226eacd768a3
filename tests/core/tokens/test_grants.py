from __future__ import annotations

from dataclasses import replace

import pytest

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import BindingMissing
from mitmgate.core.tokens.file import Grant
from mitmgate.core.tokens.grants import Authorizer, NotAllowed, Wanted

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
        assert authorizer.allow(principal, Wanted(operation, model)).id == outcome
        return
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(principal, Wanted(operation, model))
    assert caught.value.code == outcome
    assert (caught.value.status, caught.value.public) == (403, "insufficient_scope")
    assert caught.value.diagnostics().startswith(f"{outcome}: ")


def test_the_deny_is_named(authorizer):
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(CLINIC, Wanted("chat", "x-secret"))
    assert caught.value.grant == "no-secret"
    assert "no-secret denies idp:clinic-1 POST chat of 'x-secret'" in caught.value.diagnostics()
    assert "no-secret" not in caught.value.description


def test_the_grants_that_came_close_are_named(authorizer):
    with pytest.raises(NotAllowed) as caught:
        authorizer.allow(AGENT, Wanted("chat", "gpt"))
    assert caught.value.grant == ""
    assert "agents, second let idp:agent-7 do it, but not POST chat of 'gpt'" in str(caught.value)


def test_before_the_body_is_known(authorizer):
    assert authorizer.allow(AGENT, Wanted("chat")).id == "agents"
    with pytest.raises(NotAllowed, match="no grant"):
        authorizer.allow(AGENT, Wanted("embeddings"))
    with pytest.raises(NotAllowed, match="no-rerank"):
        authorizer.allow(CLINIC, Wanted("rerank"))


def test_an_unnamed_model_needs_a_grant_of_every_model():
    allowing = Authorizer(map(Grant.model_validate, GRANTS[:2]))
    assert allowing.allow(CLINIC, Wanted("chat", "")).id == "clinic"
    with pytest.raises(NotAllowed) as caught:
        allowing.allow(AGENT, Wanted("chat", ""))
    assert caught.value.code == "model_not_granted"


def test_no_grants_allow_nothing():
    with pytest.raises(NotAllowed, match="no grant"):
        Authorizer([]).allow(AGENT, Wanted("health", None))


def test_order_of_denies_does_not_matter():
    for grants in (GRANTS, GRANTS[::-1]):
        with pytest.raises(NotAllowed, match="no-secret"):
            Authorizer(map(Grant.model_validate, grants)).allow(CLINIC, Wanted("chat", "a-secret"))


def test_methods():
    grant = {**GRANTS[1], "methods": ["GET"], "operations": ["models"]}
    authorizer = Authorizer([Grant.model_validate(grant)])
    assert authorizer.allow(CLINIC, Wanted("models", None, "GET")).id == "clinic"
    with pytest.raises(NotAllowed, match="no grant lets idp:clinic-1 do POST models"):
        authorizer.allow(CLINIC, Wanted("models", None, "POST"))


def test_a_deny_of_a_method_denies_no_other():
    deny = {**GRANTS[4], "id": "read-only", "operations": "*", "methods": ["POST"]}
    authorizer = Authorizer(map(Grant.model_validate, [GRANTS[1], deny]))
    assert authorizer.allow(CLINIC, Wanted("models", None, "GET")).id == "clinic"
    with pytest.raises(NotAllowed, match="read-only denies"):
        authorizer.allow(CLINIC, Wanted("models", None, "POST"))


@pytest.mark.parametrize("bound", ["mtls", "dpop"])
def test_a_bound_grant_wants_the_key(bound):
    authorizer = Authorizer([Grant.model_validate({**GRANTS[1], "bound": bound})])
    holder = replace(CLINIC, bound=bound)
    assert authorizer.allow(holder, Wanted("chat", "m")).bound == bound
    for other in {"none", "mtls", "dpop"} - {bound}:
        with pytest.raises(BindingMissing, match=f"clinic wants a token that is bound by {bound}"):
            authorizer.allow(replace(CLINIC, bound=other), Wanted("chat", "m"))


def test_a_bound_caller_may_use_what_needs_no_key():
    authorizer = Authorizer([Grant.model_validate(GRANTS[1])])
    assert authorizer.allow(replace(CLINIC, bound="mtls"), Wanted("chat", "m"))


def test_a_grant_that_wants_no_key_stands_in_for_one_that_does():
    grants = [{**GRANTS[1], "id": "bound", "bound": "dpop"}, GRANTS[1]]
    assert Authorizer(map(Grant.model_validate, grants)).allow(CLINIC, Wanted("chat", "m")).id == (
        "clinic"
    )


def test_which_models_a_caller_may_use(authorizer):
    operations = ("chat", "embeddings")
    models = ("llama-3", "small", "other", "llama-secret")
    usable = authorizer.usable
    assert [*map(usable(AGENT, operations), models)] == [True, True, False, False]
    assert [*map(usable(CLINIC, operations), models)] == [True, True, True, False]
    assert not any(map(usable(STRANGER, operations), models))
    assert not usable(AGENT, ("embeddings",))("llama-3")


@pytest.mark.parametrize("key", ["bound", "limits", "masking"])
def test_a_deny_takes_nothing_that_is_for_what_is_allowed(key):
    value = {"bound": "dpop", "limits": {"concurrent": 1}, "masking": "strict"}[key]
    with pytest.raises(ValueError, match=f"a deny has no {key}"):
        Grant.model_validate({**GRANTS[3], key: value})
