"""The Open Inference Protocol (KServe v2) as Triton serves it, with its generate extension.

Sources: KServe, Open Inference Protocol; Triton, docs/protocol. The model is named in the path. The
binary and the shared-memory extension carry text outside the JSON and are refused; what changes the
server (repository, logging, tracing) is not listed, so that nobody reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mitmgate.core.wire.dialect import Dialect, Endpoint, Key, Stream, nested, taken
from mitmgate.core.wire.schema import Kind, Path, Schema

META, TEXT, CHANNEL, COPY = Kind.META, Kind.TEXT, Kind.CHANNEL, Kind.COPY

# Tensors of token ids, by the names that servers give them; a limit on tokens is none.
_IDS = re.compile(r"(?i)(?!(?:max|min|num)_).*(?:ids|token)")
_ELSEWHERE = ("binary_data_size", "binary_data", "binary_data_output", "shared_memory_region")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """Errors are a plain string; `code` is an addition."""
    return {"error": message, "code": code}


DIALECT = Dialect("kserve", error=error)


def is_ids(tensor: Any) -> bool:
    """Whether a tensor holds token ids: text that no rule can read."""
    if not isinstance(tensor, dict):
        return False
    spelled = str(tensor.get("datatype")).upper() in ("BYTES", "BOOL")
    return not spelled and bool(_IDS.match(str(tensor.get("name"))))


def opaque_tensors(data: dict[str, Any]) -> str:
    """Why a request to infer cannot be judged; nothing when it can."""
    inputs, outputs = ([*_objects(data.get(name))] for name in ("inputs", "outputs"))
    for each in (data, *inputs, *outputs):
        parameters = each.get("parameters")
        for name in _ELSEWHERE:
            value = parameters.get(name) if isinstance(parameters, dict) else None
            if value is not None and value is not False:
                return f"`{name}` says that data is not in the JSON, where it could be judged."
    if any(map(is_ids, inputs)):
        return "`inputs` hold token ids, which cannot be judged: send text."
    return ""


def opaque_fields(data: dict[str, Any]) -> str:
    """Why a request to generate, whose fields are tensors, cannot be judged."""
    for name, value in data.items():
        if isinstance(value, list) and is_ids({"name": name}) and _numbers(value):
            return f"`{name[:60]}` holds token ids, which cannot be judged: send text."
    return ""


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _numbers(values: list[Any]) -> bool:
    flat = (each[0] if isinstance(each, list) and each else each for each in values)
    return any(not isinstance(each, str) for each in flat)


TENSOR: dict[str, Schema] = {"name": META, "datatype": META, "shape": TEXT, "data": TEXT}


def output(value: Any) -> Schema:
    """Strings are text; numbers are passed as they are, unless they spell what is masked."""
    return {**TENSOR, "data": COPY} if is_ids(value) else TENSOR


HEAD: dict[str, Schema] = {"id": META, "model_name": META, "model_version": META}
REQUEST: Schema = {"id": META, "inputs": [TENSOR], "outputs": [{"name": META}]}
ANSWER: Schema = {**HEAD, "outputs": [output]}
PROMPT: Schema = {"id": META, "text_input": TEXT, "parameters": TEXT}
SAID: dict[str, Schema] = {**HEAD, "text_output": TEXT, "output_ids": COPY, "token_ids": COPY}


def key(event: dict[str, Any], path: Path) -> Key:
    return path


def ends(event: dict[str, Any]) -> Sequence[Key]:
    return [()] if event.get("error") is not None else ()


def event(key: Key, text: str, like: dict[str, Any]) -> dict[str, Any]:
    made = nested(key, text)
    if key[0] == "text_output" and len(key) == 2 and isinstance(key[1], int):
        made = {"text_output": [""] * key[1] + [text]}  # the others of a batch have nothing to say
    return {**taken(like, ("model_name", "model_version")), **made}


STREAM = Stream(
    framing="sse",
    schema={**SAID, "text_output": CHANNEL, "error": TEXT},
    key=key,
    ends=ends,
    event=event,
    default=None,
)


def _post(operation: str, path: str, request: Schema, answer: Schema, **more: Any) -> Endpoint:
    return Endpoint(DIALECT, operation, "POST", path, request, answer, generates=True, **more)


def _of(model: str) -> tuple[Endpoint, ...]:
    said: dict[str, Any] = {"request": PROMPT, "answer": SAID, "opaque": opaque_fields}
    return (
        _post("infer", f"{model}/infer", REQUEST, ANSWER, opaque=opaque_tensors),
        _post("completions", f"{model}/generate", **said),
        _post("completions", f"{model}/generate_stream", stream=STREAM, **said),
    )


ENDPOINTS = (
    *_of("/v2/models/{model}"),
    *_of("/v2/models/{model}/versions/{version}"),
    Endpoint(DIALECT, "models", "GET", "/v2", answer=META),
    Endpoint(DIALECT, "models", "GET", "/v2/models/{model}", answer=META),
    Endpoint(DIALECT, "health", "GET", "/v2/models/{model}/ready", answer=META),
    Endpoint(DIALECT, "health", "GET", "/v2/health/live", answer=META),
    Endpoint(DIALECT, "health", "GET", "/v2/health/ready", answer=META),
)
