"""The same person under two spellings of the same letters."""

from __future__ import annotations

import pytest

from mitmgate.core.holds.person import are_one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jos\u00e9@example.com", "JOSE\u0301@example.com"),
        ("alice", "\uff41\uff4c\uff49\uff43\uff45"),
        ("alice", "Alice\u00a0"),
    ],
)
def test_how_a_letter_is_written_does_not_count(one: str, other: str) -> None:
    assert are_one([one], [other])


def test_other_letters_do() -> None:
    assert not are_one(["jose@example.com"], ["jos\u00e9@example.com"])
