from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import ClassVar

import pytest

from mitmgate.core.rules import RuleError, load
from mitmgate.core.tokens import (
    IdentityFile,
    KeySetError,
    NotAllowed,
    Presented,
    TokenError,
    Wanted,
    compile,
    devissuer,
)
from mitmgate.core.tokens.errors import KeysUnavailable

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
    assert (issuer.subject_claim, issuer.groups_claim) == ("sub", "groups")
    assert (issuer.trust_domain, issuer.typ, issuer.ca_file) == (None, None, None)
    assert issuer.introspection is None
    assert issuer.keys.max_stale == 86400
    assert (grant.effect, grant.masking, grant.operations) == ("allow", "default", ("chat",))
    assert file.revoked is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("[ES256]", "[HS256]", 7, "HS256 is symmetric"),
        ("[ES256]", "[none]", 7, "no signature at all"),
        ("[ES256]", "[ES256K]", 7, "ES256K is not supported; use RS256"),
        ("[ES256]", "[]", 7, "one entry at least"),
        ("[ES256]", "ES256", 7, "should be a list"),
        ("    algorithms: [ES256]\n", "", 3, "is missing"),
        ("    audience: models\n", "", 3, "is missing"),
        ("audience: models", "audience: []", 5, "one entry at least"),
        ("audience: models", "audience: ''", 5, "at least 1 character"),
        ("{jwks_file: keys.json}", "{}", 6, "exactly one of"),
        ("{jwks_file: keys.json}", "{jwks_file: k, discovery: true}", 6, "exactly one of"),
        ("{jwks_file: keys.json}", "{discovery: false}", 6, "True"),
        ("{jwks_file: keys.json}", "{jwks_url: 'http://idp.example.com/'}", 6, "over https"),
        ("{jwks_file: keys.json}", "{jwks_url: 'file:///k'}", 6, "plain https URL"),
        ("{jwks_file: keys.json}", "{jwks_uri: 'https://x/'}", 6, "unknown key"),
        ("algorithms:", "max_lifetime: 0s\n    algorithms:", 7, "longer than zero"),
        ("algorithms:", "leeway: 6m\n    algorithms:", 7, "5m at most"),
        ("algorithms:", "subject_claim: ''\n    algorithms:", 7, "a claim's name, or a path"),
        ("models: ['*']", "models: []", 12, "one entry at least"),
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


TWO = """\
schema: 1
issuers:
  - id: idp
    issuer: https://idp.example.com
    audience: models
    keys: {jwks_file: keys.json}
    algorithms: [ES256]
  - id: far
    issuer: https://far.example.com
    audience: models
    keys: {jwks_url: 'http://127.0.0.1:9/jwks'}
    algorithms: [ES256]
    introspection:
      url: http://127.0.0.1:9/introspect
      client_id: gate
      client_secret: ${env:GATE_SECRET}
grants:
  - id: agents
    who: {issuer: '*'}
    operations: [chat]
    models: ['*']
dpop: {url: ['https://models.example.com']}
"""


@pytest.fixture
def two(loaded, monkeypatch):
    monkeypatch.setenv("GATE_SECRET", "hush")
    return lambda *edit: loaded(TWO.replace(*edit) if edit else TWO)


async def test_start_names_every_key_set_that_cannot_be_had(two):
    identity = compile(two())
    found = await identity.start()
    assert len(found) == 1
    assert found[0].startswith("far: http://127.0.0.1:9/jwks: cannot be reached")
    assert identity.problems() == found
    assert identity.ignored_keys() == []


async def test_an_issuer_that_is_down_is_no_trouble_to_the_others(two, es256):
    identity = compile(two())
    await identity.start()
    now = int(time.time())
    known = es256.token(iat=now, exp=now + 60)
    assert (await identity.verifier.verify(Presented(known))).issuer == "idp"
    down = es256.token(iat=now, exp=now + 60, iss="https://far.example.com")
    with pytest.raises(KeysUnavailable, match=r"far has no key .*: http://127"):
        await identity.verifier.verify(Presented(down))


async def test_start_lets_nothing_unforeseen_pass(loaded, monkeypatch):
    identity = compile(loaded(GOOD))

    async def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(identity.issuers[0].keys, "start", broken)
    with pytest.raises(RuntimeError, match="boom"):
        await identity.start()


class TestFresh:
    @pytest.fixture
    def fetched(self, monkeypatch, es256):
        """Stands in for the network: what was fetched, and whether anything can be."""

        class Network:
            asked: ClassVar = []
            down = False

        async def fetch(url, **_):
            Network.asked.append(url)
            if Network.down:
                raise KeySetError(url, "answered 500")
            return json.dumps({"keys": [es256.jwk()]}).encode()

        monkeypatch.setattr("mitmgate.core.tokens.keys.fetch", fetch)
        monkeypatch.setattr("mitmgate.core.tokens.keys.TICK", 0)
        monkeypatch.setattr("mitmgate.core.tokens.keys.RETRY", 0)
        Network.asked.clear()
        return Network

    def test_started_in_one_loop_and_kept_fresh_in_another(self, two, fetched, monkeypatch):
        identity = compile(two())
        fetched.down = True
        assert asyncio.run(identity.start()) == ["far: http://127.0.0.1:9/jwks: answered 500"]

        async def main():
            renewal = asyncio.create_task(identity.keep_fresh())
            while len(fetched.asked) < 3:
                await asyncio.sleep(0)
            assert identity.problems()
            fetched.down = False
            while identity.problems():
                await asyncio.sleep(0)
            renewal.cancel()
            with pytest.raises(asyncio.CancelledError):
                await renewal

        asyncio.run(asyncio.wait_for(main(), 10))
        assert identity.issuers[1].keys.current().knows("k1")

    async def test_one_that_breaks_is_heard_of(self, two, fetched, monkeypatch):
        identity = compile(two())

        async def broken():
            raise RuntimeError("boom")

        monkeypatch.setattr(identity.issuers[1].keys, "keep_fresh", broken)
        with pytest.raises(ExceptionGroup):
            await identity.keep_fresh()

    async def test_an_edited_grant_while_the_issuer_is_down(self, two, fetched):
        before = compile(two())
        await before.start()
        fetched.down = True
        after = compile(two("operations: [chat]", "operations: ['*']"), previous=before)
        assert await after.start() == []
        assert len(fetched.asked) == 1
        assert after.issuers[1].keys.current().knows("k1")
        assert after.digest != before.digest
        assert after.rules.grants[0].operations == ("*",)


class TestTakenOver:
    def kept(self, two, *edit):
        """What of the second issuer, and which memory of proofs, an edit leaves in place."""
        before = compile(two())
        after = compile(two(*edit), previous=before)
        assert after.verifier is not before.verifier
        assert after.possession is after.verifier._possession
        old, new = before.issuers[1], after.issuers[1]
        return {
            name
            for name, same in (
                ("keys", new.keys is old.keys),
                ("answers", new.introspector is old.introspector),
                ("proofs", after.possession is before.possession),
            )
            if same
        }

    @pytest.mark.parametrize(
        ("old", "new", "lost"),
        [
            ("operations: [chat]", "operations: ['*']", ""),
            ("id: far\n", "id: far\n    leeway: 5s\n", ""),
            ("id: far\n", "id: far\n    max_lifetime: 5m\n", ""),
            ("far.example", "away.example", "keys"),
            (":9/jwks'", ":9/other'", "keys"),
            (":9/jwks'", ":9/jwks', max_stale: 1h", "keys"),
            (":9/jwks'", ":9/jwks', bearer_file: token", "keys"),
            ("id: far\n", "id: far\n    trust_domain: prod.example\n", "keys"),
            ("[ES256]\n    intro", "[RS256]\n    intro", "keys"),
            ("id: far\n", "id: far\n    ca_file: ca.pem\n", "keys answers"),
            ("id: far\n", "id: distant\n", "keys answers"),
            (":9/introspect", ":9/other", "answers"),
            ("client_id: gate", "client_id: door", "answers"),
            ("client_id: gate", "client_id: gate\n      cache: 1s", "answers"),
            ("${env:GATE_SECRET}", "x${env:GATE_SECRET}", "answers"),
            ("https://models.example.com", "https://other.example.com", "proofs"),
            ("dpop: {", "dpop: {nonce: true, ", "proofs"),
        ],
    )
    def test_unless_it_concerns_it(self, two, old, new, lost):
        assert old in TWO
        assert self.kept(two, old, new) == {"keys", "answers", "proofs"} - set(lost.split())

    def test_introspection_that_is_given_up(self, two):
        before = compile(two())
        text = TWO.partition("    introspection")[0] + "grants:" + TWO.partition("grants:")[2]
        after = compile(two(TWO, text), previous=before)
        assert after.issuers[1].introspector is None
        assert after.issuers[1].keys is before.issuers[1].keys
        again = compile(two(), previous=after)
        assert again.issuers[1].introspector is not None

    def test_a_broken_key_file_leaves_the_last_good_one_in_force(self, two, written):
        before = compile(two())
        written("keys.json", "{}")
        after = compile(two("operations: [chat]", "operations: ['*']"), previous=before)
        assert after.issuers[0].keys.current().knows("k1")
        assert "is not a JWK set" in after.problems()[0]
        assert problems(lambda: compile(two()))[0][0] == 6


async def test_keys_that_were_left_out_are_told(loaded, written, es256):
    entries = [es256.jwk(), {"kty": "oct", "k": "eA"}]
    read = loaded(GOOD)
    written("keys.json", json.dumps({"keys": entries}))
    identity = compile(read)
    assert await identity.start() == []
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
        principal = await identity.verifier.verify(Presented(token))
        try:
            found = identity.authorizer.allow(principal, Wanted(operation, model)).masking
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
        assert [issuer.id for issuer in loaded.file.issuers] == ["dev"]
        assert [grant.effect for grant in loaded.file.grants] == ["allow", "allow", "deny"]
        assert loaded.file.revoked


def test_a_wrong_token_through_the_whole_thing(loaded, other_es256):
    identity = compile(loaded(GOOD))
    with pytest.raises(TokenError, match="k1"):
        asyncio.run(identity.verifier.verify(Presented(other_es256.token())))
