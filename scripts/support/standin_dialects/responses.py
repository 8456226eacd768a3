"""OpenAI's /v1/responses: named events, and a last one that repeats everything that was said."""

from __future__ import annotations

from typing import Any

from standin_dialects.answer import CREATED, Answer, Reply, words
from standin_dialects.frames import event
from standin_dialects.openai import SSE


def responses(body: dict[str, Any], answer: Answer) -> Reply:
    items = [*_reasoning(answer), *_message(answer), *_calls(answer)]
    whole = {
        "id": "resp_standin",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": body.get("model", ""),
        "output": items,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": words(body.get("input")),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": words(answer.text),
            "output_tokens_details": {"reasoning_tokens": words(answer.reasoning)},
            "total_tokens": words(body.get("input")) + words(answer.text),
        },
    }
    if not body.get("stream"):
        return Reply(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(items):
        events += _item_events(index, item, answer)
    events.append({"type": "response.completed", "response": whole})
    frames = [event({**value, "sequence_number": i}) for i, value in enumerate(events)]
    return Reply(frames=tuple(frames[:-1]), tail=frames[-1], content_type=SSE)


def _item_events(index: int, item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": index}
    if item["type"] == "message":
        opened = {**item, "status": "in_progress", "content": []}
        inside = _text_events(at, item["content"][0], answer)
    elif item["type"] == "reasoning":
        opened = {**item, "content": []}
        at = {**at, "content_index": 0}
        text = item["content"][0]["text"]
        inside = [
            {"type": "response.reasoning_text.delta", **at, "delta": piece}
            for piece in answer.pieces(text)
        ]
        inside.append({"type": "response.reasoning_text.done", **at, "text": text})
    else:
        opened = {**item, "status": "in_progress", "arguments": ""}
        whole = item["arguments"]
        inside = [
            {"type": "response.function_call_arguments.delta", **at, "delta": piece}
            for piece in answer.pieces(whole)
        ]
        done = {"type": "response.function_call_arguments.done", "name": item["name"]}
        inside.append({**done, **at, "arguments": whole})
    return [
        {"type": "response.output_item.added", "output_index": index, "item": opened},
        *inside,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _text_events(at: dict[str, Any], part: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    at = {**at, "content_index": 0}
    return [
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *(
            {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
            for piece in answer.pieces(part["text"])
        ),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _message(answer: Answer) -> list[dict[str, Any]]:
    if not answer.text and answer.calls:
        return []
    part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return [
        {
            "id": "msg_standin",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
    ]


def _reasoning(answer: Answer) -> list[dict[str, Any]]:
    if not answer.reasoning:
        return []
    part = {"type": "reasoning_text", "text": answer.reasoning}
    return [{"id": "rs_standin", "type": "reasoning", "summary": [], "content": [part]}]


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": f"fc_{i}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{i}",
            "name": call.name,
            "arguments": call.arguments,
        }
        for i, call in enumerate(answer.calls)
    ]
