from __future__ import annotations

import asyncio
import json
import secrets
import threading

import pytest

from mitmgate.core.tokens.errors import KeySetError, TokenError
from mitmgate.core.tokens.keys import COOL_DOWN, RENEWAL, FileKeys, RemoteKeys, keys_of
from mitmgate.core.tokens.keyset import parse_key_set
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier


class Source:
    """A key set source that counts, fails on demand and can be held up."""

    def __init__(self, *entries):
        self.entries = entries
        self.error: Exception | None = None
        self.fetches = 0
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self):
        self.fetches += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        return parse_key_set(json.dumps({"keys": self.entries}).encode(), "src", ("ES256",))


@pytest.fixture
def source(es256):
    return Source(es256.jwk())


@pytest.fixture
def remote(source, clock):
    return RemoteKeys("src", source, clock=clock)


class TestRemote:
    async def test_the_first_fetch_is_off_the_event_loop(self, remote, source):
        with pytest.raises(KeySetError, match="src: has not been fetched yet"):
            remote.current()
        await remote.start()
        assert remote.current().knows("k1")
        assert threading.get_ident() not in source.threads

    async def test_start_says_what_failed(self, remote, source):
        source.error = KeySetError("src", "answered 500")
        with pytest.raises(KeySetError, match="src: answered 500"):
            await remote.start()
        with pytest.raises(KeySetError, match="src: answered 500"):
            remote.current()

    async def test_an_unforeseen_error_is_a_problem_too(self, remote, source):
        source.error = RuntimeError("boom")
        with pytest.raises(KeySetError, match="RuntimeError: boom"):
            await remote.start()

    async def test_a_fetch_that_never_ends(self, remote, source, monkeypatch):
        monkeypatch.setattr("mitmgate.core.tokens.keys.DEADLINE", 0.01)
        source.gate.clear()
        try:
            with pytest.raises(KeySetError, match="took longer"):
                await remote.start()
        finally:
            source.gate.set()

    async def test_callers_share_one_flight(self, remote, source):
        source.gate.clear()
        waiting = [asyncio.create_task(remote.refresh()) for _ in range(50)]
        await asyncio.sleep(0)
        source.gate.set()
        await asyncio.gather(*waiting)
        assert source.fetches == 1

    async def test_a_caller_that_leaves_does_not_end_the_flight(self, remote, source):
        source.gate.clear()
        leaving = asyncio.create_task(remote.refresh())
        staying = asyncio.create_task(remote.refresh())
        await asyncio.sleep(0)
        leaving.cancel()
        source.gate.set()
        await staying
        assert leaving.cancelled()
        assert remote.current().knows("k1")
        assert source.fetches == 1

    async def test_cool_down(self, remote, source, clock):
        await remote.start()
        for now, fetches in ((0, 2), (0, 2), (COOL_DOWN - 1, 2), (COOL_DOWN, 3), (COOL_DOWN, 3)):
            clock.now = now
            await remote.refresh()
            assert source.fetches == fetches

    async def test_a_failure_cools_down_too_and_keeps_the_last_good_set(
        self, remote, source, clock
    ):
        await remote.start()
        good = remote.current()
        source.error = KeySetError("src", "gone")
        for _ in range(5):
            await remote.refresh()
        assert source.fetches == 2
        assert remote.current() is good
        assert str(remote.problem) == "src: gone"
        source.error = None
        clock.now += COOL_DOWN
        await remote.refresh()
        assert remote.problem is None

    async def test_an_unchanged_set_stays_the_same_object(self, remote, source):
        await remote.start()
        good = remote.current()
        await remote.refresh()
        assert remote.current() is good

    async def test_an_old_set_is_renewed_aside(self, remote, source, clock, other_es256):
        await remote.start()
        source.entries = (other_es256.jwk(kid="k2"),)
        clock.now += RENEWAL
        assert remote.current().knows("k1")  # nobody waits
        assert remote._flight is not None
        await remote._flight
        assert source.fetches == 2
        assert remote.current().knows("k2")
        assert not remote.current().knows("k1")
        assert remote._flight is None

    async def test_a_failed_renewal_is_tried_again_soon_but_not_at_once(
        self, remote, source, clock
    ):
        await remote.start()
        source.error = KeySetError("src", "gone")
        clock.now += RENEWAL
        remote.current()
        await remote._flight
        remote.current()
        assert remote._flight is None
        clock.now += COOL_DOWN
        remote.current()
        await remote._flight
        assert source.fetches == 3


class TestVerifierWithRemoteKeys:
    @pytest.fixture
    def verifier(self, remote, issuer_of, wall):
        return Verifier([TrustedIssuer(issuer_of(), remote)], clock=wall)

    async def test_a_thousand_random_kids_cause_one_fetch(self, verifier, remote, source, es256):
        await remote.start()
        tokens = [es256.token({"kid": secrets.token_hex(8)}) for _ in range(1000)]
        results = await asyncio.gather(*map(verifier.verify, tokens), return_exceptions=True)
        assert {result.code for result in results} == {"key_unknown"}
        assert source.fetches == 2  # the first one, and one for all of these

    async def test_known_keys_do_not_wait_for_a_flight(self, verifier, remote, source, es256):
        await remote.start()
        source.gate.clear()
        stuck = asyncio.create_task(verifier.verify(es256.token({"kid": "new"})))
        await asyncio.sleep(0)
        try:
            assert remote._flight is not None
            await asyncio.wait_for(verifier.verify(es256.token()), 1)
        finally:
            source.gate.set()
        with pytest.raises(TokenError):
            await stuck

    async def test_rotation(self, verifier, remote, source, es256, other_es256):
        await remote.start()
        source.entries = (es256.jwk(), other_es256.jwk(kid="k2"))
        assert await verifier.verify(other_es256.token({"kid": "k2"}))
        assert await verifier.verify(es256.token())
        assert source.fetches == 2

    async def test_without_a_start_the_first_token_fetches(self, verifier, source, es256):
        assert await verifier.verify(es256.token())
        assert source.fetches == 1


class TestFile:
    @pytest.fixture
    def path(self, written, es256):
        return written("keys.json", json.dumps({"keys": [es256.jwk()]}))

    @pytest.fixture
    def keys(self, path, issuer_of):
        keys = keys_of(issuer_of(keys={"jwks_file": str(path)}))
        assert isinstance(keys, FileKeys)
        return keys

    async def test_read_once_while_it_does_not_change(self, keys):
        first = keys.current()
        await keys.refresh()
        await keys.start()
        assert keys.current() is first

    def test_read_again_when_it_changes(self, keys, path, other_es256):
        assert keys.current().knows("k1")
        path.write_text(json.dumps({"keys": [other_es256.jwk(kid="second")]}))
        assert keys.current().knows("second")
        assert not keys.current().knows("k1")

    def test_a_broken_edit_leaves_the_last_good_set(self, keys, path, es256):
        good = keys.current()
        path.write_text("{")
        assert keys.current() is good
        assert "not JSON" in str(keys.problem)
        assert keys.current() is good
        path.unlink()
        assert keys.current() is good
        assert "No such file" in str(keys.problem)
        path.write_text(json.dumps({"keys": [es256.jwk(kid="back")]}))
        assert keys.current().knows("back")
        assert keys.problem is None

    def test_moved_away_and_back(self, keys, path):
        good = keys.current()
        moved = path.rename(path.with_name("moved"))
        assert keys.current() is good
        assert keys.problem
        moved.rename(path)  # the same inode and times: seen before, but not since the trouble
        assert keys.current().digest == good.digest
        assert keys.problem is None

    def test_missing(self, keys, path):
        path.unlink()
        with pytest.raises(KeySetError, match=r"keys\.json: cannot be read: No such file"):
            keys.current()

    def test_too_large(self, keys, path):
        path.write_bytes(b" " * (512 * 1024 + 1))
        with pytest.raises(KeySetError, match="larger than 512 KB"):
            keys.current()
