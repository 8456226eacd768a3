"""What each server family makes of a scripted answer: the whole body, or the frames of a stream.

Shapes only; `standin.py` beside this package speaks HTTP. Every endpoint is a function
`(body, answer) -> Reply`, pure, so that a test can read what the wire will carry.
"""

from collections.abc import Callable
from typing import Any

from standin_dialects import anthropic, ollama, openai, responses
from standin_dialects.answer import Answer, Knobs, Reply, script

Endpoint = Callable[[dict[str, Any], Answer], Reply]

ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/v1/chat/completions"): openai.chat,
    ("POST", "/v1/completions"): openai.completions,
    ("POST", "/v1/embeddings"): openai.embeddings,
    ("GET", "/v1/models"): openai.models,
    ("POST", "/v1/responses"): responses.responses,
    ("POST", "/v1/messages"): anthropic.messages,
    ("POST", "/v1/messages/count_tokens"): anthropic.count_tokens,
    ("POST", "/api/chat"): ollama.chat,
    ("POST", "/api/generate"): ollama.generate,
    ("POST", "/api/embed"): ollama.embed,
    ("GET", "/api/tags"): ollama.tags,
    ("GET", "/api/version"): ollama.version,
    ("POST", "/completion"): openai.llamacpp_completion,
    ("GET", "/health"): openai.health,
}

__all__ = ["ENDPOINTS", "Answer", "Endpoint", "Knobs", "Reply", "script"]
