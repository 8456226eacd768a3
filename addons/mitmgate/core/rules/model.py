"""The words that every rule file is written in.

One envelope (`schema: 1`), frozen models that refuse unknown keys, and the value types that YAML
lacks: durations, sizes, ids and references to secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import CoreSchema, core_schema

_UNITS_OF_TIME = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_OF_SIZE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

_directory: ContextVar[Path] = ContextVar("directory of the rule file being read", default=Path())


@contextmanager
def relative_to(directory: Path) -> Iterator[None]:
    """Inside, relative paths of models that are being made are taken from `directory`."""
    token = _directory.set(directory)
    try:
        yield
    finally:
        _directory.reset(token)


class Model(pydantic.BaseModel):
    """Base of everything read from YAML: frozen, and a key it does not know is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class RuleFile(Model):
    """The envelope of every rule file."""

    version: Literal[1] = pydantic.Field(alias="schema")

    @pydantic.field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return value if type(value) is int else None  # true and 1.0 are equal to 1


def _duration(value: object) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("a duration is a number and a unit: 500ms, 30s, 15m, 1h, 90d")
    return float(match[1]) * _UNITS_OF_TIME[match[2]]


def _size(value: object) -> int:
    match = re.fullmatch(r"(\d+)([kmgt]?)", value.lower()) if isinstance(value, str) else None
    if not match:
        raise ValueError("a size is a number and a unit: 64k, 256m, 50g")
    return int(match[1]) * _UNITS_OF_SIZE[match[2]]


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("a path is a string")
    return _directory.get() / _home(value)


def _home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # nobody has this name
        raise ValueError(f"{path} is in no home directory") from None


def _id(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise ValueError("an id is kebab case: lower-case letters, digits and single hyphens")
    return value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Duration = Annotated[float, pydantic.BeforeValidator(_duration)]  # seconds
Size = Annotated[int, pydantic.BeforeValidator(_size)]  # bytes
FilePath = Annotated[Path, pydantic.PlainValidator(_path)]  # relative to the rule file
Id = Annotated[str, pydantic.PlainValidator(_id)]
type Listed[T] = Annotated[tuple[T, ...], pydantic.BeforeValidator(_tuple)]  # a YAML list


class Reference:
    """A string that may take its value from elsewhere: `${env:NAME}` or `${file:PATH}`.

    What is referred to must exist when the rules load; `resolve` reads it again each time, so a
    rotated secret needs no restart. The value never shows in `repr` or in an error.
    """

    _PLACE = re.compile(r"\$\{(env|file):([^}]+)\}")

    def __init__(self, template: str, directory: Path) -> None:
        self._template = template
        self._directory = directory

    def resolve(self) -> str:
        """The value now. Raises `ValueError` that names the missing variable or file."""
        return self._PLACE.sub(self._value, self._template)

    def _value(self, place: re.Match[str]) -> str:
        kind, name = place.groups()
        if kind == "env":
            if name not in os.environ:
                raise ValueError(f"the environment variable {name} is not set")
            return os.environ[name]
        path = self._directory / _home(name)
        try:
            return path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise ValueError(f"cannot read the file {path}: {_reason(e)}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self._template, self._directory))

    def __repr__(self) -> str:
        places = [place[0] for place in self._PLACE.finditer(self._template)]
        return f"Reference({' '.join(places) or '...'!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def _validate(cls, value: object) -> Reference:
        if not isinstance(value, str):
            raise ValueError("should be a string, perhaps with ${env:NAME} or ${file:PATH}")
        if "${" in cls._PLACE.sub("", value):
            raise ValueError("a reference is ${env:NAME} or ${file:PATH}")
        reference = cls(value, _directory.get())
        reference.resolve()
        return reference


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
