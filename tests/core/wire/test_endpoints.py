import pytest

from mitmgate.core.wire.endpoints import ENDPOINTS, OPERATIONS, dialect_of, find


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_every_endpoint_is_found_under_its_own_name(endpoint: object) -> None:
    path = endpoint.path.replace("{model}", "a-model").replace("{version}", "1")
    assert find(endpoint.method, path) is endpoint


def test_no_endpoint_stands_twice() -> None:
    assert len({(e.method, e.path) for e in ENDPOINTS}) == len(ENDPOINTS)
    assert {e.operation for e in ENDPOINTS} == OPERATIONS


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat//completions",
        "/v1/./chat/completions",
        "/v1/chat/../chat/completions",
        "/v1/chat/completions/.",
        "/v1/chat/completions/..",
        "/./v1/chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1/ch%61t/completions",
        "/%76%31/chat/completions",
        "/V1/chat/completions",
        "/v1/Chat/Completions",
        "/v1/chat/completions;x=1",
        "/v1/chat/completions#x",
        "/v1/chat/completions ",
        " /v1/chat/completions",
        "/v1/chat/completions\n",
        "/v1/chat/completions\0",
        "/v1\\chat\\completions",
        "v1/chat/completions",
        "/proxy/v1/chat/completions",
        "/v1/chat",
        "/v1",
        "",
        "*",
        "http://127.0.0.1/v1/chat/completions",
        "/api/pull",
        "/api/push",
        "/api/delete",
        "/api/create",
        "/slots",
        "/props",
        "/v1/load_lora_adapter",
        "/v2/models/../infer",
        "/v2/models/./generate",
        "/v2/models//infer",
        "/v2/models/a/b/infer",
        "/v2/models/a%2Fb/infer",
        "/v2/models/m/versions/../infer",
        "/v2/models/m/infer/",
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/systemsharedmemory/status",
        "/v2/logging",
        "/generate_stream/",
        "/mcp/",
        "/sse",
    ],
)
def test_any_other_spelling_is_unknown(path: str) -> None:
    assert find("POST", path) is None


@pytest.mark.parametrize(
    "method", ["GET", "post", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", ""]
)
def test_any_other_method_is_unknown(method: str) -> None:
    assert find(method, "/v1/chat/completions") is None


@pytest.mark.parametrize("model", ["llama3.2:1b", "gpt-4o", "a_b@c", "x.gguf", "..."])
def test_a_model_is_one_step(model: str) -> None:
    found = find("GET", f"/v1/models/{model}")
    assert found is not None
    assert found.operation == "models"


@pytest.mark.parametrize(
    "model", ["", ".", "..", "a/b", "a%2fb", "%2e%2e", "a b", "a?b", "é", "a\n", "a/"]
)
def test_what_is_not_one_step_is_no_model(model: str) -> None:
    assert find("GET", f"/v1/models/{model}") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens?x", "anthropic"),
        ("/api/chat", "ollama"),
        ("/api/unknown", "ollama"),
        ("/v1/chat/completions", "openai"),
        ("/completion", "openai"),
        ("/generate", "tgi"),
        ("/generate_stream?x", "tgi"),
        ("/", "tgi"),
        ("/info", "tgi"),
        ("/v2", "kserve"),
        ("/v2/models/m/infer", "kserve"),
        ("/v2/repository/index", "kserve"),
        ("/v2x", "openai"),
        ("/mcp", "mcp"),
        ("/mcp?x", "mcp"),
        ("/nowhere", "openai"),
    ],
)
def test_a_refusal_is_worded_in_the_dialect_of_the_path(path: str, name: str) -> None:
    assert dialect_of(path).name == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/api/chat",
        "/v1/chat/completions",
        "/generate",
        "/v2/models/m/infer",
        "/mcp",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 429, 500, 503])
def test_errors_carry_code_and_message(path: str, status: int) -> None:
    body = str(dialect_of(path).error(status, "a-code", "A message."))
    assert "a-code" in body
    assert "A message." in body


@pytest.mark.parametrize(
    ("method", "path", "model"),
    [
        ("GET", "/v1/models/llama3.2:1b", "llama3.2:1b"),
        ("GET", "/v2/models/m/ready", "m"),
        ("POST", "/v2/models/m-1/infer", "m-1"),
        ("POST", "/v2/models/.../versions/2/generate", "..."),
        ("POST", "/v1/chat/completions", None),
        ("GET", "/v1/models", None),
    ],
)
def test_the_model_of_a_path(method: str, path: str, model: str | None) -> None:
    found = find(method, path)
    assert found is not None
    assert found.model(path) == model


def test_errors_have_the_form_that_clients_of_their_servers_read() -> None:
    assert dialect_of("/generate").error(400, "prompt_opaque", "No.") == {
        "error": "No.",
        "error_type": "validation",
        "code": "prompt_opaque",
    }
    assert dialect_of("/generate").error(403, "a-rule", "No.")["error_type"] == "a-rule"
    assert dialect_of("/generate").error(429, "rate_limited", "No.")["error_type"] == "overloaded"
    assert dialect_of("/v2/models/m/infer").error(403, "a-rule", "No.")["error"] == "No."
    assert dialect_of("/mcp").error(403, "a-rule", "No.") == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32000, "message": "No.", "data": {"code": "a-rule", "status": 403}},
    }
