"""Ollama's API: JSON lines, streamed unless the caller says `"stream": false`."""

from __future__ import annotations

import json
from typing import Any

from standin_dialects.answer import MODELS, Answer, Reply, words
from standin_dialects.frames import line
from standin_dialects.openai import vector

NDJSON = "application/x-ndjson"
CREATED_AT = "2023-11-14T22:13:20Z"


def chat(body: dict[str, Any], answer: Answer) -> Reply:
    calls = [
        {"function": {"name": call.name, "arguments": json.loads(call.arguments or "{}")}}
        for call in answer.calls
    ]
    base = {"model": body.get("model", ""), "created_at": CREATED_AT}
    if body.get("stream") is False:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            message["thinking"] = answer.reasoning
        if calls:
            message["tool_calls"] = calls
        return Reply({**base, "message": message, **_last(answer)})
    said: list[dict[str, Any]] = [
        {"content": "", "thinking": piece} for piece in answer.pieces(answer.reasoning)
    ]
    said += [{"content": piece} for piece in answer.pieces(answer.text)]
    if calls:
        said.append({"content": "", "tool_calls": calls})
    frames = tuple(
        line({**base, "message": {"role": "assistant", **part}, "done": False}) for part in said
    )
    tail = line({**base, "message": {"role": "assistant", "content": ""}, **_last(answer)})
    return Reply(frames=frames, tail=tail, content_type=NDJSON)


def generate(body: dict[str, Any], answer: Answer) -> Reply:
    base = {"model": body.get("model", ""), "created_at": CREATED_AT}
    if body.get("stream") is False:
        thinking = {"thinking": answer.reasoning} if answer.reasoning else {}
        return Reply({**base, "response": answer.text, **thinking, **_last(answer)})
    said: list[dict[str, Any]] = [
        {"response": "", "thinking": piece} for piece in answer.pieces(answer.reasoning)
    ]
    said += [{"response": piece} for piece in answer.pieces(answer.text)]
    return Reply(
        frames=tuple(line({**base, **part, "done": False}) for part in said),
        tail=line({**base, "response": "", **_last(answer)}),
        content_type=NDJSON,
    )


def embed(body: dict[str, Any], _: Answer) -> Reply:
    texts = body.get("input", "")
    count = len(texts) if isinstance(texts, list) else 1
    return Reply(
        {
            "model": body.get("model", ""),
            "embeddings": [vector(i) for i in range(count)],
            "prompt_eval_count": words(texts),
        }
    )


def tags(_: dict[str, Any], __: Answer) -> Reply:
    return Reply(
        {
            "models": [
                {"name": name, "model": name, "modified_at": CREATED_AT, "size": 1, "details": {}}
                for name in MODELS
            ]
        }
    )


def version(_: dict[str, Any], __: Answer) -> Reply:
    return Reply({"version": "0.0.0-standin"})


def _last(answer: Answer) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": "stop",
        "total_duration": 1,
        "prompt_eval_count": 1,
        "eval_count": words(answer.text),
    }
