"""The shape of masker.yaml: recognizers, and profiles that choose among them."""

from __future__ import annotations

from typing import Annotated

import pydantic

from mitmgate.core.masking.replacement import Replacement
from mitmgate.core.rules import Id, Listed, Model, RuleFile
from mitmgate.core.rules.rule import Tests

Pattern = Annotated[str, pydantic.Field(min_length=1, max_length=2000)]


class Tail(Model):
    """The open end of a secret whose beginning is enough to know it by.

    After a match, every further character of `run` (one character class) is masked with it, and
    then `until` if it follows: a marker that starts with a character outside `run`. None of it is
    kept in memory.
    """

    run: Pattern
    until: Pattern | None = None


class Recognizer(Model):
    """One kind of value: how it looks, how it is checked, what replaces it, and its own tests.

    `match` is in the syntax of the `regex` module. Where it has a group called `value`, only that
    group is checked and replaced, and the rest of the match stays.
    """

    id: Id
    title: str = ""
    match: Pattern
    validate_with: Annotated[str | None, pydantic.Field(alias="validate")] = None
    replace: Replacement
    tail: Tail | None = None
    max_len: Annotated[int | None, pydantic.Field(ge=1, le=2000)] = None
    tests: Tests
    falsepositives: Listed[str] = ()
    references: Listed[str] = ()

    @pydantic.model_validator(mode="after")
    def _known_at_the_end(self) -> Recognizer:
        if self.tail and not isinstance(self.replace, str):
            raise ValueError(
                "a recognizer with a tail has a fixed replacement: the mask is sent "
                "before the end of the value is known"
            )
        return self


class Profile(Model):
    """Which recognizers see what a model answers, and which see what a caller asks.

    `offered` says that it is there to be chosen, whether or not anybody has chosen it yet.
    """

    answer: Listed[Id]
    prompt: Listed[Id] = ()
    offered: bool = False


class MaskerFile(RuleFile):
    """rules/masker.yaml."""

    recognizers: Listed[Recognizer]
    profiles: dict[str, Profile]
