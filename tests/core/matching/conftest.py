"""A set of rules as a file would hold it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mitmgate.core.matching import Matcher, compile
from mitmgate.core.rules import Listed, RuleFile, load
from mitmgate.core.rules.rule import Rule


class Rules(RuleFile):
    rules: Listed[Rule]


def _complete(match: str = "forbidden", *, hit: str = "forbidden", **keys: Any) -> dict[str, Any]:
    tests = {"match": [hit], "pass": ["nothing to see"]}
    return {"id": "rule", "title": "T", "action": "deny", "match": match, "tests": tests} | keys


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Matcher]:
    """Writes rules to a file, loads and compiles it. A test gives the keys that it is about."""

    def make_matcher(*entries: dict[str, Any]) -> Matcher:
        path = tmp_path / "rules.yaml"
        file = {"schema": 1, "rules": [_complete(**keys) for keys in entries]}
        path.write_text(yaml.safe_dump(file, sort_keys=False))
        loaded = load(path, Rules)
        return compile(loaded, loaded.file.rules, ("rules",))

    return make_matcher
