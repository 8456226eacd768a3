from __future__ import annotations

import pytest

from mitmgate.core.principal import Principal
from mitmgate.core.tokens.errors import TokenError
from mitmgate.core.tokens.revocation import Revocations

AGENT = Principal("idp", "agent-7", token_id="t-1", claims={"sub": "sub-of-7"})


@pytest.mark.parametrize(
    "text",
    ["t-1", "agent-7", "idp:agent-7", "sub-of-7", "# who\n\n  t-1  \nother", "\ufefft-1\r\n"],
)
def test_revoked(written, text):
    with pytest.raises(TokenError) as caught:
        Revocations(written("revoked.txt", text)).check(AGENT)
    assert (caught.value.code, caught.value.status) == ("token_revoked", 401)
    assert "revoked.txt" in caught.value.diagnostics()


@pytest.mark.parametrize("text", ["", "\n", "t-11", "agent-*", "#t-1", "other:agent-7", "T-1"])
def test_not_revoked(written, text):
    Revocations(written("revoked.txt", text)).check(AGENT)


def test_a_token_without_an_id_is_not_an_empty_line(written):
    Revocations(written("revoked.txt", "\n\n")).check(Principal("idp", "agent-7"))


def test_read_again_when_it_changes_but_looked_at_once_a_second(written, clock):
    revocations = Revocations(written("revoked.txt", ""), clock=clock)
    revocations.check(AGENT)
    written("revoked.txt", "t-1\n")
    clock.now = 0.9
    revocations.check(AGENT)
    clock.now = 1.0
    with pytest.raises(TokenError):
        revocations.check(AGENT)
    written("revoked.txt", "nobody\n")
    clock.now = 2.0
    revocations.check(AGENT)


@pytest.mark.parametrize("spoil", ["unlink", "not_utf8", "directory"])
def test_unreadable_refuses_everybody_until_it_is_back(written, clock, spoil):
    path = written("revoked.txt", "")
    revocations = Revocations(path, clock=clock)
    revocations.check(AGENT)
    if spoil == "not_utf8":
        path.write_bytes(b"\xff\xff")
    else:
        path.unlink()
        if spoil == "directory":
            path.mkdir()
    for now in (1.0, 1.1, 2.1):
        clock.now = now
        with pytest.raises(TokenError) as caught:
            revocations.check(AGENT)
        assert (caught.value.code, caught.value.status) == ("revocations_unavailable", 503)
    if spoil == "directory":
        path.rmdir()
    written("revoked.txt", "# fine again\n")
    clock.now = 4.0
    revocations.check(AGENT)
