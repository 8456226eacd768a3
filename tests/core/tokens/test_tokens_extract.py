from __future__ import annotations

import pytest

from mitmgate.core.tokens.errors import TokenError
from mitmgate.core.tokens.extract import CREDENTIAL_HEADERS, presented, without_credentials


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer a.b.c")],
        [("authorization", "bearer a.b.c")],
        [("AUTHORIZATION", "BEARER   a.b.c ")],
        [("x-api-key", "a.b.c")],
        [("API-Key", " a.b.c\t")],
        [("Authorization", "Bearer a.b.c"), ("X-Api-Key", "a.b.c")],
        [("x-api-key", "a.b.c"), ("x-api-key", "a.b.c"), ("api-key", "a.b.c")],
        [("Authorization", "Bearer a.b.c"), ("api-key", "")],
        [("Host", "x"), ("Accept", "*/*"), ("Authorization", "Bearer a.b.c")],
    ],
)
def test_found(headers):
    found = presented(headers)
    assert (found.token, found.scheme, found.proofs) == ("a.b.c", "Bearer", ())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "token_missing"),
        ([("Cookie", "token=a.b.c")], "token_missing"),
        ([("Authorization", "")], "token_missing"),
        ([("Authorization", "Bearer")], "token_missing"),
        ([("Authorization", "Bearer ")], "token_missing"),
        ([("x-api-key", "")], "token_missing"),
        ([("Authorization", "Basic dTpw")], "token_missing"),
        ([("Authorization", "Basic dTpw"), ("x-api-key", "a.b.c")], "token_missing"),
        ([("Authorization", "DPoP")], "token_missing"),
        ([("Authorization", "DPoP a.b.c"), ("api-key", "d.e.f")], "token_conflict"),
        ([("DPoP", "a.b.c")], "token_missing"),
        ([("Authorization", "a.b.c")], "token_missing"),
        ([("Authorization", "Bearera.b.c")], "token_missing"),
        ([("Authorization", "Bearer\ta.b.c")], "token_missing"),
        ([("Proxy-Authorization", "Bearer a.b.c")], "token_missing"),
        ([("Authorization", "Bearer a.b.c")] * 2, "token_conflict"),
        ([("Authorization", "Bearer a.b.c"), ("x-api-key", "d.e.f")], "token_conflict"),
        ([("x-api-key", "a.b.c"), ("api-key", "d.e.f")], "token_conflict"),
        ([("x-api-key", "a.b.c"), ("x-api-key", "d.e.f")], "token_conflict"),
        ([("Authorization", "Bearer a.b.c, Bearer d.e.f")], "token_malformed"),
        ([("Authorization", "Bearer a.b.c d")], "token_malformed"),
        ([("x-api-key", "a.b.c,d.e.f")], "token_malformed"),
        ([("x-api-key", "a\x00b")], "token_malformed"),
        ([("Authorization", "Bearer a\nb")], "token_malformed"),
        ([("x-api-key", "é")], "token_malformed"),
    ],
)
def test_refused(headers, code):
    with pytest.raises(TokenError) as caught:
        presented(headers)
    assert caught.value.code == code
    assert "a.b.c" not in caught.value.diagnostics()


def test_what_the_client_is_told():
    with pytest.raises(TokenError) as caught:
        presented([("Authorization", "Bearer a")] * 2)
    assert (caught.value.status, caught.value.error) == (400, "invalid_request")
    with pytest.raises(TokenError) as caught:
        presented([])
    assert (caught.value.status, caught.value.error) == (401, None)


def test_every_header_that_is_read_is_stripped():
    assert {"authorization", "x-api-key", "api-key", "cookie"} < set(CREDENTIAL_HEADERS)
    assert all(name == name.lower() for name in CREDENTIAL_HEADERS)
    assert len(set(CREDENTIAL_HEADERS)) == len(CREDENTIAL_HEADERS)


def test_with_a_proof():
    found = presented(
        [("Authorization", "dpop a.b.c"), ("DPoP", "p1"), ("dpop", " p2")],
        method="POST",
        target="/v1/x?y=1",
        certificate=b"der",
    )
    assert (found.token, found.scheme, found.proofs) == ("a.b.c", "DPoP", ("p1", "p2"))
    assert (found.method, found.path, found.certificate) == ("POST", "/v1/x", b"der")


@pytest.mark.parametrize(
    "query",
    [
        "access_token=a.b.c",
        "x=1&access_token=a.b.c",
        "x=1;ACCESS_TOKEN=a.b.c",
        "access%5Ftoken=a.b.c",
        "token=a.b.c",
        "key=a.b.c",
        "api_key=a.b.c",
        "api-key=a.b.c",
        "apikey=a.b.c",
        "id_token=a.b.c",
        "jwt=a.b.c",
        "access_token=",
    ],
)
def test_a_token_in_the_query(query):
    for headers in ([], [("Authorization", "Bearer d.e.f")]):
        with pytest.raises(TokenError) as caught:
            presented(headers, target=f"/v1/models?{query}")
        assert caught.value.code == "token_conflict"
        assert "a.b.c" not in caught.value.diagnostics()
    assert without_credentials(f"/v1/models?{query}") == "/v1/models?removed"


@pytest.mark.parametrize(
    "target", ["/v1/models", "/v1/models?", "/v1/messages?beta=true", "/x?tokens=1&keys=2&monkey=3"]
)
def test_other_queries_stay(target):
    assert without_credentials(target) == target
    assert presented([("api-key", "t")], target=target).token == "t"
