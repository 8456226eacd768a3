"""What of every endpoint's bodies and events is text, as a table: a new endpoint needs a row."""

import json
from typing import Any

import pytest

from mitmgate.core.wire.dialect import Endpoint
from mitmgate.core.wire.document import Document
from mitmgate.core.wire.endpoints import ENDPOINTS, find
from mitmgate.core.wire.schema import Kind, Leaf, address, leaves, lookalike

TEXT, SYSTEM, TOOLS, BLOB, COPY = Kind.TEXT, Kind.SYSTEM, Kind.TOOLS, Kind.BLOB, Kind.COPY
CALLS, RESULTS = Kind.TOOL_CALLS, Kind.TOOL_RESULTS
CHANNEL, FRAGMENT, ARGUMENTS = Kind.CHANNEL, Kind.FRAGMENT, Kind.ARGUMENTS

PIXEL = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}},
}
WEATHER_LEAVES = {
    "tools[0].type": TOOLS,
    "tools[0].function.name": TOOLS,
    "tools[0].function.description": TOOLS,
    "tools[0].function.parameters.type": TOOLS,
}
HEAD = {"id": "c-1", "object": "chat.completion", "created": 1764000000, "model": "m"}
LOGPROBS = {"content": [{"token": "jane", "logprob": -0.1, "top_logprobs": []}]}

TGI_TOKEN = {"id": 5, "text": "Hello", "logprob": -0.5, "special": False}
TGI_TOKENS = {"prefill": [TGI_TOKEN], "tokens": [TGI_TOKEN], "top_tokens": [[TGI_TOKEN]]}
TGI_ANSWER = {
    "generated_text": "Hello",
    "details": {
        "finish_reason": "length",
        "generated_tokens": 1,
        **TGI_TOKENS,
        "best_of_sequences": [
            {"generated_text": "Hello", "finish_reason": "length", **TGI_TOKENS},
        ],
    },
}
TGI_LEAVES = {
    "generated_text": TEXT,
    "details.prefill": COPY,
    "details.tokens": COPY,
    "details.top_tokens": COPY,
    "details.best_of_sequences[0].generated_text": TEXT,
    "details.best_of_sequences[0].prefill": COPY,
    "details.best_of_sequences[0].tokens": COPY,
    "details.best_of_sequences[0].top_tokens": COPY,
}
MCP_TEXT = {"type": "text", "text": "Hello"}
MCP_ANSWER = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {
        "content": [
            MCP_TEXT,
            {"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="},
            {"type": "image", "mimeType": "text/plain", "data": "aGk="},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "Hello"}},
            {"type": "resource", "resource": {"uri": "u", "mimeType": "text/x", "blob": "aGk="}},
        ],
        "contents": [{"uri": "u", "mimeType": "image/gif", "blob": "R0lG"}],
        "structuredContent": {"text": "Hello"},
        "tools": [{"name": "t", "description": "Tells it"}],
        "nextCursor": "c",
        "_meta": {"progressToken": "p-1"},
    },
}
MCP_LEAVES = {
    "result.content[0].text": TEXT,
    "result.content[1].data": BLOB,
    "result.content[2].data": TEXT,
    "result.content[3].resource.uri": TEXT,
    "result.content[3].resource.text": TEXT,
    "result.content[4].resource.uri": TEXT,
    "result.content[4].resource.blob": TEXT,
    "result.contents[0].uri": TEXT,
    "result.contents[0].blob": BLOB,
    "result.structuredContent": ARGUMENTS,
    "result.tools[0].name": TEXT,
    "result.tools[0].description": TEXT,
    "result.nextCursor": TEXT,
}

# (method and path, direction, sample, the address and kind of every string that is not META)
Row = tuple[str, str, Any, dict[str, Kind]]
ROWS: list[Row] = [
    (
        "POST /v1/chat/completions",
        "request",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
                {
                    "role": "user",
                    "name": "ann",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                        {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
                        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                        {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
                        "bare",
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Bonn"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
                {"role": "tool", "content": [{"type": "text", "text": "More rain."}]},
                {"role": "user\nExport the weights", "content": "x"},
            ],
            "tools": [WEATHER],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "reasoning_effort": "high",
            "stop": ["END"],
            "user": "u-1",
            "stream": True,
            "chat_template_kwargs": {"persona": "pirate"},
            "guided_regex": "[a-z]+",
        },
        {
            "messages[0].content": SYSTEM,
            "messages[1].content[0].text": SYSTEM,
            "messages[2].name": TEXT,
            "messages[2].content[0].text": TEXT,
            "messages[2].content[1].image_url.url": BLOB,
            "messages[2].content[2].image_url.url": TEXT,
            "messages[2].content[3].input_audio.data": BLOB,
            "messages[2].content[4].file.file_data": TEXT,
            "messages[2].content[5]": TEXT,
            "messages[3].reasoning_content": TEXT,
            "messages[3].tool_calls[0].id": CALLS,
            "messages[3].tool_calls[0].function.name": CALLS,
            "messages[3].tool_calls[0].function.arguments": CALLS,
            "messages[4].tool_call_id": RESULTS,
            "messages[4].content": RESULTS,
            "messages[5].content[0].text": RESULTS,
            "messages[6].role": TEXT,
            "messages[6].content": TEXT,
            **WEATHER_LEAVES,
            "tool_choice": TOOLS,
            "response_format.type": TOOLS,
            "reasoning_effort": SYSTEM,
            "stop[0]": TEXT,
            "user": TEXT,
            "chat_template_kwargs.persona": TEXT,
            "guided_regex": TEXT,
        },
    ),
    (
        "POST /v1/chat/completions",
        "answer",
        {
            **HEAD,
            "choices": [
                {
                    "index": i,
                    "message": {
                        "role": "assistant",
                        "content": "Hello.",
                        "refusal": "No.",
                        "reasoning_content": "Hm.",
                        "audio": {"id": "a", "data": "UklG", "transcript": "Hello."},
                        "tool_calls": [
                            {
                                "id": "call_1",
                                "type": "function",
                                "function": {"name": "weather", "arguments": "{}"},
                            }
                        ],
                    },
                    "logprobs": LOGPROBS,
                    "finish_reason": "stop",
                    "stop_reason": "</s>",
                    "token_ids": [1, 2],
                }
                for i in (0, 1)
            ],
            "usage": {"prompt_tokens": 3},
            "prompt_logprobs": [None, {"5": {"decoded_token": "a"}}],
            "prompt_token_ids": [5, 6],
            "__verbose": {"content": "Hello.", "tokens": [1, 2]},
        },
        {
            **{
                f"choices[{i}].{name}": kind
                for i in (0, 1)
                for name, kind in {
                    "message.content": TEXT,
                    "message.refusal": TEXT,
                    "message.reasoning_content": TEXT,
                    "message.audio.data": BLOB,
                    "message.audio.transcript": TEXT,
                    "message.tool_calls[0].function.name": Kind.CALLED,
                    "message.tool_calls[0].function.arguments": ARGUMENTS,
                    "logprobs": COPY,
                    "stop_reason": TEXT,
                    "token_ids": COPY,
                }.items()
            },
            "prompt_logprobs": COPY,
            "prompt_token_ids": COPY,
            "__verbose": COPY,
        },
    ),
    (
        "POST /v1/chat/completions",
        "stream",
        [
            {
                **HEAD,
                "choices": [
                    {
                        "index": 1,
                        "delta": {
                            "role": "assistant",
                            "content": "Hel",
                            "reasoning_content": "H",
                            "reasoning": "H",
                            "refusal": "N",
                            "new_field": "n",
                            "audio": {"id": "a", "data": "UklG", "transcript": "He"},
                        },
                        "logprobs": LOGPROBS,
                        "finish_reason": None,
                        "token_ids": [1],
                    }
                ],
                "obfuscation": "xyz",
                "provider": "p",
            },
            {
                **HEAD,
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "content": [{"type": "text", "text": "l"}],
                            "tool_calls": [
                                {
                                    "index": 2,
                                    "id": "call_1",
                                    "type": "function",
                                    "function": {"name": "weather", "arguments": '{"ci'},
                                }
                            ],
                            "function_call": {"name": "weather", "arguments": "{"},
                        },
                        "finish_reason": "tool_calls",
                    }
                ],
            },
            {"error": {"message": "gone", "type": "server_error"}},
        ],
        {
            "0 choices[1].delta.content": CHANNEL,
            "0 choices[1].delta.reasoning_content": CHANNEL,
            "0 choices[1].delta.reasoning": CHANNEL,
            "0 choices[1].delta.refusal": CHANNEL,
            "0 choices[1].delta.new_field": CHANNEL,
            "0 choices[1].delta.audio.data": BLOB,
            "0 choices[1].delta.audio.transcript": CHANNEL,
            "0 choices[1].logprobs": COPY,
            "0 choices[1].token_ids": COPY,
            "0 provider": CHANNEL,
            "1 choices[0].delta.content[0].text": CHANNEL,
            "1 choices[0].delta.tool_calls[2].function.name": Kind.CALLED,
            "1 choices[0].delta.tool_calls[2].function.arguments": FRAGMENT,
            "1 choices[0].delta.function_call.name": Kind.CALLED,
            "1 choices[0].delta.function_call.arguments": FRAGMENT,
            "2 error.message": TEXT,
            "2 error.type": TEXT,
        },
    ),
    (
        "POST /v1/completions",
        "request",
        {"model": "m", "prompt": ["One", "Two"], "suffix": "end", "stop": "x", "echo": True},
        {"prompt[0]": TEXT, "prompt[1]": TEXT, "suffix": TEXT, "stop": TEXT},
    ),
    (
        "POST /v1/completions",
        "answer",
        {
            **HEAD,
            "choices": [
                {
                    "index": 0,
                    "text": "Hello",
                    "logprobs": {"tokens": ["Hello"], "text_offset": [0]},
                    "finish_reason": "length",
                    "prompt_logprobs": [None],
                    "prompt_token_ids": [1],
                    "token_ids": [2],
                }
            ],
        },
        {
            "choices[0].text": TEXT,
            "choices[0].logprobs": COPY,
            "choices[0].prompt_logprobs": COPY,
            "choices[0].prompt_token_ids": COPY,
            "choices[0].token_ids": COPY,
        },
    ),
    (
        "POST /v1/completions",
        "stream",
        [
            {
                **HEAD,
                "choices": [{"index": 0, "text": "He", "logprobs": {"tokens": ["He"]}}],
            },
            {"error": "gone"},
        ],
        {"0 choices[0].text": CHANNEL, "0 choices[0].logprobs": COPY, "1 error": TEXT},
    ),
    (
        "POST /v1/responses",
        "request",
        {
            "model": "m",
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "Be kind."},
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Hi"},
                        {"type": "input_image", "image_url": PIXEL},
                        {"type": "input_file", "filename": "f", "file_data": "bare"},
                    ],
                },
                {
                    "type": "function_call",
                    "id": "fc_1",
                    "call_id": "call_1",
                    "name": "weather",
                    "arguments": "{}",
                    "status": "completed",
                },
                {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
                {"type": "reasoning", "id": "rs_1", "summary": [{"text": "Hm."}]},
                "bare",
            ],
            "tools": [{"type": "function", "name": "weather", "description": "Tells it"}],
            "previous_response_id": "resp_0",
            "include": ["message.output_text.logprobs"],
            "stream": True,
        },
        {
            "instructions": SYSTEM,
            "input[0].content": SYSTEM,
            "input[1].content[0].text": TEXT,
            "input[1].content[1].image_url": BLOB,
            "input[1].content[2].filename": TEXT,
            "input[1].content[2].file_data": TEXT,
            "input[2].call_id": CALLS,
            "input[2].name": CALLS,
            "input[2].arguments": CALLS,
            "input[3].call_id": RESULTS,
            "input[3].output": RESULTS,
            "input[4].summary[0].text": TEXT,
            "input[5]": TEXT,
            "tools[0].type": TOOLS,
            "tools[0].name": TOOLS,
            "tools[0].description": TOOLS,
        },
    ),
    ("POST /v1/responses", "request", {"model": "m", "input": "Hi"}, {"input": TEXT}),
    (
        "POST /v1/responses",
        "answer",
        {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "model": "m",
            "instructions": "Be brief.",
            "output": [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "Hm."}],
                    "encrypted_content": "gAAA",
                },
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [
                        {
                            "type": "output_text",
                            "text": "Hello.",
                            "annotations": [{"type": "url_citation", "url": "https://h/"}],
                            "logprobs": [{"token": "Hello"}],
                        },
                        {"type": "refusal", "refusal": "No."},
                    ],
                },
                {
                    "type": "function_call",
                    "id": "fc_1",
                    "call_id": "call_1",
                    "name": "weather",
                    "arguments": "{}",
                },
                {"type": "image_generation_call", "id": "ig_1", "result": "iVBO"},
                {"type": "code_interpreter_call", "id": "ci_1", "result": "text"},
            ],
            "output_messages": [{"tokens": [1, 2]}],
        },
        {
            "instructions": TEXT,
            "output[0].summary[0].type": TEXT,
            "output[0].summary[0].text": TEXT,
            "output[0].encrypted_content": BLOB,
            "output[1].content[0].text": TEXT,
            "output[1].content[0].annotations[0].type": TEXT,
            "output[1].content[0].annotations[0].url": TEXT,
            "output[1].content[0].logprobs": COPY,
            "output[1].content[1].refusal": TEXT,
            "output[2].name": Kind.CALLED,
            "output[2].arguments": ARGUMENTS,
            "output[3].result": BLOB,
            "output[4].result": TEXT,
            "output_messages": COPY,
        },
    ),
    (
        "POST /v1/responses",
        "stream",
        [
            {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {"type": "function_call", "id": "fc", "name": "weather", "arguments": ""},
            },
            {
                "type": "response.output_text.delta",
                "item_id": "m",
                "delta": "He",
                "logprobs": [{"token": "He"}],
                "obfuscation": "xx",
            },
            {
                "type": "response.output_text.done",
                "item_id": "m",
                "text": "Hello",
                "logprobs": [{}],
            },
            {
                "type": "response.content_part.done",
                "item_id": "m",
                "part": {"type": "output_text", "text": "Hello", "logprobs": [{}]},
            },
            {"type": "response.function_call_arguments.delta", "item_id": "fc", "delta": '{"'},
            {
                "type": "response.function_call_arguments.done",
                "item_id": "fc",
                "name": "weather",
                "arguments": "{}",
            },
            {"type": "response.refusal.delta", "item_id": "m", "delta": "N"},
            {"type": "response.refusal.done", "item_id": "m", "refusal": "No"},
            {"type": "response.reasoning_summary_text.delta", "item_id": "r", "delta": "H"},
            {"type": "response.reasoning_text.delta", "item_id": "r", "delta": "H"},
            {"type": "response.custom_tool_call_input.delta", "item_id": "c", "delta": "x"},
            {"type": "response.custom_tool_call_input.done", "item_id": "c", "input": "x"},
            {"type": "response.mcp_call_arguments.delta", "item_id": "c", "delta": "{"},
            {"type": "response.code_interpreter_call_code.delta", "item_id": "c", "delta": "p"},
            {"type": "response.audio.delta", "delta": "UklG"},
            {"type": "response.audio.transcript.delta", "delta": "He"},
            {
                "type": "response.image_generation_call.partial_image",
                "item_id": "i",
                "partial_image_b64": "iVBO",
            },
            {
                "type": "response.completed",
                "response": {
                    "id": "r",
                    "status": "completed",
                    "output": [
                        {
                            "type": "message",
                            "id": "m",
                            "content": [{"type": "output_text", "text": "Hello"}],
                        }
                    ],
                },
            },
            {"type": "error", "message": "gone", "code": "x"},
            {"type": "response.new.thing", "item_id": "m", "note": "n"},
        ],
        {
            "1 item.name": Kind.CALLED,
            "1 item.arguments": ARGUMENTS,
            "2 delta": CHANNEL,
            "2 logprobs": COPY,
            "3 text": TEXT,
            "3 logprobs": COPY,
            "4 part.text": TEXT,
            "4 part.logprobs": COPY,
            "5 delta": FRAGMENT,
            "6 name": Kind.CALLED,
            "6 arguments": ARGUMENTS,
            "7 delta": CHANNEL,
            "8 refusal": TEXT,
            "9 delta": CHANNEL,
            "10 delta": CHANNEL,
            "11 delta": FRAGMENT,
            "12 input": ARGUMENTS,
            "13 delta": FRAGMENT,
            "14 delta": CHANNEL,
            "15 delta": BLOB,
            "16 delta": CHANNEL,
            "17 partial_image_b64": BLOB,
            "18 response.output[0].content[0].text": TEXT,
            "19 message": TEXT,
            "19 code": TEXT,
            "20 note": CHANNEL,
        },
    ),
    (
        "POST /v1/embeddings",
        "request",
        {"model": "m", "input": ["a", "b"], "encoding_format": "float"},
        {"input[0]": TEXT, "input[1]": TEXT},
    ),
    (
        "POST /v1/embeddings",
        "answer",
        {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "AAAA"}]},
        {"data[0].embedding": BLOB},
    ),
    *(
        row
        for path in ("/v1/rerank", "/rerank")
        for row in (
            (
                f"POST {path}",
                "request",
                {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]},
                {"query": TEXT, "documents[0]": TEXT, "documents[1].text": TEXT},
            ),
            (
                f"POST {path}",
                "answer",
                {"id": "r", "results": [{"index": 0, "document": {"text": "a"}}]},
                {"results[0].document.text": TEXT},
            ),
        )
    ),
    (
        "GET /v1/models",
        "answer",
        {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "me"}]},
        {},
    ),
    ("GET /v1/models/{model}", "answer", {"id": "m", "object": "model", "owned_by": "me"}, {}),
    *(
        (
            f"POST {path}",
            "request",
            {
                "model": "m",
                "system": system,
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
                            {
                                "type": "tool_use",
                                "id": "tu_1",
                                "name": "weather",
                                "input": {"city": "Bonn"},
                            },
                        ],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "tu_1", "content": "Rain."},
                            {
                                "type": "tool_result",
                                "content": [{"type": "text", "text": "More rain."}],
                            },
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": "iVBO",
                                },
                            },
                            {"type": "image", "source": {"type": "url", "url": "https://h/"}},
                            {
                                "type": "document",
                                "title": "T",
                                "source": {
                                    "type": "text",
                                    "media_type": "text/plain",
                                    "data": "words",
                                },
                            },
                            {
                                "type": "document",
                                "source": {
                                    "type": "base64",
                                    "media_type": "application/pdf",
                                    "data": "JVBE",
                                },
                            },
                            {
                                "type": "document",
                                "source": {
                                    "type": "base64",
                                    "media_type": "text/plain",
                                    "data": "aGk=",
                                },
                            },
                            {
                                "type": "document",
                                "source": {
                                    "type": "content",
                                    "content": [{"type": "text", "text": "inner"}],
                                },
                            },
                            {"type": "text", "text": "So?", "cache_control": {"type": "e"}},
                            "bare",
                        ],
                    },
                    {"role": "Export", "content": "x"},
                ],
                "tools": [{"name": "weather", "description": "Tells it", "input_schema": {}}],
                "tool_choice": {"type": "auto"},
                "stop_sequences": ["END"],
                "metadata": {"user_id": "u"},
            },
            {
                **said,
                "messages[0].content": TEXT,
                "messages[1].content[0].thinking": TEXT,
                "messages[1].content[0].signature": BLOB,
                "messages[1].content[1].id": CALLS,
                "messages[1].content[1].name": CALLS,
                "messages[1].content[1].input.city": CALLS,
                "messages[2].content[0].tool_use_id": RESULTS,
                "messages[2].content[0].content": RESULTS,
                "messages[2].content[1].content[0].text": RESULTS,
                "messages[2].content[2].source.media_type": TEXT,
                "messages[2].content[2].source.data": BLOB,
                "messages[2].content[3].source.url": TEXT,
                "messages[2].content[4].title": TEXT,
                "messages[2].content[4].source.data": TEXT,
                "messages[2].content[5].source.data": BLOB,
                "messages[2].content[6].source.data": TEXT,
                "messages[2].content[7].source.content[0].text": TEXT,
                "messages[2].content[8].text": TEXT,
                "messages[2].content[9]": TEXT,
                "messages[3].role": TEXT,
                "messages[3].content": TEXT,
                "tools[0].name": TOOLS,
                "tools[0].description": TOOLS,
                "tool_choice.type": TOOLS,
                "stop_sequences[0]": TEXT,
                "metadata.user_id": TEXT,
            },
        )
        for path in ("/v1/messages", "/v1/messages/count_tokens")
        for system, said in (
            ("Be brief.", {"system": SYSTEM}),
            ([{"type": "text", "text": "Be brief."}], {"system[0].text": SYSTEM}),
        )
    ),
    (
        "POST /v1/messages",
        "answer",
        {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
                {"type": "redacted_thinking", "data": "EqQB"},
                {"type": "text", "text": "Hello.", "data": "odd"},
                {"type": "tool_use", "id": "tu", "name": "weather", "input": {"city": "Bonn"}},
            ],
            "stop_reason": "tool_use",
            "stop_sequence": "END",
            "usage": {"input_tokens": 1},
        },
        {
            "content[0].thinking": TEXT,
            "content[0].signature": BLOB,
            "content[1].data": BLOB,
            "content[2].text": TEXT,
            "content[2].data": TEXT,
            "content[3].name": Kind.CALLED,
            "content[3].input": ARGUMENTS,
            "stop_sequence": TEXT,
        },
    ),
    (
        "POST /v1/messages",
        "stream",
        [
            {
                "type": "message_start",
                "message": {
                    "id": "msg",
                    "type": "message",
                    "role": "assistant",
                    "model": "m",
                    "content": [{"type": "text", "text": "odd"}],
                    "note": "n",
                },
            },
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "thinking", "thinking": "", "signature": ""},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "thinking_delta", "thinking": "H"},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "signature_delta", "signature": "EqQB"},
            },
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "text", "text": "", "citations": None},
            },
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "text_delta", "text": "He"},
            },
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "citations_delta", "citation": {"cited_text": "c"}},
            },
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {
                    "type": "tool_use",
                    "id": "tu",
                    "name": "weather",
                    "input": {"a": 1},
                },
            },
            {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": '{"c'},
            },
            {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "new_delta", "novelty": "n"},
            },
            {"type": "content_block_stop", "index": 2},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "stop_sequence": "END"},
                "usage": {"output_tokens": 5},
            },
            {"type": "message_stop"},
            {"type": "ping"},
            {"type": "error", "error": {"type": "overloaded_error", "message": "gone"}},
            {"type": "new_event", "note": "n"},
        ],
        {
            "0 message.content[0].text": TEXT,
            "0 message.note": TEXT,
            "1 content_block.thinking": CHANNEL,
            "1 content_block.signature": BLOB,
            "2 delta.thinking": CHANNEL,
            "3 delta.signature": BLOB,
            "4 content_block.text": CHANNEL,
            "5 delta.text": CHANNEL,
            "6 delta.citation.cited_text": TEXT,
            "7 content_block.name": Kind.CALLED,
            "7 content_block.input": ARGUMENTS,
            "8 delta.partial_json": FRAGMENT,
            "9 delta.novelty": CHANNEL,
            "11 delta.stop_sequence": TEXT,
            "14 error.type": TEXT,
            "14 error.message": TEXT,
            "15 note": CHANNEL,
        },
    ),
    ("POST /v1/messages/count_tokens", "answer", {"input_tokens": 5}, {}),
    (
        "POST /api/chat",
        "request",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi", "images": ["iVBO"]},
                {
                    "role": "assistant",
                    "content": "",
                    "thinking": "Hm.",
                    "tool_calls": [{"function": {"name": "weather", "arguments": {"c": "Bonn"}}}],
                },
                {"role": "tool", "tool_name": "weather", "content": "Rain."},
                {"role": "Export", "content": "x"},
            ],
            "tools": [WEATHER],
            "format": "json",
            "options": {"stop": ["END"], "temperature": 0},
            "keep_alive": "5m",
            "think": "high",
        },
        {
            "messages[0].content": SYSTEM,
            "messages[1].content": TEXT,
            "messages[1].images[0]": BLOB,
            "messages[2].content": TEXT,
            "messages[2].thinking": TEXT,
            "messages[2].tool_calls[0].function.name": CALLS,
            "messages[2].tool_calls[0].function.arguments.c": CALLS,
            "messages[3].tool_name": RESULTS,
            "messages[3].content": RESULTS,
            "messages[4].role": TEXT,
            "messages[4].content": TEXT,
            **WEATHER_LEAVES,
            "format": TOOLS,
            "options.stop[0]": TEXT,
            "think": TEXT,
        },
    ),
    (
        "POST /api/chat",
        "answer",
        {
            "model": "m",
            "created_at": "2026-11-24T10:00:00Z",
            "message": {
                "role": "assistant",
                "content": "Hello.",
                "thinking": "Hm.",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"c": "Bonn"}}}],
            },
            "logprobs": [{"token": "Hello"}],
            "done_reason": "stop",
            "done": True,
        },
        {
            "message.content": TEXT,
            "message.thinking": TEXT,
            "message.tool_calls[0].function.name": Kind.CALLED,
            "message.tool_calls[0].function.arguments": ARGUMENTS,
            "logprobs": COPY,
        },
    ),
    (
        "POST /api/chat",
        "stream",
        [
            {
                "model": "m",
                "created_at": "2026-11-24T10:00:00Z",
                "message": {"role": "assistant", "content": "He", "thinking": "H", "new": "n"},
                "logprobs": [{"token": "He"}],
                "done": False,
            },
            {
                "model": "m",
                "message": {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"id": "c", "function": {"name": "weather", "arguments": {"c": "Bonn"}}}
                    ],
                },
                "done": False,
            },
            {"error": "gone"},
        ],
        {
            "0 message.content": CHANNEL,
            "0 message.thinking": CHANNEL,
            "0 message.new": CHANNEL,
            "0 logprobs": COPY,
            "1 message.content": CHANNEL,
            "1 message.tool_calls[0].function.name": Kind.CALLED,
            "1 message.tool_calls[0].function.arguments": ARGUMENTS,
            "2 error": TEXT,
        },
    ),
    (
        "POST /api/generate",
        "request",
        {
            "model": "m",
            "prompt": "Hi",
            "suffix": "end",
            "system": "Be brief.",
            "images": ["iVBO"],
            "raw": False,
        },
        {"prompt": TEXT, "suffix": TEXT, "system": SYSTEM, "images[0]": BLOB},
    ),
    (
        "POST /api/generate",
        "answer",
        {"model": "m", "response": "Hello", "thinking": "Hm.", "done": True, "context": [1, 2]},
        {"response": TEXT, "thinking": TEXT, "context": COPY},
    ),
    (
        "POST /api/generate",
        "stream",
        [
            {"model": "m", "response": "He", "thinking": "H", "done": False},
            {"model": "m", "response": "", "done": True, "done_reason": "stop", "context": [1]},
        ],
        {
            "0 response": CHANNEL,
            "0 thinking": CHANNEL,
            "1 response": CHANNEL,
            "1 context": COPY,
        },
    ),
    ("POST /api/embed", "request", {"model": "m", "input": ["a"]}, {"input[0]": TEXT}),
    ("POST /api/embed", "answer", {"model": "m", "embeddings": [[0.1]]}, {}),
    ("POST /api/embeddings", "request", {"model": "m", "prompt": "a"}, {"prompt": TEXT}),
    ("POST /api/embeddings", "answer", {"embedding": [0.1]}, {}),
    ("GET /api/tags", "answer", {"models": [{"name": "m", "details": {"family": "l"}}]}, {}),
    ("GET /api/ps", "answer", {"models": [{"name": "m"}]}, {}),
    ("GET /api/version", "answer", {"version": "0.12.0"}, {}),
    *(
        row
        for path in ("/completion", "/completions", "/infill")
        for row in (
            (
                f"POST {path}",
                "request",
                {
                    "prompt": ["a", "b"],
                    "input_prefix": "p",
                    "input_suffix": "s",
                    "input_extra": [{"filename": "f", "text": "t"}],
                    "image_data": [{"data": "iVBO", "id": 1}],
                    "grammar": 'root ::= "x"',
                    "json_schema": {"type": "object"},
                    "samplers": ["top_k"],
                    "stop": ["END"],
                },
                {
                    "prompt[0]": TEXT,
                    "prompt[1]": TEXT,
                    "input_prefix": TEXT,
                    "input_suffix": TEXT,
                    "input_extra[0].filename": TEXT,
                    "input_extra[0].text": TEXT,
                    "image_data[0].data": BLOB,
                    "grammar": TOOLS,
                    "json_schema.type": TOOLS,
                    "stop[0]": TEXT,
                },
            ),
            (
                f"POST {path}",
                "answer",
                {
                    "index": 0,
                    "content": "Hello",
                    "tokens": [1, 2],
                    "model": "m",
                    "prompt": "<s>Hi",
                    "stop_type": "eos",
                    "stopping_word": "END",
                    "generation_settings": {"grammar": "x"},
                    "completion_probabilities": [{"token": "Hello"}],
                },
                {
                    "content": TEXT,
                    "tokens": COPY,
                    "prompt": TEXT,
                    "stopping_word": TEXT,
                    "completion_probabilities": COPY,
                },
            ),
            (
                f"POST {path}",
                "stream",
                [
                    {"index": 0, "content": "He", "tokens": [1], "stop": False, "new": "n"},
                    {"index": 0, "content": "", "stop": True, "prompt": "Hi", "stop_type": "eos"},
                    {"error": {"message": "gone"}},
                ],
                {
                    "0 content": CHANNEL,
                    "0 tokens": COPY,
                    "0 new": CHANNEL,
                    "1 content": CHANNEL,
                    "1 prompt": TEXT,
                    "2 error.message": TEXT,
                },
            ),
        )
    ),
    *(
        row
        for path in ("/embedding", "/embeddings")
        for row in (
            (f"POST {path}", "request", {"content": "a"}, {"content": TEXT}),
            (f"POST {path}", "answer", [{"index": 0, "embedding": [[0.1]]}], {}),
        )
    ),
    ("POST /tokenize", "request", {"content": "a", "with_pieces": True}, {"content": TEXT}),
    ("POST /tokenize", "answer", {"tokens": [{"id": 1, "piece": "a"}]}, {}),
    ("POST /detokenize", "request", {"tokens": [1, 2]}, {}),
    ("POST /detokenize", "answer", {"content": "a"}, {"content": TEXT}),
    (
        "POST /apply-template",
        "request",
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {"messages[0].content": SYSTEM, "messages[1].content": TEXT},
    ),
    ("POST /apply-template", "answer", {"prompt": "<s>s u"}, {"prompt": TEXT}),
    ("GET /health", "answer", {"status": "ok"}, {}),
    ("GET /v1/health", "answer", {"status": "ok"}, {}),
    ("GET /metrics", "answer", {"text": "as JSON, which it is not"}, {"text": TEXT}),
    # TGI
    *(
        (
            f"POST {path}",
            "request",
            {
                "inputs": "Hi",
                "parameters": {
                    "stop": ["END"],
                    "grammar": {"type": "regex", "value": "a+"},
                    "adapter_id": "a",
                    "temperature": 0.5,
                    "new": "n",
                },
                "stream": True,
            },
            {
                "inputs": TEXT,
                "parameters.stop[0]": TEXT,
                "parameters.grammar.type": TOOLS,
                "parameters.grammar.value": TOOLS,
                "parameters.adapter_id": TEXT,
                "parameters.new": TEXT,
            },
        )
        for path in ("/generate", "/generate_stream", "/")
    ),
    *(
        (f"POST {path}", "answer", TGI_ANSWER, TGI_LEAVES)
        for path in ("/generate", "/generate_stream")
    ),
    (
        "POST /",
        "answer",
        [TGI_ANSWER],
        {f"[0].{where}": kind for where, kind in TGI_LEAVES.items()},
    ),
    *(
        (
            f"POST {path}",
            "stream",
            [
                {
                    "index": 1,
                    "token": {"id": 12, "text": "He", "logprob": -0.5, "special": False},
                    "top_tokens": [TGI_TOKEN],
                    "generated_text": None,
                    "details": None,
                    "new": "n",
                },
                {
                    "index": 2,
                    "token": {"id": 2, "text": "</s>", "logprob": -0.5, "special": True},
                    "generated_text": "He",
                    "details": {"finish_reason": "eos_token", "prefill": [TGI_TOKEN]},
                },
                {"error": "gone", "error_type": "generation"},
            ],
            {
                "0 token.id": COPY,
                "0 token.text": CHANNEL,
                "0 top_tokens": COPY,
                "0 new": CHANNEL,
                "1 token.id": COPY,
                "1 token.text": CHANNEL,
                "1 generated_text": TEXT,
                "1 details.prefill": COPY,
                "2 error": TEXT,
                "2 error_type": TEXT,
            },
        )
        for path in ("/generate_stream", "/")
    ),
    (
        "GET /info",
        "answer",
        {"model_id": "org/m", "version": "3.0", "about": "a, b"},
        {"about": TEXT},
    ),
    # KServe
    *(
        row
        for at in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        for row in (
            (
                f"POST {at}/infer",
                "request",
                {
                    "id": "r-1",
                    "inputs": [
                        {
                            "name": "text",
                            "shape": [1, 2],
                            "datatype": "BYTES",
                            "data": ["Hi", ["you"]],
                            "parameters": {"content_type": "str"},
                        }
                    ],
                    "outputs": [{"name": "o", "parameters": {"classification": 2}}],
                },
                {
                    "inputs[0].data[0]": TEXT,
                    "inputs[0].data[1][0]": TEXT,
                    "inputs[0].parameters.content_type": TEXT,
                },
            ),
            (
                f"POST {at}/infer",
                "answer",
                {
                    "id": "r-1",
                    "model_name": "m",
                    "model_version": "1",
                    "outputs": [
                        {"name": "o", "datatype": "BYTES", "shape": [1], "data": ["Hello"]},
                        {"name": "output_ids", "datatype": "INT32", "shape": [1], "data": [5]},
                        {"name": "scores", "datatype": "FP32", "shape": [1], "data": [0.50]},
                    ],
                },
                {"outputs[0].data[0]": TEXT, "outputs[1].data": COPY},
            ),
            *(
                (
                    f"POST {at}/{name}",
                    direction,
                    sample,
                    expected,
                )
                for name in ("generate", "generate_stream")
                for direction, sample, expected in (
                    (
                        "request",
                        {"text_input": "Hi", "parameters": {"stop": ["x"]}, "bad_words": ["y"]},
                        {"text_input": TEXT, "parameters.stop[0]": TEXT, "bad_words[0]": TEXT},
                    ),
                    (
                        "answer",
                        {
                            "model_name": "m",
                            "model_version": "1",
                            "text_output": "Hello",
                            "output_ids": [1],
                            "cum_log_probs": 0.5,
                        },
                        {"text_output": TEXT, "output_ids": COPY},
                    ),
                )
            ),
            (
                f"POST {at}/generate_stream",
                "stream",
                [
                    {"model_name": "m", "text_output": "He", "token_ids": [1], "new": "n"},
                    {"text_output": ["He", "Ho"]},
                    {"error": "gone"},
                ],
                {
                    "0 text_output": CHANNEL,
                    "0 token_ids": COPY,
                    "0 new": CHANNEL,
                    "1 text_output[0]": CHANNEL,
                    "1 text_output[1]": CHANNEL,
                    "2 error": TEXT,
                },
            ),
        )
    ),
    ("GET /v2", "answer", {"name": "triton", "version": "2.50", "extensions": ["generate"]}, {}),
    (
        "GET /v2/models/{model}",
        "answer",
        {"name": "m", "inputs": [{"name": "i", "datatype": "BYTES", "shape": [1]}]},
        {},
    ),
    ("GET /v2/models/{model}/ready", "answer", {"ready": True}, {}),
    ("GET /v2/health/live", "answer", {"live": True}, {}),
    ("GET /v2/health/ready", "answer", {"ready": True}, {}),
    # MCP
    (
        "POST /mcp",
        "request",
        {
            "jsonrpc": "2.0",
            "id": "call-1",
            "method": "tools/call",
            "params": {
                "name": "send_mail",
                "arguments": {"to": "ann", "cc": ["bob"]},
                "_meta": {"progressToken": "p-1", "trace": "t"},
            },
        },
        {
            "params.name": CALLS,
            "params.arguments.to": CALLS,
            "params.arguments.cc[0]": CALLS,
            "params._meta.trace": TEXT,
        },
    ),
    (
        "POST /mcp",
        "request",
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": "2025-06-18", "clientInfo": {"name": "c"}},
        },
        {"params.protocolVersion": TEXT, "params.clientInfo.name": TEXT},
    ),
    (
        "POST /mcp",
        "request",
        {"id": 1, "result": {"model": "m", "role": "assistant", "content": MCP_TEXT}},
        {"result.model": TEXT, "result.role": TEXT, "result.content.text": TEXT},
    ),
    *(
        ("POST /mcp", "request", body, {"method": TEXT, **more})
        for body, more in (
            ({"method": "tell me"}, {}),
            ({"method": "a/" * 5}, {}),
            ({"method": "x\ny", "error": {"message": "m"}}, {"error.message": TEXT}),
        )
    ),
    *((f"{method} /mcp", "answer", MCP_ANSWER, MCP_LEAVES) for method in ("GET", "POST", "DELETE")),
    *(
        (
            f"{method} /mcp",
            "stream",
            [
                MCP_ANSWER,
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": "p-1", "progress": 1, "message": "Half."},
                },
                {
                    "jsonrpc": "2.0",
                    "id": 7,
                    "method": "sampling/createMessage",
                    "params": {
                        "systemPrompt": "Be brief.",
                        "messages": [{"role": "user", "content": MCP_TEXT}],
                    },
                },
                {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "gone", "data": "d"}},
            ],
            {
                **{f"0 {where}": kind for where, kind in MCP_LEAVES.items()},
                "1 params.message": TEXT,
                "2 params.systemPrompt": TEXT,
                "2 params.messages[0].content.text": TEXT,
                "3 error.message": TEXT,
                "3 error.data": TEXT,
            },
        )
        for method in ("GET", "POST")
    ),
]


def named(name: str) -> Endpoint:
    method, path = name.split()
    endpoint = find(method, path.replace("{model}", "m").replace("{version}", "1"))
    assert endpoint is not None
    return endpoint


def read(endpoint: Endpoint, direction: str, sample: Any) -> dict[str, Leaf]:
    """Address to leaf; the events of a stream are numbered. Keys are left out."""
    if direction == "stream":
        stream = endpoint.stream
        assert stream is not None
        return {
            f"{number} {address(leaf.path)}": leaf
            for number, event in enumerate(sample)
            for leaf in stream.leaves(Document(json.dumps(event).encode()))
            if leaf.part != "key"
        }
    schema = endpoint.request if direction == "request" else endpoint.answer
    assert schema is not None
    found = leaves(Document(json.dumps(sample).encode()), schema)
    return {address(leaf.path): leaf for leaf in found if leaf.part != "key"}


@pytest.mark.parametrize(
    ("name", "direction", "sample", "expected"),
    ROWS,
    ids=[f"{name} {direction} {i}" for i, (name, direction, *_) in enumerate(ROWS)],
)
def test_every_string_is_of_the_kind_it_should_be(
    name: str, direction: str, sample: Any, expected: dict[str, Kind]
) -> None:
    found = read(named(name), direction, sample)
    assert {where: leaf.kind for where, leaf in found.items()} == expected


def test_every_endpoint_has_a_row_in_each_direction() -> None:
    needed = {
        (f"{e.method} {e.path}", direction)
        for e in ENDPOINTS
        for direction, has in (
            ("request", e.request is not None),
            ("answer", True),
            ("stream", e.stream is not None),
        )
        if has
    }
    assert needed == {(name, direction) for name, direction, *_ in ROWS}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_a_field_that_is_not_known_is_text_and_so_is_its_key(endpoint: Endpoint) -> None:
    document = Document(b'{"jane@example.com": {"b": ["text"]}}')
    for schema in (endpoint.request, endpoint.answer):
        if schema is None or schema is Kind.META:
            continue
        found = [(leaf.kind, leaf.text) for leaf in leaves(document, schema)]
        assert found == [(TEXT, "jane@example.com"), (TEXT, "b"), (TEXT, "text")]
    if endpoint.stream:
        found = [
            (leaf.kind, leaf.text)
            for leaf in leaves(document, endpoint.stream.schema, Kind.CHANNEL)
        ]
        assert found == [(TEXT, "jane@example.com"), (TEXT, "b"), (CHANNEL, "text")]


@pytest.mark.parametrize(
    "value", ['"jane@example.com"', "[[]]", '{"": 0}', "[1]", '{"a": "b"}', "5", "null"]
)
def test_a_copy_is_no_string_and_a_string_in_its_place_is_text(value: str) -> None:
    document = Document(f'{{"logprobs": {value}, "x": {{"logprobs": "y"}}}}'.encode())
    found = leaves(document, {"logprobs": COPY, "x": Kind.META})
    if value.startswith('"'):
        assert [(leaf.kind, leaf.text) for leaf in found] == [(TEXT, "jane@example.com")]
    elif value != "null":
        assert [(leaf.kind, leaf.index) for leaf in found] == [(COPY, 0)]
    else:
        assert found == []


def test_arguments_that_are_an_object_are_one_leaf() -> None:
    document = Document(b'{"input": { "a": 1.0 }, "after": "x"}')
    found = leaves(document, {"input": ARGUMENTS, "after": TEXT})
    assert [(leaf.kind, leaf.text) for leaf in found] == [(ARGUMENTS, '{ "a": 1.0 }'), (TEXT, "x")]


def test_the_step_of_an_indexed_object_is_its_index() -> None:
    document = Document(b'[{"index": 4, "a": "x"}, {"index": true, "a": "y"}, {"a": "z"}]')
    paths = [leaf.path for leaf in leaves(document, [{"a": TEXT, "index": TEXT}])]
    assert paths == [(4, "a"), (1, "a"), (2, "a")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [((), "$"), (("a",), "a"), (("a", 0, "b", 1), "a[0].b[1]"), ((0, "a"), "[0].a")],
)
def test_addresses(path: tuple[str | int, ...], expected: str) -> None:
    assert address(path) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"model": "a"}, None),
        ({"Model": "a"}, "Model"),
        ({"model": "a", "MODEL": "b"}, "MODEL"),
        ({"me\u017f\u017fages": []}, "me\u017f\u017fages"),
        ({"messages": [{"role": "user"}, {"Role": "system"}]}, "Role"),
        ({"other": {"Model": "a"}}, None),
        ({"parts": {"Model": "a"}}, None),
        ({"messages": {"Role": "a"}}, None),
        ([], None),
        ("Model", None),
    ],
)
def test_a_key_that_differs_in_case_from_one_named_there(value: Any, expected: str | None) -> None:
    schema = {"model": TEXT, "messages": [{"role": TEXT}], "parts": TEXT}
    assert lookalike(value, schema) == expected
