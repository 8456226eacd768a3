from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmgate.core import claim

CLAIMS: dict[str, Any] = {
    "sub": "agent-7",
    "": "the empty name",
    "a/b": "slash at the top",
    "a~b": "tilde at the top",
    "~1": "looks escaped",
    "kubernetes.io": {"namespace": "search", "pod": {"name": "indexer-0"}, "a/b": 1, "m~n": 2},
    "https://sts.amazonaws.com/": {"aws_account": "012345678901"},
    "nothing": None,
    "list": ["x", {"y": "z"}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "agent-7"),
        ("a/b", "slash at the top"),
        ("a~b", "tilde at the top"),
        ("~1", "looks escaped"),
        ("/sub", "agent-7"),
        ("/a~1b", "slash at the top"),
        ("/a~0b", "tilde at the top"),
        ("/~01", "looks escaped"),  # ~01 is ~1, and not a slash
        ("/kubernetes.io/namespace", "search"),
        ("/kubernetes.io/pod/name", "indexer-0"),
        ("/kubernetes.io/a~1b", 1),
        ("/kubernetes.io/m~0n", 2),
        ("/https:~1~1sts.amazonaws.com~1/aws_account", "012345678901"),
        ("kubernetes.io/namespace", None),
        ("kubernetes.io.namespace", None),
        ("Sub", None),
        ("/a/b", None),
        ("/sub/", None),
        ("/sub/length", None),
        ("/kubernetes.io/", None),
        ("/kubernetes.io/pod/name/", None),
        ("/nothing", None),
        ("/nothing/at/all", None),
        ("/list/0", None),
        ("/list/1/y", None),
    ],
)
def test_find(name: str, value: Any) -> None:
    assert claim.find(CLAIMS, name) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a b", ("a b",)),
        ("", ("",)),
        (True, ("true",)),
        (False, ("false",)),
        (74, ("74",)),
        (1.5, ("1.5",)),
        (["a", 7, True], ("a", "7", "true")),
        (["a", ["b"], {"c": "d"}, None], ("a",)),
        ([], ()),
        ({"a": "b"}, ()),
        (None, ()),
    ],
)
def test_words(value: Any, words: tuple[str, ...]) -> None:
    assert claim.words(value) == words


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{sub}", "agent-7"),
        ("{/kubernetes.io/namespace}/{/kubernetes.io/pod/name}", "search/indexer-0"),
        ("{sub} of {/https:~1~1sts.amazonaws.com~1/aws_account}", "agent-7 of 012345678901"),
        ("{list}", "x"),
        ("{sub} {azp}", ""),  # never half a name
        ("{nothing}", ""),
        ("{kubernetes.io}", ""),
        ("{long}", ""),
        ("{bidi}", ""),
        ("{lines}", ""),
        ("{braces}", "{sub}"),  # what is put in is not looked at again
    ],
)
def test_fill(template: str, text: str) -> None:
    more = {"long": "x" * 201, "bidi": "a\u202eb", "lines": "a\nb", "braces": "{sub}"}
    assert claim.fill(template, {**CLAIMS, **more}) == text


def test_the_longest_text() -> None:
    assert claim.fill("{long}", {"long": "x" * 200}) == "x" * 200


class Named(pydantic.BaseModel):
    name: claim.ClaimName


class Shown(pydantic.BaseModel):
    text: claim.Template


@pytest.mark.parametrize("name", ["sub", "a~b", "a/b", "/a", "/a/b", "/~0~1", "/https:~1~1x~1/a"])
def test_names(name: str) -> None:
    assert Named(name=name).name == name
    assert Shown(text=f"{{{name}}}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "or a path such as"),
        ("/", "or a path such as"),
        ("/a~", "~ is written ~0"),
        ("/a~2b", "~ is written ~0"),
        ("/a~/b", "~ is written ~0"),
    ],
)
def test_refused_names(name: str, reason: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=reason):
        Named(name=name)
    with pytest.raises(pydantic.ValidationError, match=reason):
        Shown(text=f"{{{name}}}")


@pytest.mark.parametrize("text", ["", "agent", "{sub", "sub}", "{{sub}}", "{sub} {", "{a{b}}"])
def test_refused_templates(text: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="claims in braces"):
        Shown(text=text)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=5)


@settings(max_examples=200, deadline=None)
@given(objects, st.text("/~01abcé", max_size=20) | st.text(max_size=20))
def test_any_name_can_be_looked_for_in_any_object(claims: dict[str, Any], name: str) -> None:
    for word in claim.words(claim.find(claims, name)):
        assert isinstance(word, str)


@settings(max_examples=200, deadline=None)
@given(objects)
def test_whatever_is_there_is_found_by_its_path(claims: dict[str, Any]) -> None:
    for name, value in claims.items():
        path = "/" + name.replace("~", "~0").replace("/", "~1")
        assert claim.find(claims, path) is value
        if isinstance(value, dict):
            for inner, deep in value.items():
                step = inner.replace("~", "~0").replace("/", "~1")
                assert claim.find(claims, f"{path}/{step}") is deep


@settings(max_examples=200, deadline=None)
@given(objects, st.text(max_size=5), st.text(max_size=5))
def test_nothing_unprintable_is_ever_shown(claims: dict[str, Any], left: str, right: str) -> None:
    for name in claims:
        text = claim.fill(f"{left}{{{name}}}{right}", claims)
        assert text.isprintable()
        assert len(text) <= 200


@settings(max_examples=100, deadline=None)
@given(st.integers() | st.booleans() | st.text(max_size=20))
def test_words_are_the_same_whether_the_issuer_or_the_rules_say_them(value: Any) -> None:
    assert claim.words(json.loads(json.dumps(value))) == claim.words(value)
