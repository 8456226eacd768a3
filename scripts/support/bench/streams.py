"""Streams: masking per delta, what is held back meanwhile, and a whole event of an OpenAI chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import mean, quantiles
from typing import Any

from bench import corpus
from bench.figures import Effort, Figure, Section, medians
from bench.masking import Recognizers, recognizers
from mitmgate.core.masking import Masker
from mitmgate.core.wire.filter import Filter
from mitmgate.core.wire.openai import CHAT_STREAM
from mitmgate.core.wire.stream import EventStream
from mitmgate.masker import StreamMask

WINDOW = 128  # characters that the naive stream holds back, always
DELTA_LIMIT = 10.0  # us of masking
EVENT_LIMIT = 60.0  # us all told
HELD_LIMITS = {50: 4.0, 99: 32.0}  # characters, in prose

Deltas = list[str]


def measure(effort: Effort) -> Section:
    used, shipped = recognizers(effort.recognizers)
    figures: list[Figure] = []
    lengths = []
    spoken = {"prose": _spoken(corpus.prose(), effort), "code": _spoken(corpus.code(), effort)}
    for name, streams in spoken.items():
        lengths.append(mean(len(delta) for deltas in streams for delta in deltas))
        figures += _masking(name, streams, used, shipped)
    for name, streams in spoken.items():
        held, as_shipped = (_held(each.masker, streams[1:]) for each in (used, shipped))
        for percent, limit in HELD_LIMITS.items():
            title, binding = f"held back, {name}, p{percent}", limit if name == "prose" else None
            figures += [
                Figure(title, "characters", held[percent - 1], WINDOW, binding),
                Figure(f"  the {shipped.count} that ship", "characters", as_shipped[percent - 1]),
            ]
    for name, streams in spoken.items():
        figures += _events(name, streams, used)
    return Section(
        f"Streams ({used.count} recognizers)",
        tuple(figures),
        (
            f"{used.made}; deltas of {lengths[0]:.1f} characters on average in prose and of "
            f"{lengths[1]:.1f} in code, one event and one network packet each",
            f"naive: `regex.finditer` of every recognizer over the last {WINDOW} characters at "
            "each delta, which are always held back (and longer values leak); for an event also "
            "`json.loads` and `json.dumps`",
        ),
    )


def _spoken(text: str, effort: Effort) -> list[Deltas]:
    """For each round one long answer."""
    size = effort.deltas * 4
    return [corpus.tokens(cut) for (cut,) in corpus.cuts(text, size, 1, effort.rounds)]


def _masking(
    name: str, streams: list[Deltas], used: Recognizers, shipped: Recognizers
) -> list[Figure]:
    def through(masker: Masker) -> Callable[[Deltas], None]:
        def run(deltas: Deltas) -> None:
            stream = masker.stream()
            for delta in deltas:
                stream.feed(delta)
            stream.finish()

        return run

    def naive(deltas: Deltas) -> None:
        window = ""
        for delta in deltas:
            window = (window + delta)[-WINDOW:]
            used.loop(window)

    each = _each(
        streams,
        {"gate": through(used.masker), "shipped": through(shipped.masker), "naive": naive},
    )
    return [
        Figure(f"masking a delta, {name}", "us", each["gate"], each["naive"], DELTA_LIMIT),
        Figure(f"  the {shipped.count} that ship", "us", each["shipped"]),
    ]


def _held(masker: Masker, streams: list[Deltas]) -> list[float]:
    """The percentiles of how many characters wait after a delta."""
    waiting = []
    for deltas in streams:
        stream = masker.stream()
        for delta in deltas:
            stream.feed(delta)
            waiting.append(stream.held)
    return quantiles(waiting, n=100, method="inclusive")


def _events(name: str, streams: list[Deltas], used: Recognizers) -> list[Figure]:
    def through(make: Callable[[], Filter]) -> Callable[[list[bytes]], None]:
        def run(events: list[bytes]) -> None:
            stream = EventStream(CHAT_STREAM, [make()])
            for event in events:
                stream.feed(event)
            stream.finish()

        return run

    def naive(events: list[bytes]) -> None:
        window = ""
        for event in events:
            if event == DONE:
                continue
            data = json.loads(event.removeprefix(b"data: "))
            window = (window + (data["choices"][0]["delta"].get("content") or ""))[-WINDOW:]
            used.loop(window)
            b"data: " + json.dumps(data).encode() + b"\n\n"

    figures = []
    for server, form in (("vLLM", _vllm), ("llama.cpp", _llamacpp)):
        each = _each(
            [said(deltas, form) for deltas in streams],
            {
                "gate": through(lambda: StreamMask(used.masker, {})),
                "bare": through(_Unmasked),
                "naive": naive,
            },
        )
        title = f"an event of {server}, {name}"
        figures += [
            Figure(title, "us", each["gate"], each["naive"], EVENT_LIMIT),
            Figure("  the same, nothing masked or held", "us", each["bare"]),
        ]
    return figures


def _each[T](
    streams: list[list[T]], contenders: dict[str, Callable[[list[T]], None]]
) -> dict[str, float]:
    """Microseconds per delta or event."""
    taken = medians(contenders, streams)
    return {who: seconds * 1e6 / mean(map(len, streams[1:])) for who, seconds in taken.items()}


class _Unmasked:
    """A filter that reads everything and changes nothing: what reading alone costs."""

    masks = True

    def channel(self) -> _Unmasked:
        return self

    def whole(self, text: str) -> str:
        return text

    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


DONE = b"data: [DONE]\n\n"
_ID = "chatcmpl-6f1c2a0be3d84f57a9d1c0e5b7f3a2d4"


def said(
    deltas: Deltas, form: Callable[[dict[str, Any], str | None], dict[str, Any]]
) -> list[bytes]:
    """An answer as events: the role, the deltas, the end, and `[DONE]`."""
    events = [form({"role": "assistant", "content": ""}, None)]
    events += [form({"content": delta}, None) for delta in deltas]
    events.append(form({}, "stop"))
    dumped = (json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events)
    return [*(f"data: {data}\n\n".encode() for data in dumped), DONE]


def _vllm(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {
        "id": _ID,
        "object": "chat.completion.chunk",
        "created": 1764000000,
        "model": "Qwen/Qwen2.5-7B-Instruct",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }


def _llamacpp(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {
        "choices": [{"finish_reason": reason, "index": 0, "delta": delta}],
        "created": 1764000000,
        "id": _ID,
        "model": "qwen2.5-7b-instruct-q4_k_m.gguf",
        "system_fingerprint": "b6700-3ecb2f67",
        "object": "chat.completion.chunk",
    }
