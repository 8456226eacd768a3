"""What a transcript looks like, and what no text in it can do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.wire.rendering import TEXT, TOTAL, WIDTH, Style, render
from mitmgate.core.wire.speaker import Part
from mitmgate.core.wire.transcript import Turn

PARTS: tuple[Part, ...] = (
    "text", "reasoning", "call", "id", "arguments", "result", "tool", "field", "media"
)  # fmt: skip


def turn(
    text: str, role: str = "user", part: Part = "text", message: str = "messages[0]", call: str = ""
) -> Turn:
    return Turn("prompt", f"{message}.x", text, role=role, part=part, message=message, call=call)


def test_headings_stand_at_the_margin_and_texts_do_not() -> None:
    text = render(
        [turn("Hi\n\nthere"), turn("hm\nso", "assistant", "reasoning", "messages[1]")],
        {"messages[0].x": ["weights", "weights", "other"], "messages[7]": ["none"]},
    )
    assert text.split("\n") == [
        "── USER  messages[0]  << weights, other >> ".ljust(WIDTH, "─"),
        "  Hi",
        "",
        "  there",
        "",
        "── ASSISTANT  messages[1] ".ljust(WIDTH, "─"),
        "  │ hm",
        "  │ so",
    ]


def test_a_call_is_shown_as_one_whatever_order_it_comes_in() -> None:
    parts: list[tuple[Part, str]] = [("arguments", '{"n": [1]}'), ("id", "c1"), ("call", "f")]
    turns = [
        turn(text, "assistant", part, call="messages[0].tool_calls[0]") for part, text in parts
    ]
    assert render(turns).split("\n")[1:] == [
        "  → calls f (c1)", "    {", '      "n": [', "        1", "      ]", "    }"
    ]  # fmt: skip


def test_a_tool_says_its_name_first() -> None:
    tool = '{"type": "function", "function": {"name": "f", "description": "Does.", "strict": true}}'
    assert render([turn(tool, "tools", "tool", "")]).split("\n")[1:] == [
        "  f: Does.", '    {"strict": true}'
    ]  # fmt: skip
    assert "  no JSON" in render([turn("no JSON", "tools", "tool", "")])


def test_long_lines_are_wrapped_and_long_texts_cut() -> None:
    shown = render([turn("word " * 100)])
    assert max(map(len, shown.split("\n"))) <= WIDTH
    shown = render([turn("a" * TEXT + "b" * TEXT + "end")])
    assert "characters are left out here]" in shown
    assert shown.endswith("bend")
    assert len(shown) < 2 * TEXT


def test_many_texts_are_cut_and_counted() -> None:
    turns = [turn("x" * TEXT, message=f"messages[{n}]") for n in range(100)]
    shown = render(turns)
    assert len(shown) < 2 * TOTAL
    assert "more texts are left out here" in shown


def test_what_stands_out_is_up_to_the_style() -> None:
    style = Style("<h>{}</h>".format, "<a>{}</a>".format, "<m>{}</m>".format, width=40)
    text = f"{'word ' * 6}[AWS KEY] and **** **** 1111, no \xa0[mask]"
    shown = render([turn(text)], {"messages[0].x": ["r"]}, style)
    assert shown.split("\n") == [
        f"<h>── USER  messages[0] </h><a> << r >> </a><h>{'─' * 10}</h>",
        "  word word word word word word",
        "  <m>[AWS KEY]</m> and <m>**** **** 1111</m>, no",
        "  \\xa0[mask]",
    ]
    assert "<m>" not in render([turn(text)], None, Style())


def test_nothing_is_cut_or_wrapped_where_the_style_says_so() -> None:
    turns = [turn("so it goes " * TEXT, message=f"messages[{n}]") for n in range(3)]
    shown = render(turns, None, Style(width=None, whole=True))
    assert shown.count("so it goes") == 3 * TEXT
    assert "left out" not in shown
    assert len(shown.split("\n")) == 3 * 2 + 2


@given(
    st.lists(st.tuples(st.text(), st.sampled_from(PARTS), st.text(), st.sampled_from(["", "c"])))
)
def test_no_text_is_obeyed_by_a_terminal_or_passes_for_a_heading(
    texts: list[tuple[str, Part, str, str]],
) -> None:
    turns = [turn(text, role, part, call=call) for text, part, role, call in texts]
    marked = Style(mask=">>>{}<<<".format, width=None, whole=True)
    assert all(line.isprintable() for line in render(turns, None, marked).split("\n"))
    shown = render(turns)
    for line in shown.split("\n"):
        assert line.isprintable()
        assert line == "" or line.startswith(("  ", "── "))
    headings = [line for line in shown.split("\n") if line.startswith("── ")]
    assert len(headings) <= len(texts)
