from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mitmgate.core.matching import kept, prefilter
from mitmgate.core.matching.prefilter import Scanner


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mitmgate"


def test_what_was_kept_is_read_again(cache: Path) -> None:
    assert kept.read("k") is None
    kept.keep("k", b"content")
    assert kept.read("k") == b"content"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in cache.iterdir()] == ["k"]
    assert (cache / "k").stat().st_mode & 0o777 == 0o600


def test_what_is_damaged_is_not(cache: Path) -> None:
    kept.keep("k", b"content")
    whole = (cache / "k").read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], whole + b"x", whole[:-1] + b"x"):
        (cache / "k").write_bytes(damaged)
        assert kept.read("k") is None


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o720, 0o1777])
def test_a_directory_that_is_open_to_others_is_not_used(cache: Path, mode: int) -> None:
    kept.keep("k", b"content")
    cache.chmod(mode)
    assert kept.read("k") is None
    kept.keep("other", b"content")
    assert not (cache / "other").exists()


def test_nor_is_a_link_to_one(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    kept.keep("k", b"content")
    assert kept.read("k") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nowhere_to_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    kept.keep("k", b"content")
    assert kept.read("k") is None


def test_what_nobody_has_read_for_long_goes(cache: Path) -> None:
    kept.keep("old", b"1")
    kept.keep("used", b"2")
    long_ago = time.time() - kept.OLD - 60
    for name in ("old", "used"):
        os.utime(cache / name, (long_ago, long_ago))
    assert kept.read("used") == b"2"
    kept.keep("new", b"3")
    assert sorted(path.name for path in cache.iterdir()) == ["new", "used"]


def test_databases_are_kept_and_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefilter, "DEAR", -1)
    patterns = {0: "weights", 7: "checkpoints?"}

    def found() -> list[tuple[int, int]]:
        prefilter._compiled.cache_clear()
        ends: list[tuple[int, int]] = []
        scanner = Scanner(patterns, prefilter._flags(once=False))
        scanner.scan(b"the WEIGHTS, a checkpoint", lambda i, end: ends.append((i, end)))
        return ends

    first = found()
    assert first == [(0, 11), (7, 25)]
    (path,) = cache.iterdir()
    made = path.stat().st_mtime_ns
    assert found() == first
    assert path.stat().st_mtime_ns != made  # it was read, which keeps it young
    content = path.read_bytes()
    kept.keep(path.name, b"no database")  # as another version of Hyperscan may have left it
    assert found() == first
    assert path.read_bytes()[32:] != b"no database"
    assert len(path.read_bytes()) == len(content)
