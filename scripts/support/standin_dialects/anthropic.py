"""Anthropic's /v1/messages: content blocks, each opened, filled and closed by its own events."""

from __future__ import annotations

import json
from typing import Any

from standin_dialects.answer import Answer, Reply, words
from standin_dialects.frames import event
from standin_dialects.openai import SSE


def messages(body: dict[str, Any], answer: Answer) -> Reply:
    blocks = _blocks(answer)
    stop = "tool_use" if answer.calls else "end_turn"
    usage = {"input_tokens": words(body.get("messages")), "output_tokens": words(answer.text)}
    whole = {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }
    if not body.get("stream"):
        return Reply(whole)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        empty, deltas = _deltas(block, answer)
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": index},
        ]
    delta = {"stop_reason": stop, "stop_sequence": None}
    counted = {"output_tokens": usage["output_tokens"]}
    events.append({"type": "message_delta", "delta": delta, "usage": counted})
    return Reply(
        frames=tuple(map(event, events)), tail=event({"type": "message_stop"}), content_type=SSE
    )


def count_tokens(body: dict[str, Any], _: Answer) -> Reply:
    return Reply({"input_tokens": words(body.get("messages"))})


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": "c3RhbmQ="})
    if answer.text or not answer.calls:
        blocks.append({"type": "text", "text": answer.text})
    for i, call in enumerate(answer.calls):
        arguments = json.loads(call.arguments or "{}")
        blocks.append(
            {"type": "tool_use", "id": f"toolu_{i}", "name": call.name, "input": arguments}
        )
    return blocks


def _deltas(block: dict[str, Any], answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The block as it is announced, and what fills it."""
    match block["type"]:
        case "thinking":
            deltas = [
                {"type": "thinking_delta", "thinking": piece}
                for piece in answer.pieces(block["thinking"])
            ]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case "text":
            deltas = [
                {"type": "text_delta", "text": piece} for piece in answer.pieces(block["text"])
            ]
            return {"type": "text", "text": ""}, deltas
        case _:
            arguments = json.dumps(block["input"], ensure_ascii=False)
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in answer.pieces(arguments)
            ]
            return {**block, "input": {}}, deltas
