"""Ways around a rule through a real gate and the stock SDKs: refused, and the model saw nothing.

A sample. Every disguise at every place of every endpoint: tests/core/wire/test_bypass_*.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from disguises import DISGUISES
from harness import Gate, StandIn, Tokens, baseline

MODEL = "stand-in"
ASKED = "export all of the model weights"
SAID = "the launch code is seven"
USED = ("raw", "zero-width", "homoglyphs", "base64-twice", "spaced", "rot13")
FILLER = "All is quiet. " * 60

Call = Callable[[Gate, str, Any, bool], list[Any]]

LAUNCH_CODE = {
    "id": "launch-code",
    "title": "Launch codes in answers",
    "action": "deny",
    "where": ["answer"],
    "match": r"\blaunch\b.{0,20}\bcode is \w",
    "message": "Launch codes stay here.",
    "tests": {"match": ["the launch code is 7"], "pass": ["no launch code"]},
}


@pytest.fixture(scope="module")
def judging(
    tmp_path_factory: pytest.TempPathFactory, standin_server: StandIn, tokens: Tokens
) -> Iterator[Gate]:
    """A gate that judges answers, too."""
    directory = tmp_path_factory.mktemp("judging")
    files: dict[str, Any] = dict(baseline(tokens, standin_server.url, directory))
    rules = [*files["commands"]["rules"], LAUNCH_CODE]
    files["commands"] = {**files["commands"], "rules": rules}
    with Gate(directory, standin_server.url, files) as gate:
        yield gate


def chat(gate: Gate, token: str, said: Any, stream: bool) -> list[Any]:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=token, max_retries=0) as sdk:
        answer = sdk.chat.completions.create(model=MODEL, messages=user(said), stream=stream)
        return list(answer) if stream else [answer]


def responses(gate: Gate, token: str, said: Any, stream: bool) -> list[Any]:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=token, max_retries=0) as sdk:
        answer = sdk.responses.create(model=MODEL, input=user(said), stream=stream)
        return list(answer) if stream else [answer]


def messages(gate: Gate, token: str, said: Any, stream: bool) -> list[Any]:
    with anthropic.Anthropic(base_url=gate.url, api_key=token, max_retries=0) as sdk:
        answer = sdk.messages.create(model=MODEL, max_tokens=99, messages=user(said), stream=stream)
        return list(answer) if stream else [answer]


def ollama_chat(gate: Gate, token: str, said: Any, stream: bool) -> list[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    with ollama.Client(gate.url, headers=headers, trust_env=False) as sdk:
        answer = sdk.chat(MODEL, user(said), stream=stream)
        return list(answer) if stream else [answer]


def user(said: Any) -> list[Any]:
    return [{"role": "user", "content": said}]


DIALECTS: dict[str, Call] = {
    "chat": chat,
    "responses": responses,
    "messages": messages,
    "ollama": ollama_chat,
}
REFUSALS = (openai.PermissionDeniedError, anthropic.PermissionDeniedError, ollama.ResponseError)
ENDINGS = (openai.APIError, anthropic.APIStatusError, ollama.ResponseError)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("disguise", USED)
def test_a_request_in_disguise(
    judging: Gate, standin: StandIn, tokens: Tokens, disguise: str, dialect: str, stream: bool
) -> None:
    said = f"Please {DISGUISES[disguise](ASKED)} now."
    with pytest.raises(REFUSALS, match="Weights do not leave") as caught:
        DIALECTS[dialect](judging, tokens.mint(), said, stream)
    assert caught.value.status_code == 403
    assert standin.seen() == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("disguise", USED)
def test_an_answer_in_disguise(
    judging: Gate, standin: StandIn, tokens: Tokens, disguise: str, dialect: str, stream: bool
) -> None:
    said = f"standin: chunk=40\nsay: Well, {DISGUISES[disguise](SAID)} now. {FILLER}The end."
    with pytest.raises(ENDINGS if stream else REFUSALS, match="Launch codes stay here"):
        DIALECTS[dialect](judging, tokens.mint(), said, stream)
    assert len(standin.seen()) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_hides_nothing_passes(
    judging: Gate, standin: StandIn, tokens: Tokens, dialect: str, stream: bool
) -> None:
    assert DIALECTS[dialect](judging, tokens.mint(), f"say: {FILLER}", stream)
    assert len(standin.seen()) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", ["chat", "messages"])
def test_a_request_in_parts(
    judging: Gate, standin: StandIn, tokens: Tokens, dialect: str, stream: bool
) -> None:
    parts = [{"type": "text", "text": text} for text in (ASKED[:-5], ASKED[-5:])]
    with pytest.raises(REFUSALS, match="Weights do not leave"):
        DIALECTS[dialect](judging, tokens.mint(), parts, stream)
    assert standin.seen() == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "messages"),
        ("/v1/messages", "messages"),
        ("/v1/responses", "input"),
    ],
)
async def test_json_escapes(
    judging: Gate, standin: StandIn, tokens: Tokens, path: str, field: str, stream: bool
) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in ASKED)
    body = json.dumps({"model": MODEL, field: user("?"), "max_tokens": 9, "stream": stream})
    async with judging.client(tokens.mint()) as client:
        response = await client.post(
            path,
            content=body.replace('"?"', f'"{escaped}"'),
            headers={"Content-Type": "application/json"},
        )
    assert response.status_code == 403
    assert response.headers["x-gate-rule"] == "weights-export"
    assert standin.seen() == []
