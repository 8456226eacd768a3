"""What a gate has written about an exchange, and what somebody else has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.account import account, times
from mitmgate.core.summary import VERDICTS, found, rules, verdicts
from mitmgate.core.wire.rendering import Style

FINDING = {"rule": "r", "address": "messages[0].content", "action": "deny", "severity": "high"}
ANN = {"issuer": "idp", "subject": "ann", "verdict": "approve", "time": "0", "channel": "cli"}


def lines(summary: dict[str, Any]) -> list[str]:
    return [fact.line(Style(alert="!{}".format)) for fact in account(summary)]


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"ending": "complete"}, ["complete"]),
        ({"ending": "complete", "masked": {"email": 1}}, ["complete", "masked"]),
        ({"ending": "refused", "refusal": "r", "findings": [FINDING]}, ["refused", "denied"]),
        ({"ending": "refused", "refusal": "other", "findings": [FINDING]}, ["refused"]),
        (
            {
                "ending": "refused",
                "refusal": "r",
                "findings": [FINDING],
                "hold": "h",
                "status": 409,
            },
            ["refused", "held"],
        ),
        ({"ending": "complete", "hold": "h", "approvals": [ANN]}, ["complete", "held", "approved"]),
        ({"ending": "held", "hold": "h"}, ["held"]),
        ({"ending": "admitted"}, ["admitted"]),
    ],
)
def test_verdicts_are_those_of_the_account(summary: dict[str, Any], words: list[str]) -> None:
    assert list(verdicts(summary)) == words
    assert {*words} <= {*VERDICTS, "admitted"}
    (ended,) = (fact for fact in account(summary) if fact.name == "ended")
    assert ended.text.partition(":")[0].split(" (")[0].split() == words
    assert ended.bad is ("refusal" in summary)


def test_what_only_the_ledger_has() -> None:
    summary = {"principal": "idp:a", "token_id": "t-1", "client": ["10.0.0.9", 4711]}
    summary |= {"operation": "chat", "method": "POST", "path": "/v1/x", "server": ["10.0.0.1", 80]}
    assert lines(summary)[:2] == [
        "caller   idp:a, with token t-1, from 10.0.0.9",
        "asked    chat, POST /v1/x, at 10.0.0.1:80",
    ]
    assert lines({**summary, "client": [], "server": ["", 0]})[:2] == [
        "caller   idp:a, with token t-1",
        "asked    chat, POST /v1/x",
    ]


def test_what_was_found_stands_out() -> None:
    assert "found    !r (deny, high) at messages[0].content" in lines({"findings": [FINDING]})
    (ended,) = (line for line in lines({"ending": "refused", "refusal": "r", "status": 403})
                if line.startswith("ended"))  # fmt: skip
    assert ended == "ended    !refused: r (status 403)"


def test_times() -> None:
    assert times(0, None, None).text == "1970-01-01 00:00:00 UTC"
    said = "1970-01-01 00:00:01 UTC, first byte in 0.50 s, all in 2.00 s"
    assert times(1, 1.5, 3).text == said


KEYS = "principal ending refusal status hold findings approvals masked client server".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["rule", "time", "x"]), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_nothing_that_somebody_has_written_does_harm(summary: dict[str, Any]) -> None:
    assert all(isinstance(word, str) for word in (*verdicts(summary), *rules(summary)))
    assert all(isinstance(address, str) for address in found(summary))
    assert all(line.isprintable() for line in lines(summary))
