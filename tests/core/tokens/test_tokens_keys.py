from __future__ import annotations

import asyncio
import json
import logging
import secrets

import pytest

from mitmgate.core.tokens.errors import KeySetError, KeysUnavailable, TokenError
from mitmgate.core.tokens.keys import (
    COOL_DOWN,
    PATIENCE,
    RENEWAL,
    FileKeys,
    RemoteKeys,
    keys_of,
)
from mitmgate.core.tokens.keyset import parse_key_set
from mitmgate.core.tokens.presented import Presented
from mitmgate.core.tokens.verify import TrustedIssuer, Verifier

DAY = 86400.0


class Source:
    """A key set source that counts, fails on demand and can be held up."""

    def __init__(self, *entries):
        self.entries = entries
        self.error: Exception | None = None
        self.fetches = 0
        self.held = False
        self.released = asyncio.Event()

    async def __call__(self):
        self.fetches += 1
        if self.held:
            await self.released.wait()
        if self.error:
            raise self.error
        return parse_key_set(json.dumps({"keys": self.entries}).encode(), "src", ("ES256",))

    def release(self):
        self.held = False
        self.released.set()


@pytest.fixture
def source(es256):
    return Source(es256.jwk())


@pytest.fixture
def remote(source, clock):
    return RemoteKeys("idp", "src", source, max_stale=DAY, clock=clock)


@pytest.fixture
def kept(remote, monkeypatch):
    """`remote` while it is kept fresh, looking at its clock without pause."""
    monkeypatch.setattr("mitmgate.core.tokens.keys.TICK", 0)

    async def pause(turns=20):
        for _ in range(turns):
            await asyncio.sleep(0)

    class Kept:
        def __init__(self):
            self.task = None

        async def __aenter__(self):
            self.task = asyncio.create_task(remote.keep_fresh())
            await pause()
            return pause

        async def __aexit__(self, *_):
            assert not self.task.done()
            self.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await self.task

    return Kept()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestRemote:
    async def test_start(self, remote, source):
        with pytest.raises(KeySetError, match="src: has not been fetched yet"):
            remote.current()
        assert remote.age() is None
        await remote.start()
        assert remote.current().knows("k1")
        assert remote.age() == 0
        await remote.start()
        assert source.fetches == 1

    async def test_start_leaves_what_failed_in_problem(self, remote, source):
        source.error = KeySetError("src", "answered 500")
        await remote.start()
        assert str(remote.problem) == "src: answered 500"
        with pytest.raises(KeySetError, match="src: answered 500"):
            remote.current()
        assert remote.age() is None
        await remote.start()  # who keeps it fresh is trying on
        assert source.fetches == 1

    async def test_an_unforeseen_error_is_a_problem_too(self, remote, source):
        source.error = RuntimeError("boom")
        await remote.start()
        with pytest.raises(KeySetError, match="RuntimeError: boom"):
            remote.current()

    async def test_a_fetch_that_never_ends(self, remote, source, monkeypatch):
        monkeypatch.setattr("mitmgate.core.tokens.keys.DEADLINE", 0.01)
        source.held = True
        await remote.start()
        assert "took longer than 0.01 s" in str(remote.problem)

    async def test_callers_share_one_flight(self, remote, source):
        source.held = True
        waiting = [asyncio.create_task(remote.refresh()) for _ in range(50)]
        await asyncio.sleep(0)
        source.release()
        await asyncio.gather(*waiting)
        assert source.fetches == 1

    async def test_a_caller_that_leaves_does_not_end_the_flight(self, remote, source):
        source.held = True
        leaving = asyncio.create_task(remote.refresh())
        staying = asyncio.create_task(remote.refresh())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        source.release()
        await staying
        assert leaving.cancelled()
        assert remote.current().knows("k1")
        assert source.fetches == 1

    async def test_callers_wait_for_a_while_only(self, remote, source, clock, monkeypatch):
        source.held = True
        monkeypatch.setattr("mitmgate.core.tokens.keys.PATIENCE", 0.02)
        await asyncio.wait_for(remote.refresh(), 5)
        assert source.fetches == 1
        assert remote._flight is not None
        assert not remote._flight.done()

    async def test_nobody_waits_for_a_flight_that_has_hung_for_long(self, remote, source, clock):
        source.held = True
        first = asyncio.create_task(remote.refresh())
        await asyncio.sleep(0)
        clock.now += PATIENCE
        await asyncio.wait_for(remote.refresh(), 1)
        assert source.fetches == 1
        source.release()
        await first

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

    async def test_a_set_that_cannot_be_used_does_not_displace_the_good_one(self, remote, source):
        await remote.start()
        good = remote.current()
        source.entries = ({"kty": "oct", "k": "eA"},)
        await remote.refresh()
        assert remote.current() is good
        assert "no usable key" in str(remote.problem)

    async def test_an_unchanged_set_stays_the_same_object(self, remote, source, clock):
        await remote.start()
        good = remote.current()
        clock.now = 100
        assert remote.age() == 100
        await remote.refresh()
        assert remote.current() is good
        assert remote.age() == 0

    async def test_a_set_serves_for_max_stale_and_no_longer(self, remote, source, clock):
        await remote.start()
        source.error = KeySetError("src", "answered 500")
        clock.now = DAY - COOL_DOWN
        await remote.refresh()
        clock.now = DAY
        assert remote.current().knows("k1")
        clock.now = DAY + 1
        with pytest.raises(KeySetError, match="last had 86401 s ago, max_stale is 86400 s; answ"):
            remote.current()
        assert remote.age() == DAY + 1
        source.error = None
        await remote.refresh()
        assert remote.current().knows("k1")

    def test_starts_in_one_loop_and_is_used_in_another(self, remote, source, clock):
        """Also while a flight of the first loop never landed."""
        asyncio.run(remote.start())
        source.held = True
        first = asyncio.new_event_loop()
        clock.now = RENEWAL
        stuck = first.create_task(remote.refresh())
        first.run_until_complete(asyncio.sleep(0))
        assert source.fetches == 2

        async def use():
            source.held = False
            assert remote.current().knows("k1")
            task = asyncio.create_task(remote.keep_fresh())
            await asyncio.sleep(0)
            await remote.refresh()
            task.cancel()

        asyncio.run(use())
        assert source.fetches == 3
        assert remote.age() == 0
        stuck.cancel()
        source.release()
        first.run_until_complete(
            asyncio.gather(stuck, *asyncio.all_tasks(first), return_exceptions=True)
        )
        first.close()


class TestKeptFresh:
    async def test_renewed_without_any_caller(self, remote, source, clock, kept, other_es256):
        async with kept as pause:
            assert source.fetches == 1  # at once, where nobody has started it
            assert remote.current().knows("k1")
            source.entries = (other_es256.jwk(kid="k2"),)
            clock.now = RENEWAL - 1
            await pause()
            assert source.fetches == 1
            clock.now = RENEWAL
            await pause()
            assert source.fetches == 2
            assert remote.current().knows("k2")
            assert not remote.current().knows("k1")  # withdrawn
            await pause()
            assert source.fetches == 2

    async def test_a_known_key_never_waits(self, remote, source, clock, kept):
        async with kept as pause:
            source.held = True
            clock.now = RENEWAL
            await pause()
            assert source.fetches == 2
            assert remote.current().knows("k1")
            source.release()

    async def test_tried_again_ever_more_slowly(self, remote, source, clock, kept):
        source.error = KeySetError("src", "gone")
        waits = []
        async with kept as pause:
            for _ in range(8):
                fetches, since = source.fetches, clock.now
                while source.fetches == fetches:
                    clock.now += 1
                    await pause(5)
                waits.append(clock.now - since)
            assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
            source.error = None
            clock.now += 30
            await pause()
            assert remote.current().knows("k1")
            source.error = KeySetError("src", "gone")
            clock.now += RENEWAL
            await pause()
            fetches = source.fetches
            clock.now += 1  # from the beginning
            await pause()
            assert source.fetches == fetches + 1

    async def test_a_short_max_stale_is_kept_up_with(self, source, clock, monkeypatch):
        monkeypatch.setattr("mitmgate.core.tokens.keys.TICK", 0)
        remote = RemoteKeys("idp", "src", source, max_stale=60, clock=clock)
        task = asyncio.create_task(remote.keep_fresh())
        for _ in range(40):
            await asyncio.sleep(0)
            clock.now += 10
            remote_age = remote.age()
            assert remote_age is None or remote_age <= 60
        task.cancel()
        assert source.fetches > 5

    async def test_cancelled_during_a_flight(self, remote, source, clock):
        source.held = True
        task = asyncio.create_task(remote.keep_fresh())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        source.release()
        await remote._flight
        assert remote.current().knows("k1")


class TestLog:
    async def test_once_for_each_trouble(self, remote, source, clock, caplog):
        await remote.start()
        assert warnings(caplog) == []
        source.error = KeySetError("src", "answered 500")
        for _ in range(4):
            clock.now += COOL_DOWN
            await remote.refresh()
        [told] = warnings(caplog)
        assert told.startswith("issuer idp: no new keys: src: answered 500; the last good keys ")
        assert told.endswith(" UTC")
        source.error = None
        for _ in range(2):
            clock.now += COOL_DOWN
            await remote.refresh()
        assert warnings(caplog) == [told, "issuer idp: its keys can be had again"]

    async def test_a_first_failure_is_not_told_here(self, remote, source, clock, caplog):
        source.error = KeySetError("src", "answered 500")
        await remote.start()
        assert warnings(caplog) == []
        source.error = None
        await remote.refresh()
        assert warnings(caplog) == ["issuer idp: its keys can be had again"]

    async def test_keys_that_are_already_too_old(self, remote, source, clock, caplog):
        await remote.start()
        source.error = KeySetError("src", "answered 500")
        clock.now = DAY + 1
        await remote.refresh()
        [told] = warnings(caplog)
        assert told.endswith("the last good keys are too old, and its tokens are refused")


class TestVerifierWithRemoteKeys:
    @pytest.fixture
    def verify(self, remote, issuer_of, wall):
        verifier = Verifier([TrustedIssuer(issuer_of(), remote)], clock=wall)
        return lambda token: verifier.verify(Presented(token))

    async def test_ten_thousand_random_kids_cause_one_fetch(self, verify, remote, source, es256):
        await remote.start()
        some = [es256.token({"kid": secrets.token_hex(8)}) for _ in range(100)]
        results = await asyncio.gather(*map(verify, some * 100), return_exceptions=True)
        assert {result.code for result in results} == {"key_unknown"}
        assert source.fetches == 2  # the first one, and one for all of these

    async def test_nor_do_they_while_the_fetch_hangs(self, verify, remote, source, clock, es256):
        await remote.start()
        source.held = True
        first = asyncio.create_task(verify(es256.token({"kid": "new"})))
        await asyncio.sleep(0)
        clock.now += PATIENCE
        some = [es256.token({"kid": secrets.token_hex(8)}) for _ in range(100)]
        results = await asyncio.wait_for(
            asyncio.gather(*map(verify, some), return_exceptions=True), 5
        )
        assert {result.code for result in results} == {"key_unknown"}
        assert source.fetches == 2
        source.release()
        with pytest.raises(TokenError):
            await first

    async def test_known_keys_do_not_wait_for_a_flight(self, verify, remote, source, es256):
        await remote.start()
        source.held = True
        stuck = asyncio.create_task(verify(es256.token({"kid": "new"})))
        await asyncio.sleep(0)
        assert remote._flight is not None
        await asyncio.wait_for(verify(es256.token()), 1)
        source.release()
        with pytest.raises(TokenError):
            await stuck

    async def test_rotation(self, verify, remote, source, es256, other_es256):
        await remote.start()
        source.entries = (es256.jwk(), other_es256.jwk(kid="k2"))
        assert await verify(other_es256.token({"kid": "k2"}))
        assert await verify(es256.token())
        assert source.fetches == 2

    async def test_without_a_start_the_first_token_fetches(self, verify, source, es256):
        assert await verify(es256.token())
        assert source.fetches == 1

    async def test_an_issuer_that_is_down(self, verify, remote, source, es256):
        source.error = KeySetError("src", "answered 500")
        await remote.start()
        with pytest.raises(KeysUnavailable, match=r"idp has no key .*: src: answered 500"):
            await verify(es256.token())

    @pytest.mark.parametrize("seen", [False, True])
    async def test_keys_that_are_too_old(self, verify, remote, source, clock, es256, seen):
        await remote.start()
        token = es256.token()
        if seen:
            await verify(token)
        source.error = KeySetError("src", "answered 500")
        clock.now = DAY + 1
        with pytest.raises(KeysUnavailable, match="max_stale"):
            await verify(token)


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
        await keys.keep_fresh()
        assert keys.current() is first

    def test_read_again_when_it_changes(self, keys, path, other_es256):
        assert keys.current().knows("k1")
        path.write_text(json.dumps({"keys": [other_es256.jwk(kid="second")]}))
        assert keys.current().knows("second")
        assert not keys.current().knows("k1")

    def test_a_broken_edit_leaves_the_last_good_set(self, keys, path, es256, caplog):
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
        told, ended = warnings(caplog)
        assert "issuer idp: no new keys: " in told
        assert told.endswith(
            "not JSON: Expecting property name enclosed in double quotes; "
            "the last good keys serve on"
        )
        assert ended == "issuer idp: its keys can be had again"

    def test_moved_away_and_back(self, keys, path):
        good = keys.current()
        moved = path.rename(path.with_name("moved"))
        assert keys.current() is good
        assert keys.problem
        moved.rename(path)  # the same inode and times: seen before, but not since the trouble
        assert keys.current().digest == good.digest
        assert keys.problem is None

    def test_age(self, issuer_of, path, clock):
        keys = keys_of(issuer_of(keys={"jwks_file": str(path)}), clock=clock)
        assert keys.age() == 0
        clock.now = 100
        assert keys.age() == 0  # looked at, and found as it was
        path.write_text("{")
        clock.now = 130
        assert keys.age() == 30

    async def test_missing(self, keys, path, caplog):
        path.unlink()
        with pytest.raises(KeySetError, match=r"keys\.json: cannot be read: No such file"):
            keys.current()
        await keys.start()
        assert "No such file" in str(keys.problem)
        assert keys.age() is None
        assert warnings(caplog) == []  # whoever loads the rules says it

    def test_too_large(self, keys, path):
        path.write_bytes(b" " * (512 * 1024 + 1))
        with pytest.raises(KeySetError, match="larger than 512 KB"):
            keys.current()

    def test_a_spiffe_bundle(self, issuer_of, path, es256):
        path.write_text(json.dumps({"keys": [es256.jwk(use="jwt-svid")]}))
        changes = {"keys": {"jwks_file": str(path)}, "issuer": None}
        assert keys_of(issuer_of(trust_domain="prod.example", **changes)).current().knows("k1")
        with pytest.raises(KeySetError, match="jwt-svid"):
            keys_of(issuer_of(keys={"jwks_file": str(path)})).current()
