from __future__ import annotations

import random
import threading

import pytest

from mitmgate.core.masking import Masking, prefilter
from mitmgate.core.masking.prefilter import Prefilter

pytest.importorskip("hyperscan")


def test_what_a_recognizer_finds_is_a_candidate(
    shipped: Masking, samples: dict[str, tuple[str, ...]]
) -> None:
    engine = shipped.profile("default").answer._engine
    random_ = random.Random(3)
    every = [sample for group in samples.values() for sample in group]
    found = 0
    for _ in range(300):
        text = "".join(random_.choices([*every, " ", "\u0301", "é", "x", "1", "-"], k=6))
        candidates = engine.prefilter.candidates(text)
        for index, one in enumerate(engine.recognizers):
            if one.pattern.search(text):
                found += 1
                assert index in candidates, (one.id, text)
    assert found > 500


def test_clean_text_has_no_candidates(shipped: Masking) -> None:
    assert not shipped.profile("default").answer._engine.prefilter.candidates("A plain line. " * 99)


@pytest.mark.parametrize("char", ["é", "\u203f", "\ud800", "\U00010000"])
def test_characters_beyond_ascii_count_as_one(char: str) -> None:
    any_ = r"[\x80-\U0010ffff]"
    one = Prefilter([f"a{any_}c", f"a{any_}{{2}}c", f"a{any_}{{3,9}}c"])
    assert one.candidates(f"a{char}c") == {0}
    assert one.candidates(f"a{char}{char}c") == {1}
    assert one.candidates(f"a\ud800\udc00{char}c") == {2}


def test_a_pattern_hyperscan_refuses_is_always_a_candidate() -> None:
    one = Prefilter(["(", "b", "\ud800"])
    assert one.candidates("nothing") == {0, 2}
    assert one.candidates("bbb") == {0, 1, 2}
    assert Prefilter(["("]).candidates("nothing") == {0}


def test_without_hyperscan_all_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefilter, "hyperscan", None)
    assert Prefilter(["a", "b"]).candidates("c") == {0, 1}
    assert Prefilter([]).candidates("c") == set()


def test_threads_have_their_own_scratch() -> None:
    one = Prefilter(["needle"])
    wrong: list[object] = []

    def scan() -> None:
        try:
            wrong.extend(1 for _ in range(300) if one.candidates("hay needle " * 50) != {0})
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=scan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
