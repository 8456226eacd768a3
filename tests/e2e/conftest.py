"""Fixtures of the end-to-end tests; what they are made of is in `harness.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness import UPSTREAM_KEY, Gate, StandIn, Tokens, baseline
from processes import ModelServer, start_llamacpp

StartGate = Callable[..., Gate]


@pytest.fixture(scope="session")
def standin_server() -> Iterator[StandIn]:
    """A stand-in model server that asks for UPSTREAM_KEY; tests take `standin`."""
    with StandIn(UPSTREAM_KEY) as server:
        yield server


@pytest.fixture
def standin(standin_server: StandIn) -> StandIn:
    """The stand-in model server, with an empty log."""
    standin_server.reset()
    return standin_server


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[ModelServer]:
    """llama.cpp with SmolLM2; mark the test `model`. It asks for UPSTREAM_KEY."""
    server = start_llamacpp(key=UPSTREAM_KEY)
    with server.process:
        yield server


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """The issuer that the baseline rules trust."""
    return Tokens(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def start_gate(
    tmp_path_factory: pytest.TempPathFactory, standin: StandIn, tokens: Tokens
) -> Iterator[StartGate]:
    """`start_gate(rules={"commands": ...}, options={...}, ...)`: a gate in front of the stand-in.

    The baseline rules, with the files given in `rules` in their place. `upstream` and what else
    `Gate` takes can be given. Its output is shown when the test fails.
    """
    with ExitStack() as stack:

        def start(*, upstream: str = standin.url, rules: Any = None, **settings: Any) -> Gate:
            directory = tmp_path_factory.mktemp("gate")
            files = {**baseline(tokens, upstream, directory), **(rules or {})}
            gate = Gate(directory, upstream, files, **settings)
            stack.callback(_end, gate)
            return gate

        yield start


@pytest.fixture(scope="module")
def gate(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    """One gate with the baseline rules for all tests of a file that leave it as it is."""
    directory = tmp_path_factory.mktemp("gate")
    gate = Gate(directory, standin_server.url, baseline(tokens, standin_server.url, directory))
    try:
        yield gate
    finally:
        _end(gate)


def _end(gate: Gate) -> None:
    gate.stop()
    sys.stdout.write(f"gate in {gate.directory} printed:\n{gate.output}\n")
