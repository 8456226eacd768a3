from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mitmgate.core.rules import RuleError, load
from mitmgate.core.tokens import (
    IdentityFile,
    KeySetError,
    NotAllowed,
    TokenError,
    compile,
    devissuer,
)

SAMPLE = Path(__file__).parents[3] / "rules" / "identity.yaml"
OPERATIONS = (
    *("chat", "completions", "responses", "messages", "embeddings"),
    *("rerank", "models", "tokenize", "health", "version"),
)

GOOD = """\
schema: 1
issuers:
  - id: idp
    issuer: https://idp.example.com
    audience: models
    keys: {jwks_file: keys.json}
    algorithms: [ES256]
grants:
  - id: agents
    who: {issuer: idp}
    operations: [chat]
    models: ['*']
"""


@pytest.fixture
def loaded(written, es256):
    written("keys.json", json.dumps({"keys": [es256.jwk()]}))

    def read(text):
        return load(written("identity.yaml", text), IdentityFile)

    return read


def problems(call):
    with pytest.raises(RuleError) as caught:
        call()
    return [(problem.line, str(problem)) for problem in caught.value.problems]


def test_defaults(loaded):
    file = loaded(GOOD).file
    issuer, grant = file.issuers[0], file.grants[0]
    assert issuer.audience == ("models",)
    assert (issuer.max_lifetime, issuer.leeway) == (3600, 30)
    assert (issuer.subject_claim, issuer.groups_claim) == ("sub", ("groups",))
    assert (grant.effect, grant.masking, grant.operations) == ("allow", "default", ("chat",))
    assert file.revoked is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[ES256]", "[HS256]", 7, "HS256 is symmetric"),
        ("[ES256]", "[none]", 7, "no signature at all"),
        ("[ES256]", "[ES256K]", 7, "ES256K is not supported; use RS256"),
        ("[ES256]", "[]", 7, "at least 1 item"),
        ("[ES256]", "ES256", 7, "tuple"),
        ("    algorithms: [ES256]\n", "", 3, "is missing"),
        ("    audience: models\n", "", 3, "is missing"),
        ("audience: models", "audience: []", 5, "at least 1 item"),
        ("audience: models", "audience: ''", 5, "at least 1 character"),
        ("{jwks_file: keys.json}", "{}", 6, "exactly one of"),
        ("{jwks_file: keys.json}", "{jwks_file: k, discovery: true}", 6, "exactly one of"),
        ("{jwks_file: keys.json}", "{discovery: false}", 6, "True"),
        ("{jwks_file: keys.json}", "{jwks_url: 'http://idp.example.com/'}", 6, "over https"),
        ("{jwks_file: keys.json}", "{jwks_url: 'file:///k'}", 6, "plain https URL"),
        ("{jwks_file: keys.json}", "{jwks_uri: 'https://x/'}", 6, "unknown key"),
        ("algorithms:", "max_lifetime: 0s\n    algorithms:", 7, "longer than zero"),
        ("algorithms:", "leeway: 6m\n    algorithms:", 7, "5m at most"),
        ("algorithms:", "subject_claim: ''\n    algorithms:", 7, "at least 1 character"),
        ("models: ['*']", "models: []", 12, "at least 1 item"),
        ("models: ['*']", "models: ['*']\n    effect: maybe", 13, "'allow' or 'deny'"),
        ("models: ['*']", "models: ['*']\n    masking: No Profile", 13, "kebab case"),
    ],
)
def test_refused_by_the_model(loaded, old, new, line, message):
    assert old in GOOD
    found = problems(lambda: loaded(GOOD.replace(old, new)))
    assert found[0][0] == line, found
    assert any(message in text for _, text in found), found


def test_discovery_needs_a_url_for_an_issuer(loaded):
    text = GOOD.replace("{jwks_file: keys.json}", "{discovery: true}")
    assert loaded(text).file.issuers[0].keys.discovery
    for name in ("idp", "http://idp.example.com"):
        found = problems(lambda: loaded(text.replace("https://idp.example.com", name)))  # noqa: B023
        assert "discovery needs an issuer that is a URL" in found[0][1]


def test_no_issuers(loaded):
    found = problems(lambda: loaded("schema: 1\nissuers: []\ngrants: []\n"))
    assert found[0][0] == 2


def test_everything_between_the_parts_at_once(loaded):
    text = GOOD + GOOD.partition("grants:\n")[2].replace("idp}", "ipd}").replace("chat", "chta")
    text = text.replace(
        "grants:\n", GOOD.partition("issuers:\n")[2].partition("grants:\n")[0] + "grants:\n"
    )
    found = problems(lambda: compile(loaded(text), OPERATIONS))
    assert [(line, text.split(": ", 1)[1].split(": ")[0]) for line, text in found] == [
        (8, "issuers[1].id"),
        (9, "issuers[1].issuer"),
        (18, "grants[1].id"),
        (19, "grants[1].who.issuer"),
        (20, "grants[1].operations[0]"),
    ]
    assert "identity.yaml:20: " in found[-1][1]
    assert "chta is no operation; there are chat, completions" in found[-1][1]
    assert "ipd is no issuer of this file; there are idp" in found[-2][1]


def test_operations_may_be_globs_and_may_be_left_unchecked(loaded):
    assert compile(loaded(GOOD.replace("[chat]", "['c*', '*']")), OPERATIONS)
    assert compile(loaded(GOOD.replace("[chat]", "[whatever]")))
    assert problems(lambda: compile(loaded(GOOD.replace("[chat]", "['z*']")), OPERATIONS))


def test_a_missing_key_file(loaded):
    found = problems(lambda: compile(loaded(GOOD.replace("keys.json", "none.json"))))
    assert found[0][0] == 6
    assert "none.json cannot be read: No such file" in found[0][1]
    assert "mitmgate token" not in found[0][1]


def test_a_bad_key_file(loaded, written):
    written("keys.json", "{}")
    found = problems(lambda: compile(loaded(GOOD)))
    assert found[0][0] == 6
    assert "is not a JWK set" in found[0][1]


def test_a_missing_list_of_the_revoked(loaded, written):
    text = GOOD + "revoked: {file: revoked.txt}\n"
    found = problems(lambda: compile(loaded(text)))
    assert found[0][0] == 13
    assert "revoked.txt cannot be read" in found[0][1]
    written("revoked.txt", "")
    assert compile(loaded(text))


async def test_start_names_every_key_set_that_cannot_be_had(loaded):
    remote = "{jwks_url: 'http://127.0.0.1:9/jwks'}"
    identity = compile(loaded(GOOD.replace("{jwks_file: keys.json}", remote)))
    with pytest.raises(KeySetError, match=r"idp: http://127\.0\.0\.1:9/jwks: cannot be reached"):
        await identity.start()
    assert identity.problems()[0].startswith("idp: http://127.0.0.1:9/jwks")


async def test_start_lets_nothing_unforeseen_pass(loaded, monkeypatch):
    identity = compile(loaded(GOOD))

    async def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(identity.issuers[0].keys, "start", broken)
    with pytest.raises(RuntimeError, match="boom"):
        await identity.start()


async def test_keys_that_were_left_out_are_told(loaded, written, es256):
    entries = [es256.jwk(), {"kty": "oct", "k": "eA"}]
    read = loaded(GOOD)
    written("keys.json", json.dumps({"keys": entries}))
    identity = compile(read)
    await identity.start()
    assert identity.problems() == []
    assert ["keys[1] is symmetric" in note for note in identity.ignored_keys()] == [True]
    assert identity.digest == read.digest


class TestSample:
    """rules/identity.yaml as it is shipped."""

    @pytest.fixture
    def clone(self, tmp_path):
        rules = tmp_path / "rules"
        rules.mkdir()
        (rules / "identity.yaml").write_bytes(SAMPLE.read_bytes())
        return tmp_path

    def test_loads_from_where_it_is(self):
        loaded = load(SAMPLE, IdentityFile)
        assert [issuer.issuer for issuer in loaded.file.issuers] == [devissuer.ISSUER]

    def test_says_how_to_begin(self, clone):
        loaded = load(clone / "rules/identity.yaml", IdentityFile)
        found = problems(lambda: compile(loaded, OPERATIONS))
        assert len(found) == 1
        assert found[0][1].endswith("(`mitmgate token` makes one for development)")

    @pytest.mark.parametrize(
        ("subject", "scopes", "groups", "operation", "model", "outcome"),
        [
            ("agent-7", ["inference"], [], "chat", "stand-in", "default"),
            ("agent-7", ["inference"], [], "embeddings", "smollm2-135m", "default"),
            ("clinic-1", ["inference"], ["cleared"], "messages", "smollm2", "cleared"),
            ("clinic-1", ["inference"], [], "messages", "smollm2", "operation_not_granted"),
            ("agent-7", [], [], "chat", "stand-in", "operation_not_granted"),
            ("robot-7", ["inference"], [], "chat", "stand-in", "operation_not_granted"),
            ("agent-7", ["inference"], [], "chat", "llama-3", "model_not_granted"),
            ("agent-7", ["inference"], [], "rerank", "stand-in", "operation_not_granted"),
        ],
    )
    async def test_who_may_what(self, clone, subject, scopes, groups, operation, model, outcome):
        token = devissuer.issue(
            clone / ".mitmgate/dev-issuer", subject=subject, scopes=scopes, groups=groups
        )
        identity = compile(load(clone / "rules/identity.yaml", IdentityFile), OPERATIONS)
        await identity.start()
        principal = await identity.verifier.verify(token)
        try:
            found = identity.authorizer.allow(principal, operation, model).masking
        except NotAllowed as e:
            found = e.code
        assert found == outcome

    def test_its_examples_are_valid_too(self, clone):
        text = (clone / "rules/identity.yaml").read_text()
        lines = []
        example = False
        for line in text.splitlines():
            # An example begins like an entry and goes on to the end of the comment.
            example = line.startswith(("  # - id: ", "# revoked: ")) or (
                example and line.startswith("  # ")
            )
            lines.append(line.replace("# ", "", 1) if example else line)
        (clone / "rules/revoked.txt").write_text("")
        (clone / "rules/identity.yaml").write_text("\n".join(lines))
        loaded = load(clone / "rules/identity.yaml", IdentityFile)
        assert [issuer.id for issuer in loaded.file.issuers] == ["dev", "keycloak", "cluster"]
        assert len(loaded.file.grants) == 4
        assert loaded.file.revoked


def test_a_wrong_token_through_the_whole_thing(loaded, other_es256):
    identity = compile(loaded(GOOD))
    with pytest.raises(TokenError, match="k1"):
        asyncio.run(identity.verifier.verify(other_es256.token()))
