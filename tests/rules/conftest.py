"""The rule files that ship, compiled once, and what they find in a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from mitmgate.commands import CommandsFile
from mitmgate.core import ruling
from mitmgate.core.holds import ApprovalFile
from mitmgate.core.rules import load
from mitmgate.core.rules.rule import ANSWERS, CALLS, Rule, Where
from mitmgate.core.ruling import Asked, Ruling
from mitmgate.core.wire.calls import unfold
from mitmgate.core.wire.segment import Segment

RULES = Path(__file__).parents[2] / "rules"


@pytest.fixture(scope="session")
def commands() -> Ruling:
    loaded = load(RULES / "commands.yaml", CommandsFile)
    return ruling.compile(loaded, loaded.file.rules, ("rules",))


@pytest.fixture(scope="session")
def approval() -> Ruling:
    loaded = load(RULES / "approval.yaml", ApprovalFile)
    return ruling.compile(loaded, loaded.file.rules, ("rules",))


@pytest.fixture(scope="session")
def find(commands: Ruling, approval: Ruling) -> Callable[[str, str], set[Rule]]:
    """The rules that find something in a text, by the word for where it stands and the text.

    Besides the words of `where` there are "body", a request's JSON, and "fetches".
    """

    def found(where: str, text: str) -> set[Rule]:
        if where == "body":
            hits = commands.asked(Asked("POST", "chat", (), json.loads(text)), None)
            return {hit.rule for hit in hits}
        place = next(word for word in get_args(Where) if word == where)
        texts = [Segment(place, "x", text)]
        if place in CALLS:
            texts += unfold(place, "x", text)
        rules: set[Rule] = set()
        for each in (commands, approval):
            if place in ANSWERS:
                hits = each.answered(texts, None, "POST", "chat")
            else:
                hits = each.asked(Asked("POST", "chat", texts), None)
            rules |= {hit.rule for hit in hits}
        return rules

    return found
