import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mitmgate.core.wire.document import Document, DocumentError
from mitmgate.core.wire.schema import Kind, leaves

# Free-form JSON, written with any white space and any escapes.

NO_SURROGATES = st.characters(exclude_categories=("Cs",))
STRINGS = st.text(NO_SURROGATES, max_size=12)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def literals(draw: st.DrawFn) -> str:
    """A string literal in which each character is written in one of the ways JSON has."""
    out = []
    for character in draw(STRINGS):
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        units = character.encode("utf-16-be").hex(" ", 2).split()
        escaped = "".join(f"\\u{unit}" for unit in units)
        out.append(
            draw(st.sampled_from([plain, plain, escaped, escaped.upper().replace("U", "u")]))
        )
    return '"' + "".join(out) + '"'


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    """The text of one JSON value."""
    kind = draw(st.integers(0, 4 if depth else 2))
    before, after = draw(SPACE), draw(SPACE)
    if kind == 0:
        value = draw(st.one_of(NUMBERS, st.sampled_from(["true", "false", "null"])))
    elif kind <= 2:
        value = draw(literals())
    elif kind == 3:
        value = "[" + ",".join(draw(st.lists(texts(depth - 1), max_size=4))) + "]"
    else:
        keys = draw(st.lists(literals(), max_size=4, unique_by=json.loads))
        pairs = [draw(SPACE) + k + draw(SPACE) + ":" + draw(texts(depth - 1)) for k in keys]
        value = "{" + ",".join(pairs) + "}"
    return before + value + after


def exactly(text: str) -> object:
    """Parsed with every digit kept and the order of keys."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=tuple)


def strings_of(value: object) -> list[str]:
    """Every string of `exactly` parsed data, keys included, in the order of the text."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [s for k, v in value for s in (k, *strings_of(v))]
    if isinstance(value, list):
        return [s for item in value for s in strings_of(item)]
    return []


def with_strings(value: object, new: list[str]) -> object:
    """The same data with its strings taken from `new`, in order."""
    if isinstance(value, str):
        return new.pop(0)
    if isinstance(value, tuple):
        return tuple((new.pop(0), with_strings(v, new)) for _, v in value)
    if isinstance(value, list):
        return [with_strings(item, new) for item in value]
    return value


@given(texts())
@settings(max_examples=150)
def test_an_unedited_document_is_the_bytes_it_was_made_from(text: str) -> None:
    document = Document(text.encode())
    assert document.encode() == text.encode()
    assert document.strings == len(strings_of(exactly(text)))
    assert not document.edited


@given(texts(), st.data())
@settings(max_examples=250)
def test_replacing_strings_changes_them_and_nothing_else(text: str, data: st.DataObject) -> None:
    document = Document(text.encode())
    before = exactly(text)
    strings = strings_of(before)
    chosen = data.draw(st.sets(st.integers(0, len(strings) - 1)) if strings else st.just(set()))
    wanted = list(strings)
    for index in chosen:
        # a new string of any kind, but no new duplicate keys: the number makes it unique
        wanted[index] = data.draw(STRINGS) + f"\u2028{index}"
        document.replace(index, wanted[index])
    after = document.encode().decode()
    assert exactly(after) == with_strings(before, list(wanted))
    # byte for byte: cut the literals out of both, and what is left is the same
    assert between(text) == between(after)
    kept = [s for i, s in enumerate(literals_of(text)) if i not in chosen]
    assert kept == [s for i, s in enumerate(literals_of(after)) if i not in chosen]


@given(texts())
@example(r'["\\", "\"", "\\\"\\", ",", "\\\\"]')
@settings(max_examples=150)
def test_literals_are_where_they_are_in_a_large_document_too(text: str) -> None:
    padding = " " * (1 << 16)
    small, large = Document(text.encode()), Document((text + padding).encode())
    assert large.strings == small.strings
    for index in range(small.strings):
        for document in (small, large):
            document.replace(index, f"new {index}")
    assert large.encode() == small.encode() + padding.encode()


def test_a_large_document_of_too_many_strings_is_refused() -> None:
    with pytest.raises(DocumentError, match="more than 50000 strings"):
        Document(json.dumps(["a"] * 50_001).encode())
    assert Document(json.dumps(["a"] * 50_000).encode()).strings == 50_000


def spans_of(text: str) -> list[tuple[int, int]]:
    """Where string literals stand, found character by character."""
    spans, start, at = [], -1, 0
    while at < len(text):
        if start >= 0 and text[at] == "\\":
            at += 1
        elif text[at] == '"':
            if start < 0:
                start = at
            else:
                spans.append((start, at + 1))
                start = -1
        at += 1
    return spans


def literals_of(text: str) -> list[str]:
    return [text[a:b] for a, b in spans_of(text)]


def between(text: str) -> list[str]:
    edges = [0, *(edge for span in spans_of(text) for edge in span), len(text)]
    return [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]


@given(texts())
@settings(max_examples=100)
def test_the_walk_finds_every_string_at_its_literal(text: str) -> None:
    document = Document(text.encode())
    found = leaves(document, Kind.TEXT)
    assert [leaf.text for leaf in found] == strings_of(exactly(text))
    assert [leaf.index for leaf in found] == list(range(document.strings))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a": 1} x',
        b'{"a": 1}{"a": 1}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b"{a: 1}",
        b'"a\nb"',
        b'"a\tb"',
        b'"\\q"',
        b'"\\u12"',
        b"01",
        b"+1",
        b".5",
        b"0x10",
        b"// x\n1",
        b"\x0b1",
        b"\xa01",
        b"1\x00",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        Document(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'{"a": 1, "\\u0061": 3}', "'a' stands twice"),
        (b'[{"x": {"k": 1, "k": 1}}]', "'k' stands twice"),
        (b'{"": 1, "": 1}', "'' stands twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'"\\ud83d"', "half of a surrogate pair"),
        (b'"\\ude00\\ud83d"', "half of a surrogate pair"),
        (b'["\\ud83d", "\\ude00"]', "half of a surrogate pair"),
        (b'{"\\uDC00": 1}', "half of a surrogate pair"),
        (b'"\xed\xa0\xbd"', "not UTF-8"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xc0\xaf"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a": "b"}'.encode("utf-16"), "not UTF-8"),
        ('{"a": "b"}'.encode("utf-16-le"), "not JSON"),
        ('{"a": "b"}'.encode("utf-16-be"), "not JSON"),
        ('{"a": "b"}'.encode("utf-32-le"), "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "a number is too long"),
        (b"-" + b"9" * 100_000, "a number is too long"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        Document(raw)


@pytest.mark.parametrize("depth", [1_500, 9_000])
def test_what_the_parser_bears_and_the_walk_does_not_is_refused_too(depth: int) -> None:
    raw = b"[" * depth + b'"x"' + b"]" * depth
    with pytest.raises(DocumentError, match="nested too deeply"):
        leaves(Document(raw), Kind.TEXT)


def test_a_pair_of_surrogates_is_one_character() -> None:
    document = Document(b'["\\ud83d\\ude00"]')
    assert document.data == ["\U0001f600"]


def test_an_ascii_document_stays_ascii() -> None:
    document = Document(b'{"a": "b"}')
    document.replace(1, "gr\u00fcn")
    assert document.encode() == b'{"a": "gr\\u00fcn"}'


def test_line_breaks_of_unicode_are_written_as_escapes() -> None:
    document = Document('{"ü": "b\\u2028c"}'.encode())
    document.replace(1, "x\u2028y\x85z\x7f")
    assert document.encode() == '{"ü": "x\\u2028y\\u0085z\\u007f"}'.encode()
    assert document.encode().decode().splitlines() == [document.encode().decode()]


@pytest.mark.parametrize(
    ("value", "space"),
    [
        ("{}", ""),
        ("[]", " "),
        ('{"b": [1, {"c": "}]"}]}', " \n\t"),
        ('[[["]"]], "\\"]"]', ""),
        ('"text"', " "),
        ('"with \\" and : and }"', ""),
        ("12.50e3", " "),
        ("true", ""),
        ("null", ""),
    ],
)
def test_drop_empties_a_value_of_any_shape(value: str, space: str) -> None:
    text = f'{{"x": "1", "a"{space}:{space}{value}, "y" : {{"a": 1.10}}}}'
    document = Document(text.encode())
    document.drop(2)
    empty = "[]" if value[0] == "[" else "0" if value[0] in "-0123456789" else "null"
    assert document.encode().decode() == text.replace(f":{space}{value},", f":{space}{empty},", 1)


def test_drop_swallows_edits_inside_and_leaves_those_around() -> None:
    document = Document(b'{"a": {"b": "c"}, "d": "e", "f": ["g"]}')
    document.replace(2, "inside")
    document.replace(4, "around")
    document.drop(0)
    document.drop(5)
    assert document.encode() == b'{"a": null, "d": "around", "f": []}'


def test_drop_of_what_is_no_key_is_an_error() -> None:
    document = Document(b'{"a": "b", "c": {}}')
    with pytest.raises(ValueError, match="not a key"):
        document.drop(1)


def test_a_value_is_read_and_replaced_as_it_stands() -> None:
    document = Document(b'{"a": { "n" : 1.0 }, "b": 2}')
    assert document.value(0) == '{ "n" : 1.0 }'
    document.replace_value(0, '{"n": "x"}')
    assert document.encode() == b'{"a": {"n": "x"}, "b": 2}'
