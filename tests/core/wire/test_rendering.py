"""What a transcript looks like, and what no text in it can do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mitmgate.core.wire.rendering import TEXT, TOTAL, WIDTH, render
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


@given(
    st.lists(st.tuples(st.text(), st.sampled_from(PARTS), st.text(), st.sampled_from(["", "c"])))
)
def test_no_text_is_obeyed_by_a_terminal_or_passes_for_a_heading(
    texts: list[tuple[str, Part, str, str]],
) -> None:
    shown = render([turn(text, role, part, call=call) for text, part, role, call in texts])
    for line in shown.split("\n"):
        assert line.isprintable()
        assert line == "" or line.startswith(("  ", "── "))
    headings = [line for line in shown.split("\n") if line.startswith("── ")]
    assert len(headings) <= len(texts)
