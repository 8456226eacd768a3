"""The READMEs beside the rules and the addons know everything that there is, and nothing else.

Tables are read as they stand: a key, an option, a command, a code or a rule that is in the code and
not in its table fails, and so does one that is only in the table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAliasType, get_args, get_origin

import pydantic
import pytest
import yaml
from pydantic.fields import FieldInfo

import catalogue
import gateway
from mitmgate import cli, guard, options
from mitmgate.cli import rulebook
from mitmgate.commands import CommandsFile
from mitmgate.core.holds import ApprovalFile, HoldError, StoreError
from mitmgate.core.ledger import RecorderFile
from mitmgate.core.masking import MaskerFile
from mitmgate.core.masking.validators import VALIDATORS
from mitmgate.core.principal import Who
from mitmgate.core.rules import Model
from mitmgate.core.rules.rule import Rule, Where
from mitmgate.core.tokens import IdentityFile, TokenError, Unavailable, devissuer
from mitmgate.credentials import CredentialsFile
from mitmgate.exchange import Exchange

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "addons" / "mitmgate"
RULES = (ROOT / "rules" / "README.md").read_text("utf-8")
ADDONS = (ROOT / "addons" / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or higher."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    assert found, f"there is no section {title!r}"
    rest = text[found.end() :]
    after = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: after.start()] if after else rest


def rows(text: str, head: str) -> dict[str, list[str]]:
    """The rows of every table whose first column is called `head`: first cell -> the others."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if first == head:
            inside = True
        elif inside and set(first) != {"-"}:
            assert first not in found, f"{first} stands twice"
            found[first] = others
    return {name.strip("`"): others for name, others in found.items()}


# Keys of rule files

# Models that have a table of their own, wherever they are used.
OWN = {"Rules": Rule, "Who": Who}
FILES: dict[str, type[Model]] = {
    "identity.yaml": IdentityFile,
    "commands.yaml": CommandsFile,
    "approval.yaml": ApprovalFile,
    "masker.yaml": MaskerFile,
    "recorder.yaml": RecorderFile,
    "credentials.yaml": CredentialsFile,
}


def models(annotation: Any, step: str = "") -> Iterator[tuple[str, type[Model]]]:
    """The models that a type is made of, with the step that leads to them: `[]` or `.*`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if isinstance(origin, TypeAliasType):
        yield from models(origin.__value__[parts], step)
    elif isinstance(annotation, TypeAliasType):
        yield from models(annotation.__value__, step)
    elif origin is Annotated:
        yield from models(parts[0], step)
    elif origin is tuple:
        yield from models(parts[0], f"{step}[]")
    elif origin is dict:
        yield from models(parts[1], f"{step}.*")
    elif parts:
        for part in parts:
            yield from models(part, step)
    elif isinstance(annotation, type) and issubclass(annotation, Model):
        yield step, annotation


def keys(model: type[Model], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        for step, inner in models(field.annotation):
            if not issubclass(inner, tuple(OWN.values())):
                yield from keys(inner, f"{path}{step}.")


def literals(annotation: Any) -> Iterator[object]:
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from literals(part)


@pytest.mark.parametrize(("title", "model"), [*FILES.items(), *OWN.items()])
def test_every_key_is_documented_with_its_values_and_its_default(
    title: str, model: type[Model]
) -> None:
    table = rows(section(RULES, title), "key")
    real = dict(keys(model))
    assert set(table) == set(real)
    for path, field in real.items():
        kind, default, _ = table[path]
        if path != "where":  # its words have a table of their own
            for value in literals(field.annotation):
                shown = str(value).lower() if isinstance(value, bool) else str(value)
                assert f"`{shown}`" in kind, f"{title}: {path} may be {shown}"
        if field.is_required():
            assert default == "required", f"{title}: {path}"
        elif default == "none":
            assert field.default in (None, ()), f"{title}: {path}"
        else:
            adapter = pydantic.TypeAdapter(
                Annotated[field.annotation, "as declared", *field.metadata]
            )
            written = yaml.safe_load(default.strip("`"))
            assert adapter.validate_python(written) == field.default, f"{title}: {path}"


def test_every_word_for_where_and_every_validator_is_documented() -> None:
    assert set(rows(section(RULES, "Rules"), "where")) == set(get_args(Where))
    assert set(rows(section(RULES, "masker.yaml"), "validator")) == set(VALIDATORS)


def test_every_file_has_its_section() -> None:
    assert {f"{name}.yaml" for name in rulebook.READERS} == set(FILES)
    links = rows(RULES[: RULES.index("\n## ")], "file")
    assert {link.partition("]")[0].strip("[") for link in links} == set(FILES)


# What ships


def test_the_catalogue_is_current() -> None:
    made = catalogue.inserted(RULES, catalogue.catalogue(ROOT / "rules"))
    assert made == RULES, "run: python scripts/support/catalogue.py"


# Refusal codes

# Codes that come from elsewhere: a rule's id, and classes that are looked at below.
PASSED_ON = {"code", "e.code", "error.code", "finding.rule.id", "hold.rules[0]"}
STATUSES_PASSED_ON = {"status", "e.status", "error.status"}
BY_CLASS = {"hold_limit": 429, "body_undecodable": 413}  # where only the class knows the status


def called(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            yield (name if isinstance(name, str) else ast.unparse(name)), node


def written_codes() -> Iterator[tuple[str, int | None]]:
    """Every code in a `deny(...)`, `Refusal(...)` or `PromptError(...)`, with its status."""
    for path in PACKAGE.rglob("*.py"):
        for name, call in called(path):
            where = f"{path.name}:{call.lineno}"
            if name == "NotAllowed":
                assert isinstance(call.args[0], ast.Constant), where
                yield str(call.args[0].value), 403
            elif name in ("deny", "Refusal", "PromptError"):
                status, code = call.args[:2]
                if not isinstance(code, ast.Constant):
                    assert ast.unparse(code) in PASSED_ON, f"{where}: which codes are these?"
                elif isinstance(status, ast.Constant):
                    assert isinstance(status.value, int), where
                    yield str(code.value), status.value
                else:
                    assert ast.unparse(status) in STATUSES_PASSED_ON, where
                    yield str(code.value), None


def classes[T](base: type[T]) -> Iterator[type[T]]:
    for each in base.__subclasses__():
        yield each
        yield from classes(each)


def test_every_refusal_code_is_documented_with_its_status() -> None:
    table = rows(section(RULES, "Refusal codes"), "code")
    refusals = {name: cells for name, cells in table.items() if len(cells) == 3}
    real: dict[str, set[int]] = {"hold_limit": {429}}
    for code, status in written_codes():
        real.setdefault(code, set()).update([status] if status else [])
    for error in set(classes(TokenError)) - {Unavailable}:
        real.setdefault(error.code, set()).add(error.status)
    real["body_undecodable"] |= set(encoding_statuses())
    assert set(refusals) == set(real)
    for code, statuses in real.items():
        assert {int(each) for each in refusals[code][0].split(", ")} == statuses, code


def encoding_statuses() -> Iterator[int]:
    for name, call in called(PACKAGE / "core" / "wire" / "encoding.py"):
        if name == "EncodingError":
            status = call.args[1] if len(call.args) > 1 else ast.Constant(400)
            assert isinstance(status, ast.Constant)
            assert isinstance(status.value, int)
            yield status.value


def test_every_reason_of_a_hold_is_documented() -> None:
    table = rows(section(RULES, "Refusal codes"), "code")
    reasons = {name for name, cells in table.items() if len(cells) == 1}
    real = {error.code for error in (*classes(HoldError), StoreError)}
    assert reasons == real - {"hold_limit"}  # that one is a refusal


# Options and commands


class Loader:
    def __init__(self) -> None:
        self.options: dict[str, object] = {}

    def add_option(self, name: str, kind: type, default: object, help: str) -> None:
        self.options[name] = default


def test_every_option_is_documented_with_its_default() -> None:
    loader = Loader()
    options.add(loader)  # type: ignore[arg-type]
    table = rows(section(ADDONS, "Options"), "option")
    own = {name: cells for name, cells in table.items() if name.startswith("gate_")}
    assert set(own) == set(loader.options)
    for name, default in loader.options.items():
        if name != "gate_rules":  # a path of this machine
            assert own[name][0] == f"`{default}`"


def test_every_refused_option_is_documented() -> None:
    table = rows(section(ADDONS, "Options"), "refused option")
    assert set(table) == {*options._CONFLICTS, "mode"}
    for mode in options._MODES:
        assert f"`{mode}" in table["mode"][0]
    for name in options._DEFAULTS:
        assert f"`{name}`" in section(ADDONS, "Options")


def commands_of(parser: Any) -> Mapping[str, Any]:
    (action,) = (each for each in parser._actions if each.choices)
    return action.choices  # type: ignore[no-any-return]


def test_every_command_is_documented_with_its_options() -> None:
    table = rows(section(RULES, "The mitmgate command"), "command")
    usages: dict[str, str] = {}
    for usage in table:  # a command that does two things has two lines
        name = usage.split()[1]
        usages[name] = f"{usages.get(name, '')} {usage}"
    commands = commands_of(cli._parser())
    assert set(usages) == set(commands)
    for name, command in commands.items():
        for action in command._actions:
            for flag in action.option_strings or [action.metavar or ""]:
                if flag not in ("-h", "--help"):
                    assert flag in usages[name], f"mitmgate {name} takes {flag}"


def test_every_command_that_a_document_names_exists() -> None:
    commands = commands_of(cli._parser())
    for text in (RULES, ADDONS, CONTRIBUTING):
        for name in re.findall(r"(?:`|^ *|bin/|and )mitmgate ([a-z]+)", text, re.M):
            assert name in commands, f"mitmgate {name} does not exist"


def test_every_mitmproxy_command_is_documented() -> None:
    real = {
        str(call.args[0].value)
        for path in PACKAGE.glob("*.py")
        for name, call in called(path)
        if name == "command" and call.args and isinstance(call.args[0], ast.Constant)
    }
    assert real
    table = rows(section(ADDONS, "Commands in mitmproxy"), "command")
    assert {usage.split()[0] for usage in table} == real


# Addons


def test_the_built_in_addons_are_documented_in_their_order_with_their_hooks() -> None:
    table = rows(section(ADDONS, "The built-in addons"), "addon")
    assert list(table) == [addon.name.removeprefix("mitmgate.") for addon in gateway.addons]
    for addon in gateway.addons:
        hooks = [hook for hook in guard.HOOKS if hasattr(addon, hook)]
        cell = table[addon.name.removeprefix("mitmgate.")][0]
        assert cell == (", ".join(f"`{hook}`" for hook in hooks) or "none"), addon.name


def test_what_an_exchange_has_is_documented() -> None:
    """All of its public names, the gate's own ones aside."""
    internal = {"flow", "find", "begin", "end", "marks", "send", "upgrades", "open_answer"}
    internal |= {"refuse", "answer_refusal", "fault", "publish", "trails", "under_way"}
    internal |= {"secret", "check_head", "check_secret", "admitted", "cut"}
    tree = ast.parse((PACKAGE / "exchange.py").read_text("utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Exchange").body
    real = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    real |= {node.attr for node in ast.walk(ast.Module(body, [])) if assigned(node)}
    table = rows(section(ADDONS, "The exchange"), "name")
    documented = {name.partition("(")[0] for name in table}
    public = {name for name in real if not name.startswith("_")}
    assert documented >= public - internal
    assert all(name in public or hasattr(Exchange, name) for name in documented)


def assigned(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


# Examples


def excerpts(text: str) -> list[tuple[str, str]]:
    """The YAML examples, by the file that their first line names."""
    blocks = re.findall(r"^```yaml\n# (\w+)\.yaml\n(.*?)^```$", text, re.M | re.S)
    return [(name, block) for name, block in blocks]


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    return new


def check(directory: Path, additions: Sequence[tuple[str, str]]) -> None:
    """The rule files that ship with `additions` put in are good."""
    devissuer.prepare(directory / ".mitmgate" / "dev-issuer")
    rules = directory / "rules"
    rules.mkdir()
    for path in (ROOT / "rules").glob("*.yaml"):
        (rules / path.name).write_bytes(path.read_bytes())
    for name, block in additions:
        path = rules / f"{name}.yaml"
        whole = merged(yaml.safe_load(path.read_text("utf-8")), yaml.safe_load(block))
        path.write_text(yaml.safe_dump(whole, allow_unicode=True), "utf-8")
    report = rulebook.check(rules)
    assert not report.problems, "\n".join(map(str, report.problems))


def test_the_examples_in_the_rules_readme_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-example")
    examples = excerpts(RULES)
    assert {name for name, _ in examples} == set(rulebook.READERS) - {"recorder"}
    check(tmp_path, examples)


def test_the_rule_in_contributing_loads(tmp_path: Path) -> None:
    found = re.search(r"^       - id: .*?(?=^\d\. )", CONTRIBUTING, re.M | re.S)
    assert found
    check(tmp_path, [("commands", f"rules:\n{found[0]}")])
