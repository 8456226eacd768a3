import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.holds import digest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def of(body: object, principal="idp:a", method="POST", path="/v1/chat/completions", rules=("r",)):
    return digest(principal, method, path, body, rules)


def test_a_retry_may_order_and_space_its_json_differently():
    assert of(b'{"a": 1, "b": [true, "x"]}') == of(b'{"b":[true,"\\u0078"],\n"a":1}')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1}', b'{"a": 2}'),
        (b'{"a": 1}', b'{"a": "1"}'),
        (b'{"a": 1}', b'{"a": true}'),
        (b'{"a": 1}', b'{"a": 1.0}'),
        (b'{"a": null}', b"{}"),
        (b'{"a": 1e400}', b'{"a": 1e500}'),
        (b'{"a": 0.1}', b'{"a": 0.10000000000000000001}'),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}'),
        (b'{"a": 1, "a": 2}', b'{"a": 2}'),
        (b'{"a": 1, "a": 2}', b'{"a": 2, "a": 1}'),
        (b'{"a": NaN}', b'{"a": "NaN"}'),
        (b"plain text", b"plain  text"),
        (b"", b"null"),
        (b"\xff", b"\xfe"),
        (b'"\\ud800"', b'"\\ud801"'),
        (b"[" * 100_000, b"[" * 100_001),
        (b"1" * 5000, b"1" * 5001),
    ],
)
def test_another_body_is_another_request(one, other):
    assert of(one) != of(other)


@pytest.mark.parametrize(
    "change",
    [
        {"principal": "idp:b"},
        {"method": "PUT"},
        {"path": "/v1/completions"},
        {"path": "/v1/chat/completions?x=1"},
        {"rules": ("r", "s")},
        {"rules": ()},
    ],
)
def test_every_part_counts(change):
    assert of(b"{}", **change) != of(b"{}")


def test_rules_are_a_set():
    assert of(b"{}", rules=("b", "a", "a")) == of(b"{}", rules=("a", "b"))


def test_parts_do_not_run_into_each_other():
    assert digest("a", "b", "c", b"x", ["de"]) != digest("a", "b", "c", b"x", ["d", "e"])
    assert digest("ab", "", "c", b"x", []) != digest("a", "b", "c", b"x", [])


@given(JSON)
def test_parsed_and_unparsed_json_agree(value):
    assert of(json.dumps(value).encode()) == of(json.dumps(value, indent=1).encode())
    assert of(json.dumps(value).encode()) == of(value)


@given(JSON, JSON)
def test_different_json_differs(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (of(one) == of(other)) is same


def deep() -> object:
    value: object = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("body", [{1: 2}, {"a": {1}}, float("inf"), [object()]])
def test_what_json_cannot_say_is_refused(body):
    with pytest.raises(ValueError, match=r"JSON|not a string"):
        of(body)


def test_too_deep_an_object_is_refused():
    with pytest.raises(ValueError, match="deep"):
        of(deep())
