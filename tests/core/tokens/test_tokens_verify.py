from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core.tokens.errors import KeySetError, TokenError
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.revocation import Revocations
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier

NOW = 1_800_000_000


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def by_hand(header: object, payload: object, signature: bytes = b"x" * 64) -> str:
    parts = [
        p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, payload, signature)
    ]
    return ".".join(map(b64, parts))


async def refusal(verifier: Verifier, token: str) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await verifier.verify(Presented(token))
    assert not token or token not in caught.value.diagnostics()
    return caught.value


@pytest.fixture
def verifier(es256, issuer_of, keys_with, wall):
    return Verifier([TrustedIssuer(issuer_of(), keys_with(es256.jwk()))], clock=wall)


async def test_who_it_is(verifier, es256):
    principal = await verifier.verify(
        Presented(es256.token(scope="inference admin", groups=["cleared"], extra=1))
    )
    assert principal.name == "idp:agent-7"
    assert principal.scopes == {"inference", "admin"}
    assert principal.groups == {"cleared"}
    assert principal.token_id == "t-1"
    assert principal.expires == NOW + 600
    assert principal.claims["extra"] == 1


@pytest.mark.parametrize("signer", ["es256", "rs256", "eddsa"])
async def test_each_family(signer, request, issuer_of, keys_with, wall):
    signer = request.getfixturevalue(signer)
    names = (signer.algorithm,)
    trusted = TrustedIssuer(
        issuer_of(algorithms=[*names]), keys_with(signer.jwk(), algorithms=names)
    )
    principal = await Verifier([trusted], clock=wall).verify(Presented(signer.token()))
    assert principal.subject == "agent-7"


async def test_pss_with_a_key_that_names_no_algorithm(rs256, issuer_of, keys_with, wall):
    names = ("RS256", "PS256")
    trusted = TrustedIssuer(
        issuer_of(algorithms=[*names]), keys_with(rs256.jwk(alg=None), algorithms=names)
    )
    claims = {"iss": "https://idp.example.com", "aud": "models", "sub": "a", "iat": NOW}
    token = jwt.encode({**claims, "exp": NOW + 9}, rs256.private, "PS256", headers={"kid": "k1"})
    assert (await Verifier([trusted], clock=wall).verify(Presented(token))).subject == "a"


class TestForm:
    @pytest.mark.parametrize(
        ("token", "code"),
        [
            ("", "token_malformed"),
            ("abc", "token_malformed"),
            ("a.b", "token_malformed"),
            ("a.b.c.d", "token_malformed"),
            ("a.b.c.d.e", "token_encrypted"),
            ("...", "token_malformed"),
            ("..", "token_malformed"),
            ("a.b.c", "token_malformed"),
            ("é.b.c", "token_malformed"),
            ("\udc80.b.c", "token_malformed"),
            ("a" * (16 * 1024 + 1), "token_too_large"),
            (by_hand(b"not json", {}), "token_malformed"),
            (by_hand(b"\xff\xfe", {}), "token_malformed"),
            (by_hand([], {}), "token_malformed"),
            (by_hand(b"[" * 5000, {}), "token_malformed"),
            (by_hand(b'{"alg":"ES256","alg":"none"}', {}), "token_malformed"),
            (by_hand({"alg": "ES256"}, []), "token_malformed"),
            (by_hand({"alg": "ES256"}, b'{"exp":NaN}'), "token_malformed"),
            (by_hand({"alg": "ES256"}, b'{"exp":' + b"9" * 5000 + b"}"), "token_malformed"),
            (by_hand({"alg": "ES256"}, b'{"sub":"a","sub":"b"}'), "token_malformed"),
            (by_hand({"alg": "ES256", "kid": 7}, {}), "token_malformed"),
            (by_hand({"alg": "ES256", "kid": ""}, {}), "token_malformed"),
            (by_hand({"alg": "ES256", "kid": "k" * 513}, {}), "token_malformed"),
            (by_hand({}, {}), "algorithm_refused"),
            (by_hand({"alg": ["ES256"]}, {}), "algorithm_refused"),
            (by_hand({"alg": "ES256", "enc": "A128GCM"}, {}), "token_encrypted"),
            (by_hand({"alg": "ES256", "crit": ["exp"]}, {}), "critical_header"),
            (by_hand({"alg": "ES256", "crit": []}, {}), "critical_header"),
            (by_hand({"alg": "ES256", "b64": False}, {}), "critical_header"),
            (by_hand({"alg": "ES256", "typ": "dpop+jwt"}, {}), "type_refused"),
            (by_hand({"alg": "ES256", "typ": "logout+jwt"}, {}), "type_refused"),
            (by_hand({"alg": "ES256", "typ": 1}, {}), "type_refused"),
            (by_hand({"alg": "ES256"}, {}), "issuer_missing"),
            (by_hand({"alg": "ES256"}, {"iss": ["https://idp.example.com"]}), "claim_malformed"),
            (by_hand({"alg": "ES256"}, {"iss": "https://idp.example.com/"}), "issuer_unknown"),
            (by_hand({"alg": "ES256"}, {"iss": "https://IDP.example.com"}), "issuer_unknown"),
            (by_hand({"alg": "ES256"}, {"iss": " https://idp.example.com"}), "issuer_unknown"),
            (by_hand({"alg": "none"}, {"iss": "https://idp.example.com"}), "algorithm_refused"),
            (by_hand({"alg": "RS256"}, {"iss": "https://idp.example.com"}), "algorithm_refused"),
            (by_hand({"alg": "es256"}, {"iss": "https://idp.example.com"}), "algorithm_refused"),
        ],
    )
    async def test_refused(self, verifier, token, code):
        assert (await refusal(verifier, token)).code == code

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t + "=",
            lambda t: t + "==",
            lambda t: t.replace(".", "=.", 1),
            lambda t: " " + t,
            lambda t: t + "\n",
            lambda t: t.replace(".", ".\n", 1),
            lambda t: t + ".",
            lambda t: t.rpartition(".")[0] + ".",
            lambda t: t.replace(".", "..", 1),
            lambda t: "Bearer " + t,
        ],
    )
    async def test_a_token_has_one_spelling(self, verifier, es256, change):
        await verifier.verify(Presented(es256.token()))
        assert (await refusal(verifier, change(es256.token()))).code == "token_malformed"

    async def test_trailing_bits_of_base64_are_not_free(self, verifier, es256):
        # 64 bytes leave four unused bits in the last character: 15 other spellings decode alike.
        token = es256.token()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        last = alphabet.index(token[-1])
        for other in range(last - last % 16, last - last % 16 + 16):
            if other != last:
                assert (
                    await refusal(verifier, token[:-1] + alphabet[other])
                ).code == "token_malformed"

    @pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"])
    async def test_types_of_access_tokens(self, verifier, es256, kind):
        assert await verifier.verify(Presented(es256.token({"typ": kind} if kind else {"typ": ""})))

    @settings(max_examples=100, deadline=None)
    @given(token=st.text(max_size=60) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
    def test_rubbish_is_refused_not_crashed_on(self, token):
        async def check() -> None:
            with pytest.raises(TokenError):
                await Verifier([]).verify(Presented(token))

        asyncio.run(check())


@pytest.mark.parametrize("signer", ["es256", "rs256", "eddsa"])
async def test_any_changed_byte_is_refused(signer, request, issuer_of, keys_with, wall):
    signer = request.getfixturevalue(signer)
    names = (signer.algorithm,)
    trusted = TrustedIssuer(
        issuer_of(algorithms=[*names]), keys_with(signer.jwk(), algorithms=names)
    )
    verifier = Verifier([trusted], clock=wall)
    token = signer.token()
    assert await verifier.verify(Presented(token))
    for i, char in enumerate(token):
        for other in {chr(ord(char) ^ 1), chr(ord(char) ^ 0x20), "A", "_", "."} - {char}:
            await refusal(verifier, token[:i] + other + token[i + 1 :])


class TestKeys:
    async def test_hmac_with_the_public_key(self, verifier, es256):
        # The classic: the verifier's public key taken for an HMAC secret (CVE-2015-9235).
        secret = json.dumps(es256.jwk()).encode()
        for name in ("HS256", "ES256"):
            token = by_hand(
                {"alg": name, "kid": "k1"},
                {"iss": "https://idp.example.com", "aud": "models", "sub": "a"},
            )
            signing_input = token.rpartition(".")[0]
            forged = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
            code = (await refusal(verifier, f"{signing_input}.{b64(forged)}")).code
            assert code == ("algorithm_refused" if name == "HS256" else "signature_wrong")

    async def test_wrong_key(self, verifier, other_es256):
        assert (await refusal(verifier, other_es256.token())).code == "signature_wrong"

    async def test_signature_of_another_token(self, verifier, es256):
        head, _, signature = es256.token().rpartition(".")
        other = es256.token(sub="admin").rpartition(".")[0]
        assert head != other
        assert (await refusal(verifier, f"{other}.{signature}")).code == "signature_wrong"

    async def test_claims_are_not_judged_before_the_signature(self, verifier, other_es256):
        assert (await refusal(verifier, other_es256.token(exp=1))).code == "signature_wrong"

    async def test_unknown_key(self, verifier, es256):
        error = await refusal(verifier, es256.token({"kid": "k9"}))
        assert (error.code, error.status, error.error) == ("key_unknown", 401, "invalid_token")
        assert "'k9'" in error.diagnostics()

    async def test_unknown_key_says_that_the_newest_look_failed(
        self, es256, issuer_of, keys_with, wall
    ):
        keys = keys_with(es256.jwk())
        keys.problem = KeySetError("https://idp.example.com/jwks", "answered 500")
        verifier = Verifier([TrustedIssuer(issuer_of(), keys)], clock=wall)
        error = await refusal(verifier, es256.token({"kid": "k9"}))
        assert "answered 500" in error.diagnostics()
        assert keys.refreshed == 1

    async def test_no_keys_at_all_is_not_the_callers_fault(self, es256, issuer_of, keys_with, wall):
        verifier = Verifier([TrustedIssuer(issuer_of(), keys_with())], clock=wall)
        error = await refusal(verifier, es256.token())
        assert (error.code, error.status) == ("keys_unavailable", 503)
        assert error.public == "temporarily_unavailable"

    async def test_a_known_key_causes_no_look(self, es256, issuer_of, keys_with, wall):
        keys = keys_with(es256.jwk())
        await Verifier([TrustedIssuer(issuer_of(), keys)], clock=wall).verify(
            Presented(es256.token())
        )
        assert keys.refreshed == 0

    async def test_key_of_another_algorithm(self, es256, rs256, issuer_of, keys_with, wall):
        keys = keys_with(rs256.jwk(), algorithms=("RS256", "ES256"))
        trusted = TrustedIssuer(issuer_of(algorithms=["RS256", "ES256"]), keys)
        error = await refusal(Verifier([trusted], clock=wall), es256.token())
        assert error.code == "algorithm_refused"
        assert keys.refreshed == 0

    async def test_two_issuers_with_the_same_kid(
        self, es256, other_es256, issuer_of, keys_with, wall
    ):
        second = issuer_of(id="second", issuer="https://second.example.com")
        verifier = Verifier(
            [
                TrustedIssuer(issuer_of(), keys_with(es256.jwk())),
                TrustedIssuer(second, keys_with(other_es256.jwk())),
            ],
            clock=wall,
        )
        assert (await verifier.verify(Presented(es256.token()))).issuer == "idp"
        theirs = other_es256.token(iss="https://second.example.com")
        assert (await verifier.verify(Presented(theirs))).issuer == "second"
        crossed = es256.token(iss="https://second.example.com")
        assert (await refusal(verifier, crossed)).code == "signature_wrong"

    async def test_keys_that_a_token_brings_are_not_looked_at(self, verifier, es256, other_es256):
        brought = {
            "jwk": other_es256.jwk(),
            "jku": "https://evil.example.com/jwks",
            "x5u": "https://evil.example.com/cert",
            "x5c": ["MIIB"],
        }
        assert (await refusal(verifier, other_es256.token(brought))).code == "signature_wrong"
        assert await verifier.verify(Presented(es256.token(brought)))

    async def test_no_kid_with_one_key(self, verifier, es256):
        assert await verifier.verify(Presented(es256.token({"kid": None})))

    async def test_no_kid_with_two_keys(self, es256, other_es256, issuer_of, keys_with, wall):
        keys = keys_with(es256.jwk(), other_es256.jwk(kid="k2"))
        verifier = Verifier([TrustedIssuer(issuer_of(), keys)], clock=wall)
        assert (await refusal(verifier, es256.token({"kid": None}))).code == "key_unknown"


class TestMemory:
    @pytest.fixture
    def counted(self, verifier, monkeypatch):
        calls = []
        decode = verifier._jws.decode_complete

        def count(*args, **kwargs):
            calls.append(args)
            return decode(*args, **kwargs)

        monkeypatch.setattr(verifier._jws, "decode_complete", count)
        return calls

    async def test_a_repeat_is_not_verified_again(self, verifier, es256, counted):
        token = es256.token()
        assert await verifier.verify(Presented(token)) is await verifier.verify(Presented(token))
        assert len(counted) == 1

    async def test_a_remembered_token_expires(self, verifier, es256, wall):
        token = es256.token()
        await verifier.verify(Presented(token))
        wall.now = NOW + 629.9
        await verifier.verify(Presented(token))
        wall.now = NOW + 630
        assert (await refusal(verifier, token)).code == "token_expired"

    async def test_a_withdrawn_key_takes_its_tokens_along(
        self, es256, other_es256, issuer_of, keys_with, wall
    ):
        keys = keys_with(es256.jwk())
        verifier = Verifier([TrustedIssuer(issuer_of(), keys)], clock=wall)
        token = es256.token()
        await verifier.verify(Presented(token))
        keys.key_set = keys_with(other_es256.jwk(kid="k2")).key_set
        assert (await refusal(verifier, token)).code == "key_unknown"

    async def test_it_is_bounded(self, es256, issuer_of, keys_with, wall):
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()))
        verifier = Verifier([trusted], clock=wall, remember=2)
        for i in range(5):
            await verifier.verify(Presented(es256.token(sub=f"agent-{i}")))
        assert len(verifier._remembered) == 2

    async def test_a_refused_token_is_not_remembered(self, verifier, es256, wall):
        token = es256.token(nbf=NOW + 100)
        assert (await refusal(verifier, token)).code == "not_yet_valid"
        wall.now = NOW + 100
        assert await verifier.verify(Presented(token))

    async def test_revocation_reaches_remembered_tokens(
        self, es256, issuer_of, keys_with, wall, clock, written
    ):
        path = written("revoked.txt", "# nobody\n")
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()))
        verifier = Verifier([trusted], revocations=Revocations(path, clock=clock), clock=wall)
        token = es256.token()
        await verifier.verify(Presented(token))
        written("revoked.txt", "t-1\n")
        clock.now += 1
        assert (await refusal(verifier, token)).code == "token_revoked"


class TestTypes:
    @pytest.mark.parametrize(
        ("wanted", "typ", "fits"),
        [
            ("at+jwt", "at+jwt", True),
            ("at+jwt", "AT+JWT", True),
            ("at+jwt", "application/at+jwt", True),
            ("at+jwt", "JWT", False),
            ("at+jwt", None, False),
            (["at+jwt", "JWT"], "JWT", True),
            (None, None, True),
            (None, "dpop+jwt", False),
            (None, "logout+jwt", False),
        ],
    )
    async def test_of_the_issuer(self, es256, issuer_of, keys_with, wall, wanted, typ, fits):
        trusted = TrustedIssuer(issuer_of(typ=wanted), keys_with(es256.jwk()))
        verifier = Verifier([trusted], clock=wall)
        # pyjwt writes typ: JWT unless it is empty, which it leaves out
        token = es256.token({"typ": typ or ""})
        if fits:
            assert await verifier.verify(Presented(token))
        else:
            assert (await refusal(verifier, token)).code == "type_refused"


class TestTrustDomains:
    @pytest.fixture
    def domains(self, es256, other_es256, issuer_of, keys_with, wall):
        def issuer(domain, signer):
            rules = issuer_of(id=domain.split(".")[0], issuer=None, trust_domain=domain)
            return TrustedIssuer(rules, keys_with(signer.jwk()))

        return Verifier([issuer("prod.example", es256), issuer("test.example", other_es256)])

    async def test_known_by_the_subject(self, es256, other_es256, domains):
        domains._clock = lambda: NOW
        ours = es256.token(iss=None, sub="spiffe://prod.example/ns/search/sa/agent")
        assert (await domains.verify(Presented(ours))).issuer == "prod"
        theirs = other_es256.token(iss=None, sub="spiffe://test.example/x")
        assert (await domains.verify(Presented(theirs))).issuer == "test"

    @pytest.mark.parametrize(
        ("subject", "code"),
        [
            ("spiffe://test.example/x", "signature_wrong"),  # of the other domain
            ("spiffe://elsewhere.example/x", "issuer_missing"),
            ("spiffe://prod.example", "issuer_missing"),
            ("spiffe://prod.example/a/../b", "issuer_missing"),
            ("agent-7", "issuer_missing"),
            (None, "issuer_missing"),
            (7, "issuer_missing"),
        ],
    )
    async def test_refused(self, es256, domains, subject, code):
        domains._clock = lambda: NOW
        assert (await refusal(domains, es256.token(iss=None, sub=subject))).code == code


class TestRevocationLater:
    async def test_of_what_was_let_in(self, es256, issuer_of, keys_with, wall, written):
        path = written("revoked.txt", "")
        revocations = Revocations(path, clock=wall)
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()))
        verifier = Verifier([trusted], revocations=revocations, clock=wall, remember=1)
        token = es256.token()
        principal = await verifier.verify(Presented(token))
        await verifier.verify(Presented(es256.token(sub="another")))  # token is forgotten
        assert verifier.listed(principal) is None
        path.write_text("agent-7")
        wall.now += 2
        revoked = verifier.listed(principal)
        assert revoked
        assert revoked.code == "token_revoked"

    async def test_a_list_that_cannot_be_read_has_nobody(
        self, es256, issuer_of, keys_with, wall, written
    ):
        path = written("revoked.txt", "")
        revocations = Revocations(path, clock=wall)
        trusted = TrustedIssuer(issuer_of(), keys_with(es256.jwk()))
        verifier = Verifier([trusted], revocations=revocations, clock=wall)
        principal = await verifier.verify(Presented(es256.token()))
        path.unlink()
        wall.now += 2
        assert verifier.listed(principal) is None
