import pytest

from mitmgate.core.wire.media import form


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", "json"),
        ("Application/JSON", "json"),
        (" application/json ; charset=utf-8", "json"),
        ('application/json; charset="UTF-8"', "json"),
        ("application/json; charset=utf8", "json"),
        ("application/json; charset=US-ASCII", "json"),
        ("application/problem+json", "json"),
        ("application/json; profile=x", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/x-jsonlines; charset=utf-8", "ndjson"),
        ("text/event-stream", "sse"),
        ("text/event-stream; charset=utf-8", "sse"),
        ("text/plain", "text"),
        ("text/html; charset=utf-8", "text"),
        ("", "none"),
        ("  ", "none"),
        # what could be read in another way is not read at all
        ("application/json; charset=utf-16", "other"),
        ("application/json; charset=utf-16le", "other"),
        ("application/json; CHARSET=utf-7", "other"),
        ("text/plain; charset=latin-1", "other"),
        ("application/json; charset=", "other"),
        ("application/json; charset", "other"),
        ("application/json; charset=utf-8; charset=utf-16", "other"),
        ("application/json; charset=utf-8; charset=utf-8", "other"),
        ("application/json; charset*=utf-8''utf-8", "other"),
        ("application/json, text/plain", "other"),
        ("application/json,application/json", "other"),
        ("json", "other"),
        ("text", "other"),
        ("text/plain/json", "other"),
        ("/json", "other"),
        ("application/", "other"),
        ("; charset=utf-8", "other"),
        ("application/json\n", "json"),
        ("application/octet-stream", "other"),
        ("multipart/form-data; boundary=x", "other"),
        ("application/x-www-form-urlencoded", "other"),
        ("application/grpc", "other"),
    ],
)
def test_what_a_body_says_it_is(content_type: str, expected: str) -> None:
    assert form(content_type) == expected
