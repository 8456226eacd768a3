"""scripts/bench runs, and says what it measured in a form that can be read again.

No figure is compared with a time: how fast a machine is, is not a property of the code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import bench.__main__
from bench import corpus, report, stalls
from bench.figures import Effort, Figure, Section, medians

TINY = Effort(
    rounds=1,
    prompts=1,
    bodies=2,
    deltas=200,
    tokens=2,
    rules=20,
    recognizers=26,
    large=20_000,
    seconds=0.2,
    turns=1,
    held=3,
    exchanges=2,
)
PARTS = {
    "rules": 7,
    "masking": 8,
    "streams": 20,
    "tokens": 6,
    "recording": 7,
    "stalls": 14,
    "holds": 8,
}  # and how many figures each has
FIGURE = {"name", "unit", "measured", "naive", "target", "ratio", "met"}


GATES = ["stalls", "holds"]  # parts that start gates, and take a minute


def run(directory: Path, *parts: str) -> dict[str, Any]:
    """What one run with tiny sizes wrote with --json."""
    path = directory / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.__main__, "QUICK", TINY)
        bench.__main__.main(["--quick", "--json", str(path), *parts])
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("bench"), *(part for part in PARTS if part not in GATES))


def figures(written: dict[str, Any]) -> list[dict[str, Any]]:
    return [figure for section in written["sections"] for figure in section["figures"]]


@pytest.mark.slow
@pytest.mark.parametrize("part", GATES)
def test_parts_that_start_gates(part: str, tmp_path: Path) -> None:
    (section,) = run(tmp_path, part)["sections"]
    assert len(section["figures"]) == PARTS[part]
    assert all(figure["measured"] >= 0 for figure in section["figures"])


def test_every_part_is_measured(written: dict[str, Any]) -> None:
    assert list(bench.__main__.PARTS) == list(PARTS)
    counts = [len(section["figures"]) for section in written["sections"]]
    assert counts == [count for part, count in PARTS.items() if part not in GATES]
    assert all(section["title"] and section["remarks"] for section in written["sections"])


def test_a_figure_has_all_its_fields(written: dict[str, Any]) -> None:
    for figure in figures(written):
        assert set(figure) == FIGURE
        assert figure["unit"] in ("us/KB", "us", "ms", "s", "characters")
        assert math.isfinite(figure["measured"])
        assert figure["measured"] >= 0


def test_ratios_and_verdicts_follow_from_the_figures(written: dict[str, Any]) -> None:
    for figure in figures(written):
        if figure["naive"] is None or not figure["measured"]:
            assert figure["ratio"] is None
        else:
            assert figure["ratio"] == pytest.approx(figure["naive"] / figure["measured"])
        if figure["target"] is None:
            assert figure["met"] is None
        else:
            assert figure["met"] is (figure["measured"] <= figure["target"])


def test_every_target_stands_in_the_bench(written: dict[str, Any]) -> None:
    targets = {(figure["unit"], figure["target"]) for figure in figures(written)}
    wanted = [("us/KB", 15), ("ms", 1), ("us/KB", 8), ("us", 10), ("us", 60)]
    assert {*wanted, ("characters", 4), ("characters", 32)} <= targets


def test_the_machine_and_what_is_missing_are_named(written: dict[str, Any]) -> None:
    assert written["quick"] is True
    assert set(written["machine"]) >= {"cpu", "cores", "python", "date", "packages"}
    assert set(written["machine"]["packages"]) == set(report.PACKAGES)
    assert written["not_measured"]


def test_the_sizes_asked_for_are_the_sizes_used(written: dict[str, Any]) -> None:
    titles = json.dumps([section["title"] for section in written["sections"]])
    assert f"{TINY.recognizers} recognizers" in titles
    assert any(f["name"].startswith(f"{TINY.rules} rules") for f in figures(written))


def test_contenders_take_turns_and_the_first_round_only_warms_up() -> None:
    seen: list[tuple[str, int]] = []
    contenders = {name: lambda n, name=name: seen.append((name, n)) for name in ("gate", "naive")}
    taken = medians(contenders, [0, 1, 2])
    assert seen == [(name, n) for n in (0, 1, 2) for name in ("gate", "naive")]
    assert set(taken) == {"gate", "naive"}


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (Figure("a", "us", 2.0, 30.0, 10.0), 15.0, True),
        (Figure("a", "us", 10.0, None, 10.0), None, True),
        (Figure("a", "us", 10.1, 5.05, 10.0), 0.5, False),
        (Figure("a", "us", 0.0, 5.0), None, None),
    ],
)
def test_a_figure_judges_itself(figure: Figure, ratio: float | None, met: bool | None) -> None:
    assert figure.ratio == ratio
    assert figure.met is met


def test_a_missed_target_shows_in_the_table() -> None:
    slow_one = Figure("slow", "us", 19.96, 99.8, 10.0)
    section = Section("Part", (slow_one, Figure("fast", "us", 1.0)))
    slow, fast = report.table(section).splitlines()[1:]
    assert slow.split() == ["slow", "20", "100", "5.0x", "10", "NO", "us"]
    assert fast.split() == ["fast", "1", "us"]
    assert report.tail([section]).startswith("0 of 1 targets met")


def test_large_prompts_are_as_large_as_they_say() -> None:
    for bodies in (stalls.prose(50_000), stalls.adversarial(50_000)):
        for body in bodies:
            text = json.loads(body)["messages"][0]["content"]
            assert 49_000 < len(text) <= 50_000


def test_what_large_prompts_add_is_told_from_what_was_there() -> None:
    taken = stalls.Taken({"": [float(n) for n in range(101)], "prose": [200.0] * 101})
    assert (taken.p50(""), taken.p99("")) == (50, 99)
    assert taken.added("prose") == 101


def test_texts_are_the_same_in_every_run_and_others_in_every_round() -> None:
    first, second = (corpus.cuts(corpus.code(), 100, 3, 2) for _ in range(2))
    assert first == second
    assert len({piece for pieces in first for piece in pieces}) == 9


def test_tokens_are_the_text_in_pieces_of_about_four_characters() -> None:
    text = corpus.prose()[:20_000]
    tokens = corpus.tokens(text)
    assert "".join(tokens) == text
    assert 3 < len(text) / len(tokens) < 5


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.__main__.main(["masks"])
    assert "there is no part masks" in capsys.readouterr().err
