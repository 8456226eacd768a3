"""Work and memory on texts made to cost much. Work is counted, not timed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mitmgate.core.masking import Masking
from mitmgate.core.masking.hold import Hold
from mitmgate.core.masking.recognizer import CompiledRecognizer, Match
from mitmgate.core.masking.stream import PIECE

HOSTILE = {
    "digits": "1234567890",
    "one digit": "1",
    "cards": "4111 ",
    "addresses": "a@a.a@",
    "letters": "a",
    "open jwt": "eyJhbGciOiJ" + "A" * 60,
    "open key": "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkq" * 9,
    "key headers": "-----BEGIN PRIVATE KEY-----",
    "half headers": "-----BEGIN ",
    "colons": "a1:",
    "dots": "1.",
    "schemes": "http://a:b",
    "passwords": "password=",
    "phones": "+1 1 1",
    "ibans": "GB82WEST",
    "bearers": "bearer ",
    "full-width": "４１１１",
}


@dataclass
class Work:
    searched: int = 0  # characters handed to the hold and to the recognizers
    searches: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()
    hold, find = Hold.place, CompiledRecognizer.find

    def counting_hold(self: Hold, text: str, start: int) -> int:
        counted.searched += min(len(text) - start, self._span)
        counted.searches += 1
        return hold(self, text, start)

    def counting_find(self: CompiledRecognizer, text: str, start: int, limit: int) -> Match | None:
        counted.searched += len(text) - start
        counted.searches += 1
        return find(self, text, start, limit)

    monkeypatch.setattr(Hold, "place", counting_hold)
    monkeypatch.setattr(CompiledRecognizer, "find", counting_find)
    return counted


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_streams_work_linearly_in_bounded_memory(shipped: Masking, work: Work, unit: str) -> None:
    stream = shipped.profile("default").answer.stream()
    text = (unit * 2000)[:2000] if len(unit) < 60 else unit + unit[-1] * 2000
    span = stream._engine.hold._span
    spent = []
    for half in (text[:1000], text[1000:2000]):
        before = work.searched
        for char in half:
            stream.feed(char)
            assert stream.held <= span
            assert len(stream._text) <= span + stream._engine.behind
        spent.append(work.searched - before)
    assert spent[1] <= 1.3 * spent[0] + 100  # the second half costs what the first did
    assert spent[1] <= 1000 * 2 * span


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_whole_texts_work_linearly(shipped: Masking, work: Work, unit: str) -> None:
    masker = shipped.profile("default").answer
    spent = []
    for size in (2 * PIECE, 4 * PIECE):
        text = (unit * (size // len(unit) + 1))[:size]
        before = work.searches
        masker.mask(text)
        spent.append(work.searches - before)
    assert spent[1] <= 2.2 * spent[0] + 50


def test_an_open_secret_is_swallowed_in_constant_memory(shipped: Masking) -> None:
    stream = shipped.profile("default").answer.stream()
    released = stream.feed("-----BEGIN PRIVATE KEY-----\n")
    for _ in range(2000):
        released += stream.feed("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 4)
        assert stream.held < 64
        assert len(stream._text) < 64
    released += stream.feed("-----END PRIVATE KEY-----.") + stream.finish()
    assert released == "[PRIVATE KEY]."
    assert stream.hits == {"pem-private-key": 1}
