from __future__ import annotations

import json

import pytest

from mitmgate.core.wire.catalogue import only
from mitmgate.core.wire.document import DocumentError


def small(model: str) -> bool:
    return model.startswith("small")


def names(raw: bytes, key: str) -> list[str]:
    return [entry.get("id") or entry["name"] for entry in json.loads(raw)[key]]


def test_openai():
    raw = json.dumps(
        {"object": "list", "data": [{"id": "small-1", "created": 1}, {"id": "big"}]}
    ).encode()
    kept = only(raw, small)
    assert json.loads(kept) == {"object": "list", "data": [{"id": "small-1", "created": 1}]}


def test_ollama():
    entries = [
        {"name": "small:latest", "model": "small:latest", "size": 3},
        {"name": "big:latest", "model": "big:latest", "size": 4},
        {"name": "small", "model": "big"},  # an alias of another: every name has to be usable
    ]
    assert names(only(json.dumps({"models": entries}).encode(), small), "models") == [
        "small:latest"
    ]


def test_llamacpp_says_it_twice():
    raw = json.dumps({"data": [{"id": "big"}], "models": [{"name": "big"}]}).encode()
    assert json.loads(only(raw, small)) == {"data": [], "models": []}


def test_a_list_that_is_usable_stays_byte_for_byte():
    raw = b'{ "data" : [ {"id":"small","x":1.0e5} ] }\n'
    assert only(raw, small) is raw


@pytest.mark.parametrize("entry", [{"title": "small"}, 7, None, ["small"], {"id": 7}])
def test_what_has_no_name_goes(entry):
    assert json.loads(only(json.dumps({"data": [entry]}).encode(), small)) == {"data": []}


def test_names_alone():
    assert json.loads(only(b'{"models": ["small", "big"]}', small)) == {"models": ["small"]}


def test_what_is_not_ascii_stays_so():
    raw = '{"data": [{"id": "small-é"}, {"id": "big"}]}'.encode()
    assert only(raw, small) == '{"data":[{"id":"small-é"}]}'.encode()


@pytest.mark.parametrize("raw", [b"[]", b"small", b'"small"', b'{"data": [', b'{"a":1,"a":2}'])
def test_what_is_no_list_of_models(raw):
    with pytest.raises(DocumentError):
        only(raw, small)
