"""The house rules that a reader cannot be trusted to check: imports, sizes, names."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

ADDONS = Path(__file__).parents[1] / "addons"
PACKAGE = ADDONS / "mitmgate"
KIT = {
    "answerhead",
    "errorpage",
    "findings",
    "guard",
    "tripwire",
    "exchange",
    "metrics",
    "web",
    "desk",
    "approvals",
    "delivery",
    "notices",
    "presence",
    "reading",
    "refusal",
    "verdict",
    "options",
    "rulefile",
    "scrubbing",
    "sweep",
    "workers",
}
ENTRIES = {path.stem for path in ADDONS.glob("*.py")}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports from mitmgate or mitmproxy."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "mitmgate":
                found |= {f"{module}.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return {name for name in found if name.split(".")[0] in ("mitmgate", "mitmproxy")}


def layer(name: str) -> str:
    """core, kit, addon or command: what a dotted mitmgate name belongs to."""
    parts = name.split(".")
    if len(parts) == 1 or parts[1].startswith("_"):
        return "core"
    if parts[1] == "core":
        return "core"
    if parts[1] in KIT:
        return "kit"
    return "addon" if parts[1] in ENTRIES else "command"


ALLOWED = {
    "core": {"core"},
    "kit": {"core", "kit"},
    "addon": {"core", "kit"},
    "command": {"core", "kit", "addon", "command"},
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ADDONS)))
def test_imports_go_one_way(path: Path) -> None:
    own = ".".join(path.relative_to(ADDONS).with_suffix("").parts).removesuffix(".__init__")
    for name in imported(path):
        if name.startswith("mitmproxy"):
            assert layer(own) != "core", f"{own} is core and imports {name}"
        elif own != "mitmgate":
            assert layer(name) in ALLOWED[layer(own)], f"{own} imports {name}"


@pytest.mark.parametrize("path", sorted(ADDONS.glob("*.py")), ids=lambda path: path.name)
def test_entries_are_short_and_only_compose(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30
    assert all(name.startswith("mitmgate.") for name in imported(path))
    # mitmproxy puts this folder first on sys.path: nothing here may bear a library's name.
    spec = importlib.util.find_spec(path.stem)
    assert spec is None or spec.origin == str(path)


def test_the_gate_is_one_list_in_the_order_of_its_design() -> None:
    import gateway

    names = [addon.name.removeprefix("mitmgate.") for addon in gateway.addons]
    assert names[:6] == ["identity", "commands", "approval", "masker", "recorder", "credentials"]
    assert set(names) | {"gateway"} == ENTRIES


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_only_one_module_touches_what_survives_in_recordings() -> None:
    for path in MODULES:
        if path.stem in ("exchange", "recorder") or path.is_relative_to(PACKAGE / "core"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("metadata", "marked", "stream"):
                owner = ast.unparse(node.value)
                assert not owner.endswith(("flow", "response")), f"{path}: {owner}.{node.attr}"
