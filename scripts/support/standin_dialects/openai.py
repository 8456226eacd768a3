"""OpenAI's chat, completions, embeddings and models, and llama.cpp's own /completion."""

from __future__ import annotations

import itertools
import math
from typing import Any

from standin_dialects.answer import CREATED, MODELS, Answer, Reply, words
from standin_dialects.frames import data

DONE = b"data: [DONE]\n\n"
SSE = "text/event-stream"


def chat(body: dict[str, Any], answer: Answer) -> Reply:
    choices = range(int(body.get("n") or 1))
    finish = "tool_calls" if answer.calls else "stop"
    base = {"id": "chatcmpl-standin", "created": CREATED, "model": body.get("model", "")}
    usage = _usage(body.get("messages"), answer)
    calls = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(answer.calls)
    ]
    if not body.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["tool_calls"] = calls
        whole = [
            {
                "index": i,
                "message": message,
                "logprobs": _logprobs(list(answer.pieces(answer.text)), body),
                "finish_reason": finish,
            }
            for i in choices
        ]
        return Reply({**base, "object": "chat.completion", "choices": whole, "usage": usage})

    base["object"] = "chat.completion.chunk"
    deltas: list[tuple[dict[str, Any], Any]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"reasoning_content": piece}, None) for piece in answer.pieces(answer.reasoning)]
    deltas += [
        ({"content": piece}, _logprobs([piece], body)) for piece in answer.pieces(answer.text)
    ]
    each = [
        [
            {**call, "index": i, "function": {"name": answer.calls[i].name, "arguments": ""}},
            *(
                {"index": i, "function": {"arguments": piece}}
                for piece in answer.pieces(answer.calls[i].arguments)
            ),
        ]
        for i, call in enumerate(calls)
    ]
    order = itertools.chain(*(itertools.zip_longest(*each) if answer.mix else each))
    deltas += [({"tool_calls": [piece]}, None) for piece in order if piece]
    frames = [
        data({**base, "choices": [_choice(i, delta=delta, logprobs=logprobs)]})
        for delta, logprobs in deltas
        for i in choices
    ]
    frames += [
        data({**base, "choices": [_choice(i, delta={}, finish_reason=finish)]}) for i in choices
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        frames.append(data({**base, "choices": [], "usage": usage}))
    return Reply(frames=tuple(frames), tail=DONE, content_type=SSE)


def completions(body: dict[str, Any], answer: Answer) -> Reply:
    choices = range(int(body.get("n") or 1))
    base = {
        "id": "cmpl-standin",
        "object": "text_completion",
        "created": CREATED,
        "model": body.get("model", ""),
    }
    pieces = list(answer.pieces(answer.text))
    if not body.get("stream"):
        logprobs = _text_logprobs(pieces, body)
        whole = [
            {"index": i, "text": answer.text, "logprobs": logprobs, "finish_reason": "stop"}
            for i in choices
        ]
        usage = _usage(body.get("prompt"), answer)
        return Reply({**base, "choices": whole, "usage": usage})
    frames = [
        data({**base, "choices": [_choice(i, text=piece, logprobs=_text_logprobs([piece], body))]})
        for piece in pieces
        for i in choices
    ]
    frames += [
        data({**base, "choices": [_choice(i, text="", finish_reason="stop")]}) for i in choices
    ]
    return Reply(frames=tuple(frames), tail=DONE, content_type=SSE)


def embeddings(body: dict[str, Any], _: Answer) -> Reply:
    texts = body.get("input", "")
    count = len(texts) if isinstance(texts, list) else 1
    vectors = [{"object": "embedding", "index": i, "embedding": vector(i)} for i in range(count)]
    usage = {"prompt_tokens": words(texts), "total_tokens": words(texts)}
    return Reply(
        {"object": "list", "data": vectors, "model": body.get("model", ""), "usage": usage}
    )


def models(_: dict[str, Any], __: Answer) -> Reply:
    listed = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "standin"}
        for name in MODELS
    ]
    return Reply({"object": "list", "data": listed})


def llamacpp_completion(body: dict[str, Any], answer: Answer) -> Reply:
    last = {"stop": True, "stop_type": "eos", "tokens_predicted": words(answer.text)}
    if not body.get("stream"):
        return Reply({"content": answer.text, **last})
    frames = tuple(
        data({"index": 0, "content": piece, "stop": False}) for piece in answer.pieces(answer.text)
    )
    return Reply(frames=frames, tail=data({"index": 0, "content": "", **last}), content_type=SSE)


def health(_: dict[str, Any], __: Answer) -> Reply:
    return Reply({"status": "ok"})


def vector(seed: int) -> list[float]:
    """Eight numbers of unit length, the same each time."""
    raw = [math.sin(seed + i + 1) for i in range(8)]
    length = math.hypot(*raw)
    return [round(value / length, 6) for value in raw]


def _choice(index: int, **rest: object) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": None, **rest}


def _usage(prompt: object, answer: Answer) -> dict[str, int]:
    asked, said = words(prompt), words(answer.text)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _logprobs(pieces: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    tokens = [{"token": piece, "logprob": -0.5, "bytes": list(piece.encode())} for piece in pieces]
    wide = int(body.get("top_logprobs") or 0)
    return {
        "content": [{**token, "top_logprobs": [token] if wide else []} for token in tokens],
        "refusal": None,
    }


def _text_logprobs(pieces: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
    if body.get("logprobs") is None:
        return None
    return {
        "tokens": pieces,
        "token_logprobs": [-0.5] * len(pieces),
        "top_logprobs": [{piece: -0.5} for piece in pieces],
        "text_offset": [sum(map(len, pieces[:i])) for i in range(len(pieces))],
    }
